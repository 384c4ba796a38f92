//! `/characters`: every row of the contract's tables (`characters-providers.md`, part A).

use airi_server::core::model::fact::Fact;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::people::{House, Person, keys};

const ROOT: &str = "/api/v1/characters";

fn bare(id: &str) -> Value {
    json!({ "character": { "id": id, "version": "1", "coverUrl": "u", "characterId": "label" } })
}

fn whole(id: &str) -> Value {
    json!({
        "character": { "id": id, "version": "1", "coverUrl": "u", "characterId": "label" },
        "cover": { "foregroundUrl": "f", "backgroundUrl": "b" },
        "capabilities": [{ "type": "llm", "config": { "apiKey": "sk-secret", "apiBaseUrl": "u", "extra": 1 } }],
        "avatarModels": [{ "name": "n", "type": "vrm", "description": "d", "config": { "vrm": { "urls": ["v"] } } }],
        "i18n": [
            { "language": "en", "name": "n", "description": "d", "tags": [] },
            { "language": "de", "name": "n", "description": "d", "tags": ["t"], "tagline": "l" },
        ],
        "prompts": [{ "language": "en", "type": "greetings", "content": "hello" }],
    })
}

async fn make(house: &House, owner: &Person, body: Value) -> Value {
    let answer = house.call(owner, "POST", ROOT, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

const BARE: [&str; 13] = [
    "id",
    "version",
    "coverUrl",
    "creatorId",
    "ownerId",
    "characterId",
    "priceCredit",
    "likesCount",
    "bookmarksCount",
    "interactionsCount",
    "forksCount",
    "createdAt",
    "updatedAt",
];

#[tokio::test]
async fn create_find_and_patch_answer_the_same_whole_character_without_nulls() {
    let house = House::open().await;
    let owner = house.person("owner").await;
    let made = make(&house, &owner, whole("c1")).await;
    let relations = ["capabilities", "avatarModels", "i18n", "prompts", "likes", "bookmarks", "cover"];
    assert_eq!(keys(&made), [&BARE[..], &relations].concat());
    assert_eq!((&made["ownerId"], &made["creatorId"]), (&json!(owner.id), &json!(owner.id)));
    assert_eq!((&made["priceCredit"], &made["likesCount"]), (&json!("0"), &json!(0)));
    assert_eq!(made["createdAt"].as_str().unwrap().len(), "2026-11-22T19:52:11.370Z".len());
    assert_eq!(keys(&made["capabilities"][0]), ["id", "characterId", "type", "config"]);
    assert_eq!(made["capabilities"][0]["config"], json!({ "apiKey": "sk-secret", "apiBaseUrl": "u" }));
    let dates = ["createdAt", "updatedAt"];
    let model = ["id", "characterId", "name", "type", "description", "config"];
    assert_eq!(keys(&made["avatarModels"][0]), [&model[..], &dates].concat());
    let german = made["i18n"].as_array().unwrap().iter().find(|locale| locale["language"] == "de").unwrap();
    let locale = ["id", "characterId", "language", "name", "tagline", "description", "tags"];
    assert_eq!(keys(german), [&locale[..], &dates].concat());
    assert_eq!(made["i18n"].as_array().unwrap().len(), 2);
    assert_eq!(keys(&made["prompts"][0]), ["id", "characterId", "language", "type", "content"]);
    assert_eq!(keys(&made["cover"]), ["id", "characterId", "foregroundUrl", "backgroundUrl", "createdAt", "updatedAt"]);
    assert_eq!((&made["likes"], &made["bookmarks"]), (&json!([]), &json!([])));
    assert!(!made.to_string().contains("null"), "{made}");

    assert_eq!(house.get(&owner, "/api/v1/characters/c1").await.json(), made);
    let patched = house.call(&owner, "PATCH", "/api/v1/characters/c1", json!({ "version": "2" })).await.json();
    assert_eq!((keys(&patched), &patched["version"]), (keys(&made), &json!("2")));
    let avatar = json!({ "avatarUrl": "a", "creatorRole": "r", "priceCredit": "1.5" });
    let patched = house.call(&owner, "PATCH", "/api/v1/characters/c1", avatar).await.json();
    assert_eq!(keys(&patched)[6..9], ["avatarUrl", "creatorRole", "priceCredit"]);
    assert_eq!(house.told(), [Fact::CharacterCreated]);
}

#[tokio::test]
async fn the_key_is_shown_to_its_owner_and_to_nobody_else() {
    let house = House::open().await;
    let (owner, stranger) = (house.person("owner").await, house.person("stranger").await);
    make(&house, &owner, whole("c1")).await;
    for path in ["/api/v1/characters/c1", "/api/v1/characters?all=true"] {
        let seen = house.get(&stranger, path).await;
        assert!(!seen.text.contains("sk-secret"), "{path}");
        assert!(seen.text.contains(r#""apiKey":"""#), "{path}: {}", seen.text);
        assert!(house.get(&owner, path).await.text.contains("sk-secret"), "{path}");
    }
}

#[tokio::test]
async fn lists_are_the_callers_own_unless_all_is_exactly_true() {
    let house = House::open().await;
    let (owner, other) = (house.person("owner").await, house.person("other").await);
    make(&house, &owner, whole("a")).await;
    // Embedded times are whole milliseconds.
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    make(&house, &other, bare("b")).await;
    let ids = async |query: &str| {
        let list = house.get(&owner, &format!("{ROOT}{query}")).await.json();
        list.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for query in ["", "?all=false", "?all=1", "?all=TRUE", "?all=", "?limit=abc", "?limit=500", "?all"] {
        assert_eq!(ids(query).await, ["a"], "{query}");
    }
    assert_eq!(ids("?all=true").await, ["b", "a"]);
    assert_eq!(ids("?all=true&limit=1").await, ["b"]);
    assert_eq!(ids("?all=true&limit=1&offset=1").await, ["a"]);
    assert_eq!(ids("?all=true&offset=2").await, Vec::<String>::new());
    let item = &house.get(&owner, ROOT).await.json()[0];
    assert_eq!(keys(item), [&BARE[..], &["capabilities", "i18n", "likes", "bookmarks", "cover"]].concat());
}

#[tokio::test]
async fn bodies_are_judged_before_existence_and_existence_before_ownership() {
    let house = House::open().await;
    let (owner, stranger) = (house.person("owner").await, house.person("stranger").await);
    make(&house, &owner, bare("c1")).await;
    let patch = async |who: &Person, id: &str, body: &str| {
        house.call(who, "PATCH", &format!("{ROOT}/{id}"), body).await.refusal()
    };
    for id in ["c1", "unknown"] {
        for body in ["", "{", "[]", "null", r#"{"version":5}"#, r#"{"avatarUrl":null}"#, r#"{"priceCredit":"x"}"#] {
            assert_eq!(patch(&stranger, id, body).await, (400, "INVALID_REQUEST".to_owned()), "{id} {body}");
        }
    }
    assert_eq!(patch(&stranger, "unknown", "{}").await, (404, "NOT_FOUND".to_owned()));
    assert_eq!(patch(&stranger, "c1", "{}").await, (403, "FORBIDDEN".to_owned()));
    assert_eq!(patch(&owner, "%00", "{}").await, (404, "NOT_FOUND".to_owned()));
    let delete = async |who: &Person, id: &str| house.call(who, "DELETE", &format!("{ROOT}/{id}"), "").await;
    assert_eq!(delete(&stranger, "c1").await.refusal(), (403, "FORBIDDEN".to_owned()));
    assert_eq!(delete(&stranger, "unknown").await.refusal(), (404, "NOT_FOUND".to_owned()));
    let deleted = delete(&owner, "c1").await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    assert_eq!(delete(&owner, "c1").await.refusal(), (404, "NOT_FOUND".to_owned()));
    assert_eq!(house.get(&owner, "/api/v1/characters/c1").await.refusal(), (404, "NOT_FOUND".to_owned()));
    assert_eq!(house.told(), [Fact::CharacterCreated, Fact::CharacterDeleted]);
}

#[tokio::test]
async fn refused_bodies_are_explained_without_being_repeated() {
    let house = House::open().await;
    let owner = house.person("owner").await;
    let mut body = whole("c1");
    body["capabilities"][0]["type"] = json!("sk-secret");
    body["prompts"][0]["type"] = json!("poem");
    let refused = house.call(&owner, "POST", ROOT, body).await;
    assert_eq!(refused.refusal(), (400, "INVALID_REQUEST".to_owned()));
    let details = refused.json()["details"].clone();
    assert_eq!(
        details[0],
        json!({
            "kind": "schema", "type": "picklist", "expected": "one of llm, tts, vlm, asr",
            "message": "expected one of llm, tts, vlm, asr",
            "path": [{ "key": "capabilities" }, { "key": "0" }, { "key": "type" }],
        })
    );
    assert_eq!(details.as_array().unwrap().len(), 2);
    assert!(!refused.text.contains("sk-secret"));
    assert_eq!(house.get(&owner, "/api/v1/characters/c1").await.status, 404);
}

#[tokio::test]
async fn what_the_server_owns_cannot_be_written() {
    let house = House::open().await;
    let owner = house.person("owner").await;
    let mut body = bare("c1");
    body["character"]["ownerId"] = json!("thief");
    body["character"]["likesCount"] = json!("many");
    body["character"]["createdAt"] = json!("1999");
    let made = make(&house, &owner, body).await;
    assert_eq!((&made["ownerId"], &made["likesCount"]), (&json!(owner.id), &json!(0)));
    let change = json!({ "id": "c2", "ownerId": "thief", "creatorId": "thief", "likesCount": 9, "deletedAt": "x" });
    let patched = house.call(&owner, "PATCH", "/api/v1/characters/c1", change).await.json();
    for member in ["id", "ownerId", "creatorId", "likesCount", "createdAt"] {
        assert_eq!(patched[member], made[member], "{member}");
    }
}

#[tokio::test]
async fn a_taken_id_is_a_conflict() {
    let house = House::open().await;
    let owner = house.person("owner").await;
    let mut first = whole("c1");
    first["prompts"][0]["id"] = json!("p1");
    make(&house, &owner, first.clone()).await;
    assert_eq!(house.call(&owner, "POST", ROOT, bare("c1")).await.refusal(), (409, "CONFLICT".to_owned()));
    first["character"]["id"] = json!("c2");
    assert_eq!(house.call(&owner, "POST", ROOT, first).await.refusal(), (409, "CONFLICT".to_owned()));
    assert_eq!(house.get(&owner, "/api/v1/characters/c2").await.status, 404);
}

#[tokio::test]
async fn likes_and_bookmarks_are_one_boolean_and_lists_show_only_the_callers() {
    let house = House::open().await;
    let (owner, fan) = (house.person("owner").await, house.person("fan").await);
    let made = make(&house, &owner, bare("c1")).await;
    let post = async |who: &Person, what: &str| house.call(who, "POST", &format!("{ROOT}/c1/{what}"), "").await;
    assert_eq!(post(&fan, "like").await.text, r#"{"liked":true}"#);
    assert_eq!(post(&owner, "like").await.text, r#"{"liked":true}"#);
    assert_eq!(post(&fan, "bookmark").await.text, r#"{"bookmarked":true}"#);
    let seen = house.get(&fan, "/api/v1/characters/c1").await.json();
    assert_eq!((&seen["likesCount"], &seen["bookmarksCount"]), (&json!(2), &json!(1)));
    assert_eq!(keys(&seen["likes"][0]), ["userId", "characterId", "createdAt"]);
    assert_eq!((seen["likes"].as_array().unwrap().len(), &seen["likes"][0]["userId"]), (1, &json!(fan.id)));
    assert_eq!(seen["updatedAt"], made["updatedAt"]);
    assert_eq!(post(&fan, "like").await.text, r#"{"liked":false}"#);
    assert_eq!(post(&fan, "bookmark").await.text, r#"{"bookmarked":false}"#);
    let seen = house.get(&fan, "/api/v1/characters/c1").await.json();
    assert_eq!((&seen["likesCount"], &seen["likes"]), (&json!(1), &json!([])));
    house.call(&owner, "DELETE", "/api/v1/characters/c1", "").await;
    assert_eq!(post(&fan, "like").await.refusal(), (404, "NOT_FOUND".to_owned()));
    assert_eq!(house.call(&fan, "POST", &format!("{ROOT}/c9/bookmark"), "").await.status, 404);
    let engaged = |action| Fact::CharacterEngaged { action };
    let actions = ["like", "like", "bookmark", "unlike", "unbookmark"].map(engaged);
    let told = [&[Fact::CharacterCreated][..], &actions, &[Fact::CharacterDeleted]].concat();
    assert_eq!(house.told(), told);
}

#[tokio::test]
async fn twenty_likes_at_once_leave_the_counter_at_the_truth() {
    let house = House::open().await;
    let owner = house.person("owner").await;
    make(&house, &owner, bare("c1")).await;
    let likes = (0..20).map(|_| house.call(&owner, "POST", "/api/v1/characters/c1/like", ""));
    assert!(join_all(likes).await.iter().all(|answer| answer.status == 200));
    let seen = house.get(&owner, "/api/v1/characters/c1").await.json();
    assert_eq!(seen["likesCount"], json!(seen["likes"].as_array().unwrap().len()));
}

#[tokio::test]
async fn strangers_learn_nothing_and_paths_are_strict() {
    let house = House::open().await;
    let owner = house.person("owner").await;
    for (method, path) in [
        ("GET", ROOT),
        ("POST", ROOT),
        ("GET", "/api/v1/characters/c1"),
        ("DELETE", "/api/v1/characters/c1"),
        ("POST", "/api/v1/characters/c1/like"),
        ("GET", "/api/v1/characters/c1/nothing"),
        ("PUT", "/api/v1/characters/c1"),
    ] {
        let refused = house.send(None, method, path, String::new()).await;
        assert_eq!(refused.refusal(), (401, "UNAUTHORIZED".to_owned()), "{method} {path}");
    }
    for (method, path) in
        [("GET", "/api/v1/characters/"), ("PUT", "/api/v1/characters/c1"), ("GET", "/api/v1/characters/c1/like")]
    {
        let missing = house.call(&owner, method, path, "").await.json();
        assert_eq!((&missing["error"], missing["ui"].is_string()), (&json!("NOT_FOUND"), true), "{method} {path}");
    }
    make(&house, &owner, bare("a/b %ü")).await;
    let found = house.get(&owner, "/api/v1/characters/a%2Fb%20%25%C3%BC").await.json();
    assert_eq!(found["id"], "a/b %ü");
}
