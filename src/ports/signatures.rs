//! Marks only this server can make, all with one secret (`BETTER_AUTH_SECRET`).

use chrono::{DateTime, Utc};

use crate::core::model::proofs::{BadEmailToken, EmailClaims};
use crate::core::model::secret::Secret;

/// Signs cookies, links and addresses. Every comparison MUST take constant time.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
pub trait Signatures: Send + Sync {
    /// HMAC-SHA-256 of the text, standard base64 with padding: 44 characters (contract `auth.md` §4.2).
    fn sign(&self, text: &str) -> String;

    /// Whether [`Signatures::sign`] made this signature of the text.
    fn verifies(&self, text: &str, signature: &str) -> bool;

    /// An HS256 JWT with these claims (contract `auth.md` §6.3).
    fn issue_email_token(&self, claims: &EmailClaims) -> Secret;

    /// Reads such a token; no other algorithm is accepted.
    fn read_email_token(&self, token: &str, now: DateTime<Utc>) -> Result<EmailClaims, BadEmailToken>;

    /// SHA-256 of the text, 64 lower-case hexadecimal characters. Not a secret's business: anybody can make it.
    fn digest(&self, text: &str) -> String;

    /// A keyed hash that tells addresses apart and shows none of them, 64 lower-case hexadecimal characters.
    fn blind(&self, text: &str) -> String;
}
