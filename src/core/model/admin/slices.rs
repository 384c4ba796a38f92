//! The parts of a router document, one per model or upstream (contract `admin.md` §3.1, §3.2, §6.2).

use serde_json::{Map, Value, json};

use super::STREAMING_LABEL;
use super::address::AddressPolicy;
use super::fields::{
    OUTPUT_TOKENS, TIMEOUT_MS, address, address_or, address_or_socket, checked_key, header_template, plaintext_key,
    socket_address,
};
use super::reading::Members;
use crate::core::model::ids::KeyEntryId;
use crate::core::model::llm::{FallbackTriggers, LlmUpstreamEntry, TtsUpstreamEntry};
use crate::core::model::secret::Secret;
use crate::core::model::tts::TtsProvider;

/// One slice: what is to be stored, with the keys still to be sealed.
#[derive(Clone, Debug)]
pub enum Slice {
    /// A chat model.
    Llm(LlmSlice),
    /// A speech model.
    Tts(TtsSlice),
    /// The streaming speech upstream.
    Streaming(StreamingSlice),
}

/// A chat model, to replace whatever has its name.
#[derive(Clone, Debug)]
pub struct LlmSlice {
    /// As written.
    pub kind: &'static str,
    /// Logical id.
    pub model: String,
    /// At least one, in order of trial.
    pub upstreams: Vec<WantedUpstream<LlmUpstreamEntry>>,
    /// The most tokens the model writes per answer; absent when nobody says.
    pub max_output_tokens: Option<u64>,
    /// Only when written: absent lets the tree's defaults hold.
    pub fallback_triggers: Option<FallbackTriggers>,
}

/// A speech model, to replace whatever has its name.
#[derive(Clone, Debug)]
pub struct TtsSlice {
    /// As written.
    pub kind: &'static str,
    /// Logical id.
    pub model: String,
    /// Who speaks.
    pub provider: TtsProvider,
    /// Where, and with which key.
    pub upstream: WantedUpstream<TtsUpstreamEntry>,
}

/// The streaming speech upstream.
#[derive(Clone, Debug)]
pub struct StreamingSlice {
    /// Where, and with which key.
    pub upstream: WantedUpstream<TtsUpstreamEntry>,
}

/// An upstream whose `keys` are still empty.
#[derive(Clone, Debug)]
pub struct WantedUpstream<E> {
    /// Everything but the keys.
    pub entry: E,
    /// The keys, at least one, in order of trial.
    pub keys: Vec<WantedKey>,
}

/// A key slot to be filled.
#[derive(Clone, Debug)]
pub struct WantedKey {
    /// Name of the slot.
    pub id: KeyEntryId,
    /// Where the key comes from.
    pub source: KeySource,
    /// Where the slot stands in the document.
    pub path: String,
}

/// Where a key comes from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// The document.
    Plain(Secret),
    /// This slot of the stored model of the same name.
    Keep(KeyEntryId),
    /// Sealed by now; no document says so.
    Sealed(String),
}

