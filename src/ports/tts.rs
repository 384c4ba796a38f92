//! Speech engines.

use async_trait::async_trait;

use super::upstream::{ByteStream, UpstreamError};
use crate::core::model::tts::SpeechRequest;

/// Spoken audio, as it arrives.
pub struct SpokenAudio {
    /// Media type of the bytes.
    pub content_type: String,
    /// The audio, from its first byte.
    pub body: ByteStream,
}

/// Speaks a text through one provider.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait TtsEngine: Send + Sync {
    /// Makes one attempt. MUST return only once the first byte of audio has arrived, and MUST close the connection
    /// when the future or the body is dropped.
    async fn speak(&self, request: &SpeechRequest) -> Result<SpokenAudio, UpstreamError>;
}
