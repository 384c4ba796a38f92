//! Flux set aside for an answer on its way, and how a balance row divides into what is held and what is free.
//!
//! `flux` stays the settled balance; available is `flux − held`. Another server on the same tables knows nothing of
//! holds and may take `flux` below `held`: nothing is available then, and a capture takes what is there.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::ids::{RequestId, UserId};
use super::ledger::Flux;
use super::posting::LockedBalance;

/// Flux to be set aside for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Who will pay.
    pub user: UserId,
    /// For what; the later capture names it again.
    pub request: RequestId,
    /// Refused when less than this would be held in total; at least 1.
    pub least: Flux,
    /// Held in total when the balance affords it.
    pub most: Flux,
    /// How long the hold stands unless it is extended; whoever touches the balance row afterwards voids it.
    pub lease: Duration,
}

/// What a hold or its extension did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldOutcome {
    /// This much is held in total for the request.
    Held {
        /// The total, from `least` to `most`; more than `most` only when that was held before.
        amount: Flux,
        /// What remains available beside it.
        available: Flux,
    },
    /// The balance does not afford `least`; what was held before stays held.
    Refused {
        /// What was available.
        available: Flux,
    },
    /// There is nothing to extend: the hold lapsed, or was released.
    Lost,
    /// The request has been charged already.
    Settled,
}

/// A stored hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldFlux {
    /// How much.
    pub amount: Flux,
    /// When it lapses.
    pub until: DateTime<Utc>,
}

/// How chat completions are admitted: `FLUX_ADMISSION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdmissionMode {
    /// The price of a call is set aside before it is routed.
    Hold,
    /// The balance is only looked at, and charged afterwards, as the reference does.
    PostDebit,
}

impl HeldFlux {
    /// Whether its lease is over.
    pub fn lapsed(&self, now: DateTime<Utc>) -> bool {
        self.until <= now
    }
}

impl Hold {
    /// The end of the lease that begins at `clock`.
    pub fn until(&self, clock: DateTime<Utc>) -> DateTime<Utc> {
        let lease = TimeDelta::from_std(self.lease).unwrap_or(TimeDelta::MAX);
        clock.checked_add_signed(lease).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

impl LockedBalance {
    /// What can be taken or set aside: nothing from a closed row, and nothing that is held.
    pub fn available(&self) -> Flux {
        if self.closed { Flux::ZERO } else { self.flux.saturating_sub(self.held) }
    }

    /// Sets flux aside for a request that has `already` of it; `None` when the balance does not afford it. A hold
    /// never shrinks.
    pub fn set_aside(&mut self, hold: &Hold, already: Flux) -> Option<Flux> {
        let affordable = Flux::saturating(already.get().saturating_add(self.available().get()));
        let total = hold.most.max(hold.least).min(affordable).max(already);
        if total < hold.least || total.is_zero() || self.closed {
            return None;
        }
        self.held = Flux::saturating(self.held.get().saturating_add(total.get() - already.get()));
        Some(total)
    }

    /// Makes a hold available again.
    pub fn give_back(&mut self, amount: Flux) {
        self.held = self.held.saturating_sub(amount);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flux(amount: i64) -> Flux {
        Flux::new(amount).unwrap()
    }

    fn row(amount: i64, held: i64) -> LockedBalance {
        LockedBalance { flux: flux(amount), held: flux(held), version: 1, touched: DateTime::UNIX_EPOCH, closed: false }
    }

    fn hold(least: i64, most: i64) -> Hold {
        Hold {
            user: UserId::new("u"),
            request: RequestId::new("r"),
            least: flux(least),
            most: flux(most),
            lease: Duration::from_secs(60),
        }
    }

    #[test]
    fn what_is_held_cannot_be_held_again() {
        let mut row = row(12, 0);
        assert_eq!(row.set_aside(&hold(5, 5), Flux::ZERO), Some(flux(5)));
        assert_eq!(row.set_aside(&hold(5, 9), Flux::ZERO), Some(flux(7)));
        assert_eq!(row.set_aside(&hold(1, 1), Flux::ZERO), None);
        assert_eq!((row.available(), row.flux), (Flux::ZERO, flux(12)));
        row.give_back(flux(7));
        assert_eq!(row.available(), flux(7));
    }

    #[test]
    fn a_closed_row_and_one_that_others_emptied_have_nothing_available() {
        let mut closed = LockedBalance { closed: true, ..row(10, 0) };
        assert_eq!(closed.set_aside(&hold(1, 1), Flux::ZERO), None);
        let mut emptied = row(3, 9);
        assert_eq!((emptied.available(), emptied.set_aside(&hold(1, 1), Flux::ZERO)), (Flux::ZERO, None));
    }

    #[test]
    fn a_lease_beyond_the_calendar_ends_with_it() {
        let endless = Hold { lease: Duration::MAX, ..hold(1, 1) };
        assert_eq!(endless.until(DateTime::UNIX_EPOCH), DateTime::<Utc>::MAX_UTC);
    }

    proptest! {
        #[test]
        fn a_hold_takes_from_least_to_most_and_only_what_is_available(
            amount in 0..1_000i64, held in 0..1_000i64, already in 0..200i64, least in 1..300i64, more in 0..300i64,
        ) {
            let already = already.min(held);
            let before = row(amount, held);
            let mut after = before.clone();
            let wish = hold(least, least + more);
            match after.set_aside(&wish, flux(already)) {
                Some(total) => {
                    prop_assert!(total >= wish.least && total <= wish.most.max(flux(already)));
                    prop_assert_eq!(after.held.get() - before.held.get(), total.get() - already);
                    prop_assert!(total.get() - already <= before.available().get());
                }
                None => {
                    prop_assert_eq!(&after, &before);
                    prop_assert!(already + before.available().get() < least);
                }
            }
            prop_assert_eq!(after.flux, before.flux);
        }
    }
}
