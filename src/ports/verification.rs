//! One-time secrets that were mailed or handed out.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::Fault;
use crate::core::model::proofs::Verification;

/// The `verification` table. Of several rows with one identifier, the newest counts.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait VerificationRepo: Send + Sync {
    /// Stores a row, and removes some of those that ended longer ago than [`KEPT_AFTER_END`]: nobody else does. Safe for
    /// several processes at once.
    ///
    /// [`KEPT_AFTER_END`]: crate::core::model::proofs::KEPT_AFTER_END
    async fn issue(&self, verification: &Verification) -> Result<(), Fault>;

    /// The row with this identifier, whether or not it has expired. Uses nothing up.
    async fn find(&self, identifier: &str) -> Result<Option<Verification>, Fault>;

    /// Removes every row with this identifier and answers the newest if it was alive at `now`. Of many at once, one
    /// gets it.
    async fn redeem(&self, identifier: &str, now: DateTime<Utc>) -> Result<Option<Verification>, Fault>;

    /// Writes `new` where `old` stands; says whether it did. Of many at once, one does.
    async fn swap(&self, identifier: &str, old: &str, new: &str, at: DateTime<Utc>) -> Result<bool, Fault>;
}
