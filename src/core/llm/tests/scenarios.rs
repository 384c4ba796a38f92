//! Every row of the router scenarios, target before reference, and what the walk tells about itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::doubles::{Step, World, call, events, key, refusal, text, whole};
use crate::core::error::{Code, Error};
use crate::core::llm::{OnUnreadableKey, RoutingPolicy};
use crate::core::model::fact::Fact;
use crate::ports::upstream::UpstreamError;

const BODY: &str = r#"{"model":"m","messages":[]}"#;

fn step(attempt: &Value) -> Step {
    match attempt {
        Value::String(word) if word == "hang" => Step::Hang,
        Value::String(word) if word == "reset" => Step::Fail(UpstreamError::Transport("connection reset".to_owned())),
        status if *status == 200 => whole("{}"),
        status => refusal(status.as_u64().unwrap() as u16, "{}"),
    }
}

fn world_of(row: &Value) -> Arc<World> {
    let mut model = json!({"upstreams": row["upstreams"]});
    for upstream in model["upstreams"].as_array_mut().unwrap() {
        let ids: Vec<Value> = upstream["keys"].as_array().unwrap().iter().map(|id| key(id.as_str().unwrap())).collect();
        upstream["keys"] = ids.into();
    }
    if let Some(triggers) = row.get("fallbackTriggers") {
        model["fallbackTriggers"] = triggers.clone();
    }
    let world = World::empty();
    let tree = json!({"llm": {"models": {"m": model}}, "tts": {"models": {}}});
    world.set("LLM_ROUTER_CONFIG", &tree.to_string());
    world.play(row["attempts"].as_array().into_iter().flatten().map(step).collect());
    world
}

fn status(error: &Error, world: &World) -> u16 {
    let row = world.row().0;
    assert_eq!(row.error, Some(error.code.wire()));
    row.status
}

fn check(row: &Value) {
    let name = row["name"].as_str().unwrap();
    let target = row.get("target").unwrap_or(row);
    let want = |part: &str| target.get(part).or_else(|| row.get(part));
    let world = world_of(row);
    let model = row.get("model").and_then(Value::as_str).unwrap_or("m");
    let body = json!({"model": model, "messages": []}).to_string();
    let answered = world.complete(&body);
    if let Some(calls) = want("expectedCalls") {
        let calls: Vec<(String, String)> = serde_json::from_value(calls.clone()).unwrap();
        assert_eq!(world.called(), calls, "{name}");
    }
    if let Some(url) = want("expectedUrl") {
        assert_eq!(*url, json!(world.calls.lock().unwrap()[0].url), "{name}");
    }
    if let Some(sent) = want("expectedBodyModel") {
        assert_eq!(*sent, world.sent(0)["model"], "{name}");
    }
    if let Some(elapsed) = want("elapsedMs") {
        assert_eq!(elapsed.as_u64().unwrap(), world.now_ms.load(Ordering::SeqCst), "{name}");
    }
    if let Some(result) = want("result") {
        match &answered {
            Ok(_) => assert_eq!(result["status"], 200, "{name}"),
            Err(error) => {
                assert_eq!(result["status"], status(error, &world), "{name}");
                for (part, is) in [("error", error.code.wire()), ("message", &*error.message)] {
                    if let Some(wanted) = result.get(part) {
                        assert_eq!(wanted, is, "{name}");
                    }
                }
                if let Some(Value::Object(details)) = result.get("details") {
                    for (part, wanted) in details {
                        assert_eq!(error.details.as_ref().unwrap()[part], *wanted, "{name}: {part}");
                    }
                }
            }
        }
    }
    check_metrics(name, row, &world.facts());
}

fn check_metrics(name: &str, row: &Value, facts: &[Fact]) {
    for (metric, wanted) in row.get("metrics").and_then(Value::as_object).into_iter().flatten() {
        let seen: Vec<Value> = facts.iter().filter_map(|fact| labels(metric, fact)).collect();
        match wanted {
            Value::Number(count) => assert_eq!(seen.len() as u64, count.as_u64().unwrap(), "{name}: {metric}"),
            wanted => assert_eq!(Value::from(seen), *wanted, "{name}: {metric}"),
        }
    }
}

