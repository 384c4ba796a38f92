//! Speech: providers, the caller's body, characters and their price, voices, frames of a stream.

mod body;
mod voices;

use bytes::Bytes;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

pub use body::{Issue, SpeechBody, UnusableBody};
pub use voices::{catalogue, compatible, sandbox_voices};

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

/// The meter speech accumulates in, one-shot and streamed alike, so that remainders carry over between both.
pub const METER: &str = "tts";

/// The model id of the built-in voice, in deployments that have it.
pub const SANDBOX_MODEL: &str = "sandbox-voice";

/// Longest clip, bytes of decoded audio (contract `audio.md` §3).
pub const MAX_AUDIO: u64 = 25 << 20;

/// What a text costs in units of the meter: UTF-16 code units, as the reference counts (contract `audio.md` §8).
pub fn units(text: &str) -> i64 {
    i64::try_from(text.encode_utf16().count()).unwrap_or(i64::MAX)
}

/// Units worth one flux at a price per 1 000 characters (contract `audio.md` §7.1).
pub fn units_per_flux(price: Decimal) -> i64 {
    let whole = Decimal::ONE_THOUSAND.checked_div(price).map(|units| units.floor());
    whole.and_then(|units| units.to_i64()).unwrap_or(1).max(1)
}

/// Whether a balance affords `units` more, beside what is unsettled (`debt`) and what other calls have under way
/// (`held`), all in units (contract `audio.md` §7.2).
pub fn affords(balance: i64, debt: i64, held: i64, units: i64, units_per_flux: i64) -> bool {
    let total = debt.max(0).saturating_add(held.max(0)).saturating_add(units.max(0));
    balance >= (total / units_per_flux.max(1)).max(1)
}

/// One frame of a speech stream, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An event, as JSON text; anything else is passed on as it is.
    Text(String),
    /// Audio.
    Binary(Bytes),
}

impl Frame {
    /// Its payload, bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::core::model::ledger::Flux;
    use crate::core::model::meter::settle;

    fn fixture(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn every_text_of_the_vectors_costs_its_utf16_units() {
        let vectors = fixture(include_str!("../../../../tests/fixtures/char-count-vectors.json"));
        let rows = vectors["rows"].as_array().unwrap();
        assert!(rows.len() > 10);
        for row in rows {
            let text = row["text"].as_str().unwrap();
            assert_eq!(units(text), row["billingUnits"].as_i64().unwrap(), "{text}");
        }
        assert_eq!(units("สวัสดี"), 6, "thai counts its combining marks");
    }

    #[test]
    fn every_price_of_the_vectors_makes_its_units() {
        let vectors = fixture(include_str!("../../../../tests/fixtures/flux-meter-vectors.json"));
        for row in vectors["unitsPerFlux"].as_array().unwrap() {
            let price: Decimal = row["fluxPer1kChars"].to_string().parse().unwrap();
            assert_eq!(units_per_flux(price), row["unitsPerFlux"].as_i64().unwrap(), "{price}");
        }
        for row in vectors["affordability"].as_array().unwrap() {
            let number = |name: &str| row[name].as_i64().unwrap();
            let afforded = affords(number("balance"), number("debt"), 0, number("newUnits"), number("unitsPerFlux"));
            assert_eq!(afforded, row["allowed"].as_bool().unwrap(), "{row}");
        }
        assert!(!affords(1, 0, 2_000, 1, 1_000), "what others have under way counts");
    }

    proptest! {
        /// Texts spoken one after another, at a balance that runs dry in between.
        #[test]
        fn accumulated_and_settled_and_left_is_what_was_spoken(
            texts in proptest::collection::vec("\\PC{0,60}", 1..40), per in 1..80i64, mut balance in 0..30i64,
        ) {
            let (mut debt, mut charged, mut spoken) = (0, 0, 0);
            for text in &texts {
                spoken += units(text);
                let settled = settle(debt, units(text), per, Flux::new(balance).unwrap());
                debt = settled.debt;
                charged += settled.charged.get();
                balance -= settled.charged.get();
            }
            prop_assert_eq!(spoken, charged * per + debt);
            prop_assert!(balance >= 0);
        }
    }
}
