//! Refusals of the identity doors: `{"message", "code"}` (contract `auth.md` §2.4, shape A).

use poem::http::StatusCode;
use poem::web::Json;
use poem::{IntoResponse, Response};
use serde_json::json;

use super::trust::Forged;
use crate::core::accounts::{Denied, Refusal};
use crate::core::error::Error;
use crate::http::error::refuse;

/// Why a door does not do what was asked.
#[derive(Debug)]
pub(in crate::http) enum Refused {
    /// A status, a code and a text.
    Told(StatusCode, &'static str, String),
    /// A reason every operation has.
    Failed(Error),
}

impl Refused {
    /// A field that is not what the operation reads.
    pub(in crate::http) fn field(place: &str, name: &str, why: &str) -> Self {
        Self::Told(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", format!("[{place}.{name}] {why}"))
    }

    /// The same refusal under another status: some words mean different things at different doors.
    pub(in crate::http) fn with(refusal: Refusal, status: StatusCode) -> Self {
        Self::Told(status, refusal.wire(), refusal.message().to_owned())
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::with(refusal, status(refusal))
    }
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(refusal) => refusal.into(),
            Denied::Failed(error) => Self::Failed(error),
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Forged> for Refused {
    fn from(forged: Forged) -> Self {
        let (code, message) = match forged {
            Forged::NoOrigin => ("MISSING_OR_NULL_ORIGIN", "Missing or null Origin"),
            Forged::Untrusted => ("INVALID_ORIGIN", "Invalid origin"),
            Forged::CrossSiteSignIn => ("CROSS_SITE_NAVIGATION_LOGIN_BLOCKED", "Cross-site navigation login blocked"),
        };
        Self::Told(StatusCode::FORBIDDEN, code, message.to_owned())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Told(status, "", message) => Json(json!({ "message": message })).with_status(status).into_response(),
            Self::Told(status, code, message) => {
                Json(json!({ "message": message, "code": code })).with_status(status).into_response()
            }
            Self::Failed(error) => refuse(error),
        }
    }
}

const fn status(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::InvalidEmail
        | Refusal::InvalidPassword
        | Refusal::PasswordTooShort
        | Refusal::PasswordTooLong
        | Refusal::CredentialAccountNotFound
        | Refusal::AccountNotFound
        | Refusal::LastAccount
        | Refusal::EmailCanNotBeUpdated
        | Refusal::EmailMismatch
        | Refusal::EmailAlreadyVerified => StatusCode::BAD_REQUEST,
        Refusal::InvalidEmailOrPassword
        | Refusal::InvalidToken
        | Refusal::TokenExpired
        | Refusal::ExpiredToken
        | Refusal::AttemptsExceeded
        | Refusal::UserNotFound
        | Refusal::InvalidUser
        | Refusal::Unauthorized => StatusCode::UNAUTHORIZED,
        Refusal::EmailNotVerified | Refusal::SessionNotFresh => StatusCode::FORBIDDEN,
        Refusal::ProviderNotFound => StatusCode::NOT_FOUND,
        Refusal::NotCreated => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::EmailSendFailed => StatusCode::BAD_GATEWAY,
    }
}
