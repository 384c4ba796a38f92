//! Sessions (contract `auth.md` §6.8).

use poem::Response;
use serde_json::{Value, json};

use super::call::Call;
use super::refused::Refused;
use super::trust::Scrutiny;
use super::view;
use crate::core::model::identity::Closing;
use crate::core::model::principal::Credential;
use crate::core::model::secret::Secret;
use crate::http::auth::Caller;

/// Where pictures of people without one come from; clients know it by this prefix.
const GRAVATAR: &str = "https://www.gravatar.com/avatar";

pub(super) async fn ok(_call: Call) -> Result<Response, Refused> {
    Ok(view::ok(&json!({ "ok": true })))
}

/// Who is calling; nobody is `null`, never a refusal.
pub(super) async fn get(call: Call) -> Result<Response, Refused> {
    let Some(caller) = call.caller().await? else { return Ok(view::ok(&Value::Null)) };
    let account = &caller.principal.account;
    let mut user = view::user(account);
    if account.image.is_none() {
        let digest = call.app.sign_in.letters.signatures.digest(&account.email.as_str().trim().to_lowercase());
        user["image"] = format!("{GRAVATAR}/{digest}?d=identicon&s=200").into();
    }
    let mut answer = view::ok(&json!({ "session": shown(&caller), "user": user }));
    if let Some(session) = caller.session.as_ref().filter(|session| caller.by_cookie && session.prolonged) {
        call.keeper.cookies.put(&mut answer, &session.session, true);
    }
    Ok(answer)
}

fn shown(caller: &Caller) -> Option<Value> {
    match &caller.principal.credential {
        Credential::Session(_) => caller.session.as_ref().map(|found| view::session(&found.session)),
        Credential::Token(token) => Some(view::token_session(&caller.principal, token)),
    }
}

/// Ends the session of the caller. A page of another site that makes a browser ask is refused before anything ends.
pub(super) async fn sign_out(call: Call) -> Result<Response, Refused> {
    call.keeper.trust.judge(&call.headers, Scrutiny::Usual)?;
    if let Some(principal) = call.principal().await? {
        call.app.accounts.sign_out(&principal).await?;
    }
    let mut answer = view::ok(&json!({ "success": true }));
    call.keeper.cookies.clear(&mut answer);
    Ok(answer)
}

/// The caller's live sessions; nobody has none.
pub(super) async fn list(call: Call) -> Result<Response, Refused> {
    let Some(caller) = call.caller().await? else { return Ok(view::ok(&Value::Array(Vec::new()))) };
    let sessions = call.app.accounts.list_sessions(&caller.principal).await?;
    Ok(view::ok(&sessions.iter().map(view::session).collect()))
}

/// Ends one session by its token; a token of somebody else ends nothing and is answered alike.
pub(super) async fn revoke(call: Call) -> Result<Response, Refused> {
    let caller = call.somebody().await?;
    let token = Secret::new(call.required("token")?);
    end(&call, &caller, &Closing::Token(token)).await
}

pub(super) async fn revoke_all(call: Call) -> Result<Response, Refused> {
    let caller = call.somebody().await?;
    end(&call, &caller, &Closing::All).await
}

pub(super) async fn revoke_others(call: Call) -> Result<Response, Refused> {
    let caller = call.somebody().await?;
    let kept = caller.principal.session().cloned();
    end(&call, &caller, &Closing::Others(kept)).await
}

async fn end(call: &Call, caller: &Caller, which: &Closing) -> Result<Response, Refused> {
    call.app.accounts.end_sessions(&caller.principal, which).await?;
    Ok(view::done())
}
