//! `/flux`.

use airi_server::core::model::ids::{EntryId, RequestId};
use airi_server::core::model::ledger::{Entry, EntryKind, Flux};
use airi_server::core::model::page::Window;
use serde_json::{Value, json};

use crate::world::{USER, World};

fn entry(kind: EntryKind, metadata: Option<Value>) -> Entry {
    Entry {
        id: EntryId::new("e1"),
        kind,
        amount: Flux::saturating(5),
        before: Flux::saturating(10),
        after: Flux::saturating(5),
        request: Some(RequestId::new("r1")),
        description: "llm_request".to_owned(),
        metadata: metadata.map(|metadata| metadata.as_object().unwrap().clone()),
        at: "2026-11-22T19:52:11.370999Z".parse().unwrap(),
    }
}

#[tokio::test]
async fn a_balance_has_exactly_two_keys() {
    let client = World::default().client();
    let answer = client.get("/api/v1/flux").header("authorization", USER).send().await;
    answer.assert_text(r#"{"userId":"u1","flux":1000}"#).await;
}

#[tokio::test]
async fn stats_have_one() {
    let client = World::default().client();
    let answer = client.get("/api/v1/flux/stats").header("authorization", USER).send().await;
    answer.assert_text(r#"{"capacity":0}"#).await;
}

#[tokio::test]
async fn a_record_shows_what_the_user_may_see_and_null_where_there_is_nothing() {
    let metadata = json!({ "source": "llm.request", "issuedByUserId": "x", "idempotencyKey": "k", "model": "m" });
    let entries = vec![entry(EntryKind::Debit, Some(metadata)), entry(EntryKind::Initial, None)];
    let client = World { entries, ..World::default() }.client();
    let answer = client.get("/api/v1/flux/history").header("authorization", USER).send().await;
    answer
        .assert_text(concat!(
            r#"{"records":[{"id":"e1","type":"debit","amount":5,"description":"llm_request","#,
            r#""metadata":{"source":"llm.request","model":"m"},"createdAt":"2026-11-22T19:52:11.370Z"},"#,
            r#"{"id":"e1","type":"initial","amount":5,"description":"llm_request","#,
            r#""metadata":null,"createdAt":"2026-11-22T19:52:11.370Z"}],"hasMore":false}"#
        ))
        .await;
}

#[tokio::test]
async fn parameters_never_fail() {
    let default = Window { limit: 20, offset: 0 };
    for (query, window, before) in [
        ("", default, None),
        ("?limit=&offset=", default, None),
        ("?limit=abc&offset=-1", default, None),
        ("?limit=%205x&offset=7", Window { limit: 5, offset: 7 }, None),
        ("?limit=999&offset=99999999999999999999", Window { limit: 100, offset: 2_147_483_647 }, None),
        ("?limit=%FF&offset=%", default, None),
        ("?limit=3&limit=4", Window { limit: 3, offset: 0 }, None),
        ("?before=abc&offset=2", Window { limit: 20, offset: 2 }, Some("abc")),
        ("?before=", default, None),
        ("?unknown=1&limit", default, None),
    ] {
        let world = World::default();
        let listed = world.listed.clone();
        let client = world.client();
        let answer = client.get(format!("/api/v1/flux/history{query}")).header("authorization", USER).send().await;
        assert_eq!(answer.0.status(), 200, "{query}");
        let listed = listed.lock().unwrap().clone().unwrap();
        assert_eq!(listed, (window, before.map(str::to_owned)), "{query}");
    }
}

#[tokio::test]
async fn a_full_page_says_that_there_is_more() {
    let entries = vec![entry(EntryKind::Debit, None); 3];
    let client = World { entries, ..World::default() }.client();
    let answer = client.get("/api/v1/flux/history?limit=2").header("authorization", USER).send().await;
    let body: Value = answer.0.into_body().into_json().await.unwrap();
    assert_eq!((body["records"].as_array().unwrap().len(), &body["hasMore"]), (2, &json!(true)));
}
