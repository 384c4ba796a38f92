//! `/admin`: routing configuration and gifts of flux, for administrators (contract `admin.md`).

use std::sync::Arc;

use poem::web::Data;
use poem::{Endpoint, EndpointExt, Request};
use poem_openapi::param::{Header, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::{Any, Example};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::{Map, Value, json};

use super::admin_documents::{GrantDocument, RouterDocument};
use super::auth::AdminAuth;
use super::error::ApiError;
use super::middleware::limit_calls::limit_calls;
use super::payload::Raw;
use super::spec::Tag;
use crate::core::App;
use crate::core::admin::{AppliedSlice, GrantAnswer, GrantResult, GrantSummary, RouterChange, RouterView};
use crate::core::error::{Code, Error};
use crate::core::model::audit::Actor;
use crate::core::model::ids::{KeyEntryId, RequestId};
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

fn counted(ep: impl Endpoint + 'static) -> impl Endpoint {
    ep.around(|next, req| limit_calls(next, req, &ADMIN))
}

/// Remembers that a signed-in caller was turned away from the admin prefix.
pub(super) async fn remember_refusal(req: &Request, principal: &Principal) {
    let Some(app) = req.data::<Arc<App>>() else { return };
    let mut actor = Actor::from(&principal.account);
    locate(&mut actor, req);
    app.admin.turned_away(&actor, &app.limits).await;
}

fn actor(request: &Request, caller: &AdminAuth) -> Actor {
    let mut actor = Actor::from(&caller.0.account);
    locate(&mut actor, request);
    actor
}

fn locate(actor: &mut Actor, request: &Request) {
    actor.request = request.extensions().get::<RequestId>().cloned();
    actor.ip = request.remote_addr().as_socket_addr().map(|address| address.ip().to_string());
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

/// What a change of the routing configuration did.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
struct RouterChanged {
    /// One per slice, in order.
    applied: Vec<SliceApplied>,
    /// Names of the entries written; none on a dry run.
    invalidated_keys: Vec<String>,
    /// The entries as they are to be, with ciphertexts replaced by their lengths.
    preview: Any<Map<String, Value>>,
    /// Models that a reset removes, as `llm/<model>` or `tts/<model>`.
    #[oai(skip_serializing_if_is_empty)]
    removed_models: Vec<String>,
}

/// Where a slice went.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct SliceApplied {
    /// As written.
    kind: String,
    /// `llm-router` or `streaming-tts`.
    target: String,
    /// `llm` or `tts`.
    #[oai(skip_serializing_if_is_none)]
    surface: Option<String>,
    /// Logical id.
    #[oai(skip_serializing_if_is_none)]
    model_name: Option<String>,
    /// The first key slot.
    key_entry_id: String,
    /// All key slots, when there is more than one.
    #[oai(skip_serializing_if_is_empty)]
    key_entry_ids: Vec<String>,
}

/// The routing configuration without anything secret.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
struct Router {
    /// Grows with every change of any configuration entry.
    version: i64,
    /// The tree; absent while nothing is configured.
    #[oai(skip_serializing_if_is_none)]
    router: Option<Any<Value>>,
    /// The upstream of streamed speech.
    #[oai(skip_serializing_if_is_none)]
    streaming_tts_upstream: Option<Any<Value>>,
    /// What the model id `auto` means.
    aliases: Aliases,
}

/// What the model id `auto` means.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Aliases {
    /// For chat completions.
    #[oai(skip_serializing_if_is_none)]
    chat_model: Option<String>,
    /// For speech.
    #[oai(skip_serializing_if_is_none)]
    tts_model: Option<String>,
}

/// What a grant would do, or did.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
struct FluxGrants {
    /// Only on a dry run.
    #[oai(skip_serializing_if_is_none)]
    preview: Option<Summary>,
    /// Only when it was no dry run.
    #[oai(skip_serializing_if_is_none)]
    summary: Option<Summary>,
    /// Only when it was no dry run.
    #[oai(skip_serializing_if_is_none)]
    result: Option<Outcomes>,
}

