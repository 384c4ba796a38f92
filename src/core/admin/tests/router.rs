use serde_json::json;

use super::*;

const INSECURE: Policy = Policy { addresses: AddressPolicy { allow_insecure: true }, sandbox: false };

fn openrouter(model: &str) -> Value {
    json!({"kind": "openrouter", "modelName": model, "overrideModel": "o/x", "plaintextKey": KEY})
}

async fn apply(world: &World, document: &Value) -> Result<RouterChange, Error> {
    world.admin.apply_router(&actor(), document.to_string().as_bytes(), None).await
}

fn paths(error: &Error) -> Vec<&str> {
    let details = error.details.as_deref().unwrap().as_array().unwrap();
    details.iter().map(|issue| issue["path"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_accepted_slice_of_the_fixture_is_stored_and_shown_by_its_length() {
    let fixture: Value = serde_json::from_str(include_str!("../../../../tests/fixtures/admin-cases.json")).unwrap();
    let case = fixture["routerConfig"].as_array().unwrap().last().unwrap();
    let world = world(INSECURE);
    let change = apply(&world, &case["body"]).await.unwrap();
    let wanted = &case["response"];
    assert_eq!(Value::Object(change.preview), wanted["preview"]);
    assert_eq!(json!(change.invalidated_keys), wanted["invalidatedKeys"]);
    assert_eq!((change.applied[0].kind, change.applied[0].surface), ("streaming-tts", None));
    assert_eq!(change.applied[0].key_ids[0].as_str(), wanted["applied"][0]["keyEntryId"]);
    let stored = world.store.json("STREAMING_TTS_UPSTREAM")["keys"][0]["ciphertext"].as_str().unwrap().to_owned();
    let opened = world.vault.open(&stored, "streaming-tts", "volcengine-prod-1").unwrap();
    assert_eq!(opened.plaintext.expose(), "volc-key");
}

#[tokio::test]
async fn a_fault_is_named_and_nothing_is_written() {
    let world = world(Policy::default());
    let upstream = |url: &str| json!({"baseURL": url, "keys": [{"id": "a", "plaintextKey": KEY}]});
    for (slice, path) in [
        (
            json!({"kind": "llm-model", "modelName": "m", "upstreams": [{"baseURL": "https://x.io", "keys": []}]}),
            "slices.0.upstreams.0.keys",
        ),
        (
            json!({"kind": "openrouter", "modelName": "m", "overrideModel": "o", "plaintextKey": KEY,
                "headerTemplate": "Bearer"}),
            "slices.0.headerTemplate",
        ),
        (
            json!({"kind": "llm-model", "modelName": "m", "maxOutputTokens": 0, "upstreams": [upstream("https://x.io")]}),
            "slices.0.maxOutputTokens",
        ),
        (
            json!({"kind": "llm-model", "modelName": "m", "maxOutputTokens": 1.5, "upstreams": [upstream("https://x.io")]}),
            "slices.0.maxOutputTokens",
        ),
        (
            json!({"kind": "llm-model", "modelName": "m", "upstreams": [upstream("gopher://x.io")]}),
            "slices.0.upstreams.0.baseURL",
        ),
        (
            json!({"kind": "streaming-tts", "upstreamURL": "ws://tts.example.test/v1", "plaintextKey": KEY}),
            "slices.0.upstreamURL",
        ),
        (
            json!({"kind": "volcengine", "modelName": "v", "appid": "a", "baseURL": "ws://x.io/s", "plaintextKey": KEY}),
            "slices.0.baseURL",
        ),
        (
            json!({"kind": "openrouter", "modelName": "m", "overrideModel": "o", "plaintextKey": KEY, "x": 1}),
            "slices.0.x",
        ),
        (
            json!({"kind": "azure", "modelName": "az", "region": "evil.example/#", "plaintextKey": KEY}),
            "slices.0.region",
        ),
    ] {
        let error = apply(&world, &json!({"slices": [slice]})).await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::InvalidBody, "Invalid request body"));
        assert_eq!(paths(&error), [path]);
        assert!(!format!("{error:?}").contains(KEY));
    }
    assert_eq!(world.store.writes(), 0);
    assert!(world.seen.outcomes().iter().all(|outcome| *outcome == ("rejected", 400)));
    assert!(world.seen.facts.lock().unwrap().contains(&Fact::ConfigWritten { result: "4xx" }));
}

#[tokio::test]
async fn a_merge_replaces_whole_models_and_leaves_the_rest() {
    let world = world(Policy::default());
    let document = json!({"slices": [openrouter("a"), openrouter("b")], "routerDefaults": {"perAttemptTimeoutMs": 7}});
    apply(&world, &document).await.unwrap();
    let b = world.store.json("LLM_ROUTER_CONFIG")["llm"]["models"]["b"].clone();
    let slice = json!({"kind": "llm-model", "modelName": "a", "fallbackTriggers": {"httpCodes": [500]},
        "maxOutputTokens": 8_192, "upstreams": [
        {"baseURL": "https://one.io/v1", "name": "one", "includeUsage": false, "keys": [
            {"id": "k1", "plaintextKey": KEY}, {"id": "k2", "plaintextKey": KEY}]},
        {"baseURL": "https://two.io/v1", "timeoutMs": 9, "keys": [{"id": "k1", "plaintextKey": KEY}]}]});
    let change = apply(&world, &json!({"slices": [slice]})).await.unwrap();
    let tree = world.store.json("LLM_ROUTER_CONFIG");
    assert_eq!(tree["llm"]["models"]["b"], b);
    assert!(b.get("fallbackTriggers").is_none(), "what was not written must not be stored");
    assert_eq!(tree["defaults"]["perAttemptTimeoutMs"], 7);
    let a = &tree["llm"]["models"]["a"];
    assert_eq!((&a["fallbackTriggers"]["httpCodes"], &a["maxOutputTokens"]), (&json!([500]), &json!(8_192)));
    assert!(b.get("maxOutputTokens").is_none(), "what was not written must not be stored");
    assert_eq!(a["upstreams"].as_array().unwrap().len(), 2);
    assert_eq!(a["upstreams"][0]["keys"][1]["id"], "k2");
    assert_eq!((&a["upstreams"][0]["includeUsage"], &a["upstreams"][1]["timeoutMs"]), (&json!(false), &json!(9)));
    assert_eq!(change.applied[0].key_ids.len(), 3);
    assert_eq!((change.version, change.removed.len()), (Some(2), 0));
}

#[tokio::test]
async fn a_reset_forgets_other_models_only_when_it_brings_one() {
    let world = world(INSECURE);
    apply(&world, &json!({"slices": [openrouter("a")]})).await.unwrap();
    let streaming = json!({"kind": "streaming-tts", "upstreamURL": "wss://x.io/v1", "plaintextKey": KEY});
    let reset = |slice: &Value| json!({"mode": "reset", "confirm": "reset", "slices": [slice]});
    apply(&world, &reset(&streaming)).await.unwrap();
    assert!(world.store.json("LLM_ROUTER_CONFIG")["llm"]["models"].get("a").is_some());
    let change = apply(&world, &reset(&openrouter("b"))).await.unwrap();
    assert_eq!(change.removed, ["llm/a"]);
    assert!(world.store.json("LLM_ROUTER_CONFIG")["llm"]["models"].get("a").is_none());
    assert!(!world.store.json("STREAMING_TTS_UPSTREAM").is_null());
}

#[tokio::test]
async fn a_change_made_in_between_is_kept() {
    let world = world(Policy::default());
    apply(&world, &json!({"slices": [openrouter("a")]})).await.unwrap();
    let mut theirs = world.store.json("LLM_ROUTER_CONFIG");
    theirs["llm"]["models"]["theirs"] = theirs["llm"]["models"]["a"].clone();
    *world.store.intruder.lock().unwrap() = Some(("LLM_ROUTER_CONFIG", theirs.to_string()));
    apply(&world, &json!({"slices": [openrouter("mine")]})).await.unwrap();
    let tree = world.store.json("LLM_ROUTER_CONFIG");
    let models: Vec<_> = tree["llm"]["models"].as_object().unwrap().keys().collect();
    assert_eq!(models, ["a", "theirs", "mine"]);
}

#[tokio::test]
async fn of_two_writers_with_the_same_version_one_is_told_of_the_other() {
    let world = world(Policy::default());
    let actor = actor();
    let document = |model: &str| json!({"slices": [openrouter(model)]}).to_string();
    let (first, second) = (document("a"), document("b"));
    let (first, second) = futures::join!(
        world.admin.apply_router(&actor, first.as_bytes(), Some(0)),
        world.admin.apply_router(&actor, second.as_bytes(), Some(0))
    );
    let refused = match (first, second) {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused.code, Code::Conflict);
    assert_eq!(world.store.writes(), 1);
    // Without a version both are kept.
    let (first, second) = (document("c"), document("d"));
    let (first, second) = futures::join!(
        world.admin.apply_router(&actor, first.as_bytes(), None),
        world.admin.apply_router(&actor, second.as_bytes(), None)
    );
    assert!(first.is_ok() && second.is_ok());
    let tree = world.store.json("LLM_ROUTER_CONFIG");
    assert!(tree["llm"]["models"].get("c").is_some() && tree["llm"]["models"].get("d").is_some());
}

#[tokio::test]
async fn a_kept_key_stays_sealed_and_a_renamed_one_is_sealed_anew() {
    let world = world(Policy::default());
    apply(&world, &json!({"slices": [openrouter("m")]})).await.unwrap();
    let token = |index: usize| {
        let tree = world.store.json("LLM_ROUTER_CONFIG");
        tree["llm"]["models"]["m"]["upstreams"][0]["keys"][index]["ciphertext"].as_str().unwrap().to_owned()
    };
    let before = token(0);
    let slice = |keys: Value| json!({"slices": [{"kind": "llm-model", "modelName": "m", "upstreams": [{"baseURL": "https://x.io", "keys": keys}]}]});
    let keys = json!([{"id": "openrouter-prod-1", "keepKeyId": "openrouter-prod-1"},
                      {"id": "new", "keepKeyId": "openrouter-prod-1"}]);
    apply(&world, &slice(keys)).await.unwrap();
    assert_eq!(token(0), before);
    assert_eq!(world.vault.open(&token(1), "m", "new").unwrap().plaintext.expose(), KEY);
    let writes = world.store.writes();
    let error = apply(&world, &slice(json!([{"id": "x", "keepKeyId": "nobody"}]))).await.unwrap_err();
    assert_eq!(paths(&error), ["slices.0.upstreams.0.keys.0.keepKeyId"]);
    assert_eq!(world.store.writes(), writes);
}

#[tokio::test]
async fn an_alias_must_lead_somewhere() {
    let mut world = world(Policy::default());
    let document = json!({"slices": [openrouter("m")], "defaults": {"chatModel": "sandbox", "ttsModel": "m"}});
    let error = apply(&world, &document).await.unwrap_err();
    assert_eq!(paths(&error), ["defaults.chatModel", "defaults.ttsModel"]);
    assert_eq!(world.store.writes(), 0);
    world.admin.policy.sandbox = true;
    let document =
        json!({"slices": [openrouter("m")], "defaults": {"chatModel": "sandbox", "ttsModel": "sandbox-voice"}});
    apply(&world, &document).await.unwrap();
    let change = apply(&world, &json!({"slices": [openrouter("n")], "defaults": {"chatModel": "n"}})).await.unwrap();
    assert_eq!(change.invalidated_keys, ["LLM_ROUTER_CONFIG", "DEFAULT_CHAT_MODEL"]);
    assert_eq!(world.store.json("DEFAULT_CHAT_MODEL"), "n");
    assert_eq!(world.store.writes(), 2, "all entries of a change are one write");
}

#[tokio::test]
async fn an_unreadable_tree_is_not_merged_into_but_may_be_reset() {
    let world = world(Policy::default());
    world.store.put("LLM_ROUTER_CONFIG", &json!({"llm": 5}));
    let error = apply(&world, &json!({"slices": [openrouter("m")]})).await.unwrap_err();
    assert_eq!(error.code, Code::ConfigInvalid);
    assert!(error.message.contains("reset"), "{}", error.message);
    assert_eq!(world.store.writes(), 1);
    apply(&world, &json!({"mode": "reset", "confirm": "reset", "slices": [openrouter("m")]})).await.unwrap();
}

#[tokio::test]
async fn a_dry_run_shows_and_writes_nothing() {
    let world = world(Policy::default());
    let change = apply(&world, &json!({"dryRun": true, "slices": [openrouter("m")]})).await.unwrap();
    assert!(change.invalidated_keys.is_empty());
    assert!(change.preview.contains_key("LLM_ROUTER_CONFIG"));
    assert_eq!((world.store.writes(), world.seen.outcomes()), (0, vec![("dry_run", 200)]));
}

#[tokio::test]
async fn what_cannot_be_audited_is_not_done() {
    let world = world(Policy::default());
    world.seen.is_down.store(true, Ordering::Relaxed);
    let error = apply(&world, &json!({"slices": [openrouter("m")]})).await.unwrap_err();
    assert_eq!(error.code, Code::ServiceUnavailable);
    assert_eq!(world.store.writes(), 0);
}

#[tokio::test]
async fn a_key_is_seen_nowhere() {
    let world = world(Policy::default());
    let change = apply(&world, &json!({"slices": [openrouter("m")]})).await.unwrap();
    let view = world.admin.show_router(&actor()).await.unwrap();
    let (rows, facts) = (world.seen.rows.lock().unwrap(), world.seen.facts.lock().unwrap());
    let told = format!("{change:?} {view:?} {rows:?} {facts:?} {:?}", world.store.entries.lock().unwrap());
    assert!(!told.contains(KEY));
    drop((rows, facts));
    assert_eq!(world.seen.outcomes(), [("begun", 0), ("applied", 200), ("read", 200)]);
}

#[tokio::test]
async fn a_socket_address_chooses_the_streaming_form_of_a_speech_provider() {
    let world = world(Policy::default());
    let slice =
        json!({"kind": "volcengine", "modelName": "v", "appid": "a", "baseURL": "wss://x.io/s", "plaintextKey": KEY});
    apply(&world, &json!({"slices": [slice]})).await.unwrap();
    let tree = world.store.json("LLM_ROUTER_CONFIG");
    assert_eq!(tree["tts"]["models"]["v"]["upstreams"][0]["baseURL"], "wss://x.io/s");
}
