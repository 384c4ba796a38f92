//! The operator's doors: every row of the fixture, over doubles that remember.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use airi_server::core::App;
use airi_server::core::admin::{Admin, Policy, Trail};
use airi_server::core::ledger::Ledger;
use airi_server::core::model::accounts::{Account, Email};
use airi_server::core::model::admin::AddressPolicy;
use airi_server::core::model::audit::AuditRow;
use airi_server::core::model::config::{ConfigEntry, ConfigWrite, WriteOutcome};
use airi_server::core::model::ids::UserId;
use airi_server::core::model::ledger::{Balance, Credit, CreditOutcome, Entry, Standing};
use airi_server::http::routes;
use airi_server::ports::mocks::{
    MockAccountRepo, MockAuditLog, MockBalanceCache, MockConfigStore, MockLedgerRepo, MockVault,
};
use chrono::DateTime;
use poem::EndpointExt;
use poem::test::TestClient;
use serde_json::{Value, json};

use crate::world::{ADMIN, Client, USER, World};

#[derive(Clone, Default)]
struct Seen {
    rows: Arc<Mutex<Vec<AuditRow>>>,
    credits: Arc<Mutex<Vec<Credit>>>,
    written: Arc<Mutex<Vec<ConfigWrite>>>,
}

fn client(seen: &Seen) -> Client {
    let world = World::default();
    let (settings, leaving) = (world.settings.clone(), world.leaving.clone());
    let base = world.app();
    let admin = Arc::new(admin(&base, seen));
    let app = Arc::new(App {
        config: base.config.clone(),
        accounts: base.accounts.clone(),
        sign_in: base.sign_in.clone(),
        social: base.social.clone(),
        deletion: base.deletion.clone(),
        outbox: None,
        ledger: base.ledger.clone(),
        limits: base.limits.clone(),
        completions: base.completions.clone(),
        speech: base.speech.clone(),
        characters: base.characters.clone(),
        providers: base.providers.clone(),
        billing: base.billing.clone(),
        chats: base.chats.clone(),
        admin,
        health: base.health.clone(),
        oidc: base.oidc.clone(),
        journal: base.journal.clone(),
        ids: base.ids.clone(),
        clock: base.clock.clone(),
    });
    TestClient::new(routes(app, &settings, leaving).boxed())
}

fn admin(base: &App, seen: &Seen) -> Admin {
    let mut log = MockAuditLog::new();
    let rows = seen.rows.clone();
    log.expect_record().returning(move |row| {
        rows.lock().unwrap().push(row.clone());
        Ok(())
    });
    let mut vault = MockVault::new();
    vault.expect_seal().returning(|plaintext, _, _| Ok("c".repeat(43 + (plaintext.expose().len() * 4).div_ceil(3))));
    let mut cache = MockBalanceCache::new();
    cache.expect_offer().returning(|_, _| Ok(()));
    let ledger = Ledger {
        repo: Arc::new(books(seen)),
        cache: Arc::new(cache),
        config: base.config.clone(),
        ids: base.ids.clone(),
        journal: base.journal.clone(),
    };
    Admin {
        store: Arc::new(store(seen)),
        vault: Arc::new(vault),
        accounts: Arc::new(people()),
        ledger: Arc::new(ledger),
        trail: Trail {
            log: Arc::new(log),
            journal: base.journal.clone(),
            clock: base.clock.clone(),
            ids: base.ids.clone(),
        },
        policy: Policy { addresses: AddressPolicy { allow_insecure: true }, sandbox: false },
    }
}

fn store(seen: &Seen) -> MockConfigStore {
    let (version, written, find) = (Arc::new(AtomicI64::new(0)), seen.written.clone(), seen.written.clone());
    let mut store = MockConfigStore::new();
    let current = version.clone();
    store.expect_version().returning(move || Ok(current.load(Ordering::Relaxed)));
    store.expect_find_fresh().returning(move |wanted| {
        let written = find.lock().unwrap();
        let entries = written.iter().rev().flat_map(|write| &write.entries);
        let mut found = entries.filter(|(name, _)| *name == wanted).map(|(_, json)| json.clone().unwrap());
        Ok(found.next().map(|json| Arc::new(ConfigEntry::new(json))))
    });
    store.expect_write().returning(move |write| {
        written.lock().unwrap().push(write.clone());
        Ok(WriteOutcome::Written(version.fetch_add(1, Ordering::Relaxed) + 1))
    });
    store
}

