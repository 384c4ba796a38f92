//! A change of the routing configuration as the operator wrote it (contract `admin.md` §3.1).

use serde_json::Value;

use super::STREAMING_LABEL;
use super::address::AddressPolicy;
use super::fields::TIMEOUT_MS;
use super::reading::{Issues, Members, Unusable, parse};
use super::slices::Slice;
use crate::core::model::llm::Defaults;

/// A change of the routing configuration, checked as far as the stored state does not matter.
#[derive(Clone, Debug)]
pub struct RouterDocument {
    /// What the slices are added to.
    pub mode: Mode,
    /// Whether to answer only what would be stored.
    pub dry_run: bool,
    /// 1 to 20.
    pub slices: Vec<Slice>,
    /// What `auto` is to mean for chat.
    pub chat_model: Option<String>,
    /// What `auto` is to mean for speech.
    pub tts_model: Option<String>,
    /// Limits of the tree.
    pub router_defaults: Option<WantedDefaults>,
}

/// What the slices are added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The stored tree.
    Merge,
    /// An empty tree.
    Reset,
}

/// Limits of the tree to be changed; absent ones stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedDefaults {
    /// See [`Defaults`].
    pub per_attempt_timeout_ms: Option<u64>,
    /// See [`Defaults`].
    pub full_chain_timeout_ms: Option<u64>,
    /// See [`Defaults`].
    pub fallback_http_codes: Option<Vec<u16>>,
    /// See [`Defaults`].
    pub stream_idle_timeout_ms: Option<u64>,
    /// See [`Defaults`].
    pub stream_max_ms: Option<u64>,
}

impl WantedDefaults {
    /// Changes what was written and leaves the rest.
    pub fn apply(&self, defaults: &mut Defaults) {
        let Defaults { per_attempt_timeout_ms, full_chain_timeout_ms, .. } = defaults;
        *per_attempt_timeout_ms = self.per_attempt_timeout_ms.unwrap_or(*per_attempt_timeout_ms);
        *full_chain_timeout_ms = self.full_chain_timeout_ms.unwrap_or(*full_chain_timeout_ms);
        defaults.stream_idle_timeout_ms = self.stream_idle_timeout_ms.unwrap_or(defaults.stream_idle_timeout_ms);
        defaults.stream_max_ms = self.stream_max_ms.unwrap_or(defaults.stream_max_ms);
        if let Some(codes) = &self.fallback_http_codes {
            defaults.fallback_http_codes.clone_from(codes);
        }
    }
}

impl RouterDocument {
    /// Reads the body of a change.
    pub fn read(document: &[u8], policy: AddressPolicy) -> Result<Self, Unusable> {
        let mut issues = Issues::default();
        let mut streaming = 0;
        let read = Members::of(parse(document)?, String::new(), &mut issues)
            .and_then(|members| read_members(members, policy, &mut streaming));
        if streaming > 1 && issues.is_well_formed() {
            return Err(Unusable::Refused("At most one streaming-tts slice per request"));
        }
        issues.judge(read)
    }

    /// Whether a model of the tree, or the tree's limits, are to change.
    pub fn changes_tree(&self) -> bool {
        self.router_defaults.is_some() || self.has_model()
    }

    /// Whether a model of the tree is to change.
    pub fn has_model(&self) -> bool {
        self.slices.iter().any(|slice| !matches!(slice, Slice::Streaming(_)))
    }
}

fn read_members(mut members: Members<'_>, policy: AddressPolicy, streaming: &mut usize) -> Option<RouterDocument> {
    let mode = read_mode(&mut members);
    let dry_run = members.optional_flag("dryRun").unwrap_or(false);
    let confirmed = members.optional("confirm").is_some_and(|word| word.as_str() == Some("reset"));
    if mode == Some(Mode::Reset) && !confirmed && !dry_run {
        members.fault::<()>("confirm", "reset forgets every model that is not in the request; confirm with \"reset\"");
    }
    let items = members.list("slices", 20).unwrap_or_default();
    *streaming = items.iter().filter(|item| item["kind"] == STREAMING_LABEL).count();
    let mut slices = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        slices.extend(members.item("slices", index, item).and_then(|item| Slice::read(item, policy)));
    }
    let (chat_model, tts_model) = match members.optional_members("defaults") {
        Some(mut aliases) => {
            let found = (aliases.optional_text("chatModel", 200), aliases.optional_text("ttsModel", 200));
            aliases.finish();
            found
        }
        None => (None, None),
    };
    let router_defaults = members.optional_members("routerDefaults").map(read_defaults);
    members.finish();
    Some(RouterDocument { mode: mode?, dry_run, slices, chat_model, tts_model, router_defaults })
}

