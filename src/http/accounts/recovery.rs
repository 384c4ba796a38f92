//! Password reset and magic link (contract `auth.md` §6.4, §6.6).

use poem::Response;
use poem::http::StatusCode;
use serde_json::json;

use super::call::Call;
use super::refused::Refused;
use super::view;
use crate::core::accounts::{Denied, Errand, Refusal, Targets, errand};
use crate::core::model::secret::Secret;

/// Fields of a magic link that lead somewhere.
pub(super) const MAGIC_FIELDS: &[&str] = &["callbackURL", "errorCallbackURL", "newUserCallbackURL"];

const NEUTRAL: &str = "If this email exists in our system, check your email for the reset link";

/// Mails a reset link to whoever has the address; the answer does not say whether anybody has.
pub(super) async fn request(call: Call) -> Result<Response, Refused> {
    let redirect_to = call.text("redirectTo")?.map(str::to_owned).filter(|address| !address.is_empty());
    let errand = Errand { callback: redirect_to, ..errand(&call.email("email")?, None, call.language()) };
    call.app.sign_in.request_reset(errand).await?;
    Ok(view::ok(&json!({ "status": true, "message": NEUTRAL })))
}

/// The mailed link: leads on to the page that asks for the password. Uses nothing up.
pub(super) async fn open(call: Call) -> Result<Response, Refused> {
    let Some(callback) = call.asked("callbackURL") else {
        return Err(Refused::field("query", "callbackURL", "Invalid input: expected string"));
    };
    if callback.is_empty() {
        return Ok(view::redirect(&format!("{}/api/auth/error?error=INVALID_TOKEN", call.keeper.trust.api())));
    }
    let good = call.app.sign_in.is_reset_token(&call.last_segment).await?;
    let (name, value) = if good { ("token", call.last_segment.as_str()) } else { ("error", "INVALID_TOKEN") };
    Ok(view::redirect(&view::with_query(&callback, name, value)))
}

/// Sets a new password for the holder of a token.
pub(super) async fn reset(call: Call) -> Result<Response, Refused> {
    let password = Secret::new(call.required("newPassword")?);
    let token = call.text("token")?.map(str::to_owned).or_else(|| call.asked("token"));
    let bad_token = || Refused::with(Refusal::InvalidToken, StatusCode::BAD_REQUEST);
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Err(bad_token()) };
    match call.app.sign_in.reset_password(&token, &password).await {
        Ok(()) => Ok(view::done()),
        Err(Denied::Refused(Refusal::InvalidToken)) => Err(bad_token()),
        Err(denied) => Err(denied.into()),
    }
}

/// Mails a link that signs in.
pub(super) async fn send_magic_link(call: Call) -> Result<Response, Refused> {
    let errand = errand(&call.email("email")?, call.callback()?, call.language());
    let targets = Targets {
        new_user: call.text("newUserCallbackURL")?.map(str::to_owned),
        error: call.text("errorCallbackURL")?.map(str::to_owned),
    };
    let name = call.text("name")?.map(str::to_owned);
    call.app.sign_in.send_magic_link(errand, name, &targets).await?;
    Ok(view::done())
}

/// The mailed link: signs in whoever opens it first.
pub(super) async fn open_magic_link(call: Call) -> Result<Response, Refused> {
    let Some(token) = call.asked("token") else {
        return Err(Refused::field("query", "token", "Invalid input: expected string"));
    };
    let callback = call.callback()?;
    let home = || format!("{}/", call.keeper.trust.api());
    let arrival = match call.app.sign_in.open_magic_link(&token, &call.device()).await {
        Ok(arrival) => arrival,
        Err(Denied::Refused(refusal)) => {
            let target = call.asked("errorCallbackURL").or(callback).unwrap_or_else(home);
            return Ok(view::redirect(&view::with_query(&target, "error", refusal.wire())));
        }
        Err(failed) => return Err(failed.into()),
    };
    let session = &arrival.session;
    let new_user = call.asked("newUserCallbackURL").filter(|_| arrival.is_new);
    let mut answer = match new_user.or(callback) {
        Some(target) => view::redirect(&target),
        None => view::ok(&json!({
            "token": session.token.expose(),
            "user": view::user(&arrival.account),
            "session": view::session(session),
        })),
    };
    call.keeper.cookies.put(&mut answer, session, true);
    Ok(answer)
}
