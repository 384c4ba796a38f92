//! A world for the operator's use-cases that remembers everything it was told.

mod grants;
mod keys;
mod router;

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use futures::stream::BoxStream;
use serde_json::Value;

use super::*;
use crate::core::config::Config;
use crate::core::model::audit::{Actor, AuditRow};
use crate::core::model::config::{ConfigChange, ConfigEntry, ConfigWrite, WriteOutcome};
use crate::core::model::fact::Fact;
use crate::core::model::hold::{Hold, HoldOutcome};
use crate::core::model::ids::{EntryId, RequestId, UserId};
use crate::core::model::ledger::{
    Balance, Credit, CreditOutcome, Debit, DebitOutcome, Entry, Flux, OpenOutcome, Opening, Standing,
};
use crate::core::model::page::{Page, Window};
use crate::core::model::secret::Secret;
use crate::core::model::verify::Verified;
use crate::ports::audit::AuditLog;
use crate::ports::journal::Journal;
use crate::ports::ledger::LedgerRepo;
use crate::ports::mocks::{MockAccountRepo, MockBalanceCache, MockClock, MockIdSource};
use crate::ports::vault::{MasterKey, Opened, Unreadable};
use crate::ports::{Fault, FaultKind};

/// A key that must never be seen anywhere.
pub(super) const KEY: &str = "sk-Plain-Text-Key";

pub(super) struct World {
    pub(super) admin: Admin,
    pub(super) store: Arc<Store>,
    pub(super) vault: Arc<CountingVault>,
    pub(super) ledger: Arc<Books>,
    pub(super) seen: Arc<Seen>,
    /// What the clock says; each look moves it by `pace`.
    pub(super) pace_ms: Arc<AtomicI64>,
}

pub(super) fn actor() -> Actor {
    Actor {
        user: UserId::new("admin-1"),
        email: "root@example.test".to_owned(),
        request: Some(RequestId::new("req-1")),
        ip: None,
        user_agent: None,
    }
}

/// People `u1`, `u2`, …: everybody whose address is `<id>@example.test`, except `ghost`.
pub(super) fn world(policy: Policy) -> World {
    let (store, vault) = (Arc::new(Store::default()), Arc::new(CountingVault::default()));
    let (ledger, seen) = (Arc::new(Books::default()), Arc::new(Seen::default()));
    let mut accounts = MockAccountRepo::new();
    accounts.expect_find_by_email().returning(|email| {
        let id = email.as_str().trim_end_matches("@example.test");
        Ok((!id.starts_with("ghost")).then(|| account(id)))
    });
    let mut cache = MockBalanceCache::new();
    cache.expect_offer().returning(|_, _| Ok(()));
    let ids = || {
        let (mut ids, next) = (MockIdSource::new(), AtomicI64::new(0));
        ids.expect_id().returning(move || format!("id{}", next.fetch_add(1, Ordering::Relaxed)));
        Arc::new(ids)
    };
    let pace_ms = Arc::new(AtomicI64::new(0));
    let (mut clock, pace, past) = (MockClock::new(), pace_ms.clone(), AtomicI64::new(0));
    clock.expect_now().return_const(DateTime::UNIX_EPOCH);
    clock.expect_elapsed().returning(move || {
        let step = pace.load(Ordering::Relaxed);
        Duration::from_millis(u64::try_from(past.fetch_add(step, Ordering::Relaxed)).unwrap())
    });
    let config = Arc::new(Config { store: store.clone(), journal: seen.clone() });
    let admin = Admin {
        store: store.clone(),
        vault: vault.clone(),
        accounts: Arc::new(accounts),
        ledger: Arc::new(Ledger {
            repo: ledger.clone(),
            cache: Arc::new(cache),
            config,
            ids: ids(),
            journal: seen.clone(),
        }),
        trail: Trail { log: seen.clone(), journal: seen.clone(), clock: Arc::new(clock), ids: ids() },
        policy,
    };
    World { admin, store, vault, ledger, seen, pace_ms }
}

