//! `/auth/*`: the pages people see, usable without scripts (contract `auth.md` §8). A form posts to its own page, which
//! calls the same use-cases as the interface and leads on; failures come back as `?error=CODE`.

use poem::{Response, Route, get};

use super::call::{Call, Kind, door};
use super::limits::{limit_key, strict, strictly};
use super::page::{field, language, page, shown, style, text};
use super::refused::Refused;
use super::social;
use super::view::{see_other, with_query};
use crate::core::accounts::{Applicant, Attempt, Denied, Errand, Refusal, errand};
use crate::core::model::accounts::Email;
use crate::core::model::secret::Secret;
use crate::core::model::social::Provider;

/// Adds the pages.
pub(super) fn mount(route: Route) -> Route {
    route
        .at("/auth", get(door(Kind::Free, home)))
        .at("/auth/", get(door(Kind::Free, home)).post(door(Kind::Free, sign_out)))
        .at("/auth/profile", get(door(Kind::Free, home)).post(door(Kind::Free, sign_out)))
        .at("/auth/sign-in", get(door(Kind::Free, sign_in_page)).post(door(Kind::Free, sign_in)))
        .at("/auth/sign-up", get(door(Kind::Free, sign_up_page)).post(door(Kind::Free, sign_up)))
        .at("/auth/verify-email", get(door(Kind::Free, verify_page)).post(door(Kind::Free, verify_again)))
        .at("/auth/forgot-password", get(door(Kind::Free, forgot_page)).post(door(Kind::Free, forgot)))
        .at("/auth/reset-password", get(door(Kind::Free, reset_page)).post(door(Kind::Free, reset)))
        .at("/auth/delete-account", get(door(Kind::Free, delete_page)).post(door(Kind::Free, delete)))
        .at("/auth/error", get(door(Kind::Free, error_page)))
        .at("/auth/style.css", get(door(Kind::Free, style)))
}

/// The path with the query it was opened with, but for errors and a hint that would lead away at once.
fn with_same_query(call: &Call, path: &str) -> String {
    let pairs = call.query.iter().filter(|(name, _)| !matches!(name.as_str(), "error" | "provider"));
    pairs.fold(path.to_owned(), |address, (name, value)| with_query(&address, name, value))
}

/// Where a sign-in leads: back to the client that asked, or to a judged address, or home.
fn onward(call: &Call) -> String {
    if call.query.contains_key("client_id") && call.query.contains_key("response_type") {
        const DROPPED: [&str; 6] = ["provider", "prompt", "exp", "sig", "error", "lang"];
        let kept = call.query.iter().filter(|(name, _)| !DROPPED.contains(&name.as_str()));
        let begin = format!("{}/api/auth/oauth2/authorize", call.keeper.trust.api());
        return kept.fold(begin, |address, (name, value)| with_query(&address, name, value));
    }
    let trusted = call.keeper.trust.of(&call.headers);
    let asked = ["continueURL", "callbackURL", "redirect"].into_iter().find_map(|name| call.asked(name));
    asked.filter(|address| trusted.leads_home(address)).unwrap_or_else(|| "/auth/".to_owned())
}

/// Refuses forms of other pages, and too many of ours.
async fn judge(call: &Call, measure: &str) -> Result<(), &'static str> {
    call.keeper.trust.judge_origin(&call.headers).map_err(|_| "INVALID_ORIGIN")?;
    count(call, measure).await
}

/// Counts as the door at this path would: both are one budget.
async fn count(call: &Call, measure: &str) -> Result<(), &'static str> {
    let Some(limit) = strict(measure) else { return Ok(()) };
    match strictly(&call.app, &limit, &limit_key(call.peer())).await {
        Some(_) => Err("TOO_MANY_REQUESTS"),
        None => Ok(()),
    }
}

/// Back to the form with a word for what went wrong.
fn back(call: &Call, path: &str, code: &str) -> Response {
    see_other(&with_query(&with_same_query(call, path), "error", code))
}

pub(super) fn code_of(denied: &Denied) -> &'static str {
    match denied {
        Denied::Refused(refusal) => refusal.wire(),
        Denied::Failed(error) => error.code.wire(),
    }
}

fn email(call: &Call) -> Result<Email, &'static str> {
    let text = call.text("email").ok().flatten().unwrap_or_default();
    Email::parse(text).map_err(|_| Refusal::InvalidEmail.wire())
}

fn secret(call: &Call, name: &str) -> Secret {
    Secret::new(call.text(name).ok().flatten().unwrap_or_default())
}

async fn home(call: Call) -> Result<Response, Refused> {
    let Some(caller) = call.caller().await? else { return Ok(see_other("/auth/sign-in")) };
    let mut page = page(&call, "home");
    let text = format!("{} {}", page.t("page.home.signed_in"), caller.principal.account.email);
    page.text = Some(text.into());
    page.button = page.language.find("page.home.sign_out");
    shown(&page)
}

