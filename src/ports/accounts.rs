//! People and their signed-in devices.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::Fault;
use crate::core::model::accounts::{Account, Creation, Email, NewAccount, Session, SignedIn};
use crate::core::model::identity::{
    Closing, Identity, Moving, PasswordChange, PasswordReset, ProfileChange, Proof, Proving, Reset, Unlinking,
};
use crate::core::model::ids::{SessionId, UserId};
use crate::core::model::secret::Secret;

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

    /// Every way this person has to sign in, oldest first.
    async fn list_identities(&self, user: &UserId) -> Result<Vec<Identity>, Fault>;

    /// The password hash of this person, if they have a password.
    async fn find_password(&self, user: &UserId) -> Result<Option<Secret>, Fault>;

    /// Stores what changed and stamps `updated_at`; harmless when the person is gone.
    async fn update(&self, user: &UserId, change: &ProfileChange, at: DateTime<Utc>) -> Result<(), Fault>;

    /// Removes one way to sign in, unless it is the last; absent `account_id` means whichever the provider has. The
    /// person's row MUST be locked first: two removals at once must not leave nobody able to sign in.
    async fn unlink<'a>(&self, user: &UserId, provider: &str, account_id: Option<&'a str>) -> Result<Unlinking, Fault>;

    /// Counts the address as proved. A first proof from elsewhere MUST remove the password, the sessions and the refresh
    /// tokens in the same transaction.
    async fn prove_email(&self, user: &UserId, proof: Proof, at: DateTime<Utc>) -> Result<Proving, Fault>;

    /// Gives the person who has the address `from` the address `to`, proved.
    async fn move_email(&self, user: &UserId, from: &Email, to: &Email, at: DateTime<Utc>) -> Result<Moving, Fault>;

    /// Stores the hash, as a new identity when there was none, and ends sessions and refresh tokens as asked, in one
    /// transaction. Says which sessions ended.
    async fn change_password(&self, change: &PasswordChange) -> Result<Vec<SessionId>, Fault>;

    /// Uses up the row named, stores the hash, counts the address as proved, and ends every session and refresh token
    /// of the person, in one transaction. Nothing happens when the row is not there, has expired or names nobody;
    /// of many at once, one succeeds.
    async fn reset_password(&self, reset: &PasswordReset) -> Result<Option<Reset>, Fault>;
}

/// The `session` table.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait SessionRepo: Send + Sync {
    /// Stores a session and moves the owner's `last_seen_at` to its creation, in one transaction. What ended of the same
    /// person goes: tokens that ended more than [`TOKENS_KEPT`] ago, and sessions no live refresh token came from, which
    /// MUST stay for a sign-out to find the token (contract `auth.md` §13).
    ///
    /// [`TOKENS_KEPT`]: crate::core::model::oidc::grants::TOKENS_KEPT
    async fn open(&self, session: &Session) -> Result<(), Fault>;

    /// The session with this token and its owner, whether or not it has expired.
    async fn find_by_token(&self, token: &str) -> Result<Option<SignedIn>, Fault>;

    /// Moves the end of a session and stamps `updated_at`.
    async fn extend(&self, id: &SessionId, expires_at: DateTime<Utc>, at: DateTime<Utc>) -> Result<(), Fault>;

    /// The session's person has changed: copies MUST NOT be used any longer. Writes nothing.
    async fn touch(&self, id: &SessionId);

    /// The person's sessions that have not expired, newest first.
    async fn list(&self, user: &UserId, now: DateTime<Utc>) -> Result<Vec<Session>, Fault>;

    /// Ends sessions of this person, and revokes what is tied to them, in one transaction. Says which ended; a session
    /// of somebody else is not touched.
    async fn close(&self, user: &UserId, which: &Closing, at: DateTime<Utc>) -> Result<Vec<SessionId>, Fault>;
}
