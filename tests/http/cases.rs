//! Every row of the fixture that is served, and the prefix guard for those that are not.

use poem::http::{Method, StatusCode};
use serde_json::Value;

use crate::speech;
use crate::world::{Client, UNVERIFIED, USER, World, whole};

#[tokio::test]
async fn every_row_of_the_fixture() {
    let fixture: Value = serde_json::from_str(include_str!("../fixtures/http-cases.json")).unwrap();
    let mut judged = 0;
    for case in fixture["cases"].as_array().unwrap() {
        let (method, path) = (case["method"].as_str().unwrap(), case["path"].as_str().unwrap());
        let condition = case["condition"].as_str().unwrap();
        let name = format!("{method} {path} ({condition})");
        judge(&name, case, method, path, condition).await;
        judged += 1;
    }
    assert!(judged > 30, "{judged}");
}

async fn judge(name: &str, case: &Value, method: &str, path: &str, condition: &str) {
    let client = world(condition).client();
    if condition.contains("61st call") {
        for _ in 0..60 {
            send(&client, method, path, Some(USER)).await;
        }
    }
    let body_text = if path.starts_with("/api/v1/stripe/") { purchase(condition) } else { body(condition) };
    let mut request = client.request(method.parse::<Method>().unwrap(), path).body(body_text);
    if condition == "bad signature" {
        request = request.header("stripe-signature", "t=1,v1=00");
    }
    if condition == "user, price without fluxAmount" {
        request = request.header("origin", "https://airi.moeru.ai");
    }
    if let Some(token) = credential(condition) {
        request = request.header("authorization", token);
    }
    let mut answer = request.send().await.0;
    let reference = &case["reference"];
    let target = &case["target"];
    let status = target["status"].as_u64().or_else(|| reference["status"].as_u64()).unwrap();
    assert_eq!(u64::from(answer.status().as_u16()), status, "{name}");
    let body: Value = serde_json::from_slice(&answer.take_body().into_vec().await.unwrap()).unwrap();
    if let Some(error) = target["error"].as_str() {
        assert_eq!(body["error"], error, "{name}");
    } else if target["status"].is_null() {
        let expected = if target["body"].is_object() { &target["body"] } else { &reference["body"] };
        matches(name, expected, &body);
    }
}

fn purchase(condition: &str) -> Vec<u8> {
    match condition {
        "user, price without fluxAmount" => br#"{"stripePriceId":"p2"}"#.to_vec(),
        "user, stripePriceId \"\"" => br#"{"stripePriceId":""}"#.to_vec(),
        _ => br#"{"stripePriceId":"p1"}"#.to_vec(),
    }
}

fn world(condition: &str) -> World {
    let mut world = World::default();
    if !condition.contains("not configured") {
        world.payments = Some(crate::world::provider());
        world.payment_signatures = Some(crate::world::distrust());
    }
    if condition.contains("balance below") {
        world.balance = 4;
    }
    if condition.contains("DEFAULT_CHAT_MODEL unset") {
        world.sandbox = false;
    }
    if condition.contains("non-JSON body") {
        world.upstream = whole("<html>");
    }
    if condition.contains("1.2 MB") {
        // The default admits images; the row is about the limit, not about its size.
        world.settings.chat_body_limit_bytes = 1024 * 1024;
    }
    if condition.contains("FLUX_PER_1K_CHARS_TTS unset") {
        world.sandbox = false;
    }
    if let Some(speech) = speech::arranged(condition) {
        world.stored = speech.stored;
        world.voice = speech.voice;
    }
    world
}

fn body(condition: &str) -> Vec<u8> {
    match condition {
        "user, malformed JSON" => b"{".to_vec(),
        "user, body null" => b"null".to_vec(),
        "user, body []" => b"[]".to_vec(),
        "user, model 5" => br#"{"model":5,"messages":[]}"#.to_vec(),
        _ if speech::arranged(condition).is_some() => br#"{"model":"m","input":"hi","voice":"x y"}"#.to_vec(),
        "user, 1.2 MB body" => vec![b'x'; 1_200_000],
        _ => br#"{"model":"auto","messages":[]}"#.to_vec(),
    }
}

/// `<…>` in the fixture stands for any text.
fn matches(name: &str, expected: &Value, found: &Value) {
    match expected {
        Value::Object(members) => {
            for (member, expected) in members {
                matches(&format!("{name}: {member}"), expected, &found[member]);
            }
        }
        Value::String(text) if text.contains('<') => {
            let fixed = text.split('<').next().unwrap();
            assert!(found.as_str().unwrap().starts_with(fixed), "{name}: {found}");
        }
        Value::Array(_) => assert!(found.is_array(), "{name}"),
        _ => assert_eq!(found, expected, "{name}"),
    }
}

async fn send(client: &Client, method: &str, path: &str, token: Option<&'static str>) -> StatusCode {
    let mut request = client.request(method.parse::<Method>().unwrap(), path);
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    request.send().await.0.status()
}

fn credential(condition: &str) -> Option<&'static str> {
    match condition {
        "unverified user" => Some(UNVERIFIED),
        "verified non-admin" => Some(USER),
        _ if condition.starts_with("user") => Some(USER),
        _ => None,
    }
}
