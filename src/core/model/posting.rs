//! From a locked balance row and a wish to the entry to be written.
//!
//! Every adapter of the ledger locks, asks here, and writes what it is told; so all of them keep one set of books:
//! per user each entry starts where the last one ended, and its time lies strictly after it.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::ids::{RequestId, UserId};
use super::ledger::{
    Balance, Credit, Debit, DebitOutcome, Entry, EntryKind, Flux, Opening, add_shortfall, debit_metadata, drain,
};
use super::meter::{MeteredUse, Settlement};

/// A balance row, as read under its lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedBalance {
    /// The settled amount.
    pub flux: Flux,
    /// Grows with every entry of ours.
    pub version: i64,
    /// `user_flux.updated_at`: not before the newest entry.
    pub touched: DateTime<Utc>,
    /// The account was deleted.
    pub closed: bool,
}

impl LockedBalance {
    /// The row of a user who has just been given the opening grant at `at`.
    pub fn opened(opening: &Opening, at: DateTime<Utc>) -> Self {
        Self { flux: opening.grant, version: 1, touched: at, closed: false }
    }

    /// Amount and version, for caches.
    pub fn balance(&self) -> Balance {
        Balance { flux: self.flux, version: self.version }
    }

    /// What can be taken: nothing from a closed row.
    pub fn available(&self) -> Flux {
        if self.closed { Flux::ZERO } else { self.flux }
    }

    /// Takes what a debit may take; `None` when it is refused. `clock` was read under the lock.
    pub fn debit(&mut self, debit: &Debit, clock: DateTime<Utc>) -> Option<Entry> {
        let drained = drain(self.available(), debit.amount)?;
        let before = self.advance(drained.left, clock);
        Some(Entry {
            id: debit.entry.clone(),
            kind: EntryKind::Debit,
            amount: drained.charged,
            before,
            after: self.flux,
            request: Some(debit.request.clone()),
            description: debit.description.to_owned(),
            metadata: Some(debit_metadata(debit, drained.charged)),
            at: self.touched,
        })
    }

    /// Adds flux to a live row; `None` when the sum would pass 2^53. `clock` was read under the lock.
    pub fn credit(&mut self, credit: &Credit, clock: DateTime<Utc>) -> Option<Entry> {
        let sum = self.flux.checked_add(credit.amount)?;
        let before = self.advance(sum, clock);
        Some(Entry {
            id: credit.entry.clone(),
            kind: credit.kind,
            amount: credit.amount,
            before,
            after: self.flux,
            request: credit.request.clone(),
            description: credit.description.clone(),
            metadata: credit.metadata.clone(),
            at: self.touched,
        })
    }

    /// Takes what a metered use settled, which is at most [`available`](Self::available); `None` when that is
    /// nothing. `clock` was read under the lock.
    pub fn settle(&mut self, used: &MeteredUse, settlement: Settlement, clock: DateTime<Utc>) -> Option<Entry> {
        let drained = drain(self.available(), settlement.charged)?;
        let before = self.advance(drained.left, clock);
        let mut metadata = used.metadata.clone();
        add_shortfall(&mut metadata, drained.charged, settlement.unbilled);
        Some(Entry {
            id: used.entry.clone(),
            kind: EntryKind::Debit,
            amount: drained.charged,
            before,
            after: self.flux,
            request: Some(used.request.clone()),
            description: used.description.to_owned(),
            metadata: Some(metadata),
            at: self.touched,
        })
    }

    /// Takes back flux of a payment that was returned: what of `due` is available; answers the balance before and what
    /// was taken, or `None` when that is nothing. `clock` was read under the lock.
    pub fn take_back(&mut self, due: Flux, clock: DateTime<Utc>) -> Option<(Flux, Flux)> {
        let drained = drain(self.available(), due)?;
        // Not what remains of the available, which may be less than the balance.
        let left = self.flux.saturating_sub(drained.charged);
        Some((self.advance(left, clock), drained.charged))
    }

    /// Moves the row on by one entry and answers what it held before. A clock that stands still or runs back still
    /// gives every entry its own, later microsecond.
    fn advance(&mut self, flux: Flux, clock: DateTime<Utc>) -> Flux {
        let next = self.touched.checked_add_signed(TimeDelta::microseconds(1)).unwrap_or(self.touched);
        self.touched = clock.max(next);
        self.version = self.version.saturating_add(1);
        std::mem::replace(&mut self.flux, flux)
    }
}

