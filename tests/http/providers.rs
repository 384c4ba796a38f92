//! `/providers`: every row of the contract's tables (`characters-providers.md`, part B).

use std::sync::Arc;

use airi_server::adapters::sqlite::providers::SqliteProviders;
use airi_server::compose::testing::ports;
use airi_server::ports::Ports;
use serde_json::{Value, json};

use crate::people::{House, Person, keys};
use crate::world::Facts;

const ROOT: &str = "/api/v1/providers";
const FULL: [&str; 10] = [
    "id",
    "ownerId",
    "definitionId",
    "name",
    "config",
    "validated",
    "validationBypassed",
    "createdAt",
    "updatedAt",
    "deletedAt",
];

/// A server whose provider rows can be looked at from below; `s1` is the system's.
async fn house() -> (House, sqlx::SqlitePool) {
    let db = airi_server::adapters::sqlite::in_memory().await.unwrap();
    sqlx::query(
        r#"INSERT INTO system_provider_configs (id, definition_id, name, config)
           VALUES ('s1', 'd', 'n', '{"apiKey":"sk-system"}')"#,
    )
    .execute(&db.writer)
    .await
    .unwrap();
    let rows = db.writer.clone();
    let ports = Ports { providers: Arc::new(SqliteProviders { db }), ..ports().await.unwrap() };
    (House::on(ports, Facts::default()), rows)
}