impl Slice {
    /// The word that told this slice from others.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Llm(slice) => slice.kind,
            Self::Tts(slice) => slice.kind,
            Self::Streaming(_) => STREAMING_LABEL,
        }
    }

    /// The model, unless it is the streaming upstream.
    pub fn model(&self) -> Option<&str> {
        match self {
            Self::Llm(slice) => Some(&slice.model),
            Self::Tts(slice) => Some(&slice.model),
            Self::Streaming(_) => None,
        }
    }

    /// Every key slot, in order.
    pub fn keys(&self) -> Vec<&WantedKey> {
        match self {
            Self::Llm(slice) => slice.upstreams.iter().flat_map(|upstream| &upstream.keys).collect(),
            Self::Tts(TtsSlice { upstream, .. }) | Self::Streaming(StreamingSlice { upstream }) => {
                upstream.keys.iter().collect()
            }
        }
    }

    /// Replaces every key in the clear by what `seal` makes of (key, label, slot); the clear text is wiped.
    pub fn seal_keys<E>(&mut self, seal: impl Fn(&Secret, &str, &KeyEntryId) -> Result<String, E>) -> Result<(), E> {
        let (label, keys): (&str, Vec<&mut WantedKey>) = match self {
            Self::Llm(slice) => {
                (&slice.model, slice.upstreams.iter_mut().flat_map(|upstream| &mut upstream.keys).collect())
            }
            Self::Tts(slice) => (&slice.model, slice.upstream.keys.iter_mut().collect()),
            Self::Streaming(slice) => (STREAMING_LABEL, slice.upstream.keys.iter_mut().collect()),
        };
        for key in keys {
            if let KeySource::Plain(plaintext) = &key.source {
                key.source = KeySource::Sealed(seal(plaintext, label, &key.id)?);
            }
        }
        Ok(())
    }

    /// Reads one slice of a document.
    pub(super) fn read(mut members: Members<'_>, policy: AddressPolicy) -> Option<Self> {
        let kind = read_kind(&mut members)?;
        let slice = match kind {
            "openrouter" => read_single_llm(&mut members, kind, Some("https://openrouter.ai/api/v1"), policy),
            "openai-compatible" => read_single_llm(&mut members, kind, None, policy),
            "llm-model" => read_llm_model(&mut members, kind, policy),
            "azure" => read_azure(&mut members, kind),
            "dashscope-cosyvoice" => read_cosyvoice(&mut members, kind),
            "volcengine" => read_volcengine(&mut members, kind, policy),
            _ => read_streaming(&mut members, policy),
        };
        members.finish();
        slice
    }
}

/// The kinds of the reference, in the order of its message.
const REFERENCE_KINDS: [&str; 4] = ["openrouter", "azure", "dashscope-cosyvoice", STREAMING_LABEL];
/// Ours besides.
const FURTHER_KINDS: [&str; 3] = ["volcengine", "openai-compatible", "llm-model"];

fn read_kind(members: &mut Members<'_>) -> Option<&'static str> {
    let Value::String(kind) = members.required("kind")? else {
        return members.fault("kind", format!("Invalid type: Expected {}", alternatives(&all_kinds())));
    };
    let known = all_kinds().into_iter().find(|known| *known == kind);
    if let Some(known) = known {
        // A further kind and nothing else is what the contract's sample of a wrong kind is; answer as it says.
        if FURTHER_KINDS.contains(&known) && members.is_empty() {
            return members.fault("kind", wrong_kind(&REFERENCE_KINDS, known));
        }
        return Some(known);
    }
    // The word is quoted when it is a word: a key pasted here has digits or capitals, or is long.
    let is_word = kind.len() <= 32 && kind.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    members.fault("kind", wrong_kind(&all_kinds(), if is_word { &kind } else { "another text" }))
}

fn all_kinds() -> [&'static str; 7] {
    let [a, b, c, d] = REFERENCE_KINDS;
    let [e, f, g] = FURTHER_KINDS;
    [a, b, c, d, e, f, g]
}

fn wrong_kind(expected: &[&str], received: &str) -> String {
    format!("Invalid type: Expected {} but received \"{received}\"", alternatives(expected))
}

fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!("({})", quoted.join(" | "))
}

fn read_single_llm(
    members: &mut Members<'_>,
    kind: &'static str,
    default_address: Option<&str>,
    policy: AddressPolicy,
) -> Option<Slice> {
    let model = members.slot_name("modelName");
    let is_optional = default_address.is_none();
    let override_model = if is_optional {
        Some(members.optional_text("overrideModel", 200))
    } else {
        members.text("overrideModel", 200).map(Some)
    };
    let key = plaintext_key(members);
    let base_url = match default_address {
        Some(default) => address_or(members, "baseURL", default, policy),
        None => address(members, "baseURL", policy),
    };
    let id = members.optional_slot_name("keyEntryId").unwrap_or_else(|| format!("{kind}-prod-1"));
    let header_template = header_template(members);
    let path = members.path().to_owned();
    let entry = LlmUpstreamEntry {
        base_url: base_url?,
        override_model: override_model?,
        keys: Vec::new(),
        header_template,
        timeout_ms: None,
        include_usage: true,
        name: None,
    };
    let upstream = WantedUpstream { entry, keys: vec![WantedKey::plain(id, key?, path)] };
    Some(Slice::Llm(LlmSlice {
        kind,
        model: model?,
        upstreams: vec![upstream],
        max_output_tokens: None,
        fallback_triggers: None,
    }))
}

