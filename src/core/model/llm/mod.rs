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

/// The logical model id that stands for "whatever the operator chose".
pub const AUTO_MODEL: &str = "auto";
