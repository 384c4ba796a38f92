//! What a use-case answers when it cannot do what was asked.

use std::error::Error as StdError;
use std::fmt;

use serde_json::Value;

use super::model::ownership::OwnerOnly;
use super::model::validation::Invalid;
use crate::ports::{Fault, FaultKind};

/// What sort of refusal a code is; the doors translate it, the core knows nothing of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The caller sent something unusable.
    Invalid,
    /// Nobody, or nobody we know, is asking.
    Unauthenticated,
    /// There is nothing left to spend.
    PaymentRequired,
    /// The caller may not do this.
    Forbidden,
    /// There is no such thing.
    Missing,
    /// It collides with what is there.
    Conflict,
    /// The body is too long.
    TooLarge,
    /// Too often.
    TooMany,
    /// Our fault, unexpected.
    Internal,
    /// An upstream failed.
    BadUpstream,
    /// Not now.
    Unavailable,
    /// An upstream did not answer in time.
    UpstreamTimeout,
    /// An upstream says the caller's request is at fault; the status is the upstream's.
    Rejected,
}

impl Kind {
    /// The status HTTP has for it (RFC 9110 §15); the one place where a kind becomes a number. A rejection has the
    /// upstream's status where that is known.
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid | Self::Rejected => 400,
            Self::Unauthenticated => 401,
            Self::PaymentRequired => 402,
            Self::Forbidden => 403,
            Self::Missing => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::TooMany => 429,
            Self::Internal => 500,
            Self::BadUpstream => 502,
            Self::Unavailable => 503,
            Self::UpstreamTimeout => 504,
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident => ($wire:literal, $kind:ident, $message:literal);)+) => {
        /// Every refusal there is. A code knows its wire name, its kind and its usual text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $code,)+
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$code),+];

            /// The word in `error`.
            pub const fn wire(self) -> &'static str {
                match self { $(Self::$code => $wire,)+ }
            }

            /// What sort of refusal it is.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$code => Kind::$kind,)+ }
            }

            /// The text in `message` unless a better one is known.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$code => $message,)+ }
            }
        }
    };
}

codes! {
    /// No credential, or one that is not good.
    Unauthorized => ("UNAUTHORIZED", Unauthenticated, "Unauthorized");
    /// Signed in, but not allowed.
    Forbidden => ("FORBIDDEN", Forbidden, "Forbidden");
    /// No such resource.
    NotFound => ("NOT_FOUND", Missing, "Not Found");
    /// The request makes no sense.
    BadRequest => ("BAD_REQUEST", Invalid, "Bad Request");
    /// The body is not what this operation reads.
    InvalidBody => ("INVALID_BODY", Invalid, "Request body must be JSON");
    /// A field of the request is unusable.
    InvalidRequest => ("INVALID_REQUEST", Invalid, "Invalid Request");
    /// Not enough flux.
    InsufficientFlux => ("PAYMENT_REQUIRED", PaymentRequired, "Insufficient flux");
    /// It collides with what is stored.
    Conflict => ("CONFLICT", Conflict, "Conflict");
    /// A key of a call stands for another body.
    IdempotencyMismatch => ("IDEMPOTENCY_MISMATCH", Conflict, "The Idempotency-Key was used with another body");
    /// A call with this key is under way.
    IdempotencyInProgress => ("IDEMPOTENCY_IN_PROGRESS", Conflict, "A call with this Idempotency-Key is under way");
    /// A call with this key was answered, and its answer is not kept.
    IdempotencyNotKept => ("IDEMPOTENCY_NOT_KEPT", Conflict,
        "The call with this Idempotency-Key was answered; streams and answers over 1 MiB are not kept");
    /// The body is too long.
    PayloadTooLarge => ("PAYLOAD_TOO_LARGE", TooLarge, "Request body too large");
    /// A limiter refused.
    TooManyRequests => ("TOO_MANY_REQUESTS", TooMany, "Too many requests");
    /// Unexpected.
    Internal => ("INTERNAL_SERVER_ERROR", Internal, "Internal Server Error");
    /// The last upstream failed.
    BadGateway => ("BAD_GATEWAY", BadUpstream, "Upstream unavailable");
    /// The last upstream was rate-limited.
    UpstreamRateLimited => ("SERVICE_UNAVAILABLE", Unavailable, "Upstream rate-limited");
    /// A dependency is out of reach.
    ServiceUnavailable => ("SERVICE_UNAVAILABLE", Unavailable, "Service temporarily unavailable");
    /// A needed configuration entry is not set.
    ConfigNotSet => ("CONFIG_NOT_SET", Unavailable, "Service configuration is incomplete");
    /// A stored configuration entry is unusable.
    ConfigInvalid => ("CONFIG_INVALID", Unavailable, "Service configuration is invalid");
    /// A stored key cannot be opened.
    DecryptFailed => ("DECRYPT_FAILED", Unavailable, "Upstream credentials are unavailable");
    /// No upstream answered in time.
    GatewayTimeout => ("GATEWAY_TIMEOUT", UpstreamTimeout, "Upstream timeout");
    /// No payment provider is configured.
    StripeNotConfigured => ("STRIPE_NOT_CONFIGURED", Unavailable, "Stripe is not configured");
    /// What was to be bought is not on sale.
    InvalidPackage => ("INVALID_PACKAGE", Invalid, "Invalid price");
    /// A payment would lead back to a place nobody vouches for.
    InvalidOrigin => ("INVALID_ORIGIN", Invalid, "Missing trusted request origin");
    /// The caller never bought anything.
    NoCustomer => ("NO_CUSTOMER", Invalid, "No billing account found");
    /// A message of the payment provider without a signature.
    MissingSignature => ("MISSING_SIGNATURE", Invalid, "No signature");
    /// A message nobody vouches for, or one that is none.
    WebhookError => ("WEBHOOK_ERROR", Invalid, "Webhook Error: the message could not be verified");
    /// The upstream refused the request itself.
    UpstreamRejected => ("UPSTREAM_REJECTED", Rejected, "Upstream rejected the request");
}

