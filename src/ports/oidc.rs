//! Proofs of identity: passwords, signing keys, clients, and the codes and tokens they were given.

use async_trait::async_trait;
use chrono::{DateTime, Duration, Utc};
use serde_json::Value;
use std::sync::Arc;

use super::Fault;
use crate::core::model::accounts::Account;
use crate::core::model::ids::{SessionId, UserId};
use crate::core::model::oidc::SignIn;
use crate::core::model::oidc::claims::Claims;
use crate::core::model::oidc::clients::Client;
use crate::core::model::oidc::grants::{CodeGrant, NewTokens, OpaqueRow, Redemption, RefreshRow, Renewal};
use crate::core::model::oidc::keys::KeyRow;
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

/// Signs, verifies and digests tokens (contract `auth.md` §3.5, §3.6).
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait TokenSigner: Send + Sync {
    /// A signed token with these claims. The first signature of a database without keys makes an RS256 key.
    async fn sign(&self, claims: &Claims) -> Result<Secret, Fault>;

    /// The claims of a token one of our keys signed, whatever they say; nothing for anything else. Unless
    /// `even_retired`, an expired key proves nothing. MUST NOT touch a store while its copy of the keys, at most 60 s
    /// old, knows the `kid`.
    async fn verify(&self, token: &str, even_retired: bool) -> Result<Option<Arc<Claims>>, Fault>;

    /// The public JWKs, newest first, with `alg` and `kid`; makes a key when there is none.
    async fn published(&self) -> Result<Vec<Value>, Fault>;

    /// Adds an RS256 key and lets the others expire after `core::model::oidc::keys::KEY_OVERLAP`; its `kid`.
    async fn rotate(&self) -> Result<String, Fault>;

    /// Unpadded base64url of SHA-256: how tokens are stored and challenges are made.
    fn digest(&self, text: &str) -> String;
}

/// The `jwks` table.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait SigningKeyRepo: Send + Sync {
    /// All keys, newest first.
    async fn list(&self) -> Result<Vec<KeyRow>, Fault>;

    /// Stores the first key; nothing happens when there is one. Of several callers at once one stores.
    async fn add_first(&self, key: &KeyRow) -> Result<(), Fault>;

    /// Stores a key and ends every key that has no end yet at `others_end`, in one transaction.
    async fn rotate(&self, key: &KeyRow, others_end: DateTime<Utc>) -> Result<(), Fault>;
}

/// The `oauth_client` table.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait ClientRepo: Send + Sync {
    /// The client of this name.
    async fn find(&self, client_id: &str) -> Result<Option<Client>, Fault>;

    /// Inserts the client under this row id, or overwrites everything about it but `disabled`. Safe for several
    /// processes at once.
    async fn seed(&self, client: &Client, row_id: &str, at: DateTime<Utc>) -> Result<(), Fault>;
}

/// Codes, refresh tokens and opaque access tokens, all known by their digests.
///
/// A family is every refresh token that grew out of one code; the code's digest is its name. Whatever changes a
/// family MUST first lock one row, that of its person, so that a token rotated at the moment of a revocation is
/// revoked with the others. A row without a family counts as the family of its (user, client).
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait GrantRepo: Send + Sync {
    /// When and by whom this session was opened, whether or not it has ended.
    async fn sign_in_of(&self, session: &SessionId) -> Result<Option<SignIn>, Fault>;

    /// Stores a code.
    async fn save_code(
        &self,
        digest: &str,
        grant: &CodeGrant,
        row_id: &str,
        at: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Result<(), Fault>;

    /// The code and when it ends, unredeemed.
    async fn find_code(&self, digest: &str) -> Result<Option<(CodeGrant, DateTime<Utc>)>, Fault>;

    /// Removes a code and stores its tokens, in one transaction. Of several callers at once one gets
    /// [`Redemption::Redeemed`]; each of the others revokes what that one was given.
    async fn redeem(
        &self,
        digest: &str,
        session: &SessionId,
        tokens: &NewTokens,
        at: DateTime<Utc>,
    ) -> Result<Redemption, Fault>;

    /// Removes a code without giving anything for it; when it is gone, revokes the family of its name.
    async fn spoil(&self, digest: &str, at: DateTime<Utc>) -> Result<(), Fault>;

    /// The refresh token, revoked and expired ones included.
    async fn find_refresh(&self, digest: &str) -> Result<Option<RefreshRow>, Fault>;

    /// Replaces a refresh token, or does what `core::model::oidc::grants::judge` says, in one transaction; `tokens` are
    /// stored for [`Renewal::Rotated`] and [`Renewal::Forked`] and get the family of the presented token.
    async fn renew(
        &self,
        presented: &RefreshRow,
        tokens: &NewTokens,
        at: DateTime<Utc>,
        grace: Duration,
    ) -> Result<Renewal, Fault>;

    /// Revokes the family of a refresh token and removes its opaque tokens.
    async fn revoke_family(&self, of: &RefreshRow, at: DateTime<Utc>) -> Result<(), Fault>;

    /// The opaque access token, expired ones included.
    async fn find_opaque(&self, digest: &str) -> Result<Option<OpaqueRow>, Fault>;

    /// Removes an opaque access token; harmless when it is gone.
    async fn remove_opaque(&self, digest: &str) -> Result<(), Fault>;
}

/// Accounts for credentials that carry only an id: copies, up to 60 s old.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait AccountSnapshots: Send + Sync {
    /// The account with this id.
    async fn find(&self, id: &UserId) -> Result<Option<Account>, Fault>;

    /// Drops the copy in every process: called after a deletion, a ban, or a change that must be seen at once.
    async fn forget(&self, id: &UserId) -> Result<(), Fault>;
}
