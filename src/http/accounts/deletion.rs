//! The end of an account (contract `auth.md` §10).

use std::sync::Arc;

use poem::Response;
use poem::http::StatusCode;
use serde_json::json;

use super::call::Call;
use super::pages::code_of;
use super::refused::Refused;
use super::view;
use crate::core::accounts::{Denied, errand};
use crate::core::model::secret::Secret;

/// Mails the link; with the token of that link, deletes at once.
pub(super) async fn request(call: Call) -> Result<Response, Refused> {
    let caller = call.somebody().await?.principal;
    if let Some(token) = call.text("token")? {
        match call.app.deletion.confirm(token, &caller).await {
            Ok(()) => {}
            Err(Denied::Refused(refusal)) => return Err(Refused::with(refusal, StatusCode::NOT_FOUND)),
            Err(failed) => return Err(failed.into()),
        }
        let mut answer = view::ok(&json!({ "success": true, "message": "User deleted" }));
        call.keeper.cookies.clear(&mut answer);
        return Ok(answer);
    }
    let password = call.text("password")?.map(Secret::new);
    let errand = errand(&caller.account.email, call.callback()?, call.language());
    call.app.deletion.request(&caller, password.as_ref(), errand).await?;
    Ok(view::ok(&json!({ "success": true, "message": "Verification email sent" })))
}

/// The mailed link. A browser of the same person deletes; any other is led to the page that asks, because mail scanners
/// follow links and nobody reads JSON (contract `auth.md` F-11).
pub(super) async fn confirm(call: Call) -> Result<Response, Refused> {
    let page = format!("{}/auth/delete-account", call.keeper.trust.api());
    let token = call.asked("token").unwrap_or_default();
    match confirmed(&call, &token).await {
        Ok(true) => {
            let mut answer = view::redirect(&call.callback()?.unwrap_or(page));
            call.keeper.cookies.clear(&mut answer);
            Ok(answer)
        }
        Ok(false) => Ok(view::redirect(&view::with_query(&page, "token", &token))),
        Err(denied) => {
            let mut answer = view::redirect(&view::with_query(&page, "error", code_of(&denied)));
            if let Denied::Failed(error) = denied {
                // The request line finds the cause here.
                answer.extensions_mut().insert(Arc::new(error));
            }
            Ok(answer)
        }
    }
}

/// Whether somebody is signed in here, and by now deleted.
async fn confirmed(call: &Call, token: &str) -> Result<bool, Denied> {
    let Some(caller) = call.principal().await? else { return Ok(false) };
    call.app.deletion.confirm(token, &caller).await?;
    Ok(true)
}