/// A refusal: a code, a text for the caller, optional details for the caller, and a cause for the log.
#[derive(Debug)]
pub struct Error {
    /// Which refusal.
    pub code: Code,
    /// Text for the caller; never an upstream's raw text, never an internal one.
    pub message: String,
    /// Facts for the caller.
    pub details: Option<Box<Value>>,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u64>,
    /// The status an upstream answered, for [`Code::UpstreamRejected`].
    pub upstream_status: Option<u16>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A refusal with its usual text.
    pub fn new(code: Code) -> Self {
        Self {
            code,
            message: code.message().to_owned(),
            details: None,
            retry_after: None,
            upstream_status: None,
            source: None,
        }
    }

    /// The same with another text.
    #[must_use]
    pub fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// The same with facts for the caller.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// The same with advice when to come back, seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The same with a cause for the log.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.wire(), self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// A dependency out of reach is worth another try; anything else is our fault and says nothing.
impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault.kind() {
            FaultKind::Unavailable | FaultKind::Timeout => {
                Self::new(Code::ServiceUnavailable).retry_after(1).because(fault)
            }
            FaultKind::Corrupt => Self::new(Code::Internal).because(fault),
        }
    }
}

impl<T> OwnerOnly<T> {
    /// What was done, or the refusal: what is missing is told before what is somebody else's.
    pub fn done(self) -> Result<T, Error> {
        match self {
            Self::Done(value) => Ok(value),
            Self::Missing => Err(Error::new(Code::NotFound)),
            Self::Foreign => Err(Error::new(Code::Forbidden)),
        }
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::new(Code::InvalidRequest).with_details(invalid.details())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn wire_names_shout_and_codes_sharing_one_share_their_kind() {
        let mut kinds = HashMap::new();
        for code in Code::ALL {
            assert!(code.wire().chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{}", code.wire());
            assert_eq!(*kinds.entry(code.wire()).or_insert(code.kind()), code.kind(), "{}", code.wire());
        }
    }

    #[test]
    fn a_fault_is_never_told_to_the_caller() {
        let error = Error::from(Fault::new(FaultKind::Unavailable, "postgres.ledger.debit", "host db.internal"));
        assert_eq!(error.to_string(), "SERVICE_UNAVAILABLE: Service temporarily unavailable");
        assert_eq!(error.retry_after, Some(1));
        assert!(StdError::source(&error).is_some());
    }
}
