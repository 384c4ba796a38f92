//! How streamed answers end, in the words of the metrics (contract `observability.md` §3).

/// How a streamed answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// Completely.
    Done,
    /// The client left.
    ClientClosed,
    /// The upstream broke it off or sent an error event.
    UpstreamError,
    /// No byte for too long, or too long in all.
    IdleTimeout,
}

impl StreamEnd {
    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ClientClosed => "client_closed",
            Self::UpstreamError => "upstream_error",
            Self::IdleTimeout => "idle_timeout",
        }
    }
}

/// How far a stream was when it broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptionStage {
    /// Nothing had been delivered.
    BeforeFirstChunk,
    /// Something had.
    MidStream,
}

impl InterruptionStage {
    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeFirstChunk => "before_first_chunk",
            Self::MidStream => "mid_stream",
        }
    }
}