fn people() -> MockAccountRepo {
    let mut accounts = MockAccountRepo::new();
    accounts.expect_find_by_email().returning(|email| {
        Ok((!email.as_str().starts_with("ghost")).then(|| Account {
            id: UserId::new("u1"),
            name: String::new(),
            email: Email::stored(email.as_str()),
            email_verified: true,
            image: None,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        }))
    });
    accounts
}

fn books(seen: &Seen) -> MockLedgerRepo {
    let mut repo = MockLedgerRepo::new();
    repo.expect_find().returning(|_| Ok(Standing::Absent));
    let entry_of = |credit: &Credit| Entry {
        id: credit.entry.clone(),
        kind: credit.kind,
        amount: credit.amount,
        before: credit.opening.grant,
        after: credit.amount,
        request: credit.request.clone(),
        description: credit.description.clone(),
        metadata: None,
        at: DateTime::UNIX_EPOCH,
    };
    let credits = seen.credits.clone();
    repo.expect_find_entry().returning(move |_, request| {
        let credits = credits.lock().unwrap();
        Ok(credits.iter().find(|credit| credit.request.as_ref() == Some(request)).map(entry_of))
    });
    let credits = seen.credits.clone();
    repo.expect_credit().returning(move |credit| {
        let mut credits = credits.lock().unwrap();
        if let Some(earlier) = credits.iter().find(|c| c.request.is_some() && c.request == credit.request) {
            return Ok(CreditOutcome::Replayed { entry: Box::new(entry_of(earlier)) });
        }
        credits.push(credit.clone());
        let balance = Balance { flux: credit.amount, version: 1 };
        Ok(CreditOutcome::Credited { entry: credit.entry.clone(), balance })
    });
    repo
}

async fn post(client: &Client, path: &str, body: String) -> (u16, Value) {
    let answer = client.post(path).header("authorization", ADMIN).body(body).send().await.0;
    let status = answer.status().as_u16();
    (status, answer.into_body().into_json().await.unwrap())
}

fn fixture(part: &str) -> Vec<Value> {
    let fixture: Value = serde_json::from_str(include_str!("../fixtures/admin-cases.json")).unwrap();
    fixture[part].as_array().unwrap().clone()
}

fn text(body: &Value) -> String {
    body.as_str().map_or_else(|| body.to_string(), str::to_owned)
}

/// The members of `wanted` are in `found`; `<text>` stands for any text.
fn contains(found: &Value, wanted: &Value, name: &str) {
    match wanted {
        Value::Object(members) => members.iter().for_each(|(member, wanted)| contains(&found[member], wanted, name)),
        Value::Array(items) => {
            assert_eq!(found.as_array().map(Vec::len), Some(items.len()), "{name}: {found}");
            items.iter().enumerate().for_each(|(index, wanted)| contains(&found[index], wanted, name));
        }
        Value::Null => {}
        Value::String(text) if text == "<text>" => assert!(found.is_string(), "{name}: {found}"),
        other => assert_eq!(found, other, "{name}"),
    }
}

#[tokio::test]
async fn every_router_row_of_the_fixture() {
    let mut rows = 0;
    for case in fixture("routerConfig") {
        let seen = Seen::default();
        let wanted = if case["target"].is_object() { &case["target"] } else { &case };
        let name = text(&case["body"]);
        let (status, body) = post(&client(&seen), "/api/admin/config/router", name.clone()).await;
        assert_eq!(u64::from(status), wanted["status"].as_u64().unwrap(), "{name}: {body}");
        contains(&body, &wanted["response"], &name);
        if wanted["details"].is_array() {
            contains(&body, &json!({"error": "INVALID_BODY", "message": "Invalid request body"}), &name);
            contains(&body["details"], &wanted["details"], &name);
        }
        assert_eq!(seen.written.lock().unwrap().len(), usize::from(status == 200), "{name}");
        rows += 1;
    }
    assert_eq!(rows, 8);
}

