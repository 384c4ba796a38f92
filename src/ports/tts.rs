//! Speech engines, and the streaming speech upstream.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Sink;
use futures::stream::BoxStream;
use serde_json::{Map, Value};
use thiserror::Error;

use super::Fault;
use super::upstream::{ByteStream, Patience};
use crate::core::model::secret::Secret;
use crate::core::model::tts::{Frame, TtsProvider};

/// One text to be spoken by one upstream with one key.
#[derive(Clone, Debug)]
pub struct SpeechAttempt {
    /// Whose protocol the upstream speaks.
    pub provider: TtsProvider,
    /// Full endpoint address.
    pub base_url: String,
    /// Plaintext key.
    pub key: Secret,
    /// The upstream's `adapterParams`.
    pub params: Map<String, Value>,
    /// The text.
    pub text: String,
    /// Provider voice id; absent means the provider's default.
    pub voice: Option<String>,
    /// Speaking rate, 1 is normal.
    pub speed: Option<f64>,
    /// OpenAI format word or a provider's own code.
    pub response_format: Option<String>,
    /// Its limits; the head and every preliminary step belong to the time until the first byte of audio.
    pub patience: Patience,
}

/// Spoken audio, as it arrives.
pub struct SpokenAudio {
    /// Media type of the bytes.
    pub content_type: String,
    /// The audio, from its first byte; at least one is in hand.
    pub body: ByteStream,
}

impl std::fmt::Debug for SpokenAudio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpokenAudio").field("content_type", &self.content_type).finish_non_exhaustive()
    }
}

/// Why there is no audio (contract `audio.md` AU-D05).
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SpeechFailure {
    /// The caller asks for what this provider cannot do, found without asking it. `message` and `details` are for the
    /// caller.
    #[error("{message}")]
    BadRequest {
        /// What is wrong.
        message: String,
        /// Facts about it.
        details: Option<Value>,
    },
    /// One member of the caller's body is nothing this provider accepts.
    #[error("{path} {message}")]
    Unsupported {
        /// The member.
        path: &'static str,
        /// What is wrong with it, for the caller.
        message: &'static str,
    },
    /// The stored configuration lacks something. Never quotes a value.
    #[error("misconfigured: {0}")]
    Misconfigured(String),
    /// No audio within [`Patience::first_byte`].
    #[error("upstream timed out")]
    Timeout,
    /// The connection could not be made, or broke.
    #[error("upstream connection failed: {0}")]
    Transport(String),
    /// It refused, by its status or by a code of its own that means the same.
    #[error("upstream answered {status}")]
    Status {
        /// The status.
        status: u16,
        /// The beginning of what it said. Server-side only until sanitised.
        body: Bytes,
        /// Its `Retry-After`, seconds.
        retry_after: Option<u64>,
    },
    /// It answered a success without audio, or with something that is none; at most 256 characters of what it said.
    #[error("upstream answered without audio: {0}")]
    NoAudio(String),
    /// It announced more audio than is accepted.
    #[error("upstream answered too much audio")]
    TooLarge,
}

/// Speaks texts through providers.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait TtsEngine: Send + Sync {
    /// Makes one attempt. MUST return only once the first byte of audio has arrived, MUST hand audio on as it arrives
    /// without keeping it, MUST NOT follow redirects, MUST send the key to no address but the one configured, and MUST
    /// close the connection when the future or the body is dropped.
    async fn speak(&self, attempt: &SpeechAttempt) -> Result<SpokenAudio, SpeechFailure>;
}

/// Both directions of an open stream. Dropping it closes the connection.
pub struct SpeechLink {
    /// What the upstream says, in order. Ends when it closes; an error is the last item.
    pub frames: BoxStream<'static, Result<Frame, LinkBroken>>,
    /// What is said to it. Closing sends the closing handshake.
    pub sink: Pin<Box<dyn Sink<Frame, Error = LinkBroken> + Send>>,
}

/// A connection that broke, with a text for the log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("speech stream broke: {0}")]
pub struct LinkBroken(pub String);

/// Why a stream could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DialFailure {
    /// The address cannot be used.
    #[error("address is unusable: {0}")]
    Unusable(String),
    /// Refused, not answered, or answered with another status than 101; a text for the log.
    #[error("connection failed: {0}")]
    Refused(String),
    /// It took too long.
    #[error("timed out")]
    Timeout,
}

/// Speaks to the streaming speech upstream (contract `audio.md` §5, §6).
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait StreamingSpeech: Send + Sync {
    /// Opens a stream with `Authorization: Bearer <key>`. MUST end the attempt when the future is dropped, MUST refuse
    /// frames above 4 MiB, and MUST answer pings itself.
    async fn dial(&self, url: &str, key: &Secret, limit: Duration) -> Result<SpeechLink, DialFailure>;

    /// The JSON text at `url`, at most 4 MiB, asked for without credentials.
    async fn voices(&self, url: &str, limit: Duration) -> Result<Bytes, Fault>;
}