/// The entry of an opening grant; a grant of zero has one as well (contract `ledger.md` §3).
pub fn opening_entry(opening: &Opening, at: DateTime<Utc>) -> Entry {
    Entry {
        id: opening.entry.clone(),
        kind: EntryKind::Initial,
        amount: opening.grant,
        before: Flux::ZERO,
        after: opening.grant,
        request: None,
        description: OPENING_DESCRIPTION.to_owned(),
        metadata: None,
        at,
    }
}

/// The text of the opening entry.
pub const OPENING_DESCRIPTION: &str = "Initial grant";

/// What an earlier entry for the same (user, request) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// The amount of that entry.
    pub charged: Flux,
    /// The balance after it.
    pub after: Flux,
}

/// The earlier entries among the requests of a batch.
pub type Pasts = HashMap<(UserId, RequestId), Past>;

/// What a batch of debits comes to.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// One per debit, in their order.
    pub outcomes: Vec<DebitOutcome>,
    /// Entries to be written, in order.
    pub entries: Vec<(UserId, Entry)>,
    /// The rows that changed, each once, as they are after the batch; in the order of first change.
    pub rows: Vec<(UserId, LockedBalance)>,
}

/// Applies debits one after another, as if each had its own transaction: later ones see what earlier ones left, and
/// a second copy of a request replays the first. A user without a row in `rows` has nothing.
pub fn apply_debits<'a>(
    debits: impl IntoIterator<Item = &'a Debit>,
    mut rows: HashMap<UserId, LockedBalance>,
    mut pasts: Pasts,
    clock: DateTime<Utc>,
) -> Batch {
    let mut batch = Batch::default();
    let mut changed: Vec<UserId> = Vec::new();
    let mut seen: HashSet<UserId> = HashSet::new();
    for debit in debits {
        let key = (debit.user.clone(), debit.request.clone());
        if let Some(past) = pasts.get(&key) {
            batch.outcomes.push(DebitOutcome::Replayed { charged: past.charged, after: past.after });
            continue;
        }
        let Some(row) = rows.get_mut(&debit.user) else {
            batch.outcomes.push(DebitOutcome::Refused);
            continue;
        };
        let Some(entry) = row.debit(debit, clock) else {
            batch.outcomes.push(DebitOutcome::Refused);
            continue;
        };
        batch.outcomes.push(DebitOutcome::Charged { charged: entry.amount, balance: row.balance() });
        pasts.insert(key, Past { charged: entry.amount, after: entry.after });
        batch.entries.push((debit.user.clone(), entry));
        if seen.insert(debit.user.clone()) {
            changed.push(debit.user.clone());
        }
    }
    batch.rows = changed.into_iter().filter_map(|user| rows.remove_entry(&user)).collect();
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::ids::EntryId;
    use proptest::prelude::*;
    use serde_json::{Map, json};

    fn flux(amount: i64) -> Flux {
        Flux::new(amount).unwrap()
    }

    fn noon() -> DateTime<Utc> {
        DateTime::from_timestamp(43_200, 0).unwrap()
    }

    fn row(amount: i64) -> LockedBalance {
        LockedBalance { flux: flux(amount), version: 7, touched: noon(), closed: false }
    }

    fn debit(user: &str, request: &str, amount: i64) -> Debit {
        Debit {
            entry: EntryId::new(format!("{user}-{request}")),
            user: UserId::new(user),
            request: RequestId::new(request),
            amount: flux(amount),
            description: "llm_request",
            metadata: Map::new(),
        }
    }

    fn credit(amount: i64) -> Credit {
        Credit {
            entry: EntryId::new("c"),
            user: UserId::new("u"),
            request: None,
            amount: flux(amount),
            kind: EntryKind::Promo,
            description: "gift".into(),
            metadata: None,
            opening: Opening { entry: EntryId::new("o"), grant: Flux::ZERO },
        }
    }

    #[test]
    fn a_clock_that_runs_back_still_gives_later_entries_later_times() {
        let mut row = row(10);
        let early = noon() - TimeDelta::seconds(5);
        let first = row.debit(&debit("u", "r1", 1), early).unwrap();
        let second = row.debit(&debit("u", "r2", 1), early).unwrap();
        assert_eq!(first.at, noon() + TimeDelta::microseconds(1));
        assert_eq!(second.at, noon() + TimeDelta::microseconds(2));
        assert_eq!((first.after, second.before, row.version), (flux(9), flux(9), 9));
    }

    #[test]
    fn a_closed_row_gives_nothing_and_keeps_its_amount() {
        let mut closed = LockedBalance { closed: true, ..row(10) };
        assert_eq!(closed.debit(&debit("u", "r", 1), noon()), None);
        assert_eq!(closed, LockedBalance { closed: true, ..row(10) });
    }

    #[test]
    fn a_sum_beyond_the_exact_range_changes_nothing() {
        let mut full = row(1 << 53);
        assert_eq!(full.credit(&credit(1), noon()), None);
        assert_eq!(full, row(1 << 53));
    }

    #[test]
    fn a_metered_use_that_the_balance_cannot_pay_says_what_is_missing() {
        let used = MeteredUse {
            user: UserId::new("u"),
            meter: "tts",
            request: RequestId::new("r"),
            units: 3500,
            units_per_flux: 1000,
            debt_lifetime: std::time::Duration::from_secs(1),
            entry: EntryId::new("e"),
            description: "tts_request",
            metadata: Map::new(),
        };
        let short = Settlement { charged: flux(1), unbilled: flux(2), debt: 2500 };
        let entry = row(1).settle(&used, short, noon()).unwrap();
        assert_eq!(serde_json::Value::from(entry.metadata.unwrap()), json!({"requestedAmount": 3, "unbilled": 2}));
        let nothing = Settlement { charged: Flux::ZERO, unbilled: flux(3), debt: 3500 };
        assert_eq!(row(0).settle(&used, nothing, noon()), None);
    }

    #[test]
    fn copies_within_one_batch_replay_the_first() {
        let debits = [debit("u", "r", 3), debit("u", "r", 3), debit("v", "r", 1), debit("u", "r2", 9)];
        let batch = apply_debits(&debits, HashMap::from([(UserId::new("u"), row(5))]), Pasts::new(), noon());
        assert_eq!(
            batch.outcomes,
            [
                DebitOutcome::Charged { charged: flux(3), balance: Balance { flux: flux(2), version: 8 } },
                DebitOutcome::Replayed { charged: flux(3), after: flux(2) },
                DebitOutcome::Refused,
                DebitOutcome::Charged { charged: flux(2), balance: Balance { flux: flux(0), version: 9 } },
            ]
        );
        assert_eq!(batch.entries.len(), 2);
        assert_eq!(batch.rows.len(), 1);
    }

    proptest! {
        #[test]
        fn a_batch_is_the_same_as_its_debits_one_by_one(
            wishes in proptest::collection::vec((0..4u8, 0..12u8, 0..40i64), 0..60),
            balances in proptest::collection::vec((0..100i64, any::<bool>()), 3),
        ) {
            let debits: Vec<Debit> =
                wishes.iter().map(|(user, request, amount)| debit(&user.to_string(), &request.to_string(), *amount)).collect();
            let start: HashMap<UserId, LockedBalance> = balances
                .iter()
                .enumerate()
                .map(|(user, (amount, closed))| (UserId::new(user.to_string()), LockedBalance { closed: *closed, ..row(*amount) }))
                .collect();

            let batch = apply_debits(&debits, start.clone(), Pasts::new(), noon());

            let (mut rows, mut pasts, mut outcomes, mut entries) = (start.clone(), Pasts::new(), vec![], vec![]);
            for debit in &debits {
                let one = apply_debits([debit], rows.clone(), pasts.clone(), noon());
                outcomes.extend(one.outcomes);
                for (user, entry) in &one.entries {
                    let past = Past { charged: entry.amount, after: entry.after };
                    pasts.insert((user.clone(), entry.request.clone().unwrap()), past);
                }
                entries.extend(one.entries);
                rows.extend(one.rows);
            }
            prop_assert_eq!(&batch.outcomes, &outcomes);
            prop_assert_eq!(&batch.entries, &entries);
            prop_assert_eq!(batch.outcomes.len(), debits.len());

            for (user, first) in &start {
                let mine: Vec<&Entry> = batch.entries.iter().filter(|(owner, _)| owner == user).map(|(_, e)| e).collect();
                let last = batch.rows.iter().find(|(owner, _)| owner == user).map_or(first, |(_, row)| row);
                let taken: i64 = mine.iter().map(|entry| entry.amount.get()).sum();
                prop_assert_eq!(first.flux.get() - taken, last.flux.get());
                prop_assert_eq!(mine.first().map_or(last.flux, |entry| entry.before), first.flux);
                for pair in mine.windows(2) {
                    prop_assert_eq!(pair[0].after, pair[1].before);
                    prop_assert!(pair[0].at < pair[1].at);
                }
            }
        }
    }
}
