//! The ports of the scripted world.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};

use super::doubles::{Step, World, give_way};
use crate::core::model::config::{ConfigChange, ConfigEntry, ConfigWrite, WriteOutcome};
use crate::core::model::fact::Fact;
use crate::core::model::hold::{Hold, HoldOutcome};
use crate::core::model::ids::{EntryId, RequestId, UserId};
use crate::core::model::ledger::{
    Balance, Credit, CreditOutcome, Debit, DebitOutcome, Entry, Flux, OpenOutcome, Opening, Standing,
};
use crate::core::model::page::{Page, Window};
use crate::core::model::posting::LockedBalance;
use crate::core::model::secret::Secret;
use crate::core::model::verify::Verified;
use crate::ports::config::ConfigStore;
use crate::ports::journal::Journal;
use crate::ports::ledger::{BalanceCache, LedgerRepo};
use crate::ports::llm::{LlmUpstream, TokenCounter, UpstreamAnswer, UpstreamCall};
use crate::ports::probe::Probe;
use crate::ports::runtime::{Clock, IdSource, Tasks};
use crate::ports::upstream::UpstreamError;
use crate::ports::vault::{MasterKey, Opened, Unreadable, Vault};
use crate::ports::{Fault, FaultKind};

#[async_trait]
impl LlmUpstream for World {
    async fn send(&self, call: &UpstreamCall) -> Result<UpstreamAnswer, UpstreamError> {
        self.calls.lock().unwrap().push(call.clone());
        give_way().await;
        let step = self.script.lock().unwrap().pop_front().expect("the script has no more answers");
        match step {
            Step::Fail(error) => Err(error),
            Step::Hang => {
                let waited = call.patience.head.min(call.patience.first_byte);
                self.now_ms.fetch_add(waited.as_millis() as u64, Ordering::SeqCst);
                Err(UpstreamError::Timeout)
            }
            Step::Silent => std::future::pending().await,
            Step::Answer { status, content_type, chunks, then_hangs } => {
                self.open_bodies.fetch_add(1, Ordering::SeqCst);
                let guard = OpenBody(self.open_bodies.clone());
                let chunks = stream::iter(chunks).then(move |chunk| {
                    let _open = &guard;
                    async move {
                        give_way().await;
                        chunk
                    }
                });
                let body = if then_hangs { chunks.chain(stream::pending()).boxed() } else { chunks.boxed() };
                Ok(UpstreamAnswer { status, content_type: Some(content_type.to_owned()), body })
            }
        }
    }
}

/// A token for every four bytes.
#[async_trait]
impl TokenCounter for World {
    async fn ready(&self) {
        give_way().await;
    }

    fn count(&self, text: &str) -> u64 {
        (text.len() as u64).div_ceil(4)
    }
}

struct OpenBody(Arc<AtomicUsize>);

impl Drop for OpenBody {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Vault for World {
    fn seal(&self, _: &Secret, _: &str, _: &str) -> Result<String, Unreadable> {
        Err(Unreadable::Refused)
    }
    fn open(&self, token: &str, model: &str, _: &str) -> Result<Opened, Unreadable> {
        assert_eq!(model, "m", "keys are bound to the logical model");
        let plaintext = token.strip_prefix("literal:").unwrap_or(token);
        if token == "tampered" {
            return Err(Unreadable::Refused);
        }
        Ok(Opened { plaintext: Secret::new(plaintext), with: MasterKey::Current })
    }
    fn fingerprint(&self, _: &str) -> String {
        "00000000".to_owned()
    }
}

#[async_trait]
impl Probe for World {
    async fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
}

impl Journal for World {
    fn record(&self, fact: Fact) {
        self.facts.lock().unwrap().push(fact);
    }
}

impl Tasks for World {
    fn spawn(&self, _: &'static str, job: BoxFuture<'static, ()>) {
        self.jobs.lock().unwrap().push(job);
    }
}

impl Clock for World {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::SeqCst))
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        give_way().boxed()
    }
}

impl IdSource for World {
    fn id(&self) -> String {
        format!("id{}", self.ids.fetch_add(1, Ordering::SeqCst))
    }
    fn token(&self) -> String {
        self.id()
    }
}

#[async_trait]
impl ConfigStore for World {
    async fn find(&self, name: &'static str) -> Result<Option<Arc<ConfigEntry>>, Fault> {
        give_way().await;
        Ok(self.config.lock().unwrap().get(name).map(|json| Arc::new(ConfigEntry::new(json.clone()))))
    }
    async fn version(&self) -> Result<i64, Fault> {
        Ok(0)
    }
    async fn write(&self, _: &ConfigWrite) -> Result<WriteOutcome, Fault> {
        Err(unused())
    }
    fn changes(&self) -> BoxStream<'static, ConfigChange> {
        stream::pending().boxed()
    }
}

fn unused() -> Fault {
    Fault::new(FaultKind::Corrupt, "double", "not part of this world")
}

