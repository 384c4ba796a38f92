//! The end of an account (contract `auth.md` §10, `ledger.md` §4): the books stay, the person goes.

use chrono::{DateTime, Utc};

use super::ids::{SessionId, UserId};

/// Who is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// The person.
    pub user: UserId,
    /// Keyed hash of their address: one opening grant per address (contract `ledger.md` D-4).
    pub address_mark: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// What an erasure did, for the record of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Rows touched, by what they are.
    pub counts: Vec<(&'static str, u64)>,
    /// Sessions that ended.
    pub sessions: Vec<SessionId>,
}