#[tokio::test]
async fn every_grant_row_of_the_fixture() {
    for case in fixture("fluxGrants").iter().filter(|case| !case["body"].is_null()) {
        let seen = Seen::default();
        let name = text(&case["body"]);
        let path = format!("/api/admin/flux-grants?{}", case["query"].as_str().unwrap_or_default());
        let (status, body) = post(&client(&seen), &path, name.clone()).await;
        assert_eq!(u64::from(status), case["status"].as_u64().unwrap(), "{name}: {body}");
        contains(&body, &case["response"], &name);
        contains(&body["details"], &case["details"], &name);
        assert!(seen.credits.lock().unwrap().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_repeated_grant_is_marked_and_other_terms_are_a_conflict() {
    let seen = Seen::default();
    let client = client(&seen);
    let grant = |amount: i64| {
        json!({"description": "d", "amount": amount, "emails": ["a@b.co"], "idempotencyKey": "k1"}).to_string()
    };
    let (_, first) = post(&client, "/api/admin/flux-grants", grant(10)).await;
    assert!(first["result"]["granted"][0].get("replayed").is_none(), "{first}");
    let (_, second) = post(&client, "/api/admin/flux-grants?dryRun=false", grant(10)).await;
    assert_eq!(second["result"]["granted"][0]["replayed"], true);
    assert_eq!(second["result"]["granted"][0]["fluxTransactionId"], first["result"]["granted"][0]["fluxTransactionId"]);
    let (status, third) = post(&client, "/api/admin/flux-grants", grant(99)).await;
    assert_eq!((status, &third["error"]), (409, &json!("CONFLICT")));
    assert_eq!(seen.credits.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_word_that_is_neither_true_nor_false_gives_nothing() {
    let seen = Seen::default();
    let body = json!({"description": "d", "amount": 1, "emails": ["a@b.co"]}).to_string();
    for word in ["1", "TRUE", "", "yes"] {
        let (status, _) = post(&client(&seen), &format!("/api/admin/flux-grants?dryRun={word}"), body.clone()).await;
        assert_eq!(status, 400, "{word}");
    }
    assert!(seen.credits.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_change_over_an_old_version_is_a_conflict_and_the_tag_leads_out_of_it() {
    let seen = Seen::default();
    let client = client(&seen);
    let slice = json!({"kind": "openrouter", "modelName": "m", "overrideModel": "o", "plaintextKey": "sk-hidden"});
    let body = json!({"slices": [slice]}).to_string();
    let send = |tag: String| {
        let request = client.post("/api/admin/config/router").header("authorization", ADMIN).header("if-match", tag);
        request.body(body.clone()).send()
    };
    assert_eq!(send("\"4\"".to_owned()).await.0.status().as_u16(), 409);
    assert_eq!(send("soon".to_owned()).await.0.status().as_u16(), 400);
    let mut applied = send("\"0\"".to_owned()).await.0;
    assert_eq!(applied.status().as_u16(), 200);
    let applied = applied.take_body().into_string().await.unwrap();
    assert!(!applied.contains("sk-hidden") && applied.contains("<ciphertext: "), "{applied}");
}

#[tokio::test]
async fn actions_and_refusals_are_audited_with_their_origin() {
    let seen = Seen::default();
    let client = client(&seen);
    for _ in 0..3 {
        let answer = client.get("/api/admin/config/router").header("authorization", USER).send().await.0;
        assert_eq!(answer.status().as_u16(), 403);
    }
    let answer = client.post("/api/admin/flux-grants").header("authorization", ADMIN).header("user-agent", "curl/8");
    let answer = answer.body("not json").send().await.0;
    assert_eq!(answer.status().as_u16(), 400);
    assert_eq!(answer.headers()["ratelimit-limit"], "60");
    let rows = seen.rows.lock().unwrap();
    let told: Vec<_> = rows.iter().map(|row| (row.action, row.outcome.as_str(), row.status)).collect();
    assert_eq!(told, [("access", "forbidden", 403), ("flux_grants", "rejected", 400)]);
    let ids: HashSet<_> = rows.iter().map(|row| row.actor.request.clone().unwrap()).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(rows[1].actor.user_agent.as_deref(), Some("curl/8"));
}
