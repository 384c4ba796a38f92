//! Letters to people.

use async_trait::async_trait;
use thiserror::Error;

use crate::core::model::letters::Letter;

/// Sends letters. An implementer MUST NOT log recipients or links.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Mailer: Send + Sync {
    /// Hands the letter over, within ten seconds. Sending the same letter again MUST be harmless where the provider
    /// can tell.
    async fn send(&self, letter: &Letter) -> Result<(), Undelivered>;
}

/// Why a letter was not handed over (contract `auth.md` §9).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Undelivered {
    /// No provider is configured.
    #[error("email/service_not_configured")]
    NotConfigured,
    /// The provider failed or refused; its name for it.
    #[error("email/send_failed: {0}")]
    Failed(String),
}

/// Letters that were kept instead of being sent, for whoever tries this server on their own machine.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
pub trait Outbox: Send + Sync {
    /// The last letters, newest first.
    fn letters(&self) -> Vec<Kept>;
}

/// A letter as it would have arrived.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The letter.
    pub letter: Letter,
    /// Its subject.
    pub subject: String,
    /// Its plain text.
    pub text: String,
}
