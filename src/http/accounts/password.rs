//! Sign-up and sign-in (contract `auth.md` §6.1, §6.2).

use poem::IntoResponse;
use poem::Response;
use poem::http::header::LOCATION;
use poem::http::{HeaderValue, StatusCode};
use poem::web::Json;
use serde_json::{Value, json};

use super::call::Call;
use super::refused::Refused;
use super::view;
use crate::core::accounts::{Applicant, Attempt, Refusal, errand};
use crate::core::model::accounts::Email;
use crate::core::model::secret::Secret;

/// Whether somebody has this address.
pub(super) async fn check_email(call: Call) -> Result<Response, Refused> {
    let text = call.body.get("email").and_then(Value::as_str).map(|text| text.trim().to_lowercase());
    let Some(text) = text.filter(|text| is_address_shaped(text)) else {
        let body = json!({ "error": "INVALID_EMAIL", "message": "Invalid email" });
        return Ok(Json(body).with_status(StatusCode::BAD_REQUEST).into_response());
    };
    let known = call.app.sign_in.check(&Email::stored(text)).await?;
    Ok(view::ok(&json!({ "exists": known.exists, "hasPassword": known.has_password })))
}

/// One `@`, no spaces, a dot inside the domain.
fn is_address_shaped(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let dotted = domain.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && !rest.is_empty());
    !local.is_empty() && dotted && !domain.contains('@') && !text.contains(char::is_whitespace)
}

/// Makes an account, or looks as if.
pub(super) async fn sign_up(call: Call) -> Result<Response, Refused> {
    let applicant = Applicant {
        name: call.required("name")?.to_owned(),
        email: call.email("email")?,
        password: call.secret("password")?,
        image: call.text("image")?.map(str::to_owned),
    };
    call.flag("rememberMe")?;
    let errand = errand(&applicant.email, call.callback()?, call.language());
    let account = call.app.sign_in.sign_up(applicant, errand).await?;
    Ok(view::ok(&json!({ "token": null, "user": view::user(&account) })))
}

/// Opens a session for the right password.
pub(super) async fn sign_in(call: Call) -> Result<Response, Refused> {
    let (email, password) = (call.required("email")?, call.required("password")?);
    let email = Email::parse(email).map_err(|_| Refusal::InvalidEmail)?;
    let remember = call.flag("rememberMe")?.unwrap_or(true);
    let callback = call.callback()?;
    let errand = errand(&email, callback.clone(), call.language());
    let attempt = Attempt { email, password: Secret::new(password), device: call.device(), remember };
    let (session, account) = call.app.sign_in.sign_in(attempt, errand).await?;
    let mut body = json!({
        "redirect": callback.is_some(),
        "token": session.token.expose(),
        "user": view::user(&account),
    });
    if let Some(callback) = &callback {
        body["url"] = callback.as_str().into();
    }
    let mut answer = view::ok(&body);
    if let Some(to) = callback.and_then(|callback| HeaderValue::from_str(&callback).ok()) {
        answer.headers_mut().insert(LOCATION, to);
    }
    call.keeper.cookies.put(&mut answer, &session, remember);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_shape() {
        for good in ["a@b.c", "a+b@x.y.z", "ü@ü.de"] {
            assert!(is_address_shaped(good), "{good}");
        }
        for bad in ["", "a", "a@b", "@b.c", "a@b@c.d", "a b@c.d", "a@.c", "a@b."] {
            assert!(!is_address_shaped(bad), "{bad}");
        }
    }
}
