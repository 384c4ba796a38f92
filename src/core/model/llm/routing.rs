//! The routing document, `LLM_ROUTER_CONFIG`, as stored (contract `gateway.md` §11).
//!
//! Reading is lenient, like the reference's: unknown members are dropped and missing parts filled in. What an
//! operator may *write* is judged in [`crate::core::admin`], which names the path of every fault.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::model::ids::KeyEntryId;
use crate::core::model::tts::TtsProvider;

/// The statuses that let the next key try, unless an operator says otherwise.
pub const DEFAULT_FALLBACK_CODES: [u16; 8] = [401, 402, 403, 429, 500, 502, 503, 504];

/// The whole tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouterConfig {
    /// Chat models.
    pub llm: LlmModels,
    /// Speech models.
    pub tts: TtsModels,
    /// Limits that apply where a model or upstream says nothing.
    #[serde(default)]
    pub defaults: Defaults,
}

/// Chat models by logical id, in configuration order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LlmModels {
    /// The models.
    pub models: IndexMap<String, LlmModel>,
}

/// Speech models by logical id, in configuration order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TtsModels {
    /// The models.
    pub models: IndexMap<String, TtsModel>,
}

/// One chat model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LlmModel {
    /// Tried in order; at least one.
    pub upstreams: Vec<LlmUpstreamEntry>,
    /// The most tokens the model writes per answer: what is set aside for a caller who names no limit. Absent means
    /// that nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// What lets the next key try; absent means the tree's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_triggers: Option<FallbackTriggers>,
}

/// One OpenAI-compatible upstream of a chat model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LlmUpstreamEntry {
    /// Prefix; `/chat/completions` is appended after trailing slashes are removed.
    #[serde(rename = "baseURL")]
    pub base_url: String,
    /// Model id the upstream knows; absent means the logical id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_model: Option<String>,
    /// Tried in order; at least one.
    pub keys: Vec<KeyEntry>,
    /// Value of `authorization`, with `{KEY}` where the key goes.
    #[serde(default = "bearer")]
    pub header_template: String,
    /// Limit of one attempt, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Whether usage is asked for on streams the caller did not ask it for.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub include_usage: bool,
    /// Label for metrics and logs instead of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One speech model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TtsModel {
    /// Which adapter speaks to the upstreams.
    pub provider: TtsProvider,
    /// Tried in order; at least one.
    pub upstreams: Vec<TtsUpstreamEntry>,
    /// What lets the next key try; absent means the tree's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_triggers: Option<FallbackTriggers>,
}

/// One upstream of a speech model, or `STREAMING_TTS_UPSTREAM`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TtsUpstreamEntry {
    /// Full endpoint address.
    #[serde(rename = "baseURL")]
    pub base_url: String,
    /// Tried in order; at least one.
    pub keys: Vec<KeyEntry>,
    /// What the adapter needs besides.
    #[serde(default)]
    pub adapter_params: Map<String, Value>,
    /// Limit of one attempt, ms (AU-D04).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// One key slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// Name of the slot; part of what the ciphertext is bound to. Never contains `|`.
    pub id: KeyEntryId,
    /// Envelope token (contract `gateway.md` §10).
    pub ciphertext: String,
}

/// What lets the next key try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FallbackTriggers {
    /// Statuses; absent means the tree's `defaults.fallbackHttpCodes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_codes: Option<Vec<u16>>,
    /// Whether a timeout or transport failure lets the next key try.
    #[serde(default = "yes")]
    pub on_timeout: bool,
}

/// Limits of the tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Defaults {
    /// From the start of an attempt to the response head, ms.
    pub per_attempt_timeout_ms: u64,
    /// From the start of routing to the first byte, ms.
    pub full_chain_timeout_ms: u64,
    /// Statuses that let the next key try.
    pub fallback_http_codes: Vec<u16>,
    /// Longest silence inside a stream, ms.
    pub stream_idle_timeout_ms: u64,
    /// Longest stream, ms.
    pub stream_max_ms: u64,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            per_attempt_timeout_ms: 30_000,
            full_chain_timeout_ms: 60_000,
            fallback_http_codes: DEFAULT_FALLBACK_CODES.to_vec(),
            stream_idle_timeout_ms: 60_000,
            stream_max_ms: 900_000,
        }
    }
}

impl LlmUpstreamEntry {
    /// The label of this upstream in metrics and logs: its name, else its host, else `unknown`.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| host_of(&self.base_url))
    }
}

impl TtsUpstreamEntry {
    /// The label of this upstream in metrics and logs: its host, else `unknown`.
    pub fn label(&self) -> String {
        host_of(&self.base_url)
    }
}

fn host_of(base_url: &str) -> String {
    url::Url::parse(base_url)
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn bearer() -> String {
    "Bearer {KEY}".to_owned()
}

fn yes() -> bool {
    true
}

fn is_yes(flag: &bool) -> bool {
    *flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_sample_reads_with_defaults_filled_in() {
        let fixture = include_str!("../../../../tests/fixtures/config-kv.json");
        let fixture: Value = serde_json::from_str(fixture).unwrap();
        let tree: RouterConfig = serde_json::from_value(fixture["sampleMinimal"].clone()).unwrap();
        let upstream = &tree.llm.models["chat-default"].upstreams[0];
        assert_eq!(upstream.header_template, fixture["headerTemplateDefault"].as_str().unwrap());
        assert!(upstream.include_usage);
        assert_eq!(upstream.label(), "openrouter.ai");
        assert_eq!(tree.tts.models["microsoft/v1"].provider, TtsProvider::Azure);
        let defaults = serde_json::to_value(&tree.defaults).unwrap();
        for (name, value) in fixture["routerDefaults"].as_object().unwrap() {
            assert_eq!(&defaults[name], value, "{name}");
        }
    }

    #[test]
    fn unknown_members_of_a_stored_tree_are_ignored() {
        let tree = r#"{"llm":{"models":{},"x":1},"tts":{"models":{}},"defaults":{"perAttemptTimeoutMs":5},"y":2}"#;
        let tree: RouterConfig = serde_json::from_str(tree).unwrap();
        assert_eq!(tree.defaults.per_attempt_timeout_ms, 5);
        assert_eq!(tree.defaults.full_chain_timeout_ms, 60_000);
    }
}
