//! Our copies of the provider's objects (contract `billing-stripe.md` §1, §8.4, §8.5).
//!
//! Events arrive late and in any order. A copy is replaced by what is at least as settled and, among equals, at
//! least as new: so every order of events leaves the same copy behind.

use chrono::{DateTime, Utc};

use crate::core::model::ids::UserId;

/// How a copy compares with another one of the same object: the greater replaces the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age {
    /// How settled the object is; what is paid, cancelled or void does not become open again.
    pub rank: i16,
    /// The provider's time of the event.
    pub at: DateTime<Utc>,
}

impl Age {
    /// Older than any event: what we knew before the provider told us anything.
    pub const BEFORE_ALL: Self = Self { rank: 0, at: DateTime::UNIX_EPOCH };

    /// `settled` decides first; of two events of one second, the one that announces the object loses.
    pub fn of(settled: i16, announces: bool, at: DateTime<Utc>) -> Self {
        Self { rank: settled * 2 + i16::from(!announces), at }
    }
}

/// What became of a copy offered to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// Stored.
    Written,
    /// A newer or more settled copy is there.
    Stale,
    /// The copy there belongs to somebody else; nothing was written (BS-D21).
    Foreign,
}

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    /// Whose.
    pub user: UserId,
    /// The provider's id.
    pub customer: String,
    /// Address known to the provider.
    pub email: Option<String>,
}

/// A checkout session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// Who buys.
    pub user: UserId,
    /// The provider's id.
    pub session: String,
    /// The provider's customer.
    pub customer: Option<String>,
    /// `payment`, `subscription` or `setup`.
    pub mode: String,
    /// `open`, `complete` or `expired`.
    pub status: Option<String>,
    /// `paid`, `unpaid` or `no_payment_required`.
    pub payment_status: Option<String>,
    /// Smallest units. Beyond 2^31 the store keeps none (BS-D01).
    pub amount_total: Option<i64>,
    /// Lower-case code.
    pub currency: Option<String>,
    /// Where the buyer goes afterwards.
    pub success_url: Option<String>,
    /// Where the buyer goes after turning back.
    pub cancel_url: Option<String>,
    /// Names the payment in refunds and disputes.
    pub payment_intent: Option<String>,
    /// The subscription it began.
    pub subscription: Option<String>,
    /// JSON text.
    pub metadata: Option<String>,
    /// When the provider closes it.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Checkout {
    /// Whether the provider vouches for the money: a session can be complete and unpaid (BS-D18).
    pub fn is_paid(&self) -> bool {
        matches!(self.payment_status.as_deref(), Some("paid" | "no_payment_required"))
    }

    /// How this copy compares when it comes from an event of that time.
    pub fn age(&self, at: DateTime<Utc>) -> Age {
        let settled = match self.status.as_deref() {
            _ if self.is_paid() => 2,
            Some("complete" | "expired") => 1,
            _ => 0,
        };
        Age::of(settled, false, at)
    }
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Whose.
    pub user: UserId,
    /// The provider's id.
    pub subscription: String,
    /// The provider's customer.
    pub customer: String,
    /// What is paid for.
    pub price: Option<String>,
    /// The provider's word, e.g. `active`.
    pub status: String,
    /// Begin of what is paid for now.
    pub current_period_start: Option<DateTime<Utc>>,
    /// End of what is paid for now.
    pub current_period_end: Option<DateTime<Utc>>,
    /// Whether it ends with the period.
    pub cancel_at_period_end: Option<bool>,
    /// When it was cancelled.
    pub canceled_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// JSON text.
    pub metadata: Option<String>,
}

impl Subscription {
    /// How this copy compares when it comes from an event of that time (BS-D23).
    pub fn age(&self, announces: bool, at: DateTime<Utc>) -> Age {
        let ended = matches!(self.status.as_str(), "canceled" | "incomplete_expired");
        Age::of(i16::from(ended), announces, at)
    }
}

/// An invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// Who pays.
    pub user: UserId,
    /// The provider's id.
    pub invoice: String,
    /// The provider's customer.
    pub customer: Option<String>,
    /// The subscription it belongs to.
    pub subscription: Option<String>,
    /// Names the payment in refunds and disputes, when the event told it.
    pub payment_intent: Option<String>,
    /// The provider's word, e.g. `paid`.
    pub status: Option<String>,
    /// Smallest units. Beyond 2^31 the store keeps none (BS-D01).
    pub amount_due: Option<i64>,
    /// Smallest units. Beyond 2^31 the store keeps none (BS-D01).
    pub amount_paid: Option<i64>,
    /// Lower-case code.
    pub currency: Option<String>,
    /// Page of the provider.
    pub url: Option<String>,
    /// Document of the provider.
    pub pdf: Option<String>,
    /// Begin of what is paid for.
    pub period_start: Option<DateTime<Utc>>,
    /// End of what is paid for.
    pub period_end: Option<DateTime<Utc>>,
    /// When it was paid.
    pub paid_at: Option<DateTime<Utc>>,
    /// JSON text.
    pub metadata: Option<String>,
}

impl Invoice {
    /// How this copy compares when it comes from an event of that time; a paid invoice never goes back.
    pub fn age(&self, announces: bool, at: DateTime<Utc>) -> Age {
        let settled = match self.status.as_deref() {
            Some("paid") => 2,
            Some("void") => 1,
            _ => 0,
        };
        Age::of(settled, announces, at)
    }
}

/// A copy with what the store adds to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept<T> {
    /// Row id.
    pub id: String,
    /// The copy.
    pub copy: T,
    /// Whether its flux was credited.
    pub flux_credited: bool,
    /// When we first heard of it.
    pub created_at: DateTime<Utc>,
    /// When the copy last changed.
    pub updated_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_wins_over_what_is_new_and_the_announcement_loses_a_tie() {
        let at = |s| DateTime::from_timestamp(s, 0).unwrap();
        let paid = Age::of(2, false, at(1));
        assert!(paid > Age::of(0, false, at(9)));
        assert!(Age::of(0, false, at(9)) > Age::of(0, false, at(8)));
        assert!(Age::of(0, false, at(9)) > Age::of(0, true, at(9)));
        assert!(Age::of(0, true, at(1)) > Age::BEFORE_ALL);
    }
}
