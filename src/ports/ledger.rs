//! Money: the balance row, its append-only entries and its holds, copies of balances, and sub-flux units.

use async_trait::async_trait;

use super::Fault;
use crate::core::model::hold::{Hold, HoldOutcome};
use crate::core::model::ids::{EntryId, RequestId, UserId};
use crate::core::model::ledger::{
    Balance, Credit, CreditOutcome, Debit, DebitOutcome, Entry, Flux, OpenOutcome, Opening, Standing,
};
use crate::core::model::meter::{MeterReading, MeteredUse, Unsettled};
use crate::core::model::page::{Page, Window};
use crate::core::model::verify::Verified;

/// `user_flux`, `flux_transaction` and `flux_hold`.
///
/// What can be spent is `flux − held`. Whoever writes a row MUST void its lapsed holds first.
///
/// Every writing method MUST lock the balance row first, look for a replay second, decide with the rules of
/// `core::model::ledger`, then write balance and entry in the same transaction. Entries of one user MUST carry
/// strictly increasing times, read under the lock.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait LedgerRepo: Send + Sync {
    /// What is known about the user's row. Writes nothing.
    async fn find(&self, user: &UserId) -> Result<Standing, Fault>;

    /// The user's balance; a user without a row gets one with the grant and its `initial` entry, once however
    /// many ask at the same time.
    async fn open(&self, user: &UserId, opening: &Opening) -> Result<OpenOutcome, Fault>;

    /// Charges at most what is available; held flux is left alone. MUST return the first outcome when (user, request) was seen before.
    /// A closed or absent row is a balance of zero.
    async fn debit(&self, debit: &Debit) -> Result<DebitOutcome, Fault>;

    /// Sets flux aside for a request until its lease ends. A repetition answers what is held, never less, and never
    /// shortens the lease. A closed or absent row affords nothing.
    async fn hold(&self, hold: &Hold) -> Result<HoldOutcome, Fault>;

    /// Sets more aside for a request that holds already, and begins its lease anew; by nothing more, it only renews.
    async fn extend(&self, hold: &Hold) -> Result<HoldOutcome, Fault>;

    /// Charges at most what is held for the request and makes the rest available, in one transaction; without a live
    /// hold it is a [`debit`](Self::debit). MUST return the first outcome when (user, request) was seen before.
    async fn capture(&self, debit: &Debit) -> Result<DebitOutcome, Fault>;

    /// Makes what is held for the request available and answers how much that was.
    async fn release(&self, user: &UserId, request: &RequestId) -> Result<Flux, Fault>;

    /// Voids the lapsed holds of at most `users` users and answers how many holds that were; zero when none is left.
    async fn expire(&self, users: u32) -> Result<u64, Fault>;

    /// Walks every entry, balance and hold of one snapshot. Changes nothing.
    async fn verify(&self) -> Result<Verified, Fault>;

    /// Adds flux. MUST return the first outcome when (user, request) was seen before. A user without a row gets
    /// the opening grant first, in the same transaction. A closed row is refused.
    async fn credit(&self, credit: &Credit) -> Result<CreditOutcome, Fault>;

    /// The user's entry for this business object.
    async fn find_entry(&self, user: &UserId, request: &RequestId) -> Result<Option<Entry>, Fault>;

    /// The user's entries, newest first (time, then id, descending). When `before` names an entry of the user,
    /// the page starts right behind it and `offset` is ignored.
    async fn list<'a>(&self, user: &UserId, window: Window, before: Option<&'a EntryId>) -> Result<Page<Entry>, Fault>;

    /// The balance after the newest `credit`, `initial` or `promo` entry; zero when there is none.
    async fn capacity(&self, user: &UserId) -> Result<Flux, Fault>;
}

/// Copies of balances, for gates and display; never the basis of a new balance.
///
/// Key and text are shared with the reference: `user:<id>:flux` holds decimal text.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait BalanceCache: Send + Sync {
    /// The copy, if there is a readable one; unreadable text is a miss.
    async fn find(&self, user: &UserId) -> Result<Option<Flux>, Fault>;

    /// What a reader loaded: stored for 60 s, only if there is no readable copy.
    async fn fill(&self, user: &UserId, balance: Balance) -> Result<(), Fault>;

    /// What a writer committed: MUST NOT replace a newer version by an older one.
    async fn offer(&self, user: &UserId, balance: Balance) -> Result<(), Fault>;

    /// Drops the copy.
    async fn forget(&self, user: &UserId) -> Result<(), Fault>;
}

/// Units too small to be a flux each (contract `audio.md` §7.3 AU-D25).
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait UsageMeter: Send + Sync {
    /// Adds a use to the debt and settles the whole flux the balance affords, in one transaction. MUST return the
    /// first reading when (user, request) was seen before. A closed or absent balance affords nothing.
    async fn settle(&self, used: &MeteredUse) -> Result<MeterReading, Fault>;

    /// Unsettled units, and the flux that live holds keep from them. A debt untouched for longer than `debt_lifetime` is
    /// zero.
    async fn debt(
        &self,
        user: &UserId,
        meter: &'static str,
        debt_lifetime: std::time::Duration,
    ) -> Result<Unsettled, Fault>;
}
