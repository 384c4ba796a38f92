//! OpenAI-compatible upstreams.

use async_trait::async_trait;
use bytes::Bytes;

use super::upstream::{ByteStream, Patience, UpstreamError};
use crate::core::model::secret::Secret;

/// One attempt: where, with what, for how long.
#[derive(Clone, Debug)]
pub struct UpstreamCall {
    /// Full address.
    pub url: String,
    /// Value of the `authorization` header.
    pub authorization: Secret,
    /// JSON text.
    pub body: Bytes,
    /// Its limits.
    pub patience: Patience,
}

/// A success (2xx) whose body has begun: at least one byte is in hand, or the body is empty and complete.
pub struct UpstreamAnswer {
    /// 200 to 299.
    pub status: u16,
    /// As sent, if sent.
    pub content_type: Option<String>,
    /// The whole body, from its first byte.
    pub body: ByteStream,
}

impl std::fmt::Debug for UpstreamAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamAnswer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Sends chat completions.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait LlmUpstream: Send + Sync {
    /// Makes one attempt. MUST NOT follow redirects (a 3xx is [`UpstreamError::Status`]), MUST ask for `identity`
    /// encoding, MUST return only once the first byte of the body has arrived, and MUST close the connection when
    /// the future or the body is dropped.
    async fn send(&self, call: &UpstreamCall) -> Result<UpstreamAnswer, UpstreamError>;
}

/// Counts tokens where no upstream says how many there are.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait TokenCounter: Send + Sync {
    /// Resolves when [`count`](Self::count) answers without a wait: a vocabulary may have to be loaded first.
    async fn ready(&self);

    /// Tokens of a text, near enough to price it. MUST be quick: it is asked for every piece of every stream.
    fn count(&self, text: &str) -> u64;
}
