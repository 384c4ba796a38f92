//! Chat completions: the caller's body, the routing document, usage and its price.

mod body;
mod price;
mod routing;

pub use body::{ChatBody, InvalidBody, Prompt};
pub use price::{Tariff, Usage};
pub use routing::{
    DEFAULT_FALLBACK_CODES, Defaults, FallbackTriggers, KeyEntry, LlmModel, LlmModels, LlmUpstreamEntry, RouterConfig,
    TtsModel, TtsModels, TtsUpstreamEntry,
};

/// A count in JSON; some clients and providers write `12.0`.
pub fn whole(value: &serde_json::Value) -> Option<u64> {
    let number = value.as_f64().filter(|number| *number >= 0.0 && number.fract() == 0.0);
    value.as_u64().or_else(|| number.map(|number| number as u64))
}

/// Where the built-in engines are reached: an address only their own adapters understand.
pub const SANDBOX_URL: &str = "sandbox://local";

/// The logical model id that stands for "whatever the operator chose".
pub const AUTO_MODEL: &str = "auto";
