//! Sub-flux units: small uses that accumulate until they are worth a whole flux (contract `audio.md` §7).

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::ids::{EntryId, RequestId, UserId};
use super::ledger::{Balance, Flux};

/// A use to be metered.
#[derive(Clone, Debug, PartialEq)]
pub struct MeteredUse {
    /// Who used it.
    pub user: UserId,
    /// Names the counter, e.g. `tts`.
    pub meter: &'static str,
    /// The use; a second one with the same pair (user, request) is a replay.
    pub request: RequestId,
    /// Units used, e.g. characters.
    pub units: i64,
    /// Units worth one flux, at least 1.
    pub units_per_flux: i64,
    /// A remainder untouched for this long is forgiven.
    pub debt_lifetime: std::time::Duration,
    /// Id of the ledger entry, if one is written.
    pub entry: EntryId,
    /// Text of the ledger entry.
    pub description: &'static str,
    /// Facts of the ledger entry.
    pub metadata: Map<String, Value>,
}

/// How a use was settled.
#[derive(Clone, Debug, PartialEq)]
pub struct MeterReading {
    /// Whole flux taken by this use.
    pub charged: Flux,
    /// Whole flux that were due and could not be taken; their units stay in the debt.
    pub unbilled: Flux,
    /// Units still unsettled.
    pub debt: i64,
    /// The balance after the use; absent on a replay, when it was not read, and without a live row.
    pub balance: Option<Balance>,
    /// Whether this use had been metered before and nothing was written.
    pub replayed: bool,
}

/// What a user owes and cannot pay with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsettled {
    /// Units that are not worth a flux yet, or that the balance did not afford.
    pub units: i64,
    /// Flux set aside for other calls: a settlement leaves it alone, so what it can take is the balance less this.
    pub held: Flux,
}

/// What accumulated units come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Whole flux to take now.
    pub charged: Flux,
    /// Whole flux due beyond the balance.
    pub unbilled: Flux,
    /// Units left after taking `charged`.
    pub debt: i64,
}

/// What is left of a debt last touched at `touched`: all of it, or nothing once it lay untouched for longer than
/// `lifetime`.
pub fn remembered(units: i64, touched: DateTime<Utc>, now: DateTime<Utc>, lifetime: std::time::Duration) -> i64 {
    let untouched = now.signed_duration_since(touched).to_std().unwrap_or_default();
    if untouched > lifetime { 0 } else { units.max(0) }
}

/// Adds `units` to `debt` and settles every whole flux the balance affords. Nothing is lost:
/// `debt + units = charged × units_per_flux + debt after`.
pub fn settle(debt: i64, units: i64, units_per_flux: i64, balance: Flux) -> Settlement {
    let per_flux = units_per_flux.max(1);
    let total = debt.max(0).saturating_add(units.max(0));
    let due = Flux::saturating(total / per_flux);
    let charged = due.min(balance);
    Settlement { charged, unbilled: due.saturating_sub(charged), debt: total - charged.get() * per_flux }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_unit_is_lost_or_charged_twice(
            debt in 0..1_000_000i64, units in 0..1_000_000i64, per in 1..5_000i64, balance in 0..2_000i64,
        ) {
            let settled = settle(debt, units, per, Flux::new(balance).unwrap());
            prop_assert_eq!(debt + units, settled.charged.get() * per + settled.debt);
            prop_assert!(settled.charged.get() <= balance);
            prop_assert!(settled.unbilled.is_zero() == (settled.debt < per));
        }
    }

    #[test]
    fn a_debt_is_forgiven_only_after_its_lifetime() {
        let touched = DateTime::from_timestamp(1_000, 0).unwrap();
        let after = |seconds: i64| DateTime::from_timestamp(1_000 + seconds, 0).unwrap();
        let minute = std::time::Duration::from_secs(60);
        assert_eq!(remembered(700, touched, after(60), minute), 700);
        assert_eq!(remembered(700, touched, after(61), minute), 0);
        assert_eq!(remembered(700, touched, after(-5), minute), 700);
    }

    #[test]
    fn units_settle_when_they_reach_a_whole_flux() {
        let rich = Flux::new(100).unwrap();
        assert_eq!(settle(0, 700, 1000, rich), Settlement { charged: Flux::ZERO, unbilled: Flux::ZERO, debt: 700 });
        assert_eq!(settle(700, 400, 1000, rich), Settlement { charged: Flux::ONE, unbilled: Flux::ZERO, debt: 100 });
        assert_eq!(settle(0, 2500, 1000, Flux::ONE).debt, 1500);
    }
}
