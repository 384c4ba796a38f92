//! `Idempotency-Key`: a call that is sent again is charged once.

use airi_server::core::model::ids::{EntryId, RequestId, UserId};
use airi_server::core::model::ledger::{Credit, EntryKind, Flux};
use reqwest::Response;
use serde_json::Value;

use crate::house::House;

const WHOLE: &str = r#"{"model":"auto","messages":[{"role":"user","content":"hi"}]}"#;
const STREAM: &str = r#"{"model":"auto","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

async fn rich(house: &House) -> (UserId, String) {
    let (id, token) = house.person("rich").await;
    let user = UserId::new(id);
    let credit = Credit {
        entry: EntryId::new("e1"),
        user: user.clone(),
        request: Some(RequestId::new("gift")),
        amount: Flux::new(100).unwrap(),
        kind: EntryKind::Promo,
        description: "gift".to_owned(),
        metadata: None,
        opening: house.app.ledger.opening().await.unwrap(),
    };
    house.app.ledger.give(&credit, "test").await.unwrap();
    (user, token)
}

async fn send(house: &House, token: &str, key: &str, body: &'static str) -> Response {
    let url = format!("http://{}/api/v1/openai/chat/completions", house.address);
    house.client.post(url).bearer_auth(token).header("idempotency-key", key).body(body).send().await.unwrap()
}

fn header(answer: &Response, name: &str) -> String {
    answer.headers()[name].to_str().unwrap().to_owned()
}

async fn refusal(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    (status, body["error"].as_str().unwrap().to_owned())
}

async fn balance(house: &House, user: &UserId) -> i64 {
    house.app.ledger.settled(user).await.unwrap().get()
}

#[tokio::test]
async fn a_repeated_call_hears_the_first_answer_and_is_charged_once() {
    let house = House::open().await;
    let (user, token) = rich(&house).await;
    let first = send(&house, &token, "k1", WHOLE).await;
    let names = ["airi-request-id", "x-request-id", "airi-flux-charged"];
    let told = names.map(|name| header(&first, name));
    let (status, body) = (first.status(), first.text().await.unwrap());
    assert_eq!(status, 200, "{body}");
    let left = balance(&house, &user).await;
    assert!(left < 100);
    let again = send(&house, &token, "k1", WHOLE).await;
    assert_eq!(names.map(|name| header(&again, name)), told);
    assert_eq!(again.text().await.unwrap(), body);
    assert_eq!(balance(&house, &user).await, left);
    assert_eq!(refusal(send(&house, &token, "k1", STREAM).await).await, (409, "IDEMPOTENCY_MISMATCH".to_owned()));
    let other = send(&house, &token, "k2", WHOLE).await;
    assert_ne!(header(&other, "airi-request-id"), told[0]);
}

#[tokio::test]
async fn a_stream_is_not_kept_and_a_failed_call_may_be_sent_again() {
    let house = House::open().await;
    let (_, token) = rich(&house).await;
    let stream = send(&house, &token, "k1", STREAM).await;
    assert!(stream.text().await.unwrap().contains("[DONE]"));
    assert_eq!(refusal(send(&house, &token, "k1", STREAM).await).await, (409, "IDEMPOTENCY_NOT_KEPT".to_owned()));
    for _ in 0..2 {
        // A failed call is given up by a task of its own.
        let failed = loop {
            let refused = refusal(send(&house, &token, "k2", r#"{"model":"nobody","messages":[]}"#).await).await;
            if refused.1 != "IDEMPOTENCY_IN_PROGRESS" {
                break refused;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(failed, (400, "BAD_REQUEST".to_owned()));
    }
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_by_name() {
    let house = House::open().await;
    let (_, token) = rich(&house).await;
    for bad in ["", "a b", &"x".repeat(256)] {
        let refused = refusal(send(&house, &token, bad, WHOLE).await).await;
        assert_eq!(refused, (400, "INVALID_REQUEST".to_owned()), "{bad:?}");
    }
}
