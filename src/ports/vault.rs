//! Upstream keys at rest.

use thiserror::Error;

use crate::core::model::secret::Secret;

/// Seals and opens keys, bound to the slot they belong to (contract `gateway.md` §10).
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
pub trait Vault: Send + Sync {
    /// Seals with the current master key. `model` and `key_id` MUST NOT contain `|`.
    fn seal(&self, plaintext: &Secret, model: &str, key_id: &str) -> Result<String, Unreadable>;

    /// Opens a token that was sealed for the same slot, with the current or the previous master key.
    fn open(&self, token: &str, model: &str, key_id: &str) -> Result<Opened, Unreadable>;

    /// First 8 lower-case hexadecimal characters of SHA-256 over the UTF-8 bytes: tells texts apart without showing
    /// them (contract `gateway.md` §10.4).
    fn fingerprint(&self, text: &str) -> String;
}

/// A key in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The key.
    pub plaintext: Secret,
    /// Which master key opened it.
    pub with: MasterKey,
}

/// Which master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterKey {
    /// `LLM_ROUTER_MASTER_KEY`.
    Current,
    /// `LLM_ROUTER_MASTER_KEY_PREVIOUS`.
    Previous,
}

/// Why a token cannot be opened, or a key not sealed. Says nothing about key or plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Not four parts of URL-safe base64 without padding, with a 12-byte nonce and a 16-byte tag.
    #[error("malformed envelope; expected v1.<iv>.<ciphertext>.<tag> in unpadded URL-safe base64")]
    Malformed,
    /// A version this server does not know.
    #[error("unknown envelope version; expected v1")]
    Version,
    /// Tampered with, sealed for another slot, or sealed with another master key.
    #[error("envelope does not open with the master key for this slot")]
    Refused,
    /// The slot's name would be ambiguous.
    #[error("model and key id must not contain \"|\"")]
    AmbiguousSlot,
}
