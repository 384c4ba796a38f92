use serde_json::json;

use super::*;

fn mixed(world: &World) {
    let slot =
        |model: &str, id: &str, with| json!({"id": id, "ciphertext": world.vault.seal_with(KEY, model, id, with)});
    let tree = json!({
        "llm": {"models": {"m": {"upstreams": [
            {"baseURL": "https://a.io", "keys": [slot("m", "new", MasterKey::Current), slot("m", "old", MasterKey::Previous)]},
            {"baseURL": "https://b.io", "keys": [{"id": "lost", "ciphertext": "v1.x.y.z"}]}]}}},
        "tts": {"models": {"v": {"provider": "azure", "upstreams": [
            {"baseURL": "https://c.io", "keys": [slot("v", "old", MasterKey::Previous)]}]}}}
    });
    world.store.put("LLM_ROUTER_CONFIG", &tree);
    let streaming = json!({"baseURL": "wss://d.io", "keys": [slot("streaming-tts", "old", MasterKey::Previous)]});
    world.store.put("STREAMING_TTS_UPSTREAM", &streaming);
    world.store.put("DEFAULT_CHAT_MODEL", &json!("m"));
}

#[tokio::test]
async fn old_slots_are_sealed_anew_at_once_and_lost_ones_are_reported() {
    let world = world(Policy::default());
    mixed(&world);
    let before = world.store.writes();
    let lost = vec!["llm/m/1/lost".to_owned()];
    let wanted = Reencryption { total: 5, reencrypted: 3, already_current: 1, unreadable: lost.clone() };
    assert_eq!(world.admin.reencrypt_keys(&actor(), true).await.unwrap(), wanted);
    assert_eq!(world.store.writes(), before);
    assert_eq!(world.admin.reencrypt_keys(&actor(), false).await.unwrap(), wanted);
    assert_eq!(world.store.writes(), before + 1);
    let again = Reencryption { total: 5, reencrypted: 0, already_current: 4, unreadable: lost };
    assert_eq!(world.admin.reencrypt_keys(&actor(), false).await.unwrap(), again);
    assert_eq!(world.store.writes(), before + 1, "nothing to do is nothing to write");
}

#[tokio::test]
async fn a_write_in_between_starts_the_work_anew() {
    let world = world(Policy::default());
    mixed(&world);
    let tree = world.store.json("LLM_ROUTER_CONFIG");
    *world.store.intruder.lock().unwrap() = Some(("LLM_ROUTER_CONFIG", tree.to_string()));
    assert_eq!(world.admin.reencrypt_keys(&actor(), false).await.unwrap().reencrypted, 3);
    assert_eq!(world.admin.reencrypt_keys(&actor(), true).await.unwrap().reencrypted, 0);
}

#[tokio::test]
async fn slots_are_shown_by_fingerprints_and_models_by_their_numbers() {
    let world = world(Policy::default());
    mixed(&world);
    let view = world.admin.show_router(&actor()).await.unwrap();
    let router = view.router.unwrap();
    let model = &router["llm"]["models"]["m"];
    assert_eq!(
        (&model["upstreamCount"], &model["keyCount"], &model["aliases"]),
        (&json!(2), &json!(3), &json!(["auto"]))
    );
    let slots = &model["upstreams"][0]["keys"];
    assert_eq!((&slots[0]["encryptedWith"], &slots[1]["encryptedWith"]), (&json!("current"), &json!("previous")));
    assert_eq!(slots[0]["keyId"], world.vault.fingerprint(KEY));
    assert!(slots[0].get("ciphertext").is_none());
    let lost = &model["upstreams"][1]["keys"][0];
    assert_eq!((&lost["encryptedWith"], &lost["keyId"]), (&json!("unreadable"), &Value::Null));
    assert_eq!(view.streaming.unwrap()["keys"][0]["encryptedWith"], "previous");
    assert_eq!((view.version, view.chat_model.as_deref(), view.tts_model), (3, Some("m"), None));
    assert!(!router.to_string().contains("v1."));
}