async fn make(house: &House, owner: &Person, body: Value) -> Value {
    let answer = house.call(owner, "POST", ROOT, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

fn body(id: &str) -> Value {
    json!({ "id": id, "definitionId": "openai", "name": "mine", "config": { "apiKey": "sk-secret" } })
}

#[tokio::test]
async fn every_answer_has_its_own_shape() {
    let (house, _) = house().await;
    let owner = house.person("owner").await;
    let made = make(&house, &owner, body("p1")).await;
    assert_eq!(keys(&made), FULL);
    assert_eq!((&made["ownerId"], &made["deletedAt"]), (&json!(owner.id), &Value::Null));
    assert_eq!((&made["validated"], &made["validationBypassed"]), (&json!(false), &json!(false)));
    assert_eq!(made["createdAt"], made["updatedAt"]);
    let found = house.get(&owner, "/api/v1/providers/p1").await.json();
    assert_eq!(keys(&found), [&FULL[..], &["isSystem"]].concat());
    assert_eq!((&found["isSystem"], &found["config"]), (&json!(false), &json!({ "apiKey": "sk-secret" })));
    let patched = house.call(&owner, "PATCH", "/api/v1/providers/p1", "{}").await.json();
    assert_eq!((keys(&patched), &patched["config"]), (FULL.to_vec(), &made["config"]));
    assert_ne!(patched["updatedAt"], made["updatedAt"]);
    let system = house.get(&owner, "/api/v1/providers/s1").await.json();
    let without_owner = FULL.iter().copied().filter(|key| *key != "ownerId").chain(["isSystem"]).collect::<Vec<_>>();
    assert_eq!(keys(&system), without_owner);
    assert_eq!((&system["isSystem"], &system["config"]), (&json!(true), &json!({})));
    let list = house.get(&owner, ROOT).await.json();
    assert_eq!((&list[0]["id"], &list[1]["id"], list.as_array().unwrap().len()), (&json!("p1"), &json!("s1"), 2));
    let merged = FULL.iter().copied().filter(|key| !["ownerId", "deletedAt"].contains(key)).chain(["isSystem"]);
    assert_eq!(keys(&list[0]), merged.collect::<Vec<_>>());
    assert_eq!((&list[0]["config"], &list[1]["config"]), (&made["config"], &json!({})));
}

#[tokio::test]
async fn values_of_any_sort_survive_and_are_sealed_one_by_one() {
    let (house, rows) = house().await;
    let owner = house.person("owner").await;
    let config = json!({ "apiKey": "sk-secret", "n": 1.5, "b": true, "z": null, "o": { "deep": ["sk-deep"] } });
    let mut wanted = body("p1");
    wanted["config"] = config.clone();
    assert_eq!(make(&house, &owner, wanted).await["config"], config);
    assert_eq!(house.get(&owner, "/api/v1/providers/p1").await.json()["config"], config);
    let stored: String = sqlx::query_scalar("SELECT config FROM user_provider_configs").fetch_one(&rows).await.unwrap();
    assert!(!stored.contains("sk-"), "{stored}");
    let stored: Value = serde_json::from_str(&stored).unwrap();
    assert_eq!(keys(&stored), keys(&config));
    assert!(stored.as_object().unwrap().values().all(|value| value.as_str().unwrap().starts_with("v1.")));
}

#[tokio::test]
async fn rows_of_the_reference_are_read_and_sealed_values_cannot_be_moved() {
    let (house, rows) = house().await;
    let owner = house.person("owner").await;
    sqlx::query(
        r#"INSERT INTO user_provider_configs (id, owner_id, definition_id, name, config)
           VALUES ('clear', ?, 'd', 'n', '{"apiKey":"sk-clear"}')"#,
    )
    .bind(&owner.id)
    .execute(&rows)
    .await
    .unwrap();
    assert_eq!(house.get(&owner, "/api/v1/providers/clear").await.json()["config"], json!({ "apiKey": "sk-clear" }));
    make(&house, &owner, body("p1")).await;
    let moved = "UPDATE user_provider_configs SET config =
                 (SELECT config FROM user_provider_configs WHERE id = 'p1') WHERE id = 'clear'";
    sqlx::query(moved).execute(&rows).await.unwrap();
    let refused = house.get(&owner, "/api/v1/providers/clear").await;
    assert_eq!(refused.refusal(), (503, "DECRYPT_FAILED".to_owned()));
    let mended = house.call(&owner, "PATCH", "/api/v1/providers/clear", json!({ "config": { "a": "b" } })).await;
    assert_eq!((mended.status, &mended.json()["config"]), (200, &json!({ "a": "b" })));
}

#[tokio::test]
async fn a_change_replaces_the_configuration_and_leaves_the_rest() {
    let (house, _) = house().await;
    let owner = house.person("owner").await;
    make(&house, &owner, body("p1")).await;
    let change = json!({ "config": { "a": "b" }, "definitionId": "x", "ownerId": "thief", "validated": true });
    let patched = house.call(&owner, "PATCH", "/api/v1/providers/p1", change).await.json();
    assert_eq!((&patched["config"], &patched["definitionId"]), (&json!({ "a": "b" }), &json!("openai")));
    assert_eq!((&patched["ownerId"], &patched["validated"]), (&json!(owner.id), &json!(true)));
    let renamed = house.call(&owner, "PATCH", "/api/v1/providers/p1", json!({ "name": " new " })).await.json();
    assert_eq!((&renamed["name"], &renamed["config"]), (&json!("new"), &json!({ "a": "b" })));
}

#[tokio::test]
async fn what_is_wrong_is_refused_before_anything_is_looked_up() {
    let (house, _) = house().await;
    let (owner, stranger) = (house.person("owner").await, house.person("stranger").await);
    make(&house, &owner, body("p1")).await;
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"definitionId":"d"}"#,
        r#"{"definitionId":"d","name":" "}"#,
        r#"{"definitionId":"d","name":"n","config":[]}"#,
        r#"{"definitionId":"d","name":"n","config":{"\u0000":1}}"#,
        r#"{"definitionId":"d","name":"n\u0000"}"#,
        r#"{"definitionId":"d","name":"n","validated":null}"#,
    ] {
        let refused = house.call(&owner, "POST", ROOT, body).await;
        assert_eq!(refused.refusal(), (400, "INVALID_REQUEST".to_owned()), "{body}");
    }
    let long = json!({ "definitionId": "d", "name": "n", "config": { "a": "sk-secret".repeat(8_000) } });
    let refused = house.call(&owner, "POST", ROOT, long).await;
    assert_eq!((refused.status, refused.text.contains("sk-secret")), (400, false));
    let patch = async |who: &Person, id: &str, body: &str| {
        house.call(who, "PATCH", &format!("{ROOT}/{id}"), body).await.refusal()
    };
    assert_eq!(patch(&stranger, "p9", r#"{"name":5}"#).await, (400, "INVALID_REQUEST".to_owned()));
    assert_eq!(patch(&stranger, "p9", "{}").await, (404, "NOT_FOUND".to_owned()));
    assert_eq!(patch(&stranger, "p1", "{}").await, (403, "FORBIDDEN".to_owned()));
    assert_eq!(patch(&stranger, "s1", "{}").await, (404, "NOT_FOUND".to_owned()));
    let delete = async |who: &Person, id: &str| house.call(who, "DELETE", &format!("{ROOT}/{id}"), "").await;
    assert_eq!(delete(&stranger, "p1").await.refusal(), (403, "FORBIDDEN".to_owned()));
    assert_eq!(delete(&stranger, "s1").await.refusal(), (404, "NOT_FOUND".to_owned()));
    assert_eq!(house.get(&stranger, "/api/v1/providers/p1").await.refusal(), (404, "NOT_FOUND".to_owned()));
    let deleted = delete(&owner, "p1").await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    assert_eq!(delete(&owner, "p1").await.refusal(), (404, "NOT_FOUND".to_owned()));
    assert_eq!(house.send(None, "GET", ROOT, String::new()).await.refusal(), (401, "UNAUTHORIZED".to_owned()));
    assert_eq!(house.get(&owner, "/api/v1/providers/").await.status, 404);
}

#[tokio::test]
async fn taken_ids_and_too_many_rows_are_conflicts() {
    let (house, _) = house().await;
    let (owner, other) = (house.person("owner").await, house.person("other").await);
    for n in 0..200 {
        make(&house, &owner, body(&format!("p{n}"))).await;
    }
    let full = house.call(&owner, "POST", ROOT, body("p200")).await;
    assert_eq!(full.refusal(), (409, "CONFLICT".to_owned()));
    house.call(&owner, "DELETE", "/api/v1/providers/p0", "").await;
    for taken in ["p0", "p1", "s1"] {
        let refused = house.call(&other, "POST", ROOT, body(taken)).await;
        assert_eq!(refused.refusal(), (409, "CONFLICT".to_owned()), "{taken}");
    }
    let fresh = json!({ "definitionId": "d", "name": "n" });
    assert_eq!(make(&house, &owner, fresh).await["id"].as_str().unwrap().len(), 21);
}