fn account(id: &str) -> crate::core::model::accounts::Account {
    crate::core::model::accounts::Account {
        id: UserId::new(id),
        name: String::new(),
        email: crate::core::model::accounts::Email::stored(format!("{id}@example.test")),
        email_verified: true,
        image: None,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

pub(super) fn broken(operation: &'static str) -> Fault {
    Fault::new(FaultKind::Unavailable, operation, "host db.internal")
}

/// A configuration store.
#[derive(Default)]
pub(super) struct Store {
    pub(super) entries: Mutex<HashMap<&'static str, String>>,
    pub(super) version: AtomicI64,
    /// Written by somebody else right before the next write arrives.
    pub(super) intruder: Mutex<Option<(&'static str, String)>>,
}

impl Store {
    pub(super) fn put(&self, name: &'static str, value: &Value) {
        self.entries.lock().unwrap().insert(name, value.to_string());
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn json(&self, name: &str) -> Value {
        self.entries.lock().unwrap().get(name).map_or(Value::Null, |json| serde_json::from_str(json).unwrap())
    }

    pub(super) fn writes(&self) -> i64 {
        self.version.load(Ordering::Relaxed)
    }
}

/// Pending once.
async fn give_way() {
    let mut given = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[async_trait]
impl ConfigStore for Store {
    async fn find(&self, name: &'static str) -> Result<Option<Arc<ConfigEntry>>, Fault> {
        // Two writers in one test take turns here.
        give_way().await;
        Ok(self.entries.lock().unwrap().get(name).map(|json| Arc::new(ConfigEntry::new(json.clone()))))
    }

    async fn version(&self) -> Result<i64, Fault> {
        Ok(self.version.load(Ordering::Relaxed))
    }

    async fn write(&self, write: &ConfigWrite) -> Result<WriteOutcome, Fault> {
        if let Some((name, json)) = self.intruder.lock().unwrap().take() {
            self.put(name, &serde_json::from_str(&json).unwrap());
        }
        let found = self.version.load(Ordering::Relaxed);
        if write.expected_version.is_some_and(|expected| expected != found) {
            return Ok(WriteOutcome::Stale(found));
        }
        for (name, json) in &write.entries {
            self.entries.lock().unwrap().insert(name, json.clone().unwrap());
        }
        Ok(WriteOutcome::Written(self.version.fetch_add(1, Ordering::Relaxed) + 1))
    }

    fn changes(&self) -> BoxStream<'static, ConfigChange> {
        Box::pin(futures::stream::pending())
    }
}

/// Seals by keeping the plaintext in a table; tokens have the length of real ones.
#[derive(Default)]
pub(super) struct CountingVault(Mutex<Vec<(String, String, String, MasterKey)>>);

impl CountingVault {
    pub(super) fn seal_with(&self, plaintext: &str, model: &str, key_id: &str, with: MasterKey) -> String {
        let mut table = self.0.lock().unwrap();
        let body = "c".repeat((plaintext.len() * 4).div_ceil(3));
        let token = format!("v1.{:016}.{body}.{}", table.len(), "t".repeat(22));
        table.push((token.clone(), format!("{model}|{key_id}"), plaintext.to_owned(), with));
        token
    }
}

impl Vault for CountingVault {
    fn seal(&self, plaintext: &Secret, model: &str, key_id: &str) -> Result<String, Unreadable> {
        Ok(self.seal_with(plaintext.expose(), model, key_id, MasterKey::Current))
    }

    fn open(&self, token: &str, model: &str, key_id: &str) -> Result<Opened, Unreadable> {
        let slot = format!("{model}|{key_id}");
        let table = self.0.lock().unwrap();
        let found = table.iter().find(|row| row.0 == token && row.1 == slot).ok_or(Unreadable::Refused)?;
        Ok(Opened { plaintext: Secret::new(found.2.clone()), with: found.3 })
    }

    fn fingerprint(&self, text: &str) -> String {
        format!("{:08x}", text.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())))
    }
}

/// Facts and audit rows.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) facts: Mutex<Vec<Fact>>,
    pub(super) rows: Mutex<Vec<AuditRow>>,
    pub(super) is_down: AtomicBool,
}

impl Seen {
    pub(super) fn outcomes(&self) -> Vec<(&'static str, u16)> {
        self.rows.lock().unwrap().iter().map(|row| (row.outcome.as_str(), row.status)).collect()
    }
}

impl Journal for Seen {
    fn record(&self, fact: Fact) {
        self.facts.lock().unwrap().push(fact);
    }
}

#[async_trait]
impl AuditLog for Seen {
    async fn record(&self, row: &AuditRow) -> Result<(), Fault> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(broken("audit.record"));
        }
        self.rows.lock().unwrap().push(row.clone());
        Ok(())
    }
}

