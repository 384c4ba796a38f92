//! Everything an account's end changes in the database.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::Fault;
use crate::core::model::erasure::{Erased, Erasure};
use crate::core::model::ids::UserId;

/// Forgets people.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait ErasureRepo: Send + Sync {
    /// Does all of it in one transaction: stamps the business rows the first time, takes the person's marks off the
    /// counters, blanks the secrets of their characters and provider configurations, remembers the address mark, removes
    /// one-time secrets and at last the person, with whom sessions, identities and tokens go. A failure changes nothing.
    /// Entries of the ledger and the request log stay. `None` when the person is gone already.
    async fn erase(&self, erasure: &Erasure) -> Result<Option<Erased>, Fault>;

    /// Gives the person an empty balance when an account with this address mark was erased, so that no opening grant
    /// follows; says whether it did. MUST NOT touch a balance that exists.
    async fn withhold_grant(&self, user: &UserId, address_mark: &str, at: DateTime<Utc>) -> Result<bool, Fault>;
}