impl World {
    fn row_now(&self) -> LockedBalance {
        let flux = Flux::saturating(self.balance.load(Ordering::SeqCst));
        let held = Flux::saturating(self.holds.lock().unwrap().values().map(|held| held.get()).sum());
        LockedBalance { flux, held, version: 1, touched: DateTime::UNIX_EPOCH, closed: false }
    }

    fn set_aside(&self, hold: &Hold, begins: bool) -> Result<HoldOutcome, Fault> {
        if self.hold_faults.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(Fault::new(FaultKind::Unavailable, "hold", "gone"));
        }
        let mut row = self.row_now();
        let before = self.holds.lock().unwrap().get(&hold.request).copied();
        if before.is_none() && !begins {
            return Ok(HoldOutcome::Lost);
        }
        let Some(amount) = row.set_aside(hold, before.unwrap_or(Flux::ZERO)) else {
            return Ok(HoldOutcome::Refused { available: row.available() });
        };
        self.holds.lock().unwrap().insert(hold.request.clone(), amount);
        self.held_ever.lock().unwrap().push(hold.clone());
        Ok(HoldOutcome::Held { amount, available: row.available() })
    }

    /// A debit, or a capture of what is held.
    async fn take(&self, debit: &Debit) -> Result<DebitOutcome, Fault> {
        give_way().await;
        let fails =
            self.debit_faults.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let commits = self.debit_commits_then_fails.load(Ordering::SeqCst);
        if fails && !commits {
            return Err(Fault::new(FaultKind::Unavailable, "debit", "gone"));
        }
        let mut debits = self.debits.lock().unwrap();
        if let Some((_, charged)) = debits.iter().find(|(done, _)| done.request == debit.request) {
            return Ok(DebitOutcome::Replayed { charged: *charged, after: Flux::ZERO });
        }
        let mut row = self.row_now();
        let held = self.holds.lock().unwrap().remove(&debit.request);
        let charged = row.capture(debit, held, DateTime::UNIX_EPOCH).map(|entry| entry.amount);
        let Some(charged) = charged else { return Ok(DebitOutcome::Refused) };
        self.balance.store(row.flux.get(), Ordering::SeqCst);
        debits.push((debit.clone(), charged));
        if fails {
            return Err(Fault::new(FaultKind::Unavailable, "debit", "the commit was not heard"));
        }
        Ok(DebitOutcome::Charged { charged, balance: Balance { flux: row.flux, version: 2 } })
    }
}

#[async_trait]
impl LedgerRepo for World {
    async fn find(&self, _: &UserId) -> Result<Standing, Fault> {
        give_way().await;
        let flux = Flux::saturating(self.balance.load(Ordering::SeqCst));
        Ok(Standing::Open(Balance { flux, version: 1 }))
    }
    async fn open(&self, _: &UserId, _: &Opening) -> Result<OpenOutcome, Fault> {
        Err(unused())
    }
    async fn debit(&self, debit: &Debit) -> Result<DebitOutcome, Fault> {
        self.take(debit).await
    }
    async fn hold(&self, hold: &Hold) -> Result<HoldOutcome, Fault> {
        give_way().await;
        self.set_aside(hold, true)
    }
    async fn extend(&self, hold: &Hold) -> Result<HoldOutcome, Fault> {
        give_way().await;
        self.set_aside(hold, false)
    }
    async fn capture(&self, debit: &Debit) -> Result<DebitOutcome, Fault> {
        self.take(debit).await
    }
    async fn release(&self, _: &UserId, request: &RequestId) -> Result<Flux, Fault> {
        give_way().await;
        Ok(self.holds.lock().unwrap().remove(request).unwrap_or(Flux::ZERO))
    }
    async fn expire(&self, _: u32) -> Result<u64, Fault> {
        Err(unused())
    }
    async fn verify(&self) -> Result<Verified, Fault> {
        Err(unused())
    }
    async fn credit(&self, _: &Credit) -> Result<CreditOutcome, Fault> {
        Err(unused())
    }
    async fn find_entry(&self, _: &UserId, _: &RequestId) -> Result<Option<Entry>, Fault> {
        Err(unused())
    }
    async fn list<'a>(&self, _: &UserId, _: Window, _: Option<&'a EntryId>) -> Result<Page<Entry>, Fault> {
        Err(unused())
    }
    async fn capacity(&self, _: &UserId) -> Result<Flux, Fault> {
        Err(unused())
    }
}

#[async_trait]
impl BalanceCache for World {
    async fn find(&self, _: &UserId) -> Result<Option<Flux>, Fault> {
        give_way().await;
        Ok(self.cached.lock().unwrap().map(Flux::saturating))
    }
    async fn fill(&self, _: &UserId, _: Balance) -> Result<(), Fault> {
        Ok(())
    }
    async fn offer(&self, _: &UserId, _: Balance) -> Result<(), Fault> {
        Ok(())
    }
    async fn forget(&self, _: &UserId) -> Result<(), Fault> {
        Ok(())
    }
}
