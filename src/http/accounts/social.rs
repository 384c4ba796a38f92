//! Accounts elsewhere (contract `auth.md` §6.5).

use poem::Response;
use poem::http::header::{LOCATION, ORIGIN};
use poem::http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::call::Call;
use super::refused::Refused;
use super::view;
use crate::core::accounts::{Answer, Begun, Traveller, Wish};
use crate::core::model::principal::Principal;

/// Cookie of a flow.
const STATE: &str = "better-auth.state";
/// Life of its cookie, s.
const STATE_AGE: u32 = 300;

/// Tells where to sign in elsewhere.
pub(super) async fn sign_in(call: Call) -> Result<Response, Refused> {
    begin(&call, None).await
}

/// Tells where to find the account to add.
pub(super) async fn link(call: Call) -> Result<Response, Refused> {
    let caller = call.somebody().await?.principal;
    begin(&call, Some(&caller)).await
}

async fn begin(call: &Call, caller: Option<&Principal>) -> Result<Response, Refused> {
    let provider = call.required("provider")?;
    if call.body.get("idToken").is_some_and(|token| !token.is_null()) {
        let message = "id_token not supported".to_owned();
        return Err(Refused::Told(StatusCode::NOT_FOUND, "ID_TOKEN_NOT_SUPPORTED", message));
    }
    let silent = call.flag("disableRedirect")?.unwrap_or_default();
    let text = |name: &str| call.text(name).map(|text| text.filter(|text| !text.is_empty()).map(str::to_owned));
    // Only a browser on a page of ours keeps the cookie until it is back.
    let origin = call.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    let wish = Wish {
        callback: call.callback()?,
        error: text("errorCallbackURL")?,
        new_user: text("newUserCallbackURL")?,
        scopes: scopes(call)?,
        login_hint: text("loginHint")?,
        cookie_bound: origin == Some(call.keeper.trust.api()),
    };
    let begun = call.app.social.begin(provider, caller, wish).await?;
    let mut answer = view::ok(&json!({ "url": begun.url, "redirect": !silent }));
    if let Some(to) = HeaderValue::from_str(&begun.url).ok().filter(|_| !silent) {
        answer.headers_mut().insert(LOCATION, to);
    }
    remember(call, &mut answer, &begun);
    Ok(answer)
}

fn scopes(call: &Call) -> Result<Vec<String>, Refused> {
    let wrong = || Refused::field("body", "scopes", "Invalid input: expected array of strings");
    match call.body.get("scopes") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(scopes)) => {
            scopes.iter().map(|scope| scope.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// Sends a browser that opened a page with `provider=` straight on; it ends at `callback`, or back on the page with a
/// word for what went wrong.
pub(super) async fn depart(call: &Call, provider: &str, callback: String, page: String) -> Result<Response, Refused> {
    let wish = Wish { callback: Some(callback), error: Some(page), cookie_bound: true, ..Wish::default() };
    let begun = call.app.social.begin(provider, None, wish).await?;
    let mut answer = view::redirect(&begun.url);
    remember(call, &mut answer, &begun);
    Ok(answer)
}

fn remember(call: &Call, answer: &mut Response, begun: &Begun) {
    call.keeper.cookies.put_signed(answer, STATE, &begun.state, Some(STATE_AGE));
}

/// Takes a browser back from a provider.
pub(super) async fn arrive(call: Call) -> Result<Response, Refused> {
    let filled = |name: &str| call.asked(name).filter(|text| !text.is_empty());
    let answer = Answer {
        state: filled("state"),
        cookie: call.keeper.cookies.read(&call.headers, STATE),
        code: filled("code"),
        error: filled("error"),
        description: filled("error_description"),
    };
    let traveller = Traveller { device: call.device(), language: call.language() };
    let landing = call.app.social.finish(&call.last_segment, answer, &traveller).await?;
    let mut to = landing.to;
    if let Some((code, description)) = landing.error {
        let name = if code == "state_not_found" { "state" } else { "error" };
        to = view::with_query(&to, name, &code);
        if let Some(description) = description {
            to = view::with_query(&to, "error_description", &description);
        }
    }
    let mut answer = view::redirect(&to);
    call.keeper.cookies.clear_one(&mut answer, STATE);
    if let Some(session) = &landing.session {
        call.keeper.cookies.put(&mut answer, session, true);
    }
    Ok(answer)
}

/// Some providers post what others put into the address; the browser's cookies come along only with the latter.
pub(super) async fn arrive_by_form(call: Call) -> Result<Response, Refused> {
    const FIELDS: [&str; 4] = ["code", "state", "error", "error_description"];
    let begin = format!("{}/api/auth/callback/{}", call.keeper.trust.api(), call.last_segment);
    let fields = FIELDS.iter().filter_map(|name| {
        let value = call.body.get(*name).and_then(Value::as_str).map(str::to_owned);
        Some((*name, value.or_else(|| call.asked(name))?))
    });
    Ok(view::redirect(&fields.fold(begin, |address, (name, value)| view::with_query(&address, name, &value))))
}
