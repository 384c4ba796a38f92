//! Proofs of identity.

use async_trait::async_trait;

use super::Fault;
use crate::core::model::secret::Secret;

/// Password hashing in the stored form `<salt>:<key>` (contract `auth.md` §3.3).
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait PasswordHasher: Send + Sync {
    /// A fresh hash. MUST run off the async threads and bound how many run at once.
    async fn hash(&self, password: &Secret) -> Result<Secret, Fault>;

    /// Whether the password made this hash, compared in constant time; a malformed hash never matches.
    async fn verify(&self, password: &Secret, hash: &Secret) -> Result<bool, Fault>;
}
