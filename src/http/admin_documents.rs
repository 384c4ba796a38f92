//! What operators send, for the API description only: the core reads the documents itself and names every fault.

use poem_openapi::types::Example;
use poem_openapi::{Enum, Object, Union};

/// A change of the routing configuration. Members not listed here are refused.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct RouterDocument {
    /// What the slices are added to; `merge` when absent.
    mode: Option<RouterMode>,
    /// Whether to answer only what would be stored; `false` when absent.
    dry_run: Option<bool>,
    /// Must be `reset` for a reset that is no dry run.
    confirm: Option<String>,
    /// 1 to 20; at most one of kind `streaming-tts`.
    slices: Vec<RouterSlice>,
    /// What the model id `auto` is to mean.
    defaults: Option<AliasDocument>,
    /// Limits of all models; absent members stay as they are.
    router_defaults: Option<RouterLimits>,
}

/// What the slices of a change are added to.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
enum RouterMode {
    /// The stored configuration: each slice replaces the whole model of its name.
    Merge,
    /// An empty configuration: only the models of the request remain.
    Reset,
}

/// What the model id `auto` is to mean. Each must be a configured model after the change.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct AliasDocument {
    /// For chat completions.
    chat_model: Option<String>,
    /// For speech.
    tts_model: Option<String>,
}

/// Limits of all models.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct RouterLimits {
    /// From the start of an attempt to the response head, ms, 1 to 600000.
    per_attempt_timeout_ms: Option<u64>,
    /// From the start of routing to the first byte, ms, 1 to 600000.
    full_chain_timeout_ms: Option<u64>,
    /// Statuses that let the next key try.
    fallback_http_codes: Option<Vec<u16>>,
    /// Longest silence inside a stream, ms, 1 to 600000.
    stream_idle_timeout_ms: Option<u64>,
    /// Longest stream, ms, 1 to 3600000.
    stream_max_ms: Option<u64>,
}

/// One model, or the streaming speech upstream.
#[derive(Union)]
#[oai(discriminator_name = "kind", one_of)]
enum RouterSlice {
    /// A chat model behind OpenRouter.
    #[oai(mapping = "openrouter")]
    Openrouter(OpenrouterSlice),
    /// A chat model behind any OpenAI-compatible service.
    #[oai(mapping = "openai-compatible")]
    OpenaiCompatible(OpenaiCompatibleSlice),
    /// A chat model with several upstreams or keys.
    #[oai(mapping = "llm-model")]
    LlmModel(LlmModelSlice),
    /// A speech model of Azure.
    #[oai(mapping = "azure")]
    Azure(AzureSlice),
    /// A speech model of CosyVoice.
    #[oai(mapping = "dashscope-cosyvoice")]
    DashscopeCosyvoice(CosyvoiceSlice),
    /// A speech model of Volcengine.
    #[oai(mapping = "volcengine")]
    Volcengine(VolcengineSlice),
    /// The upstream of streamed speech.
    #[oai(mapping = "streaming-tts")]
    StreamingTts(StreamingTtsSlice),
}

/// A chat model behind OpenRouter.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct OpenrouterSlice {
    /// Logical id; without `|`.
    model_name: String,
    /// Model id the upstream knows.
    override_model: String,
    /// The upstream's key; sealed before it is stored and never shown.
    plaintext_key: String,
    /// `https://openrouter.ai/api/v1` when absent.
    #[oai(rename = "baseURL")]
    base_url: Option<String>,
    /// Name of the key slot; `openrouter-prod-1` when absent.
    key_entry_id: Option<String>,
    /// Value of `Authorization`; must contain `{KEY}`. `Bearer {KEY}` when absent.
    header_template: Option<String>,
}

/// A chat model behind any OpenAI-compatible service.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct OpenaiCompatibleSlice {
    /// Logical id; without `|`.
    model_name: String,
    /// Model id the upstream knows; the logical id when absent.
    override_model: Option<String>,
    /// The upstream's key.
    plaintext_key: String,
    /// Address to which `/chat/completions` is appended.
    #[oai(rename = "baseURL")]
    base_url: String,
    /// Name of the key slot; `openai-compatible-prod-1` when absent.
    key_entry_id: Option<String>,
    /// Value of `Authorization`; must contain `{KEY}`. `Bearer {KEY}` when absent.
    header_template: Option<String>,
}

/// A chat model with several upstreams or keys, tried in order.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct LlmModelSlice {
    /// Logical id; without `|`.
    model_name: String,
    /// 1 to 20.
    upstreams: Vec<LlmUpstreamDocument>,
    /// The most tokens the model writes per answer, at least 1: what is set aside for a caller who names no limit.
    max_output_tokens: Option<u64>,
    /// What lets the next key try; the limits of all models hold when absent.
    fallback_triggers: Option<FallbackDocument>,
}