/// Counts of a grant.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Summary {
    /// Addresses in the request.
    total_emails: usize,
    /// People who get something.
    will_grant: usize,
    /// Addresses that get nothing.
    will_skip: SkipCounts,
    /// Flux in all.
    total_flux_to_issue: i64,
    /// Up to five addresses of each sort.
    samples: Samples,
}

/// Addresses that get nothing.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct SkipCounts {
    /// Nobody has them.
    not_found: usize,
    /// The balances of their owners are closed.
    user_deleted: usize,
    /// Repetitions.
    duplicate_in_input: usize,
}

/// Up to five addresses of each sort, as typed.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Samples {
    /// Of people who get something.
    will_grant: Vec<String>,
    /// That nobody has.
    not_found: Vec<String>,
    /// Of closed balances.
    user_deleted: Vec<String>,
}

/// What became of each address.
#[derive(Object)]
struct Outcomes {
    /// Credited, now or by an earlier request with the same key.
    granted: Vec<GrantedFlux>,
    /// Not to be credited.
    skipped: Vec<SkippedAddress>,
    /// Not credited.
    failed: Vec<FailedGrant>,
}

/// One credit.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct GrantedFlux {
    /// As typed.
    email: String,
    /// Whose address it is.
    user_id: String,
    /// The ledger entry.
    flux_transaction_id: String,
    /// Balance right after the entry.
    balance_after: i64,
    /// `true` when an earlier request made the entry; absent otherwise.
    #[oai(skip_serializing_if_is_none)]
    replayed: Option<bool>,
}

/// One address that gets nothing.
#[derive(Object)]
struct SkippedAddress {
    /// As typed.
    email: String,
    /// `duplicate_in_input`, `not_found` or `user_deleted`.
    reason: String,
}

/// One credit that was not made.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct FailedGrant {
    /// As typed.
    email: String,
    /// Whose address it is.
    user_id: String,
    /// Why, with a reference for the operator of the server; `not attempted` when time ran out.
    error: String,
}

impl From<RouterChange> for RouterChanged {
    fn from(change: RouterChange) -> Self {
        Self {
            applied: change.applied.into_iter().map(SliceApplied::from).collect(),
            invalidated_keys: change.invalidated_keys.into_iter().map(str::to_owned).collect(),
            preview: Any(change.preview),
            removed_models: change.removed,
        }
    }
}

impl From<AppliedSlice> for SliceApplied {
    fn from(slice: AppliedSlice) -> Self {
        let ids: Vec<_> = slice.key_ids.iter().map(KeyEntryId::to_string).collect();
        Self {
            kind: slice.kind.to_owned(),
            target: if slice.surface.is_some() { "llm-router" } else { "streaming-tts" }.to_owned(),
            surface: slice.surface.map(str::to_owned),
            model_name: slice.model,
            key_entry_id: ids.first().cloned().unwrap_or_default(),
            key_entry_ids: if ids.len() > 1 { ids } else { Vec::new() },
        }
    }
}

impl From<RouterView> for Router {
    fn from(view: RouterView) -> Self {
        Self {
            version: view.version,
            router: view.router.map(Any),
            streaming_tts_upstream: view.streaming.map(Any),
            aliases: Aliases { chat_model: view.chat_model, tts_model: view.tts_model },
        }
    }
}

impl From<GrantAnswer> for FluxGrants {
    fn from(answer: GrantAnswer) -> Self {
        let summary = Some(Summary::from(answer.summary));
        match answer.result {
            None => Self { preview: summary, summary: None, result: None },
            Some(result) => Self { preview: None, summary, result: Some(Outcomes::from(result)) },
        }
    }
}

