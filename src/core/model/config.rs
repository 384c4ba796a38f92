//! What an operator may change while the server runs: the typed table of configuration entries
//! (contract `gateway.md` §12).
//!
//! Each entry is JSON text under a name. A stored value that does not fit its type is an error of the
//! configuration, never a default.

use std::any::Any;
use std::sync::OnceLock;

use rust_decimal::Decimal;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::hold::AdmissionMode;
use super::ledger::Flux;
use super::llm::{RouterConfig, TtsUpstreamEntry};

/// One entry of the table: its name, its type, its default and its rule.
pub trait ConfigKey {
    /// Name in the store, without the `config:` prefix.
    const NAME: &'static str;
    /// What a reader gets.
    type Value: Clone + Send + Sync + 'static;
    /// What holds while nothing is stored.
    fn default() -> Option<Self::Value>;
    /// Reads stored JSON text, or says what would be accepted. Must not quote the text: it may hold ciphertext.
    fn read(json: &str) -> Result<Self::Value, String>;
}

macro_rules! entries {
    ($($(#[$doc:meta])* $key:ident = $name:literal: $value:ty, default $default:expr, read $read:expr;)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $key;

            impl ConfigKey for $key {
                const NAME: &'static str = $name;
                type Value = $value;
                fn default() -> Option<$value> { $default }
                fn read(json: &str) -> Result<$value, String> { $read(json) }
            }
        )+

        /// Every name there is.
        pub const NAMES: &[&str] = &[$($name),+];

        /// Says why `json` cannot be stored under `name`; `None` when it can, or when the name is unknown.
        pub fn fault(name: &str, json: &str) -> Option<String> {
            match name {
                $($name => <$key as ConfigKey>::read(json).err(),)+
                _ => None,
            }
        }
    };
}

entries! {
    /// Flat price of a completion and the threshold of its gate, in flux.
    FluxPerRequest = "FLUX_PER_REQUEST": Flux, default Flux::new(5), read positive_flux;
    /// How completions are admitted: `hold` sets their price aside first, `post_debit` charges afterwards only.
    FluxAdmission = "FLUX_ADMISSION": AdmissionMode, default Some(AdmissionMode::Hold),
        read json_of("\"hold\" or \"post_debit\"");
    /// Price of 1 000 tokens, in flux; may be a fraction.
    FluxPer1kTokens = "FLUX_PER_1K_TOKENS": Decimal, default Some(Decimal::ONE), read not_negative;
    /// Opening balance of a new user, in flux.
    InitialUserFlux = "INITIAL_USER_FLUX": Flux, default Some(Flux::ZERO), read whole_flux;
    /// Price of 1 000 characters of speech, in flux.
    FluxPer1kCharsTts = "FLUX_PER_1K_CHARS_TTS": Decimal, default None, read speech_price;
    /// Lifetime of unsettled speech units, seconds.
    TtsDebtTtlSeconds = "TTS_DEBT_TTL_SECONDS": u64, default Some(86_400), read at_least_one;
    /// Sign-in calls admitted per window.
    AuthRateLimitMax = "AUTH_RATE_LIMIT_MAX": u64, default Some(20), read at_least_one;
    /// Length of that window, seconds.
    AuthRateLimitWindowSec = "AUTH_RATE_LIMIT_WINDOW_SEC": u64, default Some(60), read at_least_one;
    /// Stripe product whose prices are sold; absent switches top-up off.
    StripeFluxProductId = "STRIPE_FLUX_PRODUCT_ID": String, default None, read non_empty;
    /// Payment methods offered; absent lets the provider decide.
    StripePaymentMethods = "STRIPE_PAYMENT_METHODS": Vec<String>, default None, read json_of("an array of strings");
    /// Options of payment methods.
    StripePaymentMethodOptions = "STRIPE_PAYMENT_METHOD_OPTIONS": serde_json::Map<String, Value>,
        default Some(serde_json::Map::new()), read json_of("an object");
    /// Recommended voices: model → locale → voice id.
    DefaultTtsVoices = "DEFAULT_TTS_VOICES": indexmap::IndexMap<String, indexmap::IndexMap<String, String>>,
        default Some(indexmap::IndexMap::new()), read json_of("a map of model to a map of locale to voice id");
    /// What `auto` means for chat.
    DefaultChatModel = "DEFAULT_CHAT_MODEL": String, default None, read non_empty;
    /// What `auto` means for speech.
    DefaultTtsModel = "DEFAULT_TTS_MODEL": String, default None, read non_empty;
    /// The routing document.
    LlmRouterConfig = "LLM_ROUTER_CONFIG": std::sync::Arc<RouterConfig>, default None,
        read |json| json_of::<RouterConfig>("a router document")(json).map(std::sync::Arc::new);
    /// The streaming speech upstream.
    StreamingTtsUpstream = "STREAMING_TTS_UPSTREAM": std::sync::Arc<TtsUpstreamEntry>, default None,
        read |json| json_of::<TtsUpstreamEntry>("a speech upstream")(json).map(std::sync::Arc::new);
}

fn json_of<T: DeserializeOwned>(expected: &'static str) -> impl Fn(&str) -> Result<T, String> {
    move |json| serde_json::from_str(json).map_err(|_| format!("expected {expected}"))
}

fn number(json: &str) -> Option<Decimal> {
    // A JSON number only: `"5"` is a string and not what the reference stores.
    let serde_json::Value::Number(number) = serde_json::from_str(json).ok()? else { return None };
    let text = number.to_string();
    text.parse().ok().or_else(|| Decimal::from_scientific(&text).ok())
}

fn whole(json: &str) -> Option<i64> {
    let number = number(json)?;
    if !number.is_integer() { None } else { number.try_into().ok() }
}

fn whole_flux(json: &str) -> Result<Flux, String> {
    whole(json).and_then(Flux::new).ok_or_else(|| "expected a whole number of flux, 0 or more".to_owned())
}

fn positive_flux(json: &str) -> Result<Flux, String> {
    whole_flux(json)
        .ok()
        .filter(|flux| !flux.is_zero())
        .ok_or_else(|| "expected a whole number of flux, 1 or more".to_owned())
}

fn not_negative(json: &str) -> Result<Decimal, String> {
    number(json).filter(|n| !n.is_sign_negative()).ok_or_else(|| "expected a number, 0 or more".to_owned())
}

fn speech_price(json: &str) -> Result<Decimal, String> {
    number(json)
        .filter(|n| *n > Decimal::ZERO && *n <= Decimal::ONE_THOUSAND)
        .ok_or_else(|| "expected a number above 0 and up to 1000".to_owned())
}

fn at_least_one(json: &str) -> Result<u64, String> {
    whole(json)
        .and_then(|n| u64::try_from(n).ok())
        .filter(|n| *n >= 1)
        .ok_or_else(|| "expected a whole number, 1 or more".to_owned())
}

fn non_empty(json: &str) -> Result<String, String> {
    json_of::<String>("a non-empty string")(json)
        .ok()
        .filter(|text| !text.is_empty())
        .ok_or_else(|| "expected a non-empty string".to_owned())
}

/// One stored entry. Its parsed form is kept with it, so a routing document is read once per copy.
#[derive(Debug)]
pub struct ConfigEntry {
    json: String,
    parsed: OnceLock<Result<Box<dyn Any + Send + Sync>, String>>,
}

impl ConfigEntry {
    /// Takes the stored text.
    pub fn new(json: impl Into<String>) -> Self {
        Self { json: json.into(), parsed: OnceLock::new() }
    }

    /// The stored text.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The entry as the type of its key, or what would have been accepted.
    pub fn read<K: ConfigKey>(&self) -> Result<K::Value, String> {
        let parsed = self.parsed.get_or_init(|| K::read(&self.json).map(|value| Box::new(value) as _));
        match parsed {
            Ok(value) => value.downcast_ref::<K::Value>().cloned().map_or_else(|| K::read(&self.json), Ok),
            Err(why) => Err(why.clone()),
        }
    }
}

/// A change of several entries that takes effect as one.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigWrite {
    /// New JSON texts by name, validated; `None` goes back to the default.
    pub entries: Vec<(&'static str, Option<String>)>,
    /// Refuse unless the store is still at this version; absent writes over whatever is there.
    pub expected_version: Option<i64>,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Stored; the version it made.
    Written(i64),
    /// Somebody wrote in between; nothing was stored. The version found.
    Stale(i64),
}

/// What a listener hears about the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// This entry changed.
    Entry(String),
    /// Changes may have been missed: forget every copy.
    Gap,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_matches_the_contract() {
        let fixture: Value = serde_json::from_str(include_str!("../../../tests/fixtures/config-kv.json")).unwrap();
        let names: Vec<_> =
            fixture["entries"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
        for name in &names {
            assert!(NAMES.contains(name), "{name} is missing");
        }
        // FLUX_ADMISSION is ours alone.
        assert_eq!(names.len() + 1, NAMES.len());
    }

    #[test]
    fn prices_that_cannot_be_charged_are_refused() {
        for bad in ["0", "-1", "1.5", "\"5\"", "null", "1e99", "x"] {
            assert!(FluxPerRequest::read(bad).is_err(), "{bad}");
        }
        assert_eq!(FluxPerRequest::read("5").unwrap().get(), 5);
        assert_eq!(FluxPerRequest::read("5.0").unwrap().get(), 5);
        for bad in ["-1", "\"1\"", "true"] {
            assert!(FluxPer1kTokens::read(bad).is_err(), "{bad}");
        }
        assert_eq!(FluxPer1kTokens::read("0.5").unwrap(), Decimal::new(5, 1));
        for bad in ["0", "-1", "1000.1"] {
            assert!(FluxPer1kCharsTts::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_entry_is_parsed_once_and_reports_its_fault_each_time() {
        let entry = ConfigEntry::new("\"chat-default\"");
        assert_eq!(entry.read::<DefaultChatModel>().unwrap(), "chat-default");
        assert_eq!(entry.read::<DefaultChatModel>().unwrap(), "chat-default");
        let broken = ConfigEntry::new("{\"ciphertext\":\"s3cret\"");
        let why = broken.read::<LlmRouterConfig>().unwrap_err();
        assert!(!why.contains("s3cret"));
        assert_eq!(broken.read::<LlmRouterConfig>().unwrap_err(), why);
    }
}
