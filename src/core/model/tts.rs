//! Speech: what is asked of a provider and what comes back.

use serde_json::{Map, Value};

use super::secret::Secret;

/// The providers an operator may configure (contract `gateway.md` §11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum TtsProvider {
    /// Azure AI Speech.
    #[serde(rename = "azure")]
    Azure,
    /// Alibaba CosyVoice through DashScope.
    #[serde(rename = "dashscope-cosyvoice")]
    DashscopeCosyvoice,
    /// Volcengine speech.
    #[serde(rename = "volcengine")]
    Volcengine,
}

/// One text to be spoken by one upstream.
#[derive(Clone, Debug)]
pub struct SpeechRequest {
    /// The text.
    pub text: String,
    /// Provider voice id; absent means the provider's default.
    pub voice: Option<String>,
    /// Speaking rate, 1 is normal.
    pub speed: Option<f64>,
    /// OpenAI format word or a provider's own code.
    pub response_format: Option<String>,
    /// Full endpoint address.
    pub base_url: String,
    /// Plaintext key of the attempt.
    pub key: Secret,
    /// The upstream's `adapterParams`.
    pub params: Map<String, Value>,
}
