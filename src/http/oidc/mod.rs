//! The OpenID provider on the wire (contract `auth.md` §7, §8.4).
//!
//! Its description is the discovery document; the paths are no operations of the OpenAPI document, which speaks of
//! other error bodies.

mod answers;
mod metadata;
mod relay;

use std::sync::Arc;

use poem::http::StatusCode;
use poem::http::header::{ACCEPT, AUTHORIZATION};
use poem::web::Data;
use poem::{Endpoint, EndpointExt, IntoResponse, Request, Response, Route, get, handler, post};
use serde_json::json;
use url::form_urlencoded;

use super::accounts::refused::Refused;
use super::accounts::trust::Scrutiny;
use super::accounts::view::redirect;
use super::auth::{Doorkeeper, bearer, caller};
use super::error::refuse;
use super::middleware::cors::TrustedOrigins;
use crate::core::App;
use crate::core::model::oidc::authorize::{Accepted, with_parameters};
use crate::core::model::secret::Secret;
use crate::core::oidc::{Authorized, EndRequest, TokenRequest};
use answers::{Form, basic, denied, json_answer, refused, validation};

/// Adds the document that lies outside the issuer's path.
pub(super) fn mount(route: Route) -> Route {
    route.at("/.well-known/oauth-authorization-server/api/auth", get(metadata::document))
}

/// Adds the provider's routes below `/api/auth`.
pub(super) fn doors(route: Route) -> Route {
    route
        .at("/api/auth/.well-known/openid-configuration", get(metadata::document))
        .at("/api/auth/jwks", get(metadata::key_set))
        .at("/api/auth/oauth2/authorize", get(authorize))
        .at("/api/auth/oauth2/token", post(token.around(from_ours)))
        .at("/api/auth/oauth2/userinfo", get(userinfo).post(userinfo.around(from_ours)))
        .at("/api/auth/oauth2/introspect", post(introspect.around(from_ours)))
        .at("/api/auth/oauth2/revoke", post(revoke.around(from_ours)))
        .at("/api/auth/oauth2/end-session", get(end_session))
        .at("/api/auth/oauth2/register", post(register))
        .at("/api/auth/oidc/electron-callback", get(relay::page))
}

/// Whether the answer is for a script, which cannot follow a redirect to another origin.
fn wants_json(req: &Request) -> bool {
    let says = |name: &str, word: &str| req.header(name).is_some_and(|value| value.contains(word));
    says(ACCEPT.as_str(), "application/json") || says("sec-fetch-mode", "cors")
}

/// A form that a browser sends with cookies must come from a page we trust (contract §2.7).
async fn from_ours<E: Endpoint>(next: Arc<E>, req: Request) -> poem::Result<Response> {
    let judged = req.data::<Doorkeeper>().map(|keeper| keeper.trust.judge(req.headers(), Scrutiny::Usual));
    match judged {
        Some(Err(forged)) => Ok(Refused::from(forged).into_response()),
        _ => next.call(req).await.map(IntoResponse::into_response),
    }
}

#[handler]
async fn authorize(req: &Request, app: Data<&Arc<App>>, origins: Data<&Arc<TrustedOrigins>>) -> Response {
    let request = Accepted::parse(form_urlencoded::parse(req.uri().query().unwrap_or_default().as_bytes()));
    let caller = match caller(req).await {
        Ok(caller) => caller,
        Err(error) => return refuse(error),
    };
    let judged = app.oidc.authorize(&request, caller.as_ref(), |origin| origins.0.trusts(origin)).await;
    let to = |url: String| {
        if wants_json(req) { json_answer(&json!({ "redirect": true, "url": url })) } else { redirect(&url) }
    };
    match judged {
        Err(error) => refuse(error),
        Ok(Authorized::Unusable(unusable)) => validation("query", unusable.0),
        Ok(Authorized::ErrorPage(refusal)) => {
            let page = app.oidc.issuer.endpoint("/error");
            let parameters = [("error", refusal.error), ("error_description", refusal.description)];
            redirect(&with_parameters(&page, &parameters).unwrap_or(page))
        }
        Ok(Authorized::SignIn(query)) => to(format!("/auth/sign-in?{query}")),
        Ok(Authorized::Answer(url)) => to(url),
    }
}

