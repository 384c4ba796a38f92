//! How often one address may knock (contract `auth.md` §2.8).

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
    let address = req.extensions().get::<ClientAddress>().map(|address| address.0.to_string());
    let all = everything(&app).await;
    let admission = app.limits.admit_key(&all, "ip", address.as_deref().unwrap_or("unknown")).await;
    if !admission.admitted {
        let wait = seconds(admission.resets_in).max(1);
        let mut refused = refuse(Error::new(Code::TooManyRequests).retry_after(wait));
        tell(refused.headers_mut(), &all, &admission);
        return Ok(refused);
    }
    let mut answer = match (strict(req.uri().path()), &address) {
        (Some(strict), Some(address)) => match strictly(&app, &strict, address).await {
            Some(refused) => refused,
            None => next.call(req).await?.into_response(),
        },
        _ => next.call(req).await?.into_response(),
    };
    tell(answer.headers_mut(), &all, &admission);
    Ok(answer)
}

/// The measure of one path, for whoever has an address.
pub(super) async fn strictly(app: &App, strict: &Limit, address: &str) -> Option<Response> {
    let admission = app.limits.admit_key(strict, "ip", address).await;
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
