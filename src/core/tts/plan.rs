//! What a routing document says about one speech model, as the ordered attempts a walk makes
//! (contract `audio.md` §3).

use std::time::Duration;

use serde_json::{Map, Value};

use crate::core::model::llm::{Defaults, KeyEntry, SANDBOX_URL, TtsModel, TtsUpstreamEntry};
use crate::core::model::tts::{SANDBOX_MODEL, TtsProvider};

/// Everything a walk needs to know about a speech model.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In the order they are made: all keys of the first upstream, then of the next.
    pub attempts: Vec<Attempt>,
    /// Statuses that let the next key try.
    pub fallback_on: Vec<u16>,
    /// Whether a timeout or a transport failure lets the next key try.
    pub past_timeouts: bool,
    /// From the start of routing to the first byte of audio.
    pub chain: Duration,
    /// Longest silence inside the audio.
    pub idle: Duration,
    /// Longest delivery.
    pub total: Duration,
}

/// One key of one upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Position of the upstream in the document.
    pub upstream: usize,
    /// Its label in metrics and logs.
    pub label: String,
    /// Whose protocol it speaks.
    pub provider: TtsProvider,
    /// Full endpoint address, without trailing slashes.
    pub base_url: String,
    /// What the adapter needs besides.
    pub params: Map<String, Value>,
    /// The key slot; absent for the built-in engine.
    pub key: Option<KeyEntry>,
    /// Until the first byte of audio.
    pub limit: Duration,
}

impl Plan {
    /// Lays out the attempts. A model's own list of statuses applies when it was written; the document's defaults apply
    /// otherwise (GW-D31).
    pub fn new(model: &TtsModel, defaults: &Defaults) -> Self {
        let triggers = model.fallback_triggers.as_ref();
        let own_codes = triggers.and_then(|triggers| triggers.http_codes.as_ref());
        let upstreams = model.upstreams.iter().enumerate();
        Self {
            attempts: upstreams.flat_map(|(at, upstream)| attempts(at, model.provider, upstream, defaults)).collect(),
            fallback_on: own_codes.unwrap_or(&defaults.fallback_http_codes).clone(),
            past_timeouts: triggers.is_none_or(|triggers| triggers.on_timeout),
            chain: Duration::from_millis(defaults.full_chain_timeout_ms),
            idle: Duration::from_millis(defaults.stream_idle_timeout_ms),
            total: Duration::from_millis(defaults.stream_max_ms),
        }
    }

    /// The plan of the built-in engine: one attempt without a key.
    pub fn sandbox() -> Self {
        let mut plan = Self::new(
            &TtsModel { provider: TtsProvider::Azure, upstreams: Vec::new(), fallback_triggers: None },
            &Defaults::default(),
        );
        plan.attempts.push(Attempt {
            upstream: 0,
            label: SANDBOX_MODEL.to_owned(),
            provider: TtsProvider::Azure,
            base_url: SANDBOX_URL.to_owned(),
            params: Map::new(),
            key: None,
            limit: plan.chain,
        });
        plan
    }
}

fn attempts<'a>(
    position: usize,
    provider: TtsProvider,
    upstream: &'a TtsUpstreamEntry,
    defaults: &'a Defaults,
) -> impl Iterator<Item = Attempt> + 'a {
    let limit = Duration::from_millis(upstream.timeout_ms.unwrap_or(defaults.per_attempt_timeout_ms));
    upstream.keys.iter().map(move |key| Attempt {
        upstream: position,
        label: upstream.label(),
        provider,
        base_url: upstream.base_url.trim_end_matches('/').to_owned(),
        params: upstream.adapter_params.clone(),
        key: Some(key.clone()),
        limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::llm::RouterConfig;

    #[test]
    fn attempts_follow_the_document_and_carry_the_limits_of_their_upstream() {
        let key = |id: &str| serde_json::json!({ "id": id, "ciphertext": "c" });
        let tree = serde_json::json!({
            "llm": { "models": {} },
            "tts": { "models": { "m": { "provider": "azure", "upstreams": [
                { "baseURL": "https://a/v1//", "keys": [key("k1"), key("k2")], "timeoutMs": 7 },
                { "baseURL": "https://b/v1", "keys": [key("k3")], "adapterParams": { "x": 1 } },
            ] } } },
            "defaults": { "perAttemptTimeoutMs": 11, "fallbackHttpCodes": [418] },
        });
        let tree: RouterConfig = serde_json::from_value(tree).unwrap();
        let plan = Plan::new(&tree.tts.models["m"], &tree.defaults);
        let seen: Vec<_> = plan
            .attempts
            .iter()
            .map(|a| (a.upstream, &*a.base_url, a.key.as_ref().unwrap().id.as_str(), a.limit.as_millis()))
            .collect();
        assert_eq!(seen, [(0, "https://a/v1", "k1", 7), (0, "https://a/v1", "k2", 7), (1, "https://b/v1", "k3", 11)]);
        assert_eq!((plan.fallback_on, plan.past_timeouts), (vec![418], true));
        assert_eq!(plan.attempts[2].params["x"], 1);
    }

    #[test]
    fn the_sandbox_is_one_attempt_without_a_key() {
        let plan = Plan::sandbox();
        assert_eq!((plan.attempts.len(), &plan.attempts[0].key), (1, &None));
        assert!(plan.attempts[0].base_url.starts_with("sandbox:"));
    }
}
