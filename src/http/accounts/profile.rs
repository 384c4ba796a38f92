//! What people change about themselves (contract `auth.md` §6.5, §6.7).

use poem::Response;
use poem::http::StatusCode;
use serde_json::{Value, json};
use url::Url;

use super::call::Call;
use super::refused::Refused;
use super::view;
use crate::core::accounts::Refusal;
use crate::core::model::identity::{Identity, ProfileChange};
use crate::core::model::secret::Secret;

const LONGEST_NAME: usize = 100;
const LONGEST_IMAGE: usize = 2_048;

/// Name and picture.
pub(super) async fn update(call: Call) -> Result<Response, Refused> {
    let caller = call.somebody().await?;
    if call.body.get("email").is_some_and(is_truthy) {
        return Err(Refusal::EmailCanNotBeUpdated.into());
    }
    let change = ProfileChange { name: name(&call)?, image: image(&call)? };
    if change == ProfileChange::default() {
        return Err(Refused::Told(StatusCode::BAD_REQUEST, "", "No fields to update".to_owned()));
    }
    call.app.accounts.update(&caller.principal, &change).await?;
    let mut answer = view::done();
    if let Some(session) = caller.session.as_ref().filter(|_| caller.by_cookie) {
        call.keeper.cookies.put(&mut answer, &session.session, !call.keeper.cookies.forgets(&call.headers));
    }
    Ok(answer)
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        _ => true,
    }
}

fn name(call: &Call) -> Result<Option<String>, Refused> {
    let Some(text) = call.body.get("name") else { return Ok(None) };
    let name = text.as_str().map(str::trim).filter(|name| !name.is_empty() && name.chars().count() <= LONGEST_NAME);
    let why = "Invalid input: expected 1 to 100 characters";
    name.map(|name| Some(name.to_owned())).ok_or_else(|| Refused::field("body", "name", why))
}

fn image(call: &Call) -> Result<Option<Option<String>>, Refused> {
    let Some(value) = call.body.get("image") else { return Ok(None) };
    if value.is_null() {
        return Ok(Some(None));
    }
    let is_picture = |text: &&str| {
        let shaped = Url::parse(text).is_ok_and(|url| url.scheme() == "https" && url.host().is_some());
        text.len() <= LONGEST_IMAGE && shaped
    };
    let why = "Invalid input: expected an https URL or null";
    let image = value.as_str().filter(is_picture).ok_or_else(|| Refused::field("body", "image", why))?;
    Ok(Some(Some(image.to_owned())))
}

/// Another password for whoever knows the current one.
pub(super) async fn change_password(call: Call) -> Result<Response, Refused> {
    let caller = call.somebody().await?;
    let (current, new) = (Secret::new(call.required("currentPassword")?), Secret::new(call.required("newPassword")?));
    let revoke_others = call.flag("revokeOtherSessions")?.unwrap_or(false);
    let (principal, device) = (&caller.principal, call.device());
    let changed = call.app.sign_in.change_password(principal, (&current, &new), revoke_others, &device).await;
    let session = match changed {
        Err(crate::core::accounts::Denied::Refused(refusal)) => {
            return Err(Refused::with(refusal, StatusCode::BAD_REQUEST));
        }
        changed => changed?,
    };
    let token = session.as_ref().map(|session| session.token.expose());
    let mut answer = view::ok(&json!({ "token": token, "user": view::user(&principal.account) }));
    if let Some(session) = &session {
        call.keeper.cookies.put(&mut answer, session, !call.keeper.cookies.forgets(&call.headers));
    }
    Ok(answer)
}

/// Every way to sign in, without its secrets.
pub(super) async fn list_accounts(call: Call) -> Result<Response, Refused> {
    let caller = call.somebody().await?;
    let identities = call.app.accounts.identities(&caller.principal).await?;
    Ok(view::ok(&identities.iter().map(shown).collect()))
}

fn shown(identity: &Identity) -> Value {
    json!({
        "id": identity.id,
        "accountId": identity.account_id,
        "providerId": identity.provider,
        "userId": identity.user,
        "createdAt": view::time(&identity.created_at),
        "updatedAt": view::time(&identity.updated_at),
        "scopes": identity.scopes,
    })
}

/// Removes one way to sign in, unless it is the last.
pub(super) async fn unlink(call: Call) -> Result<Response, Refused> {
    let caller = call.somebody().await?;
    let opened = caller.session.as_ref().map(|session| session.session.created_at);
    let (provider, account_id) = (call.required("providerId")?, call.text("accountId")?);
    call.app.accounts.unlink(&caller.principal, opened, provider, account_id).await?;
    Ok(view::done())
}
