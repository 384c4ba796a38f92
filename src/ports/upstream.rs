//! Bytes from an upstream, and how it can fail.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use thiserror::Error;

/// A body as it arrives. Dropping it closes the upstream connection.
pub type ByteStream = BoxStream<'static, Result<Bytes, UpstreamError>>;

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UpstreamError {
    /// It answered with a status that is not a success.
    #[error("upstream answered {status}")]
    Status {
        /// The status.
        status: u16,
        /// The beginning of its body, at most 16 KiB. Server-side only until sanitised.
        body: Bytes,
        /// Its `Retry-After` in whole seconds, if it sent a usable one.
        retry_after: Option<u64>,
    },
    /// A limit of [`Patience`] ran out before the first byte.
    #[error("upstream timed out")]
    Timeout,
    /// The connection could not be made, or broke.
    #[error("upstream connection failed: {0}")]
    Transport(String),
    /// Nothing arrived for [`Patience::idle`], or the whole took longer than [`Patience::total`].
    #[error("upstream stalled")]
    Stalled,
}

/// How long an attempt may take; enforced by the adapter, which has the timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until the response head.
    pub head: Duration,
    /// Until the first byte of the body, counted from the start of the attempt.
    pub first_byte: Duration,
    /// Between two reads of the body.
    pub idle: Duration,
    /// Until the end of the body, counted from the start of the attempt.
    pub total: Duration,
}
