//! Ways to sign in, and what changes about a person and their sessions (contract `auth.md` §6).

use chrono::{DateTime, Utc};

use super::accounts::{PasswordIdentity, Session};
use super::ids::{IdentityId, SessionId, UserId};
use super::secret::Secret;

/// The provider of an identity that is a password.
pub const CREDENTIAL: &str = "credential";

/// A way to sign in, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Row id.
    pub id: IdentityId,
    /// Whose it is.
    pub user: UserId,
    /// `credential`, `google`, `github`.
    pub provider: String,
    /// The person's id at the provider; the user id for `credential`.
    pub account_id: String,
    /// What the provider granted.
    pub scopes: Vec<String>,
    /// When it was linked.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// What a person changes about themselves; absent fields stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileChange {
    /// A new display name.
    pub name: Option<String>,
    /// A new picture, or none any more.
    pub image: Option<Option<String>>,
}

/// What became of a request to remove a way to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlinking {
    /// Removed.
    Unlinked,
    /// It is the only one left; nothing was written.
    LastOne,
    /// There is no such one; nothing was written.
    Missing,
}

/// How an address was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By the link that was mailed for this account's own sign-up.
    OwnLink,
    /// By a sign-in that did not use the account's password. Whoever set that password never proved the address, so
    /// password, sessions and refresh tokens end (contract `auth.md` F-04).
    Elsewhere,
}

/// What became of a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proving {
    /// The address counts as proved from now on; these sessions ended.
    Newly(Vec<SessionId>),
    /// It already did; nothing was written.
    Already,
    /// Nobody has this id.
    Gone,
}

/// What became of a change of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moving {
    /// The new address is stored and counts as proved.
    Moved,
    /// Somebody else has it; nothing was written.
    AddressTaken,
    /// Nobody has this id and the old address; nothing was written.
    Gone,
}

/// Which sessions of one person end. Refresh tokens tied to them are revoked before (contract `auth.md` F-05).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The one with this id.
    One(SessionId),
    /// The one with this token.
    Token(Secret),
    /// Every one; every refresh token of the person with them.
    All,
    /// Every one but this; every refresh token not tied to this. With none to keep, tied refresh tokens only.
    Others(Option<SessionId>),
}

/// A new password and what becomes of the sessions, in one transaction.
#[derive(Clone, Debug)]
pub struct PasswordChange {
    /// Whose.
    pub user: UserId,
    /// The new hash; the id is used when there was no password.
    pub password: PasswordIdentity,
    /// When.
    pub at: DateTime<Utc>,
    /// What becomes of the sessions.
    pub sessions: Afterwards,
}

/// What becomes of a person's sessions after a change of password.
#[derive(Clone, Debug)]
pub enum Afterwards {
    /// They go on.
    Leave,
    /// All end but this one.
    KeepOnly(Option<SessionId>),
    /// All end; the caller's is replaced by a new one, which inherits its refresh tokens.
    Replace {
        /// The caller's session.
        old: SessionId,
        /// What takes its place.
        new: Session,
    },
}

/// A password set by whoever holds the mailed token.
#[derive(Clone, Debug)]
pub struct PasswordReset {
    /// Identifier of the verification row; used up.
    pub identifier: String,
    /// The new hash; the id is used when there was no password.
    pub password: PasswordIdentity,
    /// When.
    pub at: DateTime<Utc>,
}

/// A reset that took place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Whose password it is.
    pub user: UserId,
    /// The sessions that ended: all of them.
    pub closed: Vec<SessionId>,
}
