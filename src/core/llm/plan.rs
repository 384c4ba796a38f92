//! What a routing document says about one model, as the ordered attempts a walk makes
//! (contract `gateway.md` §4.2, §4.3).

use std::time::Duration;

use crate::core::model::llm::{Defaults, KeyEntry, LlmModel, LlmUpstreamEntry, SANDBOX_URL};

/// The model id of the built-in engine, in deployments that have it.
pub const SANDBOX_MODEL: &str = "sandbox";

/// Everything a walk needs to know about a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In the order they are made: all keys of the first upstream, then of the next.
    pub attempts: Vec<Attempt>,
    /// Statuses that let the next key try.
    pub fallback_on: Vec<u16>,
    /// Whether a timeout or a transport failure lets the next key try (GW-D32).
    pub past_timeouts: bool,
    /// From the start of routing to the first byte of the answer.
    pub chain: Duration,
    /// Longest silence inside a stream.
    pub idle: Duration,
    /// Longest stream.
    pub total: Duration,
}

/// One key of one upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Position of the upstream in the document.
    pub upstream: usize,
    /// Its label in metrics and logs.
    pub label: String,
    /// Full address.
    pub url: String,
    /// The key slot; absent when the upstream wants no key, and the authorization is then empty.
    pub key: Option<KeyEntry>,
    /// Value of `authorization`, with `{KEY}` where the key goes.
    pub template: String,
    /// Model id the upstream is sent.
    pub model: String,
    /// Until the response head.
    pub limit: Duration,
    /// Whether usage is asked for on streams the caller did not ask it for.
    pub include_usage: bool,
}

impl Plan {
    /// Lays out the attempts for `model`, which is known to the document as `id`.
    ///
    /// A model's own list of statuses applies when it was written; the document's defaults apply otherwise (GW-D31).
    pub fn new(id: &str, model: &LlmModel, defaults: &Defaults) -> Self {
        let triggers = model.fallback_triggers.as_ref();
        let own_codes = triggers.and_then(|triggers| triggers.http_codes.as_ref());
        Self {
            attempts: model
                .upstreams
                .iter()
                .enumerate()
                .flat_map(|(position, upstream)| attempts(position, upstream, id, defaults))
                .collect(),
            fallback_on: own_codes.unwrap_or(&defaults.fallback_http_codes).clone(),
            past_timeouts: triggers.is_none_or(|triggers| triggers.on_timeout),
            chain: Duration::from_millis(defaults.full_chain_timeout_ms),
            idle: Duration::from_millis(defaults.stream_idle_timeout_ms),
            total: Duration::from_millis(defaults.stream_max_ms),
        }
    }

    /// The plan of the built-in engine: one attempt without a key.
    pub fn sandbox() -> Self {
        let upstream = LlmUpstreamEntry {
            base_url: SANDBOX_URL.to_owned(),
            override_model: None,
            keys: Vec::new(),
            header_template: String::new(),
            timeout_ms: None,
            include_usage: true,
            name: Some(SANDBOX_MODEL.to_owned()),
        };
        let model = LlmModel { upstreams: vec![upstream], max_output_tokens: None, fallback_triggers: None };
        Self::new(SANDBOX_MODEL, &model, &Defaults::default())
    }
}

fn attempts(position: usize, upstream: &LlmUpstreamEntry, id: &str, defaults: &Defaults) -> Vec<Attempt> {
    let attempt = |key: Option<KeyEntry>| Attempt {
        upstream: position,
        label: upstream.label(),
        url: format!("{}/chat/completions", upstream.base_url.trim_end_matches('/')),
        key,
        template: upstream.header_template.clone(),
        model: upstream.override_model.clone().unwrap_or_else(|| id.to_owned()),
        limit: Duration::from_millis(upstream.timeout_ms.unwrap_or(defaults.per_attempt_timeout_ms)),
        include_usage: upstream.include_usage,
    };
    if upstream.keys.is_empty() {
        return vec![attempt(None)];
    }
    upstream.keys.iter().cloned().map(|key| attempt(Some(key))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::llm::RouterConfig;

    fn plan(model: &serde_json::Value, defaults: &serde_json::Value) -> Plan {
        let tree = serde_json::json!({
            "llm": {"models": {"m": model}}, "tts": {"models": {}}, "defaults": defaults,
        });
        let tree: RouterConfig = serde_json::from_value(tree).unwrap();
        Plan::new("m", &tree.llm.models["m"], &tree.defaults)
    }

    fn key(id: &str) -> serde_json::Value {
        serde_json::json!({"id": id, "ciphertext": "c"})
    }

    #[test]
    fn attempts_follow_the_document_and_carry_the_limits_of_their_upstream() {
        let plan = plan(
            &serde_json::json!({"upstreams": [
                {"baseURL": "https://a/v1///", "keys": [key("k1"), key("k2")], "timeoutMs": 7, "overrideModel": "real/x"},
                {"baseURL": "https://b/v1", "keys": [key("k3")], "includeUsage": false, "name": "bee"},
            ]}),
            &serde_json::json!({"perAttemptTimeoutMs": 11}),
        );
        let seen: Vec<_> = plan
            .attempts
            .iter()
            .map(|a| {
                (a.upstream, &*a.label, &*a.url, a.key.as_ref().unwrap().id.as_str(), &*a.model, a.limit.as_millis())
            })
            .collect();
        assert_eq!(
            seen,
            [
                (0, "a", "https://a/v1/chat/completions", "k1", "real/x", 7),
                (0, "a", "https://a/v1/chat/completions", "k2", "real/x", 7),
                (1, "bee", "https://b/v1/chat/completions", "k3", "m", 11),
            ]
        );
        assert!(plan.attempts[0].include_usage && !plan.attempts[2].include_usage);
    }

    #[test]
    fn a_models_own_statuses_win_only_when_they_were_written() {
        let upstreams = serde_json::json!([{"baseURL": "https://a", "keys": [key("k")]}]);
        let defaults = serde_json::json!({"fallbackHttpCodes": [418]});
        let silent = plan(&serde_json::json!({"upstreams": upstreams}), &defaults);
        assert_eq!((silent.fallback_on, silent.past_timeouts), (vec![418], true));
        let triggers = serde_json::json!({"onTimeout": false});
        let half = plan(&serde_json::json!({"upstreams": upstreams, "fallbackTriggers": triggers}), &defaults);
        assert_eq!((half.fallback_on, half.past_timeouts), (vec![418], false));
        let triggers = serde_json::json!({"httpCodes": [500]});
        let own = plan(&serde_json::json!({"upstreams": upstreams, "fallbackTriggers": triggers}), &defaults);
        assert_eq!((own.fallback_on, own.past_timeouts), (vec![500], true));
    }

    #[test]
    fn the_sandbox_is_one_attempt_without_a_key() {
        let plan = Plan::sandbox();
        assert_eq!(plan.attempts.len(), 1);
        assert_eq!(plan.attempts[0].key, None);
        assert!(plan.attempts[0].url.starts_with(SANDBOX_URL));
        assert_eq!(plan.attempts[0].label, "sandbox");
    }
}
