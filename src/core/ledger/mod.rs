//! What a user has, what they are charged and given, and what they see of it (contract `ledger.md`).

mod patience;

use std::sync::Arc;

use super::config::Config;
use super::error::{Code, Error};
use super::model::config::InitialUserFlux;
use super::model::fact::Fact;
use super::model::hold::{Hold, HoldOutcome};
use super::model::ids::{EntryId, RequestId, UserId};
use super::model::ledger::{
    Balance, Credit, CreditOutcome, Debit, DebitOutcome, Entry, EntryKind, Flux, OpenOutcome, Opening, Standing,
};
use super::model::page::{Page, Window};
use super::model::verify::Verified;
use crate::ports::Fault;
use crate::ports::journal::Journal;
use crate::ports::ledger::{BalanceCache, LedgerRepo};
use crate::ports::runtime::IdSource;

pub use patience::pauses;

/// The one room money passes through.
pub struct Ledger {
    /// The truth.
    pub repo: Arc<dyn LedgerRepo>,
    /// Copies for gates and display.
    pub cache: Arc<dyn BalanceCache>,
    /// The opening grant.
    pub config: Arc<Config>,
    /// Ids of entries.
    pub ids: Arc<dyn IdSource>,
    /// Hears what money moved.
    pub journal: Arc<dyn Journal>,
}

impl Ledger {
    /// What the user has now; the first read of a new user makes the opening grant. A closed account is missing.
    ///
    /// A cache that cannot be reached makes this slower, never wrong.
    pub async fn balance(&self, user: &UserId) -> Result<Flux, Error> {
        match self.cache.find(user).await {
            Ok(Some(flux)) => return Ok(flux),
            Ok(None) => {}
            Err(fault) => self.degraded("balance_cache.find", &fault),
        }
        self.settled(user).await
    }

    /// The balance as the database has it, whatever the cache says.
    pub async fn settled(&self, user: &UserId) -> Result<Flux, Error> {
        // The grant is read only for whoever needs it: its store may be out of reach while balances are not.
        let balance = match self.repo.find(user).await? {
            Standing::Open(balance) => balance,
            Standing::Closed => return Err(Error::new(Code::NotFound)),
            Standing::Absent => self.open(user).await?,
        };
        if let Err(fault) = self.cache.fill(user, balance).await {
            self.degraded("balance_cache.fill", &fault);
        }
        Ok(balance.flux)
    }

    async fn open(&self, user: &UserId) -> Result<Balance, Error> {
        let opening = self.opening().await?;
        match self.repo.open(user, &opening).await? {
            OpenOutcome::Found(balance) => Ok(balance),
            OpenOutcome::Opened(balance) => {
                self.journal.record(Fact::Credited {
                    user: user.clone(),
                    amount: opening.grant,
                    kind: EntryKind::Initial,
                    source: "initial_grant",
                    balance: balance.flux,
                });
                Ok(balance)
            }
            OpenOutcome::Closed => Err(Error::new(Code::NotFound)),
        }
    }

    /// Charges at most what is left, once per (user, request).
    pub async fn charge(&self, debit: &Debit) -> Result<DebitOutcome, Error> {
        let outcome = self.repo.debit(debit).await?;
        self.charged(debit, outcome).await
    }

    async fn charged(&self, debit: &Debit, outcome: DebitOutcome) -> Result<DebitOutcome, Error> {
        let (charged, balance, replayed) = match &outcome {
            DebitOutcome::Charged { charged, balance } => {
                self.offer(&debit.user, *balance).await;
                (*charged, balance.flux, false)
            }
            DebitOutcome::Replayed { charged, after } => (*charged, *after, true),
            DebitOutcome::Refused => {
                self.journal.record(Fact::InsufficientBalance);
                // Whoever passed the gate on a stale copy must not pass it again.
                if let Err(fault) = self.cache.forget(&debit.user).await {
                    self.degraded("balance_cache.forget", &fault);
                }
                return Ok(outcome);
            }
        };
        if !replayed && charged < debit.amount {
            self.journal.record(Fact::InsufficientBalance);
        }
        self.journal.record(Fact::Debited {
            user: debit.user.clone(),
            request: debit.request.clone(),
            requested: debit.amount,
            charged,
            balance,
            replayed,
        });
        Ok(outcome)
    }

