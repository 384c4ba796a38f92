//! The eventa package of npm as AIRI's client sets it up: the nearest published versions before and after the one it
//! ships with. Later ones speak another format, to the reference as well.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::server::{Mode, Server, in_both_modes};
use crate::stores::exported;

in_both_modes!(older_client, newer_client);

async fn older_client(mode: Mode) {
    converse(mode, "eventa-older").await;
}

async fn newer_client(mode: Mode) {
    converse(mode, "eventa-newer").await;
}

/// Devices on as many servers as the mode allows.
async fn converse(mode: Mode, library: &str) {
    let mut one = Server::install(mode).await;
    let (alice, bob) = (one.user("alice", 0), one.user("bob", 0));
    one.start().await;
    let mut urls = one.url().replacen("http", "ws", 1);
    let mut two = (mode == Mode::Services).then(|| one.twin());
    if let Some(two) = &mut two {
        two.start().await;
        urls = format!("{urls} {}", two.url().replacen("http", "ws", 1));
    }
    let members = json!([{ "type": "user", "userId": bob.id }]);
    let made = crate::caller::client()
        .post(format!("{}/api/v1/chats", alice.url))
        .bearer_auth(&alice.token)
        .json(&json!({ "id": "shared", "members": members }))
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), 201);

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node/chats.mjs");
    let mut client = Command::new("node");
    client.arg(script).arg(library).env("NODE_PATH", exported("TEST_NODE_MODULES")).env("WS_URLS", urls);
    client.env("ALICE", &alice.token).env("BOB", &bob.token).env("CHAT", "shared").stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || client.output()).await.unwrap();
    let output = output.expect("the client could not be started; run ./scripts/test");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{complained}", output.status);
    let told: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}\n{complained}"));

    let first = json!([["1 user hello", "2 assistant hi there"]]);
    assert_eq!(told["empty"], json!({ "messages": [], "seq": 0, "hasMore": false }));
    assert_eq!(told["sent"], json!({ "seq": 2 }));
    assert_eq!(told["pushed"], json!([first, first]));
    assert_eq!(told["own"], 0, "the calling socket was told of its own push");
    let missed = json!(["3 user word 3", "4 user word 4", "5 user word 5"]);
    assert_eq!(told["caughtUp"], json!({ "messages": missed, "seq": 5, "hasMore": false }));
    assert_eq!(told["afterwards"], json!([["6 user welcome back"]]));
    let refused = &told["refused"];
    assert_eq!((&refused["name"], &refused["statusCode"]), (&json!("ApiError"), &json!(400)), "{refused}");
    assert!(refused["message"].is_string(), "{refused}");
    assert_eq!(told["stranger"], json!({ "code": 4001, "reason": "unauthorized" }));
}
