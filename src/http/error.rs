//! Refusals as HTTP answers: one body, one table of statuses, and the framework's own failures in our words.

use std::sync::Arc;

use poem::error::{MethodNotAllowedError, NotFoundError, ParseJsonError, ReadBodyError};
use poem::http::{Method, StatusCode};
use poem::{IntoResponse, Response};
use poem_openapi::error::{
    AuthorizationError, ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError,
};
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaResponses, Registry};
use poem_openapi::types::Any;
use poem_openapi::{ApiResponse, Object};
use serde_json::{Value, json};

use super::middleware::limit_body::{BodyTooLarge, BodyTooSlow};
use crate::core::error::{Code, Error, Kind};

/// Where people find the product; this server only speaks to programs.
pub(super) const PRODUCT_UI: &str = "https://airi.moeru.ai";

/// What every refusal looks like (contract `observability.md` §7.5).
#[derive(Object, Clone, Debug)]
pub struct ErrorBody {
    /// A fixed code, for programs.
    pub error: String,
    /// A text, for people.
    pub message: String,
    /// Facts about this refusal; absent when there are none.
    #[oai(skip_serializing_if_is_none)]
    pub details: Option<Any<Value>>,
}

/// The error side of every operation. Documented as the rows `4XX` and `5XX`; the status is decided at run time.
#[derive(Debug)]
pub struct ApiError(Error);

