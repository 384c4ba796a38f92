//! Flux, balances and entries, and the arithmetic of money.
//!
//! Contracts: `ledger.md`, `billing-stripe.md` §1–4. Adapters lock the balance row, look for a replay,
//! ask one of the functions here what to do, and write what it says.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ids::{EntryId, RequestId, UserId};

/// An amount of the product currency: a whole number, never negative, exact as a JSON number (≤ 2^53).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Flux(i64);

/// The largest amount: the largest integer every JSON reader keeps exactly.
const MAX_FLUX: i64 = 1 << 53;

impl Flux {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The least that can be charged.
    pub const ONE: Self = Self(1);

    /// Refuses negative amounts and amounts beyond 2^53.
    pub const fn new(amount: i64) -> Option<Self> {
        if amount >= 0 && amount <= MAX_FLUX { Some(Self(amount)) } else { None }
    }

    /// The nearest amount there is: negative becomes zero, too much becomes 2^53.
    pub const fn saturating(amount: i64) -> Self {
        if amount < 0 {
            Self(0)
        } else if amount > MAX_FLUX {
            Self(MAX_FLUX)
        } else {
            Self(amount)
        }
    }

    /// The number, as stored.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Whether there is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, unless it would pass 2^53.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        Self::new(self.0 + other.0)
    }

    /// The difference, or nothing left.
    pub const fn saturating_sub(self, other: Self) -> Self {
        if self.0 > other.0 { Self(self.0 - other.0) } else { Self(0) }
    }
}

impl TryFrom<i64> for Flux {
    type Error = &'static str;
    fn try_from(amount: i64) -> Result<Self, Self::Error> {
        Self::new(amount).ok_or("an amount of flux is a whole number from 0 to 2^53")
    }
}

impl From<Flux> for i64 {
    fn from(flux: Flux) -> Self {
        flux.0
    }
}

impl fmt::Display for Flux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Flux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ƒ", self.0)
    }
}

/// What a user has, and how many entries led there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The settled amount.
    pub flux: Flux,
    /// Grows with every change of the row, so that a late writer of a cache can be told from a newer one.
    pub version: i64,
}

/// What is known about a user's balance row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A live row.
    Open(Balance),
    /// The account was deleted; the row is kept for the books.
    Closed,
    /// Nobody asked before.
    Absent,
}

/// The vocabulary of `flux_transaction.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A purchase.
    Credit,
    /// Use.
    Debit,
    /// The first grant.
    Initial,
    /// Given by an operator.
    Promo,
}

impl EntryKind {
    /// The stored word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credit => "credit",
            Self::Debit => "debit",
            Self::Initial => "initial",
            Self::Promo => "promo",
        }
    }

    /// Reads the stored word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Credit, Self::Debit, Self::Initial, Self::Promo].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// One row of the append-only ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Row id.
    pub id: EntryId,
    /// What happened.
    pub kind: EntryKind,
    /// How much; the sign follows from the kind.
    pub amount: Flux,
    /// Balance before and after.
    pub before: Flux,
    /// Balance after the entry.
    pub after: Flux,
    /// The business object this entry stands for, if it can be repeated.
    pub request: Option<RequestId>,
    /// Short text shown to the user.
    pub description: String,
    /// Facts about the entry.
    pub metadata: Option<Map<String, Value>>,
    /// When, by the clock read under the row lock.
    pub at: DateTime<Utc>,
}

/// A charge to be made: at most what is left is taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Debit {
    /// Id of the entry, if one is written.
    pub entry: EntryId,
    /// Who pays.
    pub user: UserId,
    /// What is paid for. A second debit with the same pair (user, request) is a replay.
    pub request: RequestId,
    /// The price. Zero is refused by [`drain`].
    pub amount: Flux,
    /// Text of the entry.
    pub description: &'static str,
    /// Facts of the entry; `requestedAmount` and `unbilled` are added when the balance was short.
    pub metadata: Map<String, Value>,
}

/// The opening grant of a user without a balance row (contract `ledger.md` §3).
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    /// Id of the `initial` entry.
    pub entry: EntryId,
    /// `INITIAL_USER_FLUX`; zero still writes its entry.
    pub grant: Flux,
}

/// Flux to be added.
#[derive(Clone, Debug, PartialEq)]
pub struct Credit {
    /// Id of the entry, if one is written.
    pub entry: EntryId,
    /// Who receives.
    pub user: UserId,
    /// The business object, e.g. `flux-grant:<key>:<user>`; a second credit with it is a replay.
    pub request: Option<RequestId>,
    /// How much; must not be zero.
    pub amount: Flux,
    /// [`EntryKind::Credit`] or [`EntryKind::Promo`].
    pub kind: EntryKind,
    /// Text of the entry.
    pub description: String,
    /// Facts of the entry, stored as given.
    pub metadata: Option<Map<String, Value>>,
    /// Granted first, in the same transaction, when the user has no balance row.
    pub opening: Opening,
}