fn labels(metric: &str, fact: &Fact) -> Option<Value> {
    match (metric, fact) {
        ("fallback", Fact::FallbackTaken { provider, from_key, reason, .. }) => {
            Some(json!({"provider": provider, "from_key": from_key.as_str(), "reason": reason}))
        }
        ("upstreamErrors", Fact::UpstreamRefused { provider, status })
        | ("sameStatusExhaustion", Fact::SameStatusExhaustion { provider, status }) => {
            Some(json!({"provider": provider, "status_code": status}))
        }
        ("keyExhausted", Fact::KeysExhausted { provider }) => Some(json!({"provider": provider})),
        ("decryptFailures", Fact::KeyUnreadable { provider, key }) => {
            Some(json!({"provider": provider, "key_entry_id": key.as_str()}))
        }
        _ => None,
    }
}

#[test]
fn every_row_of_the_router_scenarios() {
    let text = include_str!("../../../../tests/fixtures/router-scenarios.json");
    let fixture: Value = serde_json::from_str(text).unwrap();
    let rows = fixture["scenarios"].as_array().unwrap();
    // Rows about a caller who leaves are in `dropping`; the row about the key's text is below.
    let played = rows.iter().filter(|row| row.get("abort").is_none() && row.get("keyPlaintext").is_none());
    assert!(played.map(check).count() >= 20);
}

#[test]
fn a_key_is_put_into_its_template_letter_by_letter() {
    let slot = json!({"id": "k", "ciphertext": "literal:pa$$w$&rd"});
    let upstream = json!([{"baseURL": "https://a", "keys": [slot], "headerTemplate": "Bearer {KEY} {KEY}"}]);
    let world = World::with_upstreams(&upstream);
    world.play(vec![whole("{}")]);
    world.complete(BODY).unwrap();
    let calls = world.calls.lock().unwrap();
    assert_eq!(calls[0].authorization.expose(), "Bearer pa$$w$&rd pa$$w$&rd");
}

#[test]
fn the_patience_of_an_attempt_shrinks_with_the_chain() {
    let world = World::with_upstreams(&json!([
        {"baseURL": "https://a", "keys": [key("k1"), key("k2")], "timeoutMs": 50_000},
    ]));
    world.play(vec![Step::Hang, whole("{}")]);
    world.complete(BODY).unwrap();
    let calls = world.calls.lock().unwrap();
    let heads: Vec<_> = calls.iter().map(|call| call.patience.head.as_millis()).collect();
    assert_eq!(heads, [50_000, 10_000]);
    assert_eq!(calls[1].patience.total.as_millis(), 10_000);
}

