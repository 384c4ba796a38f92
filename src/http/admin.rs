//! `/admin`: routing configuration and gifts of flux, for administrators (contract `admin.md`).

use std::sync::Arc;

use poem::web::Data;
use poem::{Endpoint, EndpointExt, Request};
use poem_openapi::param::{Header, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, OpenApi};

use super::admin_documents::{GrantDocument, RouterDocument};
use super::admin_views::{FluxGrants, Router, RouterChanged};
use super::auth::AdminAuth;
use super::error::ApiError;
use super::middleware::client_address::ClientAddress;
use super::middleware::limit_calls::limit_calls;
use super::payload::Raw;
use super::spec::Tag;
use crate::core::App;
use crate::core::error::{Code, Error};
use crate::core::model::audit::Actor;
use crate::core::model::ids::RequestId;
use crate::core::model::limits::ADMIN;
use crate::core::model::principal::Principal;

/// Operations for administrators. Each leaves rows in the audit log.
pub(super) struct AdminApi;

#[OpenApi(prefix_path = "/api/admin", tag = "Tag::Admin")]
impl AdminApi {
    /// Change the routing configuration
    ///
    /// Everything is checked before anything is stored, faults are told by their paths, and all affected entries
    /// change at once. Each slice replaces the whole model of its name. Keys are sealed and never shown again. With
    /// `If-Match` the change is refused when the configuration is no longer at that version.
    #[oai(path = "/config/router", method = "post", operation_id = "applyRouter", transform = "counted")]
    async fn apply_router(
        &self,
        app: Data<&Arc<App>>,
        request: &Request,
        caller: AdminAuth,
        /// The `ETag` the change was made from.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
        body: Raw<RouterDocument>,
    ) -> Result<Json<RouterChanged>, ApiError> {
        let expected = if_match.0.as_deref().map(version).transpose()?.flatten();
        let change = app.admin.apply_router(&actor(request, &caller), &body.bytes, expected).await?;
        Ok(Json(RouterChanged::from(change)))
    }

    /// Read the routing configuration
    ///
    /// Key slots are shown as `{id, keyId, ciphertextFingerprint, encryptedWith}`: `keyId` tells keys apart,
    /// `encryptedWith` is `current`, `previous` or `unreadable`.
    #[oai(path = "/config/router", method = "get", operation_id = "getRouter", transform = "counted")]
    async fn router(
        &self,
        app: Data<&Arc<App>>,
        request: &Request,
        caller: AdminAuth,
    ) -> Result<RouterAnswer, ApiError> {
        let view = app.admin.show_router(&actor(request, &caller)).await?;
        let tag = format!("\"{}\"", view.version);
        Ok(RouterAnswer::Shown(Json(Router::from(view)), tag))
    }

    /// Give flux to people
    ///
    /// Credits are made one after the other; one failure does not stop the rest. Without an `idempotencyKey` the
    /// same request sent again gives again.
    #[oai(path = "/flux-grants", method = "post", operation_id = "grantFlux", transform = "counted")]
    async fn grant_flux(
        &self,
        app: Data<&Arc<App>>,
        request: &Request,
        caller: AdminAuth,
        /// `true` counts and gives nothing; `false` when absent. Any other word is refused.
        #[oai(name = "dryRun")]
        dry_run: Query<Option<String>>,
        body: Raw<GrantDocument>,
    ) -> Result<Json<FluxGrants>, ApiError> {
        let dry_run = is_dry_run(dry_run.0.as_deref())?;
        let answer = app.admin.grant_flux(&actor(request, &caller), &body.bytes, dry_run).await?;
        Ok(Json(FluxGrants::from(answer)))
    }
}

pub(super) fn counted(ep: impl Endpoint + 'static) -> impl Endpoint {
    ep.around(|next, req| limit_calls(next, req, &ADMIN))
}

/// Remembers that a signed-in caller was turned away from the admin prefix.
pub(super) async fn remember_refusal(req: &Request, principal: &Principal) {
    let Some(app) = req.data::<Arc<App>>() else { return };
    let mut actor = Actor::from(&principal.account);
    locate(&mut actor, req);
    app.admin.turned_away(&actor, &app.limits).await;
}

pub(super) fn actor(request: &Request, caller: &AdminAuth) -> Actor {
    let mut actor = Actor::from(&caller.0.account);
    locate(&mut actor, request);
    actor
}

fn locate(actor: &mut Actor, request: &Request) {
    actor.request = request.extensions().get::<RequestId>().cloned();
    actor.ip = request.extensions().get::<ClientAddress>().map(|address| address.0.to_string());
    actor.user_agent = request.header("user-agent").map(|agent| agent.chars().take(300).collect());
}

/// The version an `ETag` of ours stands for; nothing for `*`, which any version matches.
fn version(tag: &str) -> Result<Option<i64>, Error> {
    let tag = tag.trim();
    if tag == "*" {
        return Ok(None);
    }
    tag.trim_matches('"')
        .parse()
        .map(Some)
        .map_err(|_| Error::new(Code::InvalidRequest).saying("If-Match must be the ETag of the routing configuration"))
}

/// Only the exact words count (AD-D03): a reader that took any other word for `false` would give.
fn is_dry_run(word: Option<&str>) -> Result<bool, Error> {
    match word {
        Some("true") => Ok(true),
        None | Some("false") => Ok(false),
        Some(_) => Err(Error::new(Code::InvalidRequest).saying("dryRun must be true or false")),
    }
}

/// The routing configuration, at a version.
#[derive(ApiResponse)]
enum RouterAnswer {
    /// The routing configuration without anything secret.
    #[oai(status = 200)]
    Shown(
        Json<Router>,
        /// Version of the configuration, to be sent as `If-Match`.
        #[oai(header = "ETag")]
        String,
    ),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_words_say_whether_to_give() {
        assert!(is_dry_run(Some("true")).unwrap());
        assert!(!is_dry_run(Some("false")).unwrap() && !is_dry_run(None).unwrap());
        for word in ["1", "", "True", "yes", "true "] {
            assert!(is_dry_run(Some(word)).is_err(), "{word:?}");
        }
    }

    #[test]
    fn a_tag_is_the_version_in_quotes() {
        assert_eq!(version("\"7\"").unwrap(), Some(7));
        assert_eq!(version("*").unwrap(), None);
        assert!(version("\"abc\"").is_err());
    }
}