#[derive(ApiResponse)]
enum Answer {
    /// The request was refused; `error` says why.
    #[oai(status_range = "4XX")]
    Client(
        StatusCode,
        Json<ErrorBody>,
        /// Seconds after which another try makes sense.
        #[oai(header = "Retry-After")]
        Option<u64>,
    ),
    /// The server or an upstream failed.
    #[oai(status_range = "5XX")]
    Server(
        StatusCode,
        Json<ErrorBody>,
        /// Seconds after which another try makes sense.
        #[oai(header = "Retry-After")]
        Option<u64>,
    ),
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl ApiResponse for ApiError {
    fn meta() -> MetaResponses {
        Answer::meta()
    }

    fn register(registry: &mut Registry) {
        Answer::register(registry);
    }
}

impl From<ApiError> for poem::Error {
    fn from(ApiError(error): ApiError) -> Self {
        let status = status(&error);
        let body = Json(ErrorBody {
            error: error.code.wire().to_owned(),
            message: error.message.clone(),
            details: error.details.as_deref().cloned().map(Any),
        });
        let answer = if status.is_server_error() {
            Answer::Server(status, body, error.retry_after)
        } else {
            Answer::Client(status, body, error.retry_after)
        };
        let mut answered = Self::from_response(answer.into_response());
        // The request line finds the cause here and logs it once.
        answered.set_data(Arc::new(error));
        answered
    }
}

/// The answer to a refusal met outside an operation.
pub(super) fn refuse(error: Error) -> Response {
    poem::Error::from(ApiError(error)).into_response()
}

/// The status of a refusal.
pub(super) fn status(error: &Error) -> StatusCode {
    let kind = error.code.kind();
    let upstream = error.upstream_status.filter(|_| kind == Kind::Rejected);
    let rejected = upstream.and_then(|status| StatusCode::from_u16(status).ok()).filter(StatusCode::is_client_error);
    rejected.or_else(|| StatusCode::from_u16(kind.status()).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Turns any failure of the framework into one of our answers; an answer that is already ours passes.
pub(super) fn speak(failure: poem::Error, method: &Method, path: &str) -> Response {
    if failure.is_from_response() {
        return failure.into_response();
    }
    if failure.is::<NotFoundError>() || failure.is::<MethodNotAllowedError>() {
        return no_route(method, path);
    }
    refuse(translate(failure))
}

/// The answer for a path nobody serves; wrong methods and trailing slashes get the same one.
pub(super) fn no_route(method: &Method, path: &str) -> Response {
    let message =
        format!("No route matched {method} {path}. This is the airi-api server; the product UI lives at {PRODUCT_UI}.");
    let body = json!({ "error": Code::NotFound.wire(), "message": message, "ui": PRODUCT_UI });
    poem::web::Json(body).with_status(StatusCode::NOT_FOUND).into_response()
}

/// The answer when a request ended in a panic; the text of the panic stays here.
pub(super) fn panicked(payload: &(dyn std::any::Any + Send)) -> Response {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned());
    refuse(Error::new(Code::Internal).because(format!("panicked: {text}")))
}

/// The framework's texts name generated parameters and Rust types, so none of them is passed on.
fn translate(failure: poem::Error) -> Error {
    if let Some(unread) = failure.downcast_ref::<ReadBodyError>() {
        return unreadable(unread);
    }
    if failure.is::<AuthorizationError>() {
        return Error::new(Code::Unauthorized);
    }
    if failure.is::<ContentTypeError>() || failure.is::<ParseJsonError>() {
        return Error::new(Code::InvalidBody);
    }
    if let Some(unusable) = failure.downcast_ref::<ParseRequestPayloadError>() {
        // JSON of the wrong shape is reported with the schema's name in front; anything else is not JSON at all.
        let is_json = unusable.reason.starts_with("failed to parse \"") || unusable.reason.starts_with("Expected");
        return Error::new(if is_json { Code::InvalidRequest } else { Code::InvalidBody });
    }
    if let Some(parameter) = failure.downcast_ref::<ParseParamError>() {
        return Error::new(Code::InvalidRequest).saying(format!("parameter {} is unusable", parameter.name));
    }
    if failure.is::<ParsePathError>() || failure.is::<poem::error::ParsePathError>() {
        return Error::new(Code::InvalidRequest).saying("the path is unusable");
    }
    match failure.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Error::new(Code::PayloadTooLarge),
        status if status.is_client_error() => Error::new(Code::BadRequest),
        _ => Error::new(Code::Internal).because(failure),
    }
}

fn unreadable(unread: &ReadBodyError) -> Error {
    match unread {
        ReadBodyError::PayloadTooLarge => Error::new(Code::PayloadTooLarge),
        ReadBodyError::Io(broken) if is_caused_by::<BodyTooLarge>(broken) => Error::new(Code::PayloadTooLarge),
        ReadBodyError::Io(broken) if is_caused_by::<BodyTooSlow>(broken) => {
            Error::new(Code::BadRequest).saying("the request body did not arrive in time")
        }
        ReadBodyError::BodyHasBeenTaken => Error::new(Code::Internal).because("the request body was read twice"),
        ReadBodyError::Io(_) | ReadBodyError::Utf8(_) => Error::new(Code::InvalidBody),
    }
}

/// I/O errors wrap one another without naming each other as source, so each layer is opened by hand.
fn is_caused_by<T: std::error::Error + 'static>(broken: &std::io::Error) -> bool {
    let mut cause = broken.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    while let Some(error) = cause {
        if error.is::<T>() {
            return true;
        }
        cause = match error.downcast_ref::<std::io::Error>() {
            Some(wrapped) => wrapped.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_of_its_kind() {
        for code in Code::ALL {
            let status = status(&Error::new(*code));
            assert!(status.is_client_error() || status.is_server_error(), "{}", code.wire());
        }
        let mut rejected = Error::new(Code::UpstreamRejected);
        rejected.upstream_status = Some(422);
        assert_eq!(status(&rejected), StatusCode::UNPROCESSABLE_ENTITY);
        rejected.upstream_status = Some(500);
        assert_eq!(status(&rejected), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn a_refusal_is_its_code_its_text_and_nothing_empty() {
        let refused = refuse(Error::new(Code::TooManyRequests).retry_after(7).because("secret cause"));
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "7");
        let body = refused.into_body().into_string().await.unwrap();
        assert_eq!(body, r#"{"error":"TOO_MANY_REQUESTS","message":"Too many requests"}"#);
    }

    #[tokio::test]
    async fn details_are_shown_when_there_are_some() {
        let refused = refuse(Error::new(Code::BadRequest).with_details(json!({ "requested": 5 })));
        assert!(!refused.headers().contains_key("retry-after"));
        let body: Value = refused.into_body().into_json().await.unwrap();
        assert_eq!(body["details"]["requested"], 5);
    }

    #[test]
    fn a_failure_of_the_framework_is_told_in_our_words() {
        let code = |failure: poem::Error| translate(failure).code;
        assert_eq!(code(ParseRequestPayloadError { reason: "EOF".into() }.into()), Code::InvalidBody);
        let shape = ParseRequestPayloadError { reason: "failed to parse \"Grant\": x".into() };
        assert_eq!(code(shape.into()), Code::InvalidRequest);
        assert_eq!(code(ContentTypeError::ExpectContentType.into()), Code::InvalidBody);
        assert_eq!(code(AuthorizationError.into()), Code::Unauthorized);
        let nested = std::io::Error::other(std::io::Error::other(BodyTooLarge));
        assert_eq!(code(ReadBodyError::Io(nested).into()), Code::PayloadTooLarge);
        assert_eq!(code(ReadBodyError::Io(std::io::Error::other("reset")).into()), Code::InvalidBody);
        assert_eq!(code(StatusCode::IM_A_TEAPOT.into()), Code::BadRequest);
        assert_eq!(code(StatusCode::BAD_GATEWAY.into()), Code::Internal);
    }
}