fn read_mode(members: &mut Members<'_>) -> Option<Mode> {
    match members.optional("mode") {
        None => Some(Mode::Merge),
        Some(Value::String(word)) if word == "merge" => Some(Mode::Merge),
        Some(Value::String(word)) if word == "reset" => Some(Mode::Reset),
        Some(_) => members.fault("mode", "Invalid type: Expected (\"merge\" | \"reset\")"),
    }
}

fn read_defaults(mut members: Members<'_>) -> WantedDefaults {
    let wanted = WantedDefaults {
        per_attempt_timeout_ms: members.optional_whole("perAttemptTimeoutMs", TIMEOUT_MS),
        full_chain_timeout_ms: members.optional_whole("fullChainTimeoutMs", TIMEOUT_MS),
        fallback_http_codes: members.optional_statuses("fallbackHttpCodes"),
        stream_idle_timeout_ms: members.optional_whole("streamIdleTimeoutMs", TIMEOUT_MS),
        stream_max_ms: members.optional_whole("streamMaxMs", STREAM_MAX_MS),
    };
    members.finish();
    wanted
}

/// A stream may be as long as its default and then some: 15 minutes is the default, one hour the most.
const STREAM_MAX_MS: std::ops::RangeInclusive<u64> = 1..=3_600_000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::model::admin::Issue;

    const STRICT: AddressPolicy = AddressPolicy { allow_insecure: false };
    const INSECURE: AddressPolicy = AddressPolicy { allow_insecure: true };

    fn read(document: &Value, policy: AddressPolicy) -> Result<RouterDocument, Unusable> {
        RouterDocument::read(document.to_string().as_bytes(), policy)
    }

    fn issues(document: &Value) -> Vec<(String, String)> {
        match read(document, STRICT) {
            Err(Unusable::Issues(issues)) => {
                issues.into_iter().map(|Issue { path, message }| (path, message)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn paths(document: &Value) -> Vec<String> {
        issues(document).into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn every_refusal_of_the_fixture_comes_with_its_details() {
        let fixture: Value = serde_json::from_str(include_str!("../../../../tests/fixtures/admin-cases.json")).unwrap();
        let mut seen = 0;
        for case in fixture["routerConfig"].as_array().unwrap() {
            let wanted = if case["target"].is_null() { case } else { &case["target"] };
            if wanted["status"] != 400 {
                continue;
            }
            seen += 1;
            if let Some(details) = wanted["details"].as_array() {
                let found = issues(&case["body"]);
                assert_eq!(found.len(), details.len(), "{found:?}");
                for ((path, message), wanted) in found.iter().zip(details) {
                    assert_eq!(path, wanted["path"].as_str().unwrap());
                    let text = wanted["message"].as_str().unwrap();
                    assert!(text == "<text>" || text == message, "{message}");
                }
                continue;
            }
            let message = wanted["response"]["message"].as_str().unwrap();
            for policy in [STRICT, INSECURE] {
                assert!(matches!(read(&case["body"], policy), Err(Unusable::Refused(said)) if said == message));
            }
        }
        assert_eq!(seen, 7);
    }

    #[test]
    fn unknown_members_are_refused_wherever_they_stand() {
        let document = json!({
            "dryrun": true,
            "slices": [
                {"kind": "openrouter", "modelName": "m", "overrideModel": "o", "plaintextKey": "k", "baseUrl": "https://x.io"},
                {"kind": "llm-model", "modelName": "n", "fallbackTriggers": {"codes": []}, "upstreams": [
                    {"baseURL": "https://x.io", "timeout": 5, "keys": [{"id": "a", "plaintextKey": "k", "plaintextKeyEnv": "K"}]}
                ]}
            ],
            "defaults": {"model": "m"},
            "routerDefaults": {"streamMax": 1}
        });
        let mut found = paths(&document);
        found.sort();
        assert_eq!(
            found,
            [
                "defaults.model",
                "dryrun",
                "routerDefaults.streamMax",
                "slices.0.baseUrl",
                "slices.1.fallbackTriggers.codes",
                "slices.1.upstreams.0.keys.0.plaintextKeyEnv",
                "slices.1.upstreams.0.timeout"
            ]
        );
    }

    #[test]
    fn a_model_of_several_upstreams_names_the_path_of_every_fault() {
        let document = json!({"slices": [{"kind": "llm-model", "modelName": "m",
        "fallbackTriggers": {"httpCodes": [99, 500]},
        "upstreams": [
            {"baseURL": "https://x.io", "keys": []},
            {"baseURL": "ftp://x.io", "headerTemplate": "Bearer", "timeoutMs": 0,
             "keys": [{"id": "a", "plaintextKey": "k"}, {"id": "a", "plaintextKey": "k"}, {"id": "b"},
                      {"id": "c|d", "plaintextKey": "k"}, {"id": "e", "plaintextKey": "k", "keepKeyId": "e"}]},
            {"keys": [{"id": "a", "keepKeyId": "a"}], "baseURL": "http://x.io"}
        ]}]});
        assert_eq!(
            paths(&document),
            [
                "slices.0.upstreams.0.keys",
                "slices.0.upstreams.1.baseURL",
                "slices.0.upstreams.1.headerTemplate",
                "slices.0.upstreams.1.timeoutMs",
                "slices.0.upstreams.1.keys.1.id",
                "slices.0.upstreams.1.keys.2.plaintextKey",
                "slices.0.upstreams.1.keys.3.id",
                "slices.0.upstreams.1.keys.4.keepKeyId",
                "slices.0.upstreams.2.baseURL",
                "slices.0.fallbackTriggers.httpCodes.0"
            ]
        );
    }

    #[test]
    fn a_reset_must_be_meant_and_limits_must_be_sane() {
        let slice = json!({"kind": "azure", "modelName": "m", "region": "eastus", "plaintextKey": "k"});
        assert_eq!(paths(&json!({"mode": "reset", "slices": [slice]})), ["confirm"]);
        assert!(read(&json!({"mode": "reset", "confirm": "reset", "slices": [slice]}), STRICT).is_ok());
        assert!(read(&json!({"mode": "reset", "dryRun": true, "slices": [slice]}), STRICT).is_ok());
        assert_eq!(
            paths(&json!({"slices": [slice], "routerDefaults":
                {"perAttemptTimeoutMs": 0, "fullChainTimeoutMs": 600_001, "fallbackHttpCodes": [600, "x"]}})),
            [
                "routerDefaults.perAttemptTimeoutMs",
                "routerDefaults.fullChainTimeoutMs",
                "routerDefaults.fallbackHttpCodes.0",
                "routerDefaults.fallbackHttpCodes.1"
            ]
        );
    }

    #[test]
    fn no_key_is_ever_told() {
        const KEY: &str = "sk-Very-Secret-1";
        let long = format!("{KEY}{}", "x".repeat(1024));
        let broken = format!("{KEY}\n");
        let upstream = |key: &Value| json!({"baseURL": "https://x.io", "keys": [{"id": "a", "plaintextKey": key}]});
        for key in [json!(long), json!(broken), json!([KEY]), json!({KEY: 1})] {
            let document = json!({"slices": [
                {"kind": "azure", "modelName": "m", "region": "eastus", "plaintextKey": key},
                {"kind": "llm-model", "modelName": "m", "upstreams": [upstream(&key)]},
                {"kind": KEY}
            ]});
            let found = issues(&document);
            assert!(found.len() >= 3, "{found:?}");
            assert!(!format!("{found:?}").contains("Secret"), "{found:?}");
        }
        let good = json!({"slices": [{"kind": "azure", "modelName": "m", "region": "eastus", "plaintextKey": KEY}]});
        assert!(!format!("{:?}", read(&good, STRICT).unwrap()).contains("Secret"));
    }

    #[test]
    fn an_address_is_stored_as_it_was_checked() {
        let slice = |url: &str| json!({"slices": [{"kind": "openai-compatible", "modelName": "m", "plaintextKey": "k", "baseURL": url}]});
        for url in ["https://x.io\\@evil.io", "https://x.io\n", " https://x.io", "https://a b.io", "x.io/v1"] {
            assert_eq!(issues(&slice(url))[0].1, "baseURL must be a valid URL", "{url:?}");
        }
        assert!(read(&slice("https://x.io/v1"), STRICT).is_ok());
        assert_eq!(paths(&slice("http://127.0.0.1:1/v1")), ["slices.0.baseURL"]);
        assert!(read(&slice("http://127.0.0.1:1/v1"), INSECURE).is_ok());
    }
}
