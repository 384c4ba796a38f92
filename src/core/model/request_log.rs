//! One row per call that reached routing (contract `gateway.md` §13).

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::ids::{KeyEntryId, LogId, RequestId, UserId};
use super::ledger::Flux;

/// The status of a row whose client left.
pub const CLIENT_CLOSED: u16 = 499;

/// Longest model id a row or a metric holds, characters; callers may send anything.
pub const MODEL_CHARS: usize = 200;

/// Whole milliseconds from one moment of a clock to a later one.
pub fn ms_between(from: Duration, to: Duration) -> i64 {
    i64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(i64::MAX)
}

/// What kind of generation a row tells about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationKind {
    /// A chat completion.
    Chat,
    /// One-shot speech.
    Speech,
    /// A streaming speech session.
    SpeechStream,
}

impl GenerationKind {
    /// The stored and labelled word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Speech => "tts",
            Self::SpeechStream => "tts_stream",
        }
    }
}

/// One row of `llm_request_log`.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedRequest {
    /// Row id.
    pub id: LogId,
    /// The call.
    pub request: RequestId,
    /// Who called.
    pub user: UserId,
    /// What was called.
    pub kind: GenerationKind,
    /// Resolved logical model id; adapters store at most 200 characters.
    pub model: String,
    /// The upstream's status on success, else the status answered; 499 when the client left.
    pub status: u16,
    /// From the start of the call to the end of delivery, ms.
    pub duration_ms: i64,
    /// From the start of the call to the first byte of the answer, ms.
    pub first_byte_ms: Option<i64>,
    /// What was actually charged.
    pub charged: Flux,
    /// Prompt tokens, when reported.
    pub prompt_tokens: Option<i64>,
    /// Completion tokens, when reported.
    pub completion_tokens: Option<i64>,
    /// Label of the upstream that answered.
    pub upstream: Option<String>,
    /// Key slot that answered.
    pub key: Option<KeyEntryId>,
    /// Failed attempts before the answer.
    pub fallback_depth: Option<u16>,
    /// Error code answered, if any.
    pub error: Option<&'static str>,
    /// Whether the caller asked for a stream.
    pub stream: bool,
    /// When the row was made.
    pub at: DateTime<Utc>,
}
