//! The one infrastructure failure.

use std::error::Error;
use std::fmt;

/// A dependency did not do what it was asked, for a reason the caller cannot mend. Never shown to a caller.
#[derive(Debug)]
pub struct Fault {
    kind: FaultKind,
    operation: &'static str,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What sort of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The dependency cannot be reached or refuses work; later may be better.
    Unavailable,
    /// It did not answer in time.
    Timeout,
    /// It holds or said something our types cannot express.
    Corrupt,
}

impl Fault {
    /// A failure of `operation`, e.g. `postgres.ledger.debit`.
    pub fn new(kind: FaultKind, operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, operation, source: Some(source.into()) }
    }

    /// What sort of failure it was.
    pub fn kind(&self) -> FaultKind {
        self.kind
    }

    /// What was attempted.
    pub fn operation(&self) -> &'static str {
        self.operation
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FaultKind::Unavailable => "unavailable",
            FaultKind::Timeout => "timed out",
            FaultKind::Corrupt => "returned something unusable",
        };
        write!(f, "{} {what}", self.operation)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