async fn sign_out(call: Call) -> Result<Response, Refused> {
    call.keeper.trust.judge_origin(&call.headers)?;
    if let Some(principal) = call.principal().await? {
        call.app.accounts.sign_out(&principal).await?;
    }
    let mut answer = see_other("/auth/sign-in");
    call.keeper.cookies.clear(&mut answer);
    Ok(answer)
}

async fn sign_in_page(call: Call) -> Result<Response, Refused> {
    if let Some(provider) = call.asked("provider").filter(|_| !call.query.contains_key("error")) {
        if let Err(code) = count(&call, "/api/auth/sign-in/social").await {
            return Ok(back(&call, "/auth/sign-in", code));
        }
        let here = format!("{}{}", call.keeper.trust.api(), with_same_query(&call, "/auth/sign-in"));
        return match social::depart(&call, &provider, onward(&call), here).await {
            Ok(answer) => Ok(answer),
            Err(Refused::Told(_, code, _)) => Ok(back(&call, "/auth/sign-in", code)),
            Err(failed) => Err(failed),
        };
    }
    let mut page = page(&call, "sign_in");
    page.ways = Provider::ALL
        .into_iter()
        .filter(|provider| call.app.social.providers.is_known(*provider))
        .map(|provider| {
            let here = with_same_query(&call, "/auth/sign-in");
            (with_query(&here, "provider", provider.wire()), text(page.language, way(provider)))
        })
        .collect();
    page.fields =
        vec![field(&call, "email", "email", "username"), field(&call, "password", "password", "current-password")];
    page.button = page.language.find("page.sign_in.button");
    page.links = vec![
        (with_same_query(&call, "/auth/sign-up"), text(page.language, "page.sign_in.sign_up")),
        (with_same_query(&call, "/auth/forgot-password"), text(page.language, "page.sign_in.forgot")),
    ];
    shown(&page)
}

const fn way(provider: Provider) -> &'static str {
    match provider {
        Provider::Google => "page.sign_in.google",
        Provider::GitHub => "page.sign_in.github",
    }
}

async fn sign_in(call: Call) -> Result<Response, Refused> {
    const PATH: &str = "/auth/sign-in";
    if let Err(code) = judge(&call, "/api/auth/sign-in/email").await {
        return Ok(back(&call, PATH, code));
    }
    let email = match email(&call) {
        Ok(email) => email,
        Err(code) => return Ok(back(&call, PATH, code)),
    };
    let errand = errand(&email, Some(verified_page(&call)), language(&call));
    let attempt = Attempt { email, password: secret(&call, "password"), device: call.device(), remember: true };
    match call.app.sign_in.sign_in(attempt, errand).await {
        Ok((session, _)) => {
            let mut answer = see_other(&onward(&call));
            call.keeper.cookies.put(&mut answer, &session, true);
            Ok(answer)
        }
        Err(denied) => Ok(back(&call, PATH, code_of(&denied))),
    }
}

/// Where the reader of a proof letter ends up: the page that says so and leads on.
fn verified_page(call: &Call) -> String {
    let page = format!("{}/auth/verify-email?verified=true", call.keeper.trust.api());
    with_query(&page, "continueURL", &onward(call))
}

async fn sign_up_page(call: Call) -> Result<Response, Refused> {
    let mut page = page(&call, "sign_up");
    page.fields = vec![
        field(&call, "name", "text", "name"),
        field(&call, "email", "email", "username"),
        field(&call, "password", "password", "new-password"),
    ];
    page.button = page.language.find("page.sign_up.button");
    page.links = vec![(with_same_query(&call, "/auth/sign-in"), text(page.language, "page.back_to_sign_in"))];
    shown(&page)
}

async fn sign_up(call: Call) -> Result<Response, Refused> {
    const PATH: &str = "/auth/sign-up";
    if let Err(code) = judge(&call, "/api/auth/sign-up/email").await {
        return Ok(back(&call, PATH, code));
    }
    let email = match email(&call) {
        Ok(email) => email,
        Err(code) => return Ok(back(&call, PATH, code)),
    };
    let name = call.text("name").ok().flatten().unwrap_or_default().trim().chars().take(100).collect();
    let errand = errand(&email, Some(verified_page(&call)), language(&call));
    let applicant = Applicant { name, email: email.clone(), password: secret(&call, "password"), image: None };
    match call.app.sign_in.sign_up(applicant, errand).await {
        Ok(_) => Ok(see_other(&with_query(&with_same_query(&call, "/auth/verify-email"), "email", email.as_str()))),
        Err(denied) => Ok(back(&call, PATH, code_of(&denied))),
    }
}

async fn verify_page(call: Call) -> Result<Response, Refused> {
    let verified = call.asked("verified").is_some() && !call.query.contains_key("error");
    let mut page = page(&call, if verified { "verified" } else { "verify_email" });
    if verified {
        page.text = page.language.find("page.verify_email.done_text").map(Into::into);
        page.links = vec![(onward(&call), text(page.language, "page.verify_email.continue"))];
        return shown(&page);
    }
    page.text = page.language.find("page.verify_email.sent").filter(|_| page.error.is_none()).map(Into::into);
    page.fields = vec![field(&call, "email", "email", "username")];
    page.button = page.language.find("page.verify_email.again");
    page.links = vec![("/auth/sign-in".to_owned(), text(page.language, "page.back_to_sign_in"))];
    shown(&page)
}

