//! From a locked balance row and a wish to the entry to be written.
//!
//! Every adapter of the ledger locks, asks here, and writes what it is told; so all of them keep one set of books:
//! per user each entry starts where the last one ended, and its time lies strictly after it.

use chrono::{DateTime, TimeDelta, Utc};

use super::ledger::{Balance, Credit, Debit, Entry, EntryKind, Flux, Opening, add_shortfall, debit_metadata, drain};
use super::meter::{MeteredUse, Settlement};

/// A balance row, as read under its lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedBalance {
    /// The settled amount.
    pub flux: Flux,
    /// How much of it is set aside: the sum of the user's holds.
    pub held: Flux,
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
        Self { flux: opening.grant, held: Flux::ZERO, version: 1, touched: at, closed: false }
    }

    /// Amount and version, for caches.
    pub fn balance(&self) -> Balance {
        Balance { flux: self.flux, version: self.version }
    }

    /// Takes what a debit may take of what is available; `None` when it is refused. `clock` was read under the lock.
    ///
    /// Held flux is left alone: it stands for answers that were promised first, and taking it would leave one of them
    /// unpaid. A debit that finds nothing available has nothing to drain, and the next gate refuses all the same.
    pub fn debit(&mut self, debit: &Debit, clock: DateTime<Utc>) -> Option<Entry> {
        self.take(debit, self.available(), clock)
    }

    /// Takes what was set aside for a request, at most `held` of it, and makes the rest available; without a hold it
    /// is a debit. `None` when nothing is taken. `clock` was read under the lock.
    pub fn capture(&mut self, debit: &Debit, held: Option<Flux>, clock: DateTime<Utc>) -> Option<Entry> {
        let Some(held) = held else { return self.debit(debit, clock) };
        self.give_back(held);
        let limit = if self.closed { Flux::ZERO } else { held.min(self.flux) };
        self.take(debit, limit, clock)
    }

    fn take(&mut self, debit: &Debit, limit: Flux, clock: DateTime<Utc>) -> Option<Entry> {
        let charged = drain(limit, debit.amount)?.charged;
        let before = self.advance(self.flux.saturating_sub(charged), clock);
        Some(Entry {
            id: debit.entry.clone(),
            kind: EntryKind::Debit,
            amount: charged,
            before,
            after: self.flux,
            request: Some(debit.request.clone()),
            description: debit.description.to_owned(),
            metadata: Some(debit_metadata(debit, charged)),
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
        let before = self.advance(self.flux.saturating_sub(drained.charged), clock);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::ids::{EntryId, RequestId, UserId};
    use serde_json::{Map, json};

    fn flux(amount: i64) -> Flux {
        Flux::new(amount).unwrap()
    }

    fn noon() -> DateTime<Utc> {
        DateTime::from_timestamp(43_200, 0).unwrap()
    }

    fn row(amount: i64) -> LockedBalance {
        LockedBalance { flux: flux(amount), held: Flux::ZERO, version: 7, touched: noon(), closed: false }
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
    fn a_debit_leaves_held_flux_alone_and_a_capture_takes_no_more_than_its_hold() {
        let mut row = LockedBalance { held: flux(8), ..row(10) };
        let entry = row.debit(&debit("u", "r1", 5), noon()).unwrap();
        assert_eq!((entry.amount, entry.before, entry.after), (flux(2), flux(10), flux(8)));
        assert_eq!(row.debit(&debit("u", "r2", 1), noon()), None);
        let entry = row.capture(&debit("u", "r3", 7), Some(flux(5)), noon()).unwrap();
        assert_eq!((entry.amount, row.flux, row.held), (flux(5), flux(3), flux(3)));
        let entry = row.capture(&debit("u", "r4", 1), Some(flux(3)), noon()).unwrap();
        assert_eq!((entry.amount, row.flux, row.available()), (flux(1), flux(2), flux(2)));
    }

    #[test]
    fn a_capture_takes_what_others_left_of_its_hold() {
        let mut row = LockedBalance { held: flux(8), ..row(3) };
        let entry = row.capture(&debit("u", "r", 8), Some(flux(8)), noon()).unwrap();
        assert_eq!((entry.amount, row.flux, row.held), (flux(3), Flux::ZERO, Flux::ZERO));
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
}
