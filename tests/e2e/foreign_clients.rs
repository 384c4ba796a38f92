//! The `openai` packages of npm and PyPI, unmodified, as their users would set them up.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::server::{Mode, Server, in_both_modes};
use crate::stores::exported;
use crate::upstream::{Reply, ScriptedUpstream, Step};

in_both_modes!(node_client, python_client);

async fn node_client(mode: Mode) {
    let modules = exported("TEST_NODE_MODULES");
    let mut client = Command::new("node");
    client.arg(script("node/chat.cjs")).env("NODE_PATH", modules);
    converse(mode, client).await;
}

async fn python_client(mode: Mode) {
    let mut client = Command::new(exported("TEST_PYTHON"));
    client.arg(script("python/chat.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    converse(mode, client).await;
}

pub(crate) fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

const GRANT: i64 = 1_000;

/// Runs a client through its whole conversation and judges what it printed.
async fn converse(mode: Mode, mut client: Command) {
    let upstream = ScriptedUpstream::start().await;
    let usage = Some((9_000, 3_000));
    for reply in [
        Reply::completion("Hello there.", usage),
        Reply::stream(&["Hel", "lo ", "there."], usage),
        Reply::stream(&["Hel", "lo ", "there."], usage),
        tool_call(),
        streamed_tool_call(),
        Reply::refusal(400, "this model does not support tools; key sk-secret-1"),
    ] {
        upstream.any_key().next(reply);
    }
    let mut server = Server::install(mode).await;
    server.route(&json!({
        "slices": [{ "kind": "openai-compatible", "modelName": "scripted", "baseURL": upstream.base_url(), "plaintextKey": "sk-secret-1" }],
        "defaults": { "chatModel": "scripted" },
    }));
    let (rich, poor) = (server.user("rich", GRANT), server.user("poor", 1));
    server.start().await;

    client.env("OPENAI_BASE_URL", format!("{}/api/v1/openai", server.url()));
    client.env("OPENAI_API_KEY", &rich.token).env("POOR_TOKEN", &poor.token).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || client.output()).await.unwrap();
    let output = output.expect("the client could not be started; run ./scripts/test");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{complained}", output.status);
    let told: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}\n{complained}"));

    let tokens = json!({ "prompt": 9_000, "completion": 3_000 });
    assert_eq!(told["plain"], json!({ "content": "Hello there.", "finish": "stop", "usage": tokens }));
    // Who did not ask for usage sees none: older clients index the choices of every event.
    assert_eq!(told["streamed"], json!({ "content": "Hello there.", "finish": "stop", "usage": null, "bare": 0 }));
    assert_eq!(told["streamedWithUsage"]["usage"], tokens);
    assert_eq!(told["streamedWithUsage"]["content"], "Hello there.");
    let call =
        json!({ "id": "call_1", "name": "get_weather", "arguments": { "city": "Oslo" }, "finish": "tool_calls" });
    assert_eq!(told["tools"], call);
    assert_eq!(told["streamedTools"], call);
    assert_eq!(
        told["refused"],
        json!({ "status": 402, "body": { "error": "PAYMENT_REQUIRED", "message": "Insufficient flux" } })
    );
    assert_eq!(told["rejected"]["status"], 400);
    assert_eq!(told["rejected"]["body"]["error"], "UPSTREAM_REJECTED");
    let text = told["rejected"]["body"]["message"].as_str().unwrap();
    assert!(text.starts_with("this model does not support tools"), "{text}");
    assert!(!said.contains("sk-secret-1"), "the upstream's key reached the client:\n{said}");

    let seen = upstream.seen();
    assert_eq!(seen.len(), 6);
    let tools = seen[3].json();
    assert_eq!(tools["tools"][0]["function"]["name"], "get_weather", "tool definitions reach the upstream as they are");
    assert_eq!(tools["model"], "scripted");
    assert_eq!(seen[1].json()["stream_options"]["include_usage"], true);
    let books = server.books().await;
    let charges = crate::stores::eventually("five charges", async || {
        Some(books.charges().await).filter(|charges| charges.len() >= 5)
    })
    .await;
    assert_eq!(charges.iter().map(|charge| charge.amount).collect::<Vec<_>>(), [12; 5]);
    assert_eq!((rich.balance().await, poor.balance().await), (GRANT - 60, 1));
}

fn tool_call() -> Reply {
    let call = json!({ "id": "call_1", "type": "function", "function": { "name": "get_weather", "arguments": "{\"city\":\"Oslo\"}" } });
    Reply::json(
        200,
        &json!({
            "id": "chatcmpl-tool", "object": "chat.completion", "created": 1_700_000_000, "model": "scripted",
            "choices": [{ "index": 0, "finish_reason": "tool_calls",
                "message": { "role": "assistant", "content": null, "tool_calls": [call] } }],
            "usage": { "prompt_tokens": 9_000, "completion_tokens": 3_000, "total_tokens": 12_000 },
        }),
    )
}

fn streamed_tool_call() -> Reply {
    let event = |delta: Value, finish: Value| {
        let choice = json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
        json!({ "id": "c", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "scripted", "choices": choice })
    };
    let part = |call: Value| event(json!({ "tool_calls": [call] }), Value::Null);
    let mut usage = event(json!({}), Value::Null);
    usage["choices"] = json!([]);
    usage["usage"] = json!({ "prompt_tokens": 9_000, "completion_tokens": 3_000, "total_tokens": 12_000 });
    let events = [
        event(json!({ "role": "assistant", "content": null }), Value::Null),
        part(
            json!({ "index": 0, "id": "call_1", "type": "function", "function": { "name": "get_weather", "arguments": "" } }),
        ),
        part(json!({ "index": 0, "function": { "arguments": "{\"city\":" } })),
        part(json!({ "index": 0, "function": { "arguments": "\"Oslo\"}" } })),
        event(json!({}), json!("tool_calls")),
        usage,
    ];
    Reply::events(events.iter().map(|event| format!("data: {event}\n\n")))
        .then(Step::Chunk(b"data: [DONE]\n\n".to_vec()))
        .then(Step::Write(b"0\r\n\r\n".to_vec()))
}