async fn verify_again(call: Call) -> Result<Response, Refused> {
    const PATH: &str = "/auth/verify-email";
    if let Err(code) = judge(&call, "/api/auth/send-verification-email").await {
        return Ok(back(&call, PATH, code));
    }
    match email(&call) {
        Ok(email) => {
            let errand = errand(&email, Some(verified_page(&call)), language(&call));
            match call.app.sign_in.ask_again(None, errand).await {
                Ok(()) => Ok(see_other(&with_same_query(&call, PATH))),
                Err(denied) => Ok(back(&call, PATH, code_of(&denied))),
            }
        }
        Err(code) => Ok(back(&call, PATH, code)),
    }
}

async fn forgot_page(call: Call) -> Result<Response, Refused> {
    let mut page = page(&call, "forgot");
    if call.asked("sent").is_some() {
        page.text = page.language.find("page.forgot.sent").map(Into::into);
    } else {
        page.text = page.language.find("page.forgot.text").map(Into::into);
        page.fields = vec![field(&call, "email", "email", "username")];
        page.button = page.language.find("page.forgot.button");
    }
    page.links = vec![("/auth/sign-in".to_owned(), text(page.language, "page.back_to_sign_in"))];
    shown(&page)
}

async fn forgot(call: Call) -> Result<Response, Refused> {
    const PATH: &str = "/auth/forgot-password";
    if let Err(code) = judge(&call, "/api/auth/request-password-reset").await {
        return Ok(back(&call, PATH, code));
    }
    let email = match email(&call) {
        Ok(email) => email,
        Err(code) => return Ok(back(&call, PATH, code)),
    };
    let callback = format!("{}/auth/reset-password", call.keeper.trust.api());
    let errand = Errand { to: email, callback: Some(callback), language: language(&call) };
    call.app.sign_in.request_reset(errand).await?;
    Ok(see_other(&format!("{PATH}?sent=true")))
}

async fn reset_page(call: Call) -> Result<Response, Refused> {
    let mut page = page(&call, "reset");
    page.links = vec![("/auth/sign-in".to_owned(), text(page.language, "page.back_to_sign_in"))];
    if call.asked("done").is_some() {
        page.text = page.language.find("page.reset.done").map(Into::into);
        return shown(&page);
    }
    if call.query.contains_key("token") {
        page.text = page.language.find("page.reset.text").map(Into::into);
        page.fields = vec![field(&call, "newPassword", "password", "new-password")];
        page.button = page.language.find("page.reset.button");
    }
    shown(&page)
}

async fn reset(call: Call) -> Result<Response, Refused> {
    const PATH: &str = "/auth/reset-password";
    if let Err(code) = judge(&call, "/api/auth/reset-password").await {
        return Ok(back(&call, PATH, code));
    }
    let token = call.asked("token").unwrap_or_default();
    match call.app.sign_in.reset_password(&token, &secret(&call, "newPassword")).await {
        Ok(()) => Ok(see_other(&format!("{PATH}?done=true"))),
        Err(denied) => Ok(back(&call, PATH, code_of(&denied))),
    }
}

async fn delete_page(call: Call) -> Result<Response, Refused> {
    let mut page = page(&call, "delete");
    if call.query.contains_key("token") {
        page.text = page.language.find("page.delete.warning").map(Into::into);
        page.button = page.language.find("page.delete.button");
    } else if page.error.is_none() {
        page.key = "deleted";
        page.text = page.language.find("page.delete.done_text").map(Into::into);
    }
    shown(&page)
}

/// The reader of the letter has no session here and says so by hand: scanners of mail follow links, they do not fill in
/// forms.
async fn delete(call: Call) -> Result<Response, Refused> {
    const PATH: &str = "/auth/delete-account";
    if let Err(code) = judge(&call, "/api/auth/delete-user").await {
        return Ok(back(&call, PATH, code));
    }
    let token = call.asked("token").unwrap_or_default();
    match call.app.deletion.confirm_without_session(&token).await {
        Ok(()) => {
            let mut answer = see_other(PATH);
            call.keeper.cookies.clear(&mut answer);
            Ok(answer)
        }
        Err(denied) => Ok(see_other(&with_query(PATH, "error", code_of(&denied)))),
    }
}

/// Where flows end that have nowhere else to go.
pub(super) async fn error_page(call: Call) -> Result<Response, Refused> {
    let mut page = page(&call, "error");
    page.error.get_or_insert_with(|| page.language.text("page.error.text").to_owned());
    page.links = vec![("/auth/sign-in".to_owned(), text(page.language, "page.back_to_sign_in"))];
    shown(&page)
}