#[test]
fn a_stream_has_the_chains_time_only_until_its_first_byte() {
    let world = World::simple(vec![events(vec![text("data: [DONE]\n\n")])]);
    world.stream(r#"{"model":"m","stream":true}"#);
    let patience = world.calls.lock().unwrap()[0].patience;
    assert_eq!((patience.head.as_millis(), patience.first_byte.as_millis()), (30_000, 60_000));
    assert_eq!((patience.idle.as_millis(), patience.total.as_millis()), (60_000, 900_000));
}

#[test]
fn the_callers_own_fault_is_told_in_the_upstreams_sanitised_words() {
    let body = r#"{"error":{"message":"no endpoints found that support tool use (secret-k1) sk-abc"}}"#;
    let world = World::simple(vec![refusal(422, body)]);
    let error = world.complete(BODY).unwrap_err();
    assert_eq!(error.message, "no endpoints found that support tool use ([redacted]) [redacted]");
    assert_eq!((error.code, error.upstream_status), (Code::UpstreamRejected, Some(422)));
    assert_eq!(*error.details.unwrap(), json!({"triedKeys": 1, "triedUpstreams": 1, "lastStatusCode": 422}));
    assert_eq!(world.row().0.status, 422);
    assert!(
        !world.facts().iter().any(|fact| matches!(fact, Fact::KeysExhausted { .. } | Fact::RequestExhausted { .. }))
    );
}

#[test]
fn advice_to_come_back_later_is_passed_on_and_capped() {
    for (sent, told) in [(None, None), (Some(7), Some(7)), (Some(5_000), Some(300))] {
        let limited = UpstreamError::Status { status: 429, body: "{}".into(), retry_after: sent };
        let world = World::simple(vec![Step::Fail(limited)]);
        let error = world.complete(BODY).unwrap_err();
        assert_eq!((error.code, error.retry_after), (Code::UpstreamRateLimited, told));
    }
}

#[test]
fn an_unreadable_key_ends_the_call_without_naming_itself_or_is_skipped_loudly() {
    let upstreams = json!([{"baseURL": "https://a", "keys": [key("bad"), key("k2")]}]);
    let world = World::with_upstreams(&upstreams);
    let error = world.complete(BODY).unwrap_err();
    assert_eq!((error.code, error.details), (Code::DecryptFailed, None));

    let skip = RoutingPolicy { on_unreadable_key: OnUnreadableKey::Skip, sandbox: false };
    let world = World::with_upstreams(&upstreams);
    world.play(vec![whole("{}")]);
    let completions = world.completions(skip);
    assert!(world.drive(completions.complete(call("r", BODY)), usize::MAX).unwrap().is_ok());
    assert!(world.facts().iter().any(|fact| matches!(fact, Fact::KeyUnreadable { .. })));
    assert_eq!(world.row().0.fallback_depth, Some(0));

    let world = World::with_upstreams(&json!([{"baseURL": "https://a", "keys": [key("bad")]}]));
    let completions = world.completions(skip);
    let error = world.drive(completions.complete(call("r", BODY)), usize::MAX).unwrap().unwrap_err();
    assert_eq!(error.code, Code::DecryptFailed);
}

#[test]
fn the_row_names_who_answered_after_how_many_failures() {
    let world = World::with_upstreams(&json!([
        {"baseURL": "https://a", "keys": [key("k1")]},
        {"baseURL": "https://b", "keys": [key("k2")]},
    ]));
    world.play(vec![refusal(500, "<html>"), whole("{}")]);
    world.complete(BODY).unwrap();
    let row = world.row().0;
    assert_eq!((row.upstream.as_deref(), row.key.unwrap().as_str(), row.fallback_depth), (Some("b"), "k2", Some(1)));
}

#[test]
fn facts_and_causes_hold_no_key() {
    let leak = format!("{}secret-k1 Bearer secret-k1", "x".repeat(245));
    let world = World::simple(vec![refusal(500, &leak)]);
    let error = world.complete(BODY).unwrap_err();
    assert!(!format!("{:?} {error:?}", world.facts()).contains("secret"), "{error:?}");
}

#[test]
fn an_upstream_that_does_not_know_the_usage_option_is_asked_again_without_it_and_remembered() {
    let body = r#"{"model":"m","stream":true,"messages":[]}"#;
    let done = || events(vec![text("data: [DONE]\n\n")]);
    let world = World::simple(vec![refusal(400, r#"{"error":{"message":"unknown stream_options"}}"#), done(), done()]);
    let completions = world.completions(RoutingPolicy::default());
    for request in ["r1", "r2"] {
        assert!(world.drive(completions.complete(call(request, body)), usize::MAX).unwrap().is_ok());
    }
    assert_eq!(world.called().len(), 3);
    assert_eq!(world.sent(0)["stream_options"], json!({"include_usage": true}));
    assert!(world.sent(1).get("stream_options").is_none() && world.sent(2).get("stream_options").is_none());
}

#[test]
fn a_callers_own_odd_options_do_not_switch_usage_off_for_others() {
    let odd = || refusal(400, r#"{"error":{"message":"stream_options.x is unknown"}}"#);
    let world = World::simple(vec![odd(), odd(), events(vec![text("data: [DONE]\n\n")])]);
    let completions = world.completions(RoutingPolicy::default());
    let own = r#"{"model":"m","stream":true,"stream_options":{"x":1}}"#;
    let error = world.drive(completions.complete(call("r1", own)), usize::MAX).unwrap().unwrap_err();
    assert_eq!(error.code, Code::UpstreamRejected);
    let other = r#"{"model":"m","stream":true}"#;
    assert!(world.drive(completions.complete(call("r2", other)), usize::MAX).unwrap().is_ok());
    assert_eq!(world.sent(2)["stream_options"], json!({"include_usage": true}));
}

#[test]
fn a_model_without_upstreams_is_our_fault() {
    let world = World::with_upstreams(&json!([]));
    assert_eq!(world.complete(BODY).unwrap_err().code, Code::BadGateway);
}

#[test]
fn a_stream_that_ends_before_its_first_byte_is_a_failed_attempt() {
    let world = World::with_upstreams(&json!([{"baseURL": "https://a", "keys": [key("k1"), key("k2"), key("k3")]}]));
    let broken = events(vec![Err(UpstreamError::Transport("reset".to_owned()))]);
    world.play(vec![events(vec![]), broken, events(vec![text(""), text("data: [DONE]\n\n")])]);
    assert_eq!(
        world.stream(r#"{"model":"m","stream":true}"#),
        ("data: [DONE]\n\n: airi-flux-charged 5\n\n".to_owned(), false)
    );
    assert_eq!(world.row().0.fallback_depth, Some(2));
}
