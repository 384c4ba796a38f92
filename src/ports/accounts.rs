//! People and their signed-in devices.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::Fault;
use crate::core::model::accounts::{Account, Creation, Email, NewAccount, Session, SignedIn};
use crate::core::model::ids::{SessionId, UserId};

/// The `user` and `account` tables.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait AccountRepo: Send + Sync {
    /// Stores an account and its password identity in one transaction, unless the address is taken.
    async fn create(&self, new: &NewAccount) -> Result<Creation, Fault>;

    /// The account with this id.
    async fn find(&self, id: &UserId) -> Result<Option<Account>, Fault>;

    /// The account with this address, compared without case: rows of the reference may be mixed-case.
    async fn find_by_email(&self, email: &Email) -> Result<Option<Account>, Fault>;
}

/// The `session` table.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait SessionRepo: Send + Sync {
    /// Stores a session and moves the owner's `last_seen_at` to its creation, in one transaction.
    async fn open(&self, session: &Session) -> Result<(), Fault>;

    /// The session with this token and its owner, whether or not it has expired.
    async fn find_by_token(&self, token: &str) -> Result<Option<SignedIn>, Fault>;

    /// Moves the end of a session and stamps `updated_at`.
    async fn extend(&self, id: &SessionId, expires_at: DateTime<Utc>, at: DateTime<Utc>) -> Result<(), Fault>;

    /// Removes a session; harmless when it is gone.
    async fn revoke(&self, id: &SessionId) -> Result<(), Fault>;
}
