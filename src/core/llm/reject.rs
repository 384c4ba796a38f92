//! What a caller is told when no upstream answered (contract `gateway.md` §5).

use std::fmt;

use serde_json::{Value, json};

use crate::core::error::{Code, Error};
use crate::core::model::ids::KeyEntryId;

/// Longest advice to come back later, seconds (GW-D35).
const RETRY_AFTER_CAP: u64 = 300;

/// How an attempt failed, in the word of metrics and details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It answered this status.
    Status(u16),
    /// It did not answer in time, or the connection failed.
    Timeout,
}

impl Failure {
    /// Whether the request itself is at fault, so that every upstream would refuse it (GW-D03).
    pub fn is_request_fault(self) -> bool {
        matches!(self, Self::Status(400 | 413 | 415 | 422))
    }

    fn detail(self) -> Value {
        match self {
            Self::Status(status) => status.into(),
            Self::Timeout => "timeout".into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Timeout => f.write_str("timeout"),
        }
    }
}

/// One failed attempt, for the log.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Upstream label.
    pub provider: String,
    /// The key slot; absent for an upstream without keys.
    pub key: Option<KeyEntryId>,
    /// How it failed.
    pub failure: Failure,
    /// Its sanitised text.
    pub snippet: Option<String>,
    /// Its `Retry-After`, seconds.
    pub retry_after: Option<u64>,
}

/// The attempts of one call that failed so far.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    /// In the order they were made.
    pub attempts: Vec<Failed>,
    /// How many upstreams were entered.
    pub upstreams: usize,
}

impl Failures {
    /// The chain is exhausted: the last attempt decides.
    pub fn exhausted(&self) -> Error {
        let last = self.attempts.last();
        let failure = last.map_or(Failure::Timeout, |last| last.failure);
        let error = match failure {
            Failure::Timeout => Error::new(Code::GatewayTimeout),
            Failure::Status(429) => {
                let error = Error::new(Code::UpstreamRateLimited);
                match last.and_then(|last| last.retry_after) {
                    Some(seconds) => error.retry_after(seconds.min(RETRY_AFTER_CAP)),
                    None => error,
                }
            }
            Failure::Status(_) => Error::new(Code::BadGateway),
        };
        self.tell(error, failure)
    }

    /// The time of the whole chain ran out.
    pub fn out_of_time(&self) -> Error {
        self.tell(Error::new(Code::GatewayTimeout), Failure::Timeout)
    }

    /// An upstream says the request itself is bad.
    pub fn rejected(&self, status: u16, explanation: String) -> Error {
        let mut error = Error::new(Code::UpstreamRejected).saying(explanation);
        error.upstream_status = Some(status);
        self.tell(error, Failure::Status(status))
    }

    fn tell(&self, error: Error, last: Failure) -> Error {
        error
            .with_details(json!({
                "triedKeys": self.attempts.len(),
                "triedUpstreams": self.upstreams,
                "lastStatusCode": last.detail(),
            }))
            .because(self.to_string())
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, attempt) in self.attempts.iter().enumerate() {
            let gap = if position == 0 { "" } else { "; " };
            let key = attempt.key.as_ref().map_or("-", KeyEntryId::as_str);
            write!(f, "{gap}{}/{key}: {}", attempt.provider, attempt.failure)?;
            if let Some(snippet) = &attempt.snippet {
                write!(f, " {snippet}")?;
            }
        }
        Ok(())
    }
}
