//! The end of an account (contract `auth.md` §10).

use poem::Response;
use poem::http::StatusCode;
use serde_json::json;

use super::call::Call;
use super::refused::Refused;
use super::view;
use crate::core::accounts::{Denied, Refusal, errand};
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
    let Some(caller) = call.principal().await? else {
        return Ok(view::redirect(&view::with_query(&page, "token", &token)));
    };
    match call.app.deletion.confirm(&token, &caller).await {
        Ok(()) => {}
        Err(Denied::Refused(Refusal::InvalidToken)) => {
            return Ok(view::redirect(&view::with_query(&page, "error", Refusal::InvalidToken.wire())));
        }
        Err(failed) => return Err(failed.into()),
    }
    let mut answer = match call.callback()? {
        Some(callback) => view::redirect(&callback),
        None => view::ok(&json!({ "success": true, "message": "User deleted" })),
    };
    call.keeper.cookies.clear(&mut answer);
    Ok(answer)
}
