//! How people and sessions look on the wire (contract `auth.md` §4.6), and answers that lead on.

use chrono::{DateTime, Utc};
use poem::http::StatusCode;
use poem::http::header::LOCATION;
use poem::web::Json;
use poem::{IntoResponse, Response};
use serde_json::{Value, json};

use super::refused::Refused;
use crate::core::model::accounts::{Account, Session};
use crate::core::model::principal::{AccessToken, Principal};
use crate::http::payload::iso_millis;

pub(super) fn ok(body: &Value) -> Response {
    Json(body).into_response()
}

/// What most doors answer.
pub(super) fn done() -> Response {
    ok(&json!({ "status": true }))
}

pub(super) fn user(account: &Account) -> Value {
    json!({
        "id": account.id,
        "name": account.name,
        "email": account.email.as_str(),
        "emailVerified": account.email_verified,
        "image": account.image,
        "createdAt": time(&account.created_at),
        "updatedAt": time(&account.updated_at),
    })
}

pub(super) fn session(session: &Session) -> Value {
    json!({
        "id": session.id,
        "token": session.token.expose(),
        "userId": session.user,
        "expiresAt": time(&session.expires_at),
        "createdAt": time(&session.created_at),
        "updatedAt": time(&session.updated_at),
        "ipAddress": session.ip_address,
        "userAgent": session.user_agent,
    })
}

/// The session an access token stands for; no row is behind it.
pub(super) fn token_session(caller: &Principal, token: &AccessToken) -> Value {
    let id = token.session.as_ref().map_or(caller.user().as_str(), |session| session.as_str());
    json!({
        "id": id,
        "token": token.text.expose(),
        "userId": caller.user(),
        "expiresAt": time(&token.expires_at),
        "createdAt": time(&token.issued_at),
        "updatedAt": time(&token.issued_at),
        "ipAddress": null,
        "userAgent": null,
    })
}

pub(super) fn time(at: &DateTime<Utc>) -> Value {
    iso_millis(at).unwrap_or_default()
}

/// Sends a browser on.
pub(in crate::http) fn redirect(to: &str) -> Response {
    redirect_as(to, StatusCode::FOUND)
}

/// Sends a browser on after a form.
pub(in crate::http) fn see_other(to: &str) -> Response {
    redirect_as(to, StatusCode::SEE_OTHER)
}

fn redirect_as(to: &str, status: StatusCode) -> Response {
    match poem::http::HeaderValue::from_str(to) {
        Ok(to) => Response::builder().status(status).header(LOCATION, to).finish(),
        Err(_) => Refused::Told(StatusCode::BAD_REQUEST, "INVALID_CALLBACK_URL", "Invalid callbackURL".to_owned())
            .into_response(),
    }
}

/// The address with one more query field.
pub(in crate::http) fn with_query(address: &str, name: &str, value: &str) -> String {
    let (address, fragment) = match address.split_once('#') {
        Some((address, fragment)) => (address, format!("#{fragment}")),
        None => (address, String::new()),
    };
    let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
    let joint = if address.contains('?') { '&' } else { '?' };
    format!("{address}{joint}{name}={value}{fragment}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_added_where_it_belongs() {
        assert_eq!(with_query("/a", "error", "X"), "/a?error=X");
        assert_eq!(with_query("https://x.yz/a?b=c", "error", "X Y"), "https://x.yz/a?b=c&error=X+Y");
        assert_eq!(with_query("/a?b#c", "error", "X"), "/a?b&error=X#c");
    }
}