impl From<GrantSummary> for Summary {
    fn from(summary: GrantSummary) -> Self {
        Self {
            total_emails: summary.total_emails,
            will_grant: summary.will_grant,
            will_skip: SkipCounts {
                not_found: summary.not_found,
                user_deleted: summary.user_deleted,
                duplicate_in_input: summary.duplicate_in_input,
            },
            total_flux_to_issue: summary.total_flux,
            samples: Samples {
                will_grant: summary.sample_will_grant,
                not_found: summary.sample_not_found,
                user_deleted: summary.sample_user_deleted,
            },
        }
    }
}

impl From<GrantResult> for Outcomes {
    fn from(result: GrantResult) -> Self {
        let granted = result.granted.into_iter().map(|granted| GrantedFlux {
            email: granted.email,
            user_id: granted.user.to_string(),
            flux_transaction_id: granted.entry.to_string(),
            balance_after: granted.balance_after.get(),
            replayed: granted.replayed.then_some(true),
        });
        let skipped = result
            .skipped
            .into_iter()
            .map(|skipped| SkippedAddress { email: skipped.email, reason: skipped.reason.as_str().to_owned() });
        let failed = result.failed.into_iter().map(|failed| FailedGrant {
            email: failed.email,
            user_id: failed.user.to_string(),
            error: failed.error,
        });
        Self { granted: granted.collect(), skipped: skipped.collect(), failed: failed.collect() }
    }
}

impl Example for RouterChanged {
    fn example() -> Self {
        Self {
            applied: vec![SliceApplied {
                kind: "streaming-tts".to_owned(),
                target: "streaming-tts".to_owned(),
                surface: None,
                model_name: None,
                key_entry_id: "volcengine-prod-1".to_owned(),
                key_entry_ids: Vec::new(),
            }],
            invalidated_keys: vec!["STREAMING_TTS_UPSTREAM".to_owned()],
            preview: Any(Map::from_iter([(
                "STREAMING_TTS_UPSTREAM".to_owned(),
                json!({
                    "baseURL": "wss://tts.example.com/v1/audio/speech/stream",
                    "keys": [{"id": "volcengine-prod-1", "ciphertext": "<ciphertext: 54 chars>"}],
                    "adapterParams": {}
                }),
            )])),
            removed_models: Vec::new(),
        }
    }
}

impl Example for Router {
    fn example() -> Self {
        let slot = json!({
            "id": "primary-1", "keyId": "2cf24dba", "ciphertextFingerprint": "0f2c10bf", "encryptedWith": "current"
        });
        let upstream =
            json!({"baseURL": "https://llm.example.com/v1", "keys": [slot], "headerTemplate": "Bearer {KEY}"});
        let model = json!({"upstreams": [upstream], "upstreamCount": 1, "keyCount": 1, "aliases": ["auto"]});
        Self {
            version: 7,
            router: Some(Any(json!({"llm": {"models": {"chat-default": model}}, "tts": {"models": {}}}))),
            streaming_tts_upstream: None,
            aliases: Aliases { chat_model: Some("chat-default".to_owned()), tts_model: None },
        }
    }
}

impl Example for FluxGrants {
    fn example() -> Self {
        let will_grant = vec!["alice@example.com".to_owned()];
        let summary = Summary {
            total_emails: 1,
            will_grant: 1,
            will_skip: SkipCounts { not_found: 0, user_deleted: 0, duplicate_in_input: 0 },
            total_flux_to_issue: 100,
            samples: Samples { will_grant, not_found: Vec::new(), user_deleted: Vec::new() },
        };
        let granted = GrantedFlux {
            email: "alice@example.com".to_owned(),
            user_id: "2iPnVqXwVSmlnbQjyZBLHvwqKbNKl5Tc".to_owned(),
            flux_transaction_id: "V1StGXR8_Z5jdHi6B-myT".to_owned(),
            balance_after: 1_100,
            replayed: None,
        };
        let result = Outcomes { granted: vec![granted], skipped: Vec::new(), failed: Vec::new() };
        Self { preview: None, summary: Some(summary), result: Some(result) }
    }
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
