//! What a completion costs, in exact decimal arithmetic (contract `gateway.md` §7, GW-D13).

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::core::model::ledger::Flux;

/// Token counts an upstream reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read.
    pub prompt: u64,
    /// Tokens written.
    pub completion: u64,
}

/// The two prices that apply to a call, read once at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tariff {
    /// `FLUX_PER_REQUEST`: the gate, and the price when no usage was reported. At least one flux.
    pub per_request: Flux,
    /// `FLUX_PER_1K_TOKENS`, not negative.
    pub per_thousand_tokens: Decimal,
}

impl Tariff {
    /// `max(1, ⌈tokens ÷ 1000 × rate⌉)`, or the flat price without usage.
    pub fn price(&self, usage: Option<Usage>) -> Flux {
        let Some(usage) = usage else { return self.per_request };
        let tokens = Decimal::from(usage.prompt.saturating_add(usage.completion));
        let exact = tokens.checked_mul(self.per_thousand_tokens).map(|product| product / Decimal::ONE_THOUSAND);
        let whole = exact.and_then(|price| price.ceil().to_i64()).unwrap_or(i64::MAX);
        Flux::saturating(whole).max(Flux::ONE)
    }

    /// The most tokens, read and written together, that cost no more than `flux`.
    pub fn affords(&self, flux: Flux) -> u64 {
        let exact = Decimal::from(flux.get()).checked_mul(Decimal::ONE_THOUSAND);
        let tokens = exact.and_then(|product| product.checked_div(self.per_thousand_tokens));
        tokens.and_then(|tokens| tokens.floor().to_u64()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_row_of_the_price_vectors() {
        let text = include_str!("../../../../tests/fixtures/flux-price-vectors.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let rows = vectors["rows"].as_array().unwrap();
        assert!(rows.len() >= 17);
        for row in rows {
            let tariff = Tariff {
                per_request: Flux::new(row["fluxPerRequest"].as_i64().unwrap()).unwrap(),
                per_thousand_tokens: row["fluxPer1kTokens"].to_string().parse().unwrap(),
            };
            let usage = row["promptTokens"]
                .as_u64()
                .zip(row["completionTokens"].as_u64())
                .map(|(prompt, completion)| Usage { prompt, completion });
            assert_eq!(tariff.price(usage).get(), row["target"].as_i64().unwrap(), "{row}");
        }
    }

    proptest! {
        #[test]
        fn what_is_afforded_costs_no_more_and_one_token_more_does(
            flux in 1i64..1_000_000, rate in 1i64..5_000_000, scale in 0u32..4,
        ) {
            let flux = Flux::new(flux).unwrap();
            let tariff = Tariff { per_request: Flux::ONE, per_thousand_tokens: Decimal::new(rate, scale) };
            let tokens = tariff.affords(flux);
            let [afforded, beyond] = [0, 1].map(|completion| tariff.price(Some(Usage { prompt: tokens, completion })));
            prop_assert!(afforded <= flux && flux < beyond);
        }
    }

    #[test]
    fn a_rate_of_nothing_affords_everything() {
        let tariff = Tariff { per_request: Flux::ONE, per_thousand_tokens: Decimal::ZERO };
        assert_eq!(tariff.affords(Flux::ONE), u64::MAX);
    }

    #[test]
    fn absurd_usage_saturates_instead_of_overflowing() {
        let tariff = Tariff { per_request: Flux::ONE, per_thousand_tokens: Decimal::MAX };
        let usage = Usage { prompt: u64::MAX, completion: u64::MAX };
        assert_eq!(tariff.price(Some(usage)), Flux::saturating(i64::MAX));
    }
}
