//! Forms in, OAuth's bodies out.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use poem::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use poem::http::{HeaderValue, StatusCode};
use poem::{FromRequest, IntoResponse, Request, RequestBody, Response};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::core::error::Kind;
use crate::core::model::secret::Secret;
use crate::core::oidc::Denied;
use crate::http::accounts::refused::Refused;
use crate::http::error::refuse;

/// A form; of repeated fields the last one counts.
pub(super) struct Form {
    pub(super) fields: BTreeMap<String, String>,
}

impl<'a> FromRequest<'a> for Form {
    async fn from_request(req: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        let kind = req.header(CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let told = "expected application/x-www-form-urlencoded".to_owned();
            let refused = Refused::Told(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", told);
            return Err(poem::Error::from_response(refused.into_response()));
        }
        let bytes = <Bytes as FromRequest>::from_request(req, body).await?;
        Ok(Self { fields: form_urlencoded::parse(&bytes).into_owned().collect() })
    }
}

/// Client id and secret of an `Authorization: Basic` header (RFC 6749 §2.3.1: each part is form-encoded).
pub(super) fn basic(header: Option<&str>) -> Option<(String, Secret)> {
    let (scheme, text) = header?.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let plain = |part: &str| form_urlencoded::parse(part.as_bytes()).next().map(|(text, _)| text.into_owned());
    Some((plain(id).filter(|id| !id.contains('\0'))?, Secret::new(plain(secret)?)))
}

pub(super) fn json_answer(body: &Value) -> Response {
    Response::builder().content_type("application/json").body(body.to_string())
}

/// `{"error", "error_description"}` (contract §2.4, shape B).
pub(super) fn refused(status: StatusCode, error: &str, description: &str) -> Response {
    let mut answer = json_answer(&json!({ "error": error, "error_description": description }));
    answer.set_status(status);
    answer
}

/// A field that does not mean anything.
pub(super) fn validation(place: &str, field: &str) -> Response {
    Refused::field(place, field, "is missing or unusable").into_response()
}

pub(super) fn denied(denied: Denied) -> Response {
    match denied {
        Denied::Failed(error) => refuse(error),
        Denied::Refused(refusal) => {
            let status = match refusal.kind {
                Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
                _ => StatusCode::BAD_REQUEST,
            };
            refused(status, refusal.error, refusal.description)
        }
    }
}

/// RFC 6750 §3: who was turned away is told how to come in.
pub(super) fn challenged(mut answer: Response) -> Response {
    if answer.status() == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_decoded_twice() {
        let header = |text: &str| format!("basic {}", STANDARD.encode(text));
        let (id, secret) = basic(Some(&header("a%20b:s%3Ac"))).unwrap();
        assert_eq!((id.as_str(), secret.expose()), ("a b", "s:c"));
        for bad in ["", "Bearer x", "Basic", "Basic ?", &header("nocolon"), &header("%00:x")] {
            assert!(basic(Some(bad)).is_none(), "{bad}");
        }
    }
}
