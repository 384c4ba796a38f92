//! Forms in, OAuth's bodies out.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use poem::http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use poem::http::{HeaderValue, StatusCode};
use poem::{FromRequest, IntoResponse, Request, RequestBody, Response};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::core::error::{Error, Kind};
use crate::core::model::secret::Secret;
use crate::core::oidc::Denied;
use crate::http::error::refuse;

/// A form; of repeated fields the last one counts.
pub(super) struct Form {
    pub(super) fields: BTreeMap<String, String>,
}

impl<'a> FromRequest<'a> for Form {
    async fn from_request(req: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        let kind = req.header(CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let answer = shape_a(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                "expected application/x-www-form-urlencoded",
            );
            return Err(poem::Error::from_response(answer));
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

/// `{"message", "code"}` (contract §2.4, shape A).
pub(super) fn shape_a(status: StatusCode, code: &str, message: &str) -> Response {
    let mut answer = json_answer(&json!({ "message": message, "code": code }));
    answer.set_status(status);
    answer
}

/// A field that does not mean anything.
pub(super) fn validation(place: &str, field: &str) -> Response {
    shape_a(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", &format!("[{place}.{field}] is missing or unusable"))
}

pub(super) fn denied(denied: Denied) -> Response {
    match denied {
        Denied::Failed(error) => fault(error),
        Denied::Refused(refusal) => {
            let status = match refusal.kind {
                Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
                _ => StatusCode::BAD_REQUEST,
            };
            refused(status, refusal.error, refusal.description)
        }
    }
}

/// A failure of ours, in the shape of every route.
pub(super) fn fault(error: Error) -> Response {
    refuse(error)
}

/// RFC 6750 §3: who was turned away is told how to come in.
pub(super) fn challenged(mut answer: Response) -> Response {
    if answer.status() == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
    }
    answer
}

pub(super) fn redirect(url: &str) -> Response {
    match HeaderValue::from_str(url) {
        Ok(location) => {
            let mut answer = StatusCode::FOUND.into_response();
            answer.headers_mut().insert(LOCATION, location);
            answer
        }
        Err(_) => validation("query", "redirect_uri"),
    }
}

/// Names of the session cookies (contract §4.2).
const COOKIES: [&str; 3] = ["better-auth.session_token", "better-auth.session_data", "better-auth.dont_remember"];

/// Clears the session cookies of the browser.
pub(super) fn signed_out(mut answer: Response, is_https: bool) -> Response {
    let (prefix, secure) = if is_https { ("__Secure-", "; Secure") } else { ("", "") };
    for name in COOKIES {
        let cookie = format!("{prefix}{name}=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax{secure}");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            answer.headers_mut().append(SET_COOKIE, cookie);
        }
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