/// A ledger: `closed…` people are closed, `broken…` people cannot be credited.
#[derive(Default)]
pub(super) struct Books(pub(super) Mutex<Vec<(UserId, Entry)>>);

#[async_trait]
impl LedgerRepo for Books {
    async fn find(&self, user: &UserId) -> Result<Standing, Fault> {
        Ok(if user.as_str().starts_with("closed") { Standing::Closed } else { Standing::Absent })
    }

    async fn open(&self, _: &UserId, _: &Opening) -> Result<OpenOutcome, Fault> {
        Err(broken("not asked for"))
    }

    async fn debit(&self, _: &Debit) -> Result<DebitOutcome, Fault> {
        Err(broken("not asked for"))
    }

    async fn hold(&self, _: &Hold) -> Result<HoldOutcome, Fault> {
        Err(broken("not asked for"))
    }

    async fn extend(&self, _: &Hold) -> Result<HoldOutcome, Fault> {
        Err(broken("not asked for"))
    }

    async fn capture(&self, _: &Debit) -> Result<DebitOutcome, Fault> {
        Err(broken("not asked for"))
    }

    async fn release(&self, _: &UserId, _: &RequestId) -> Result<Flux, Fault> {
        Err(broken("not asked for"))
    }

    async fn expire(&self, _: u32) -> Result<u64, Fault> {
        Err(broken("not asked for"))
    }

    async fn verify(&self) -> Result<Verified, Fault> {
        Err(broken("not asked for"))
    }

    async fn credit(&self, credit: &Credit) -> Result<CreditOutcome, Fault> {
        if credit.user.as_str().starts_with("broken") {
            return Err(broken("postgres.ledger.credit"));
        }
        if let Some(request) = &credit.request
            && let Some(entry) = self.find_entry(&credit.user, request).await?
        {
            return Ok(CreditOutcome::Replayed { entry: Box::new(entry) });
        }
        let mut entries = self.0.lock().unwrap();
        let before =
            entries.iter().filter(|(user, _)| *user == credit.user).fold(0, |sum, (_, e)| sum + e.amount.get());
        let after = Flux::saturating(before + credit.amount.get());
        let entry = Entry {
            id: credit.entry.clone(),
            kind: credit.kind,
            amount: credit.amount,
            before: Flux::saturating(before),
            after,
            request: credit.request.clone(),
            description: credit.description.clone(),
            metadata: credit.metadata.clone(),
            at: DateTime::UNIX_EPOCH,
        };
        entries.push((credit.user.clone(), entry));
        Ok(CreditOutcome::Credited { entry: credit.entry.clone(), balance: Balance { flux: after, version: 1 } })
    }

    async fn find_entry(&self, user: &UserId, request: &RequestId) -> Result<Option<Entry>, Fault> {
        let entries = self.0.lock().unwrap();
        let found = entries.iter().find(|(owner, entry)| owner == user && entry.request.as_ref() == Some(request));
        Ok(found.map(|(_, entry)| entry.clone()))
    }

    async fn list<'a>(&self, _: &UserId, _: Window, _: Option<&'a EntryId>) -> Result<Page<Entry>, Fault> {
        Err(broken("not asked for"))
    }

    async fn capacity(&self, _: &UserId) -> Result<Flux, Fault> {
        Err(broken("not asked for"))
    }
}
