//! What operators are shown: the answers of `/admin`, documented and printed.

use poem_openapi::Object;
use poem_openapi::types::{Any, Example, ToJSON};
use serde_json::{Map, Value, json};

use crate::core::admin::{AppliedSlice, GrantAnswer, GrantResult, GrantSummary, RouterChange, RouterView};
use crate::core::model::ids::KeyEntryId;

/// A change as the endpoint shows it, for the command line.
pub fn change_json(change: RouterChange) -> Option<Value> {
    RouterChanged::from(change).to_json()
}

/// The routing configuration as the endpoint shows it, for the command line.
pub fn router_json(view: RouterView) -> Option<Value> {
    Router::from(view).to_json()
}

/// What a change of the routing configuration did.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct RouterChanged {
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
pub(super) struct SliceApplied {
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
pub(super) struct Router {
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
pub(super) struct Aliases {
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
pub(super) struct FluxGrants {
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
pub(super) struct Summary {
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
pub(super) struct SkipCounts {
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
pub(super) struct Samples {
    /// Of people who get something.
    will_grant: Vec<String>,
    /// That nobody has.
    not_found: Vec<String>,
    /// Of closed balances.
    user_deleted: Vec<String>,
}

/// What became of each address.
#[derive(Object)]
pub(super) struct Outcomes {
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
pub(super) struct GrantedFlux {
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
pub(super) struct SkippedAddress {
    /// As typed.
    email: String,
    /// `duplicate_in_input`, `not_found` or `user_deleted`.
    reason: String,
}

/// One credit that was not made.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct FailedGrant {
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