/// What a debit did.
#[derive(Clone, Debug, PartialEq)]
pub enum DebitOutcome {
    /// An entry was written.
    Charged {
        /// What was taken; less than asked when the balance was short.
        charged: Flux,
        /// What remains.
        balance: Balance,
    },
    /// This request was charged before; nothing was written.
    Replayed {
        /// What was taken then.
        charged: Flux,
        /// What remained then.
        after: Flux,
    },
    /// Nothing to take: the balance is zero, closed or absent. Nothing was written.
    Refused,
}

/// What a credit did.
#[derive(Clone, Debug, PartialEq)]
pub enum CreditOutcome {
    /// An entry was written.
    Credited {
        /// The entry.
        entry: EntryId,
        /// What the user has after it.
        balance: Balance,
    },
    /// The business object was credited before; nothing was written.
    Replayed {
        /// The entry of that time, to compare amount and text with.
        entry: Box<Entry>,
    },
    /// The account is closed; nothing was written.
    Closed,
    /// The sum would pass 2^53; nothing was written.
    Overflow,
}

/// What a read of the balance did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenOutcome {
    /// The row was there.
    Found(Balance),
    /// The row was made and the grant entered.
    Opened(Balance),
    /// The account is closed.
    Closed,
}

/// How a debit divides a balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Taken.
    pub charged: Flux,
    /// Left.
    pub left: Flux,
}

/// Takes what was asked or, when that is more than there is, everything; `None` when there is nothing to take
/// or nothing was asked.
///
/// Draining rather than refusing: the answer has been delivered, and refusing would let a user with a small
/// remainder repeat calls for free. The next gate refuses.
pub fn drain(balance: Flux, asked: Flux) -> Option<Drained> {
    if balance.is_zero() || asked.is_zero() {
        return None;
    }
    let charged = asked.min(balance);
    Some(Drained { charged, left: balance.saturating_sub(charged) })
}

/// The metadata of a debit entry: the caller's, and what is missing when the balance was short.
pub fn debit_metadata(debit: &Debit, charged: Flux) -> Map<String, Value> {
    let mut metadata = debit.metadata.clone();
    add_shortfall(&mut metadata, charged, debit.amount.saturating_sub(charged));
    metadata
}

/// Says in an entry's metadata that `unbilled` was due beside `charged`; nothing when all was paid.
pub fn add_shortfall(metadata: &mut Map<String, Value>, charged: Flux, unbilled: Flux) {
    if unbilled.is_zero() {
        return;
    }
    let requested = Flux::saturating(charged.get() + unbilled.get());
    metadata.insert("requestedAmount".into(), requested.get().into());
    metadata.insert("unbilled".into(), unbilled.get().into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flux(amount: i64) -> Flux {
        Flux::new(amount).unwrap()
    }

    #[test]
    fn amounts_outside_the_exact_range_are_refused() {
        assert_eq!(Flux::new(-1), None);
        assert_eq!(Flux::new(MAX_FLUX + 1), None);
        assert_eq!(flux(MAX_FLUX).checked_add(Flux::ONE), None);
        assert!(serde_json::from_str::<Flux>("-3").is_err());
        assert!(serde_json::from_str::<Flux>("1.5").is_err());
    }

    #[test]
    fn the_last_flux_is_drained_not_refused() {
        assert_eq!(drain(flux(3), flux(5)), Some(Drained { charged: flux(3), left: Flux::ZERO }));
        assert_eq!(drain(Flux::ZERO, flux(5)), None);
        assert_eq!(drain(flux(5), Flux::ZERO), None);
    }

    #[test]
    fn a_short_charge_says_what_is_missing() {
        let debit = Debit {
            entry: EntryId::new("e"),
            user: UserId::new("u"),
            request: RequestId::new("r"),
            amount: flux(5),
            description: "llm_request",
            metadata: Map::new(),
        };
        assert!(debit_metadata(&debit, flux(5)).is_empty());
        assert_eq!(
            Value::Object(debit_metadata(&debit, flux(2))),
            serde_json::json!({"requestedAmount": 5, "unbilled": 3})
        );
    }

    proptest! {
        #[test]
        fn draining_neither_makes_nor_loses_flux(balance in 0..MAX_FLUX, asked in 0..MAX_FLUX) {
            if let Some(drained) = drain(flux(balance), flux(asked)) {
                prop_assert_eq!(drained.charged.get() + drained.left.get(), balance);
                prop_assert!(drained.charged.get() <= asked);
                prop_assert!(drained.charged.get() > 0);
            } else {
                prop_assert!(balance == 0 || asked == 0);
            }
        }
    }
}