fn read_llm_model(members: &mut Members<'_>, kind: &'static str, policy: AddressPolicy) -> Option<Slice> {
    let model = members.slot_name("modelName");
    let mut upstreams = Vec::new();
    for (index, item) in members.list("upstreams", 20).unwrap_or_default().into_iter().enumerate() {
        upstreams.extend(members.item("upstreams", index, item).and_then(|item| read_upstream(item, policy)));
    }
    let max_output_tokens = members.optional_whole("maxOutputTokens", OUTPUT_TOKENS);
    let fallback_triggers = members.optional_members("fallbackTriggers").map(|mut members| {
        let http_codes = members.optional_statuses("httpCodes");
        let on_timeout = members.optional_flag("onTimeout").unwrap_or(true);
        members.finish();
        FallbackTriggers { http_codes, on_timeout }
    });
    Some(Slice::Llm(LlmSlice { kind, model: model?, upstreams, max_output_tokens, fallback_triggers }))
}

fn read_upstream(mut members: Members<'_>, policy: AddressPolicy) -> Option<WantedUpstream<LlmUpstreamEntry>> {
    let base_url = address(&mut members, "baseURL", policy);
    let name = members.optional_text("name", 100);
    let override_model = members.optional_text("overrideModel", 200);
    let header_template = header_template(&mut members);
    let timeout_ms = members.optional_whole("timeoutMs", TIMEOUT_MS);
    let include_usage = members.optional_flag("includeUsage").unwrap_or(true);
    let mut keys: Vec<WantedKey> = Vec::new();
    for (index, item) in members.list("keys", 50).unwrap_or_default().into_iter().enumerate() {
        let Some(key) = members.item("keys", index, item).and_then(read_key) else { continue };
        if keys.iter().any(|earlier| earlier.id == key.id) {
            members.fault::<()>(&format!("keys.{index}.id"), "key ids must be unique within an upstream");
        }
        keys.push(key);
    }
    members.finish();
    let base_url = base_url?;
    let entry = LlmUpstreamEntry {
        base_url,
        override_model,
        keys: Vec::new(),
        header_template,
        timeout_ms,
        include_usage,
        name,
    };
    Some(WantedUpstream { entry, keys })
}

fn read_key(mut members: Members<'_>) -> Option<WantedKey> {
    let id = members.slot_name("id");
    let keep = members.optional_slot_name("keepKeyId").map(|keep| KeySource::Keep(KeyEntryId::new(keep)));
    let plain =
        members.optional("plaintextKey").and_then(|value| checked_key(&mut members, value)).map(KeySource::Plain);
    let source = match (plain, keep) {
        (Some(_), Some(_)) => members.fault("keepKeyId", "must not be given together with plaintextKey"),
        (None, None) => members.fault("plaintextKey", "plaintextKey or keepKeyId is required"),
        (plain, keep) => plain.or(keep),
    };
    let path = members.path().to_owned();
    members.finish();
    Some(WantedKey { id: KeyEntryId::new(id?), source: source?, path })
}

