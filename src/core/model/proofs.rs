//! One-time secrets that are mailed, and what they prove (contract `auth.md` §3.4, §6.3).

use chrono::{DateTime, Duration, Utc};
use thiserror::Error;

/// One row of `verification`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Row id.
    pub id: String,
    /// What it is looked up by; holds or is the secret.
    pub identifier: String,
    /// What it stands for: a user id or JSON.
    pub value: String,
    /// Not valid from this instant on.
    pub expires_at: DateTime<Utc>,
    /// When it was issued.
    pub created_at: DateTime<Utc>,
}

impl Verification {
    /// Whether it still proves something.
    pub fn is_alive(&self, now: DateTime<Utc>) -> bool {
        now < self.expires_at
    }
}

/// How long an ended row is kept, so that its holder is told that it came too late and not that it never was.
pub const KEPT_AFTER_END: Duration = Duration::days(1);

/// Life of a password reset.
pub const RESET_LIFETIME: Duration = Duration::hours(1);
/// Life of a deletion link.
pub const DELETION_LIFETIME: Duration = Duration::hours(24);
/// Life of a magic link.
pub const MAGIC_LINK_LIFETIME: Duration = Duration::minutes(5);
/// Life of an address proof.
pub const EMAIL_PROOF_LIFETIME: Duration = Duration::hours(1);

/// What a mailed address token says. It is signed, not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailClaims {
    /// The address the account has, lower-case.
    pub email: String,
    /// The address it is to have, for a change.
    pub update_to: Option<String>,
    /// Which step of a change.
    pub step: EmailStep,
    /// When it was issued, whole seconds.
    pub issued_at: DateTime<Utc>,
    /// Not valid from this instant on, whole seconds.
    pub expires_at: DateTime<Utc>,
}

/// What an address token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmailStep {
    /// Proves the address of the account.
    Verify,
    /// The owner of the current address agrees to the change.
    ConfirmChange,
    /// The owner of the new address proves it.
    VerifyChange,
}

impl EmailStep {
    /// The word in `requestType`; none for a plain proof.
    pub const fn wire(self) -> Option<&'static str> {
        match self {
            Self::Verify => None,
            Self::ConfirmChange => Some("change-email-confirmation"),
            Self::VerifyChange => Some("change-email-verification"),
        }
    }

    /// Reads the word.
    pub fn parse(word: Option<&str>) -> Option<Self> {
        [Self::Verify, Self::ConfirmChange, Self::VerifyChange].into_iter().find(|step| step.wire() == word)
    }
}

/// Why an address token proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadEmailToken {
    /// Not ours, or not a token.
    #[error("not a token of this server")]
    Invalid,
    /// Ours, and too old.
    #[error("the token has expired")]
    Expired,
}