/// One upstream of a chat model.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct LlmUpstreamDocument {
    /// Address to which `/chat/completions` is appended.
    #[oai(rename = "baseURL")]
    base_url: String,
    /// Label for metrics and logs instead of the host.
    name: Option<String>,
    /// Model id the upstream knows; the logical id when absent.
    override_model: Option<String>,
    /// Value of `Authorization`; must contain `{KEY}`. `Bearer {KEY}` when absent.
    header_template: Option<String>,
    /// Limit of one attempt, ms, 1 to 600000.
    timeout_ms: Option<u64>,
    /// Whether usage is asked for on streams; `true` when absent.
    include_usage: Option<bool>,
    /// 1 to 50, with ids that differ.
    keys: Vec<KeyDocument>,
}

/// One key slot: a new key, or one that is stored already.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct KeyDocument {
    /// Name of the slot; without `|`.
    id: String,
    /// A new key.
    plaintext_key: Option<String>,
    /// A slot of the stored model of the same name whose key is kept.
    keep_key_id: Option<String>,
}

/// What lets the next key try.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct FallbackDocument {
    /// Statuses; the ones of all models when absent.
    http_codes: Option<Vec<u16>>,
    /// Whether a timeout does; `true` when absent.
    on_timeout: Option<bool>,
}

/// A speech model of Azure.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct AzureSlice {
    /// Logical id; without `|`.
    model_name: String,
    /// 2 to 32 lower-case letters or digits.
    region: String,
    /// The upstream's key.
    plaintext_key: String,
    /// Name of the key slot; `azure-tts-prod-1` when absent.
    key_entry_id: Option<String>,
}

/// A speech model of CosyVoice.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CosyvoiceSlice {
    /// Logical id; without `|`.
    model_name: String,
    /// `intl` or `cn`.
    region: String,
    /// Model id the upstream knows.
    upstream_model: String,
    /// The upstream's key.
    plaintext_key: String,
    /// Name of the key slot; `dashscope-tts-prod-1` when absent.
    key_entry_id: Option<String>,
}

/// A speech model of Volcengine.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct VolcengineSlice {
    /// Logical id; without `|`.
    model_name: String,
    /// The provider's application.
    appid: String,
    /// The provider's cluster.
    cluster: Option<String>,
    /// The provider's usual endpoint when absent.
    #[oai(rename = "baseURL")]
    base_url: Option<String>,
    /// The upstream's key.
    plaintext_key: String,
    /// Name of the key slot; `volcengine-tts-prod-1` when absent.
    key_entry_id: Option<String>,
}

/// The upstream of streamed speech.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct StreamingTtsSlice {
    /// Address of the socket.
    #[oai(rename = "upstreamURL")]
    upstream_url: String,
    /// The upstream's key.
    plaintext_key: String,
    /// Name of the key slot; `volcengine-prod-1` when absent.
    key_entry_id: Option<String>,
}

/// Who is to be given how much.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct GrantDocument {
    /// Text of the ledger entries, 1 to 500 characters.
    description: String,
    /// Flux per person, 1 to 10000.
    amount: i64,
    /// 1 to 200 addresses.
    emails: Vec<String>,
    /// Makes a repetition harmless, 1 to 100 characters.
    idempotency_key: Option<String>,
}

impl Example for RouterDocument {
    fn example() -> Self {
        let key =
            |id: &str| KeyDocument { id: id.to_owned(), plaintext_key: Some("sk-...".to_owned()), keep_key_id: None };
        let upstream = LlmUpstreamDocument {
            base_url: "https://llm.example.com/v1".to_owned(),
            name: Some("primary".to_owned()),
            override_model: Some("gpt-5-mini".to_owned()),
            header_template: None,
            timeout_ms: Some(20_000),
            include_usage: None,
            keys: vec![key("primary-1"), key("primary-2")],
        };
        let slice = LlmModelSlice {
            model_name: "chat-default".to_owned(),
            upstreams: vec![upstream],
            max_output_tokens: Some(16_384),
            fallback_triggers: None,
        };
        Self {
            mode: Some(RouterMode::Merge),
            dry_run: Some(true),
            confirm: None,
            slices: vec![RouterSlice::LlmModel(slice)],
            defaults: Some(AliasDocument { chat_model: Some("chat-default".to_owned()), tts_model: None }),
            router_defaults: None,
        }
    }
}

impl Example for GrantDocument {
    fn example() -> Self {
        Self {
            description: "Thank you for testing".to_owned(),
            amount: 100,
            emails: vec!["alice@example.com".to_owned()],
            idempotency_key: Some("beta-2026-11".to_owned()),
        }
    }
}
