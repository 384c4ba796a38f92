//! Copies of accounts, so that a signed token does not cost a look-up of its person.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;

use crate::core::model::accounts::Account;
use crate::core::model::ids::UserId;
use crate::ports::Fault;
use crate::ports::accounts::AccountRepo;
use crate::ports::oidc::AccountSnapshots;
use crate::ports::runtime::Clock;

/// Keeps each account that was found for up to 60 s. A look-up that began before a change was heard of is not kept
/// beyond it.
pub struct MemorySnapshots {
    inner: Arc<dyn AccountRepo>,
    clock: Arc<dyn Clock>,
    copies: Cache<UserId, Copy>,
    /// When, in `changes`, an account was last forgotten.
    forgotten: Cache<UserId, u64>,
    changes: AtomicU64,
    /// The change at which all were forgotten.
    cleared: AtomicU64,
}

#[derive(Clone)]
struct Copy {
    account: Arc<Account>,
    changes: u64,
    at: Duration,
}

const FRESH: Duration = Duration::from_secs(60);
const ACCOUNTS: u64 = 50_000;

impl MemorySnapshots {
    /// An empty cache before `inner`; `clock` ends the copies.
    pub fn new(inner: Arc<dyn AccountRepo>, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner,
            clock,
            copies: Cache::builder().max_capacity(ACCOUNTS).time_to_live(FRESH).build(),
            forgotten: Cache::builder().max_capacity(ACCOUNTS).time_to_live(FRESH * 2).build(),
            changes: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
        }
    }

    /// Drops the copy in this process; every copy without a name.
    pub fn drop_copies(&self, id: Option<&UserId>) {
        let change = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        match id {
            Some(id) => {
                self.forgotten.insert(id.clone(), change);
                self.copies.invalidate(id);
            }
            None => {
                self.cleared.store(change, Ordering::SeqCst);
                self.copies.invalidate_all();
            }
        }
    }

    fn is_fresh(&self, id: &UserId, copy: &Copy) -> bool {
        self.clock.elapsed().saturating_sub(copy.at) < FRESH
            && copy.changes >= self.cleared.load(Ordering::SeqCst)
            && self.forgotten.get(id).is_none_or(|change| copy.changes >= change)
    }
}

#[async_trait]
impl AccountSnapshots for MemorySnapshots {
    async fn find(&self, id: &UserId) -> Result<Option<Account>, Fault> {
        if let Some(copy) = self.copies.get(id).filter(|copy| self.is_fresh(id, copy)) {
            return Ok(Some(Account::clone(&copy.account)));
        }
        let (changes, at) = (self.changes.load(Ordering::SeqCst), self.clock.elapsed());
        let Some(account) = self.inner.find(id).await? else { return Ok(None) };
        self.copies.insert(id.clone(), Copy { account: Arc::new(account.clone()), changes, at });
        Ok(Some(account))
    }

    async fn forget(&self, id: &UserId) -> Result<(), Fault> {
        self.drop_copies(Some(id));
        Ok(())
    }
}
