//! Copies of balances within one process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::ops::compute::Op;
use moka::sync::Cache;

use crate::core::model::ids::UserId;
use crate::core::model::ledger::{Balance, Flux};
use crate::ports::Fault;
use crate::ports::ledger::BalanceCache;
use crate::ports::runtime::Clock;

/// Keeps each copy for a while and the newest version seen for a day, so that a reader or writer that comes late cannot
/// put back an older balance (contract `ledger.md` §2).
pub struct MemoryBalances {
    held: Cache<UserId, Held>,
    clock: Arc<dyn Clock>,
    copy: Duration,
}

#[derive(Clone, Copy)]
struct Held {
    version: i64,
    /// The copy and when it ends; absent once forgotten.
    copy: Option<(Flux, Duration)>,
}

const COPY: Duration = Duration::from_secs(60);
const VERSION: Duration = Duration::from_hours(24);
/// Users remembered; about 100 bytes each.
const USERS: u64 = 100_000;

impl MemoryBalances {
    /// An empty cache; `clock` ends the copies after 60 s.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::lasting(clock, COPY)
    }

    /// An empty cache whose copies end after `copy`. Short where another process may write to the same database and
    /// cannot tell this one.
    pub fn lasting(clock: Arc<dyn Clock>, copy: Duration) -> Self {
        Self { held: Cache::builder().max_capacity(USERS).time_to_live(VERSION).build(), clock, copy }
    }

    fn store(&self, user: &UserId, balance: Balance, may_replace: impl FnOnce(Held, bool) -> bool) {
        let now = self.clock.elapsed();
        self.held.entry_by_ref(user).and_compute_with(|held| {
            if let Some(held) = held.map(moka::Entry::into_value) {
                let readable = held.copy.is_some_and(|(_, end)| now < end);
                if !may_replace(held, readable) {
                    return Op::Nop;
                }
            }
            Op::Put(Held { version: balance.version, copy: Some((balance.flux, now + self.copy)) })
        });
    }
}

#[async_trait]
impl BalanceCache for MemoryBalances {
    async fn find(&self, user: &UserId) -> Result<Option<Flux>, Fault> {
        let copy = self.held.get(user).and_then(|held| held.copy);
        Ok(copy.filter(|(_, end)| self.clock.elapsed() < *end).map(|(flux, _)| flux))
    }

    async fn fill(&self, user: &UserId, balance: Balance) -> Result<(), Fault> {
        self.store(user, balance, |held, readable| !readable && held.version <= balance.version);
        Ok(())
    }

    async fn offer(&self, user: &UserId, balance: Balance) -> Result<(), Fault> {
        self.store(user, balance, |held, readable| {
            held.version < balance.version || (held.version == balance.version && !readable)
        });
        Ok(())
    }

    async fn forget(&self, user: &UserId) -> Result<(), Fault> {
        self.held.entry_by_ref(user).and_compute_with(|held| match held {
            // The version stays: it keeps readers that loaded earlier from filling in what was forgotten.
            Some(held) => Op::Put(Held { copy: None, ..held.into_value() }),
            None => Op::Nop,
        });
        Ok(())
    }
}