#[handler]
async fn token(req: &Request, app: Data<&Arc<App>>, form: Form) -> Response {
    let mut request = TokenRequest::default();
    for (name, value) in form.fields {
        request.set(&name, value);
    }
    if let Some((id, secret)) = basic(req.header(AUTHORIZATION)) {
        request.client_id.get_or_insert(id);
        request.client_secret.get_or_insert(secret);
    }
    match app.oidc.token(&request).await {
        Ok(None) => validation("body", "grant_type"),
        Err(error) => denied(error),
        Ok(Some(answer)) => {
            let mut body = json!({
                "access_token": answer.access_token.expose(),
                "expires_in": answer.expires_in,
                "expires_at": answer.expires_at,
                "token_type": "Bearer",
                "scope": answer.scope,
            });
            for (name, token) in [("refresh_token", &answer.refresh_token), ("id_token", &answer.id_token)] {
                if let Some(token) = token {
                    body[name] = token.expose().into();
                }
            }
            json_answer(&body)
        }
    }
}

#[handler]
async fn userinfo(req: &Request, app: Data<&Arc<App>>) -> Response {
    match app.oidc.userinfo(bearer(req.headers())).await {
        Ok(claims) => json_answer(&claims.into()),
        Err(error) => answers::challenged(denied(error)),
    }
}

/// Fields of `introspect` and `revoke`.
struct Named {
    client_id: Option<String>,
    secret: Option<Secret>,
    token: Option<String>,
}

impl Named {
    fn of(req: &Request, mut form: Form) -> Self {
        let basic = basic(req.header(AUTHORIZATION));
        let (id, secret) = basic.map_or((None, None), |(id, secret)| (Some(id), Some(secret)));
        let mut field = |name: &str| form.fields.remove(name).filter(|value| !value.is_empty());
        Self {
            client_id: field("client_id").or(id).filter(|id| !id.contains('\0')),
            secret: field("client_secret").map(Secret::new).or(secret),
            token: field("token"),
        }
    }
}

#[handler]
async fn introspect(req: &Request, app: Data<&Arc<App>>, form: Form) -> Response {
    let named = Named::of(req, form);
    match app.oidc.introspect(named.client_id.as_deref(), named.secret.as_ref(), named.token.as_deref()).await {
        Ok(told) => json_answer(&told),
        Err(error) => denied(error),
    }
}

#[handler]
async fn revoke(req: &Request, app: Data<&Arc<App>>, form: Form) -> Response {
    let named = Named::of(req, form);
    match app.oidc.revoke(named.client_id.as_deref(), named.secret.as_ref(), named.token.as_deref()).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => denied(error),
    }
}

#[handler]
async fn end_session(req: &Request, app: Data<&Arc<App>>, keeper: Data<&Doorkeeper>) -> Response {
    let mut request = EndRequest::default();
    for (name, value) in form_urlencoded::parse(req.uri().query().unwrap_or_default().as_bytes()) {
        let value = Some(value.into_owned()).filter(|value| !value.is_empty() && !value.contains('\0'));
        match name.as_ref() {
            "id_token_hint" => request.id_token_hint = value,
            "client_id" => request.client_id = value,
            "post_logout_redirect_uri" => request.post_logout_redirect_uri = value,
            "state" => request.state = value,
            _ => {}
        }
    }
    let mut answer = match app.oidc.end_session(&request).await {
        Ok(None) => StatusCode::OK.into_response(),
        Ok(Some(url)) => redirect(&url),
        Err(error) => return denied(error),
    };
    keeper.cookies.clear(&mut answer);
    answer
}

/// Nobody registers clients here (contract F-14).
#[handler]
fn register() -> Response {
    refused(StatusCode::FORBIDDEN, "access_denied", "clients cannot be registered")
}
