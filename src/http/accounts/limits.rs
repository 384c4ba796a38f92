//! How often one address may knock (contract `auth.md` §2.8).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use poem::http::StatusCode;
use poem::http::header::RETRY_AFTER;
use poem::{Endpoint, IntoResponse, Request, Response};

use super::refused::Refused;
use crate::core::App;
use crate::core::error::{Code, Error};
use crate::core::model::config::{AuthRateLimitMax, AuthRateLimitWindowSec};
use crate::core::model::limits::Limit;
use crate::http::error::refuse;
use crate::http::middleware::client_address::ClientAddress;
use crate::http::middleware::limit_calls::{seconds, tell};

/// Counts every call below `/api/auth`, and credential calls by a stricter measure besides.
pub(super) async fn limit<E: Endpoint>(next: Arc<E>, req: Request) -> poem::Result<Response> {
    let Some(app) = req.data::<Arc<App>>().cloned() else {
        return Ok(refuse(Error::new(Code::Internal).because("no application at this route")));
    };
    let address = req.extensions().get::<ClientAddress>().map(|address| address.0);
    let key = limit_key(address);
    let all = everything(&app).await;
    let admission = app.limits.admit_key(&all, "ip", &key).await;
    if !admission.admitted {
        let wait = seconds(admission.resets_in).max(1);
        let mut refused = refuse(Error::new(Code::TooManyRequests).retry_after(wait));
        tell(refused.headers_mut(), &all, &admission);
        return Ok(refused);
    }
    let mut answer = match strict(req.uri().path()).filter(|_| address.is_some()) {
        Some(strict) => match strictly(&app, &strict, &key).await {
            Some(refused) => refused,
            None => next.call(req).await?.into_response(),
        },
        None => next.call(req).await?.into_response(),
    };
    tell(answer.headers_mut(), &all, &admission);
    Ok(answer)
}

/// Whom a call is counted for. Everybody without an address is one caller.
pub(super) fn limit_key(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unknown".to_owned(), subscriber)
}

/// IPv4 as it is; the network of an IPv6 address, since one subscriber has a whole /64.
pub(super) fn subscriber(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let network = &address.segments()[..4];
            let network: Vec<_> = network.iter().map(|segment| format!("{segment:04x}")).collect();
            format!("{}:0000:0000:0000:0000", network.join(":"))
        }
    }
}

/// The measure of one path, for the caller a [`limit_key`] names.
pub(super) async fn strictly(app: &App, strict: &Limit, key: &str) -> Option<Response> {
    let admission = app.limits.admit_key(strict, "ip", key).await;
    if admission.admitted {
        return None;
    }
    let message = "Too many requests. Please try again later.".to_owned();
    let mut refused = Refused::Told(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS", message).into_response();
    refused.headers_mut().insert(RETRY_AFTER, seconds(admission.resets_in).max(1).into());
    Some(refused)
}

/// What operators set; an unusable entry is recorded where it is read and must not lock everybody out.
async fn everything(app: &App) -> Limit {
    let max = app.config.optional::<AuthRateLimitMax>().await.ok().flatten().unwrap_or(20);
    let window = app.config.optional::<AuthRateLimitWindowSec>().await.ok().flatten().unwrap_or(60);
    Limit { route: "auth.api", max: u32::try_from(max).unwrap_or(u32::MAX), window: Duration::from_secs(window) }
}

/// The stricter measures.
pub(super) fn strict(path: &str) -> Option<Limit> {
    let limit = |route, max, seconds| Some(Limit { route, max, window: Duration::from_secs(seconds) });
    match path.strip_prefix("/api/auth/")? {
        "sign-in/magic-link" => limit("auth.magic_link", 5, 60),
        "magic-link/verify" => limit("auth.magic_link_verify", 5, 60),
        "request-password-reset" => limit("auth.request_reset", 3, 60),
        "reset-password" => limit("auth.reset", 5, 60),
        "send-verification-email" => limit("auth.send_verification", 3, 60),
        "change-password" => limit("auth.change_password", 3, 10),
        "change-email" => limit("auth.change_email", 3, 10),
        "delete-user" => limit("auth.delete_user", 3, 60),
        "oauth2/token" => limit("auth.token", 20, 60),
        "oauth2/authorize" => limit("auth.authorize", 30, 60),
        "oauth2/introspect" => limit("auth.introspect", 100, 60),
        "oauth2/revoke" => limit("auth.revoke", 30, 60),
        "oauth2/userinfo" => limit("auth.userinfo", 60, 60),
        path if path.starts_with("sign-in/") => limit("auth.sign_in", 3, 10),
        path if path.starts_with("sign-up/") => limit("auth.sign_up", 3, 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_and_are_stored_as_far_as_they_name_a_subscriber() {
        for (address, named) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:DB8::1", "2001:0db8:0000:0000:0000:0000:0000:0000"),
        ] {
            assert_eq!(limit_key(address.parse().ok()), named);
        }
        assert_eq!(limit_key(None), "unknown");
    }
}
