//! Proof and change of addresses (contract `auth.md` §6.3).

use poem::Response;
use poem::http::StatusCode;
use serde_json::{Value, json};

use super::call::Call;
use super::refused::Refused;
use super::view;
use crate::core::accounts::{Denied, Opener, Verified, errand};
use crate::core::model::accounts::Session;

/// Does what the token of a mailed link asks for, and leads on.
pub(super) async fn verify(call: Call) -> Result<Response, Refused> {
    let Some(token) = call.asked("token") else {
        return Err(Refused::field("query", "token", "Invalid input: expected string"));
    };
    let callback = call.callback()?;
    let principal = call.principal().await?;
    let opener = Opener {
        principal: principal.as_ref(),
        device: call.device(),
        language: call.language(),
        callback: callback.clone(),
    };
    let verified = match call.app.sign_in.verify(&token, opener).await {
        Ok(verified) => verified,
        Err(Denied::Refused(refusal)) => {
            let Some(callback) = callback else { return Err(refusal.into()) };
            return Ok(view::redirect(&view::with_query(&callback, "error", refusal.wire())));
        }
        Err(failed) => return Err(failed.into()),
    };
    Ok(match verified {
        Verified::Proved(session) => {
            led_on(&call, callback, &json!({ "status": true, "user": null }), session.as_ref())
        }
        Verified::Already => led_on(&call, callback, &json!({ "status": true, "user": null }), None),
        Verified::Asked => led_on(&call, callback, &json!({ "status": true }), None),
        Verified::Moved(account, session) => {
            let body = json!({ "status": true, "user": view::user(&account) });
            led_on(&call, callback, &body, session.as_ref())
        }
    })
}

fn led_on(call: &Call, callback: Option<String>, body: &Value, session: Option<&Session>) -> Response {
    let mut answer = match callback {
        Some(callback) => view::redirect(&callback),
        None => view::ok(body),
    };
    if let Some(session) = session {
        call.keeper.cookies.put(&mut answer, session, true);
    }
    answer
}

/// Sends the proof letter again.
pub(super) async fn send_verification(call: Call) -> Result<Response, Refused> {
    let errand = errand(&call.email("email")?, call.callback()?, call.language());
    let principal = call.principal().await?;
    call.app.sign_in.ask_again(principal.as_ref(), errand).await?;
    Ok(view::done())
}

/// Begins a change of address.
pub(super) async fn change(call: Call) -> Result<Response, Refused> {
    let caller = call.somebody().await?.principal;
    let to = call.email("newEmail")?;
    if to.as_str() == caller.account.email.as_str().to_lowercase() {
        return Err(Refused::Told(StatusCode::BAD_REQUEST, "", "Email is the same".to_owned()));
    }
    let errand = errand(&caller.account.email, call.callback()?, call.language());
    call.app.sign_in.begin_move(&caller, to, errand).await?;
    Ok(view::done())
}