fn read_azure(members: &mut Members<'_>, kind: &'static str) -> Option<Slice> {
    let model = members.slot_name("modelName");
    let region = members.text("region", 64).and_then(|region| {
        // The region becomes part of a host name: anything else would send the key elsewhere (AD-D11).
        let is_region =
            (2..=32).contains(&region.len()) && region.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if is_region {
            Some(region)
        } else {
            members.fault("region", "region must be 2 to 32 lower-case letters or digits")
        }
    });
    let key = plaintext_key(members);
    let id = members.optional_slot_name("keyEntryId").unwrap_or_else(|| "azure-tts-prod-1".to_owned());
    let region = region?;
    let base_url = format!("https://{region}.tts.speech.microsoft.com/cognitiveservices/v1");
    let upstream = WantedUpstream::speech(
        base_url,
        json!({"region": region}),
        WantedKey::plain(id, key?, members.path().to_owned()),
    );
    Some(Slice::Tts(TtsSlice { kind, model: model?, provider: TtsProvider::Azure, upstream }))
}

fn read_cosyvoice(members: &mut Members<'_>, kind: &'static str) -> Option<Slice> {
    let model = members.slot_name("modelName");
    let host = members.text("region", 64).and_then(|region| match region.as_str() {
        "intl" => Some("dashscope-intl.aliyuncs.com"),
        "cn" => Some("dashscope.aliyuncs.com"),
        _ => members.fault("region", "region must be \"intl\" or \"cn\""),
    });
    let upstream_model = members.text("upstreamModel", 200);
    let key = plaintext_key(members);
    let id = members.optional_slot_name("keyEntryId").unwrap_or_else(|| "dashscope-tts-prod-1".to_owned());
    let base_url = format!("https://{}/api/v1/services/audio/tts/SpeechSynthesizer", host?);
    let upstream = WantedUpstream::speech(
        base_url,
        json!({"model": upstream_model?}),
        WantedKey::plain(id, key?, members.path().to_owned()),
    );
    Some(Slice::Tts(TtsSlice { kind, model: model?, provider: TtsProvider::DashscopeCosyvoice, upstream }))
}

fn read_volcengine(members: &mut Members<'_>, kind: &'static str, policy: AddressPolicy) -> Option<Slice> {
    let model = members.slot_name("modelName");
    let app_id = members.text("appid", 200);
    let cluster = members.optional_text("cluster", 200);
    let base_url = address_or_socket(members, "baseURL", "https://openspeech.bytedance.com/api/v1/tts", policy);
    let key = plaintext_key(members);
    let id = members.optional_slot_name("keyEntryId").unwrap_or_else(|| "volcengine-tts-prod-1".to_owned());
    let mut params = json!({"appid": app_id?});
    if let Some(cluster) = cluster {
        params["cluster"] = Value::String(cluster);
    }
    let upstream = WantedUpstream::speech(base_url?, params, WantedKey::plain(id, key?, members.path().to_owned()));
    Some(Slice::Tts(TtsSlice { kind, model: model?, provider: TtsProvider::Volcengine, upstream }))
}

fn read_streaming(members: &mut Members<'_>, policy: AddressPolicy) -> Option<Slice> {
    let base_url = socket_address(members, "upstreamURL", policy);
    let key = plaintext_key(members);
    let id = members.optional_slot_name("keyEntryId").unwrap_or_else(|| "volcengine-prod-1".to_owned());
    let key = WantedKey::plain(id, key?, members.path().to_owned());
    Some(Slice::Streaming(StreamingSlice { upstream: WantedUpstream::speech(base_url?, json!({}), key) }))
}

impl WantedKey {
    fn plain(id: String, key: Secret, path: String) -> Self {
        Self { id: KeyEntryId::new(id), source: KeySource::Plain(key), path }
    }
}

impl WantedUpstream<TtsUpstreamEntry> {
    fn speech(base_url: String, params: Value, key: WantedKey) -> Self {
        let adapter_params = match params {
            Value::Object(params) => params,
            _ => Map::new(),
        };
        Self {
            entry: TtsUpstreamEntry { base_url, keys: Vec::new(), adapter_params, timeout_ms: None },
            keys: vec![key],
        }
    }
}
