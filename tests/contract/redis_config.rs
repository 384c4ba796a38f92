//! Configuration entries as the reference keeps them in Redis.

use std::sync::Arc;

use airi_server::adapters::redis::bus::Bus;
use airi_server::adapters::redis::config::RedisConfig;
use airi_server::core::model::config::{ConfigChange, ConfigWrite, WriteOutcome};
use airi_server::ports::config::ConfigStore;
use futures::StreamExt;
use redis::Commands;
use serde_json::{Value, json};

use super::redis_world::{Namespace, PrivateRedis};
use super::world::soon;

async fn store() -> (Arc<RedisConfig>, Namespace) {
    let space = Namespace::new();
    let bus = Bus::start(&space.redis, space.journal.clone()).unwrap();
    (Arc::new(RedisConfig::start(space.redis.clone(), &bus).await), space)
}

fn write(entries: &[(&'static str, Option<&str>)], expected_version: Option<i64>) -> ConfigWrite {
    let entries = entries.iter().map(|(name, json)| (*name, json.map(str::to_owned))).collect();
    ConfigWrite { entries, expected_version }
}

async fn found(store: &RedisConfig, name: &'static str) -> Option<String> {
    store.find(name).await.unwrap().map(|entry| entry.json().to_owned())
}

#[tokio::test]
async fn entries_are_json_texts_without_an_end_under_the_names_of_the_reference() {
    let (store, space) = store().await;
    let mut raw = space.raw();
    let _: () = raw.set(space.key("config:DEFAULT_CHAT_MODEL"), "\"of the reference\"").unwrap();
    assert_eq!(found(&store, "DEFAULT_CHAT_MODEL").await.unwrap(), "\"of the reference\"");
    assert_eq!(store.version().await.unwrap(), 0);
    let both = write(&[("DEFAULT_CHAT_MODEL", Some("\"ours\"")), ("FLUX_PER_REQUEST", Some("6"))], Some(0));
    assert_eq!(store.write(&both).await.unwrap(), WriteOutcome::Written(1));
    let text: String = raw.get(space.key("config:DEFAULT_CHAT_MODEL")).unwrap();
    assert_eq!(text, "\"ours\"");
    let left: i64 = raw.pttl(space.key("config:DEFAULT_CHAT_MODEL")).unwrap();
    assert_eq!(left, -1);
}

#[tokio::test]
async fn a_write_from_an_old_version_changes_nothing() {
    let (store, space) = store().await;
    store.write(&write(&[("FLUX_PER_REQUEST", Some("6"))], None)).await.unwrap();
    let late = write(&[("FLUX_PER_REQUEST", Some("7")), ("FLUX_PER_1K_TOKENS", Some("2"))], Some(0));
    assert_eq!(store.write(&late).await.unwrap(), WriteOutcome::Stale(1));
    assert_eq!(found(&store, "FLUX_PER_REQUEST").await.unwrap(), "6");
    assert_eq!(found(&store, "FLUX_PER_1K_TOKENS").await, None);
    assert_eq!(store.version().await.unwrap(), 1);
    let kept: usize = space.raw().llen(space.key("config:history")).unwrap();
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn of_fifty_writers_from_one_version_one_writes() {
    let (store, _space) = store().await;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..50 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let one = write(&[("FLUX_PER_REQUEST", Some(&(n + 1).to_string()))], Some(0));
            store.write(&one).await.unwrap()
        });
    }
    let outcomes = writers.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == WriteOutcome::Written(1)).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == WriteOutcome::Stale(1)).count(), 49);
}

#[tokio::test]
async fn going_back_to_the_default_deletes_and_what_was_replaced_is_kept() {
    let (store, space) = store().await;
    store.write(&write(&[("DEFAULT_CHAT_MODEL", Some("\"a \\\"b\\\"\""))], None)).await.unwrap();
    store.write(&write(&[("DEFAULT_CHAT_MODEL", None)], Some(1))).await.unwrap();
    assert_eq!(found(&store, "DEFAULT_CHAT_MODEL").await, None);
    let history: Vec<String> = space.raw().lrange(space.key("config:history"), 0, -1).unwrap();
    let history: Vec<Value> = history.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(history.len(), 2);
    assert_eq!(history[0]["name"], "DEFAULT_CHAT_MODEL");
    assert_eq!(history[0]["value"], json!("\"a \\\"b\\\"\""));
    assert_eq!(history[0]["version"], 1);
    assert!(history[0]["replacedAt"].as_i64().unwrap() > 1_700_000_000_000);
    assert_eq!(history[1]["value"], Value::Null);
}

#[tokio::test]
async fn each_written_entry_is_announced_in_the_words_of_the_reference() {
    let (store, space) = store().await;
    let mut raw = space.raw();
    let mut reference = raw.as_pubsub();
    reference.subscribe(space.key("configkv:invalidate")).unwrap();
    let mut changes = store.changes();
    store.write(&write(&[("LLM_ROUTER_CONFIG", Some("{}")), ("FLUX_PER_REQUEST", None)], None)).await.unwrap();
    for name in ["LLM_ROUTER_CONFIG", "FLUX_PER_REQUEST"] {
        assert_eq!(soon("a change", changes.next()).await, Some(ConfigChange::Entry(name.to_owned())));
        let text: String = reference.get_message().unwrap().get_payload().unwrap();
        let at = serde_json::from_str::<Value>(&text).unwrap()["publishedAt"].as_i64().unwrap();
        assert!(at > 1_700_000_000_000);
        assert_eq!(text, format!(r#"{{"key":"{name}","version":{at},"publishedAt":{at}}}"#));
    }
}

#[tokio::test]
async fn announcements_of_the_reference_are_heard_and_unusable_ones_are_not() {
    let (store, space) = store().await;
    let mut changes = store.changes();
    let long = format!(r#"{{"key":"A","padding":"{}"}}"#, "x".repeat(4096));
    for text in ["x", "{}", &long, r#"{"key":"LLM_ROUTER_CONFIG"}"#] {
        let _: () = space.raw().publish(space.key("configkv:invalidate"), text).unwrap();
    }
    assert_eq!(soon("a change", changes.next()).await, Some(ConfigChange::Entry("LLM_ROUTER_CONFIG".to_owned())));
}

#[tokio::test]
async fn a_restart_of_redis_is_a_gap() {
    let mut server = PrivateRedis::start();
    let redis = server.redis();
    let bus = Bus::start(&redis, Arc::new(super::world::Notebook::default())).unwrap();
    let store = RedisConfig::start(redis, &bus).await;
    let mut changes = store.changes();
    server.restart();
    assert_eq!(soon("a gap", changes.next()).await, Some(ConfigChange::Gap));
    let _: () = server.raw().publish("configkv:invalidate", r#"{"key":"A"}"#).unwrap();
    assert_eq!(soon("a change", changes.next()).await, Some(ConfigChange::Entry("A".to_owned())));
}