    /// Sets flux aside for a request, from `least` to `most` of it.
    pub async fn hold(&self, hold: &Hold) -> Result<HoldOutcome, Error> {
        let outcome = self.repo.hold(hold).await?;
        if matches!(outcome, HoldOutcome::Refused { .. }) {
            self.journal.record(Fact::HoldRefused { user: hold.user.clone(), asked: hold.least });
        }
        Ok(outcome)
    }

    /// Sets more aside for a request, or the same for longer. A hold that lapsed meanwhile is taken again.
    pub async fn extend(&self, hold: &Hold) -> Result<HoldOutcome, Error> {
        match self.repo.extend(hold).await? {
            HoldOutcome::Lost => self.hold(hold).await,
            HoldOutcome::Refused { available } => {
                self.journal.record(Fact::HoldRefused { user: hold.user.clone(), asked: hold.least });
                Ok(HoldOutcome::Refused { available })
            }
            outcome => Ok(outcome),
        }
    }

    /// Charges at most what is held, once per (user, request), and gives the rest back.
    pub async fn capture(&self, debit: &Debit) -> Result<DebitOutcome, Error> {
        let outcome = self.repo.capture(debit).await?;
        self.charged(debit, outcome).await
    }

    /// Gives back what is held for a request.
    pub async fn release(&self, user: &UserId, request: &RequestId) -> Result<Flux, Error> {
        Ok(self.repo.release(user, request).await?)
    }

    /// Voids every hold whose lease is over and answers how many there were.
    pub async fn sweep(&self) -> Result<u64, Error> {
        let mut voided = 0_u64;
        loop {
            let found = self.repo.expire(SWEPT_AT_ONCE).await?;
            if found == 0 {
                return Ok(voided);
            }
            voided = voided.saturating_add(found);
        }
    }

    /// Walks all the books and says what does not add up.
    pub async fn verify(&self) -> Result<Verified, Error> {
        let verified = self.repo.verify().await?;
        self.journal.record(Fact::LedgerVerified { entries: verified.entries, drifts: verified.drift_count });
        Ok(verified)
    }

    /// Adds flux, once per (user, request); `source` labels the metric.
    pub async fn give(&self, credit: &Credit, source: &'static str) -> Result<CreditOutcome, Error> {
        let outcome = self.repo.credit(credit).await?;
        if let CreditOutcome::Credited { balance, .. } = &outcome {
            self.offer(&credit.user, *balance).await;
            self.journal.record(Fact::Credited {
                user: credit.user.clone(),
                amount: credit.amount,
                kind: credit.kind,
                source,
                balance: balance.flux,
            });
        }
        Ok(outcome)
    }

    /// The user's entries, newest first, without what only operators may see.
    pub async fn history(&self, user: &UserId, window: Window, before: Option<&EntryId>) -> Result<Page<Entry>, Error> {
        let mut page = self.repo.list(user, window, before).await?;
        for metadata in page.items.iter_mut().filter_map(|entry| entry.metadata.as_mut()) {
            for hidden in HIDDEN_METADATA {
                metadata.shift_remove(hidden);
            }
        }
        Ok(page)
    }

    /// The balance after the newest grant or purchase: what a full bar stands for.
    pub async fn capacity(&self, user: &UserId) -> Result<Flux, Error> {
        Ok(self.repo.capacity(user).await?)
    }

    /// What a user without a balance row is given first.
    pub async fn opening(&self) -> Result<Opening, Error> {
        let grant = self.config.required::<InitialUserFlux>().await?;
        Ok(Opening { entry: EntryId::new(self.ids.id()), grant })
    }

    async fn offer(&self, user: &UserId, balance: Balance) {
        if let Err(fault) = self.cache.offer(user, balance).await {
            self.degraded("balance_cache.offer", &fault);
        }
    }

    fn degraded(&self, operation: &'static str, fault: &Fault) {
        self.journal.record(Fact::Degraded { operation, cause: fault.to_string() });
    }
}

/// Users whose lapsed holds are voided in one go.
const SWEPT_AT_ONCE: u32 = 500;

/// Metadata that stays in the table (contract `ledger.md` §1).
const HIDDEN_METADATA: [&str; 3] = ["issuedByUserId", "idempotencyKey", "stripeEventId"];
