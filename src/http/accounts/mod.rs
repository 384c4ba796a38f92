//! `/api/auth` and `/auth`: identity (contract `auth.md` §2, §6, §8).
//!
//! These doors are not part of the API description: clients reach them through the better-auth client and OpenID Connect
//! discovery, and their bodies are what those expect.

mod call;
pub mod cookies;
mod deletion;
mod email;
mod limits;
mod outbox;
mod page;
mod pages;
mod password;
mod profile;
mod recovery;
pub(super) mod refused;
mod sessions;
mod social;
pub mod trust;
pub(super) mod view;

use std::sync::Arc;

use poem::http::{Method, StatusCode};
use poem::{Endpoint, EndpointExt, IntoResponse, Request, Response, Route, get, post};

use crate::http::error::{no_route, speak};
use call::{Kind, door};
use limits::limit;

/// Adds the identity doors.
pub(super) fn mount(route: Route) -> Route {
    pages::mount(route)
        .at("/dev/outbox", get(door(Kind::Free, outbox::show)))
        .nest_no_strip("/api/auth", doors().around(unknown).around(limit))
}

fn doors() -> Route {
    let at = |path: &str| format!("/api/auth/{path}");
    super::oidc::doors(Route::new())
        .at(at("get-session"), get(door(Kind::Free, sessions::get)).post(door(Kind::Free, sessions::get)))
        .at(at("sign-out"), post(door(Kind::Free, sessions::sign_out)))
        .at(at("list-sessions"), get(door(Kind::Free, sessions::list)))
        .at(at("revoke-session"), post(door(Kind::Json, sessions::revoke)))
        .at(at("revoke-sessions"), post(door(Kind::Json, sessions::revoke_all)))
        .at(at("revoke-other-sessions"), post(door(Kind::Json, sessions::revoke_others)))
        .at(at("check-email"), post(door(Kind::Free, password::check_email)))
        .at(at("sign-up/email"), post(door(Kind::SignIn, password::sign_up)))
        .at(at("sign-in/email"), post(door(Kind::SignIn, password::sign_in)))
        .at(at("sign-in/social"), post(door(Kind::Json, social::sign_in)))
        .at(at("link-social"), post(door(Kind::Json, social::link)))
        .at(
            at("callback/:provider"),
            get(door(Kind::Free, social::arrive)).post(door(Kind::Free, social::arrive_by_form)),
        )
        .at(at("verify-email"), get(door(Kind::Link(&["callbackURL"]), email::verify)))
        .at(at("send-verification-email"), post(door(Kind::Json, email::send_verification)))
        .at(at("change-email"), post(door(Kind::Json, email::change)))
        .at(at("request-password-reset"), post(door(Kind::Json, recovery::request)))
        .at(at("reset-password/:token"), get(door(Kind::Link(&["callbackURL"]), recovery::open)))
        .at(at("reset-password"), post(door(Kind::Json, recovery::reset)))
        .at(at("sign-in/magic-link"), post(door(Kind::Json, recovery::send_magic_link)))
        .at(at("magic-link/verify"), get(door(Kind::Link(recovery::MAGIC_FIELDS), recovery::open_magic_link)))
        .at(at("update-user"), post(door(Kind::Json, profile::update)))
        .at(at("change-password"), post(door(Kind::Json, profile::change_password)))
        .at(at("list-accounts"), get(door(Kind::Free, profile::list_accounts)))
        .at(at("unlink-account"), post(door(Kind::Json, profile::unlink)))
        .at(at("delete-user"), post(door(Kind::Json, deletion::request)))
        .at(at("delete-user/callback"), get(door(Kind::Link(&["callbackURL"]), deletion::confirm)))
        .at(at("error"), get(door(Kind::Free, pages::error_page)))
        .at(at("ok"), get(door(Kind::Free, sessions::ok)))
}

/// What no door answers: nothing but the status for the methods doors have, the usual words for others.
async fn unknown<E: Endpoint>(next: Arc<E>, req: Request) -> poem::Result<Response> {
    let (method, path) = (req.method().clone(), req.uri().path().to_owned());
    match next.call(req).await {
        Ok(answer) => Ok(answer.into_response()),
        Err(failure)
            if failure.status() == StatusCode::NOT_FOUND || failure.status() == StatusCode::METHOD_NOT_ALLOWED =>
        {
            Ok(match method {
                Method::GET | Method::HEAD | Method::POST => StatusCode::NOT_FOUND.into_response(),
                _ => no_route(&method, &path),
            })
        }
        Err(failure) => Ok(speak(failure, &method, &path)),
    }
}
