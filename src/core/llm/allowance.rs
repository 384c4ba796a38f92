//! How much of an answer is paid beforehand, and how that grows with it (contract `gateway.md` §7.1, GW-D10).

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::reservation::Pledge;
use crate::core::model::hold::HoldOutcome;
use crate::core::model::ledger::Flux;
use crate::core::model::llm::{ChatBody, Tariff, Usage};
use crate::ports::llm::TokenCounter;
use crate::ports::runtime::Clock;

/// Tokens of an answer that are paid beforehand when nobody says how long it may become, and by which a stream's
/// allowance grows.
const SLICE: u64 = 4_096;

/// Longest text whose tokens are counted, bytes; a longer one is judged by its beginning.
const SAMPLE: usize = 32 << 10;

/// What an image, a sound or a file is taken for, tokens.
const ATTACHMENT: u64 = 1_000;

/// What surrounds each message, tokens.
const FRAME: u64 = 4;

/// Tokens an upstream will have to read for this body, near enough.
pub fn prompt_tokens(body: &ChatBody, counter: &dyn TokenCounter) -> u64 {
    let prompt = body.prompt();
    let mut end = prompt.text.len().min(SAMPLE);
    while !prompt.text.is_char_boundary(end) {
        end -= 1;
    }
    let sampled = counter.count(&prompt.text[..end]);
    let text = match end {
        0 => 0,
        _ => u128::from(sampled) * prompt.text.len() as u128 / end as u128,
    };
    u64::try_from(text)
        .unwrap_or(u64::MAX)
        .saturating_add(prompt.attachments.saturating_mul(ATTACHMENT))
        .saturating_add(prompt.messages.saturating_mul(FRAME))
}

/// What a call may cost, before anybody has answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    tariff: Tariff,
    prompt: u64,
    /// The most tokens of all answers together, when the caller or the model says so.
    limit: Option<u64>,
    choices: u64,
    streams: bool,
}

impl Bound {
    /// `cap` is what the model writes at most per answer, when the operator says so.
    pub fn of(body: &ChatBody, prompt: u64, tariff: Tariff, cap: Option<u64>) -> Self {
        let choices = body.choices();
        let limit = [body.token_limit(), cap].into_iter().flatten().min();
        let limit = limit.map(|limit| limit.saturating_mul(choices));
        Self { tariff, prompt, limit, choices, streams: body.streams() }
    }

    /// Tokens of the prompt.
    pub fn prompt(&self) -> u64 {
        self.prompt
    }

    /// The least flux a call is admitted with: its gate, and a token of an answer.
    pub fn least(&self) -> Flux {
        self.price(1).max(self.tariff.per_request)
    }

    /// The flux to be set aside at first. A stream sets aside more as it grows; a whole answer cannot.
    pub fn most(&self) -> Flux {
        let slice = SLICE.saturating_mul(self.choices);
        let first = match self.limit {
            Some(limit) if self.streams => limit.min(slice),
            Some(limit) => limit,
            None => slice,
        };
        self.price(first).max(self.least())
    }

    /// The tokens per answer an upstream is to be asked for, when `held` and what is `available` beside it do not
    /// afford what may come.
    pub fn clamp(&self, held: Flux, available: Flux) -> Option<u64> {
        let funds = if self.streams { Flux::saturating(held.get().saturating_add(available.get())) } else { held };
        let wanted = match self.limit {
            Some(limit) => limit,
            // It ends by itself when no more can be set aside.
            None if self.streams => return None,
            None => SLICE.saturating_mul(self.choices),
        };
        let affordable = self.tariff.affords(funds).saturating_sub(self.prompt);
        (affordable < wanted).then_some((affordable / self.choices).max(1))
    }

    fn price(&self, completion: u64) -> Flux {
        self.tariff.price(Some(Usage { prompt: self.prompt, completion }))
    }
}

/// What a stream may still say before more is set aside.
pub struct Allowance {
    pledge: Arc<Pledge>,
    clock: Arc<dyn Clock>,
    bound: Bound,
    /// When the lease was begun or renewed.
    renewed: Duration,
    refused: bool,
}

/// What an extension brought; infrastructure that fails brings nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// More, or the same for longer.
    Granted,
    /// The balance affords no more.
    Refused,
}

impl Allowance {
    /// Of a stream that begins now.
    pub fn new(pledge: Arc<Pledge>, bound: Bound, clock: Arc<dyn Clock>) -> Self {
        let renewed = clock.elapsed();
        Self { pledge, clock, bound, renewed, refused: false }
    }

    /// Tokens the upstream had to read, as estimated.
    pub fn prompt(&self) -> u64 {
        self.bound.prompt
    }

    /// Whether `said` tokens are paid beforehand.
    pub fn covers(&self, said: u64) -> bool {
        said <= self.tokens()
    }

    /// Whether more should be set aside by now, or the lease be renewed.
    pub fn runs_low(&self, said: u64) -> bool {
        let spent = self.clock.elapsed().saturating_sub(self.renewed);
        self.needs_more(said) || spent >= self.pledge.lease() / 3
    }

    /// Asks for another slice when more is needed, else only for the same for longer.
    pub fn grow(&mut self, said: u64) -> BoxFuture<'static, Growth> {
        self.renewed = self.clock.elapsed();
        let pledge = Arc::clone(&self.pledge);
        let held = pledge.held();
        let next = said.max(self.tokens()).saturating_add(SLICE.saturating_mul(self.bound.choices));
        let most = self.bound.price(next.min(self.bound.limit.unwrap_or(u64::MAX).max(said)));
        let enough = !self.needs_more(said) || most <= held;
        async move {
            if enough {
                return pledge.extend(held, held).await;
            }
            match pledge.extend(Flux::saturating(held.get() + 1), most).await {
                Ok(HoldOutcome::Refused { .. }) => {
                    // What is held goes on being needed.
                    let _renewed = pledge.extend(held, held).await;
                    Ok(HoldOutcome::Refused { available: Flux::ZERO })
                }
                outcome => outcome,
            }
        }
        .map(|outcome| match outcome {
            Ok(HoldOutcome::Held { .. } | HoldOutcome::Settled) => Growth::Granted,
            Ok(HoldOutcome::Refused { .. } | HoldOutcome::Lost) | Err(_) => Growth::Refused,
        })
        .boxed()
    }

    /// Takes note of what an extension brought.
    pub fn hear(&mut self, growth: Growth) {
        self.refused = growth == Growth::Refused;
    }

    fn needs_more(&self, said: u64) -> bool {
        let limited = self.bound.limit.is_some_and(|limit| self.tokens() >= limit && said <= limit);
        !self.refused && !limited && said.saturating_mul(4) >= self.tokens().saturating_mul(3)
    }

    fn tokens(&self) -> u64 {
        self.bound.tariff.affords(self.pledge.held()).saturating_sub(self.bound.prompt)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rust_decimal::Decimal;

    use super::*;

    fn flux(amount: i64) -> Flux {
        Flux::new(amount).unwrap()
    }

    fn bound(body: &str, prompt: u64, cap: Option<u64>) -> Bound {
        let tariff = Tariff { per_request: flux(5), per_thousand_tokens: Decimal::ONE };
        Bound::of(&ChatBody::parse(body.as_bytes()).unwrap(), prompt, tariff, cap)
    }

    #[test]
    fn a_short_prompt_with_no_limit_sets_the_flat_price_aside() {
        for body in ["{}", r#"{"stream":true}"#] {
            let bound = bound(body, 100, None);
            assert_eq!((bound.least(), bound.most()), (flux(5), flux(5)));
            assert_eq!(bound.clamp(flux(5), Flux::ZERO), None);
        }
    }

    #[test]
    fn a_whole_answer_sets_all_it_may_cost_aside_and_a_stream_its_first_slice() {
        assert_eq!(bound(r#"{"max_tokens":50000}"#, 100, None).most(), flux(51));
        assert_eq!(bound(r#"{"max_tokens":50000,"stream":true}"#, 3_000, None).most(), flux(8));
        assert_eq!(bound(r#"{"max_tokens":50000,"n":2}"#, 100, None).most(), flux(101));
        assert_eq!(bound(r#"{"max_tokens":50000}"#, 100, Some(9_000)).most(), flux(10));
        assert_eq!(bound("{}", 100, Some(9_000)).most(), flux(10));
        assert_eq!(bound(r#"{"max_tokens":1}"#, 9_000, None).least(), flux(10));
    }

    #[test]
    fn what_the_balance_does_not_afford_is_not_asked_for() {
        let whole = bound(r#"{"max_tokens":50000}"#, 100, None);
        assert_eq!(whole.clamp(flux(51), Flux::ZERO), None);
        assert_eq!(whole.clamp(flux(20), flux(90)), Some(19_900));
        let pair = bound(r#"{"max_tokens":50000,"n":2}"#, 100, None);
        assert_eq!(pair.clamp(flux(20), Flux::ZERO), Some(9_950));
        let stream = bound(r#"{"max_tokens":50000,"stream":true}"#, 100, None);
        assert_eq!(stream.clamp(flux(5), flux(46)), None);
        assert_eq!(stream.clamp(flux(5), flux(15)), Some(19_900));
        assert_eq!(bound("{}", 4_000, None).clamp(flux(6), Flux::ZERO), Some(2_000));
        assert_eq!(bound(r#"{"stream":true}"#, 4_000, None).clamp(flux(6), Flux::ZERO), None);
    }

    proptest! {
        #[test]
        fn a_clamped_answer_never_costs_more_than_the_funds(
            prompt in 0u64..50_000, limit in 1u64..200_000, choices in 1u64..5, streams in any::<bool>(),
            held in 1i64..500, available in 0i64..500,
        ) {
            let body = format!(r#"{{"max_tokens":{limit},"n":{choices},"stream":{streams}}}"#);
            let bound = bound(&body, prompt, None);
            prop_assume!(flux(held) >= bound.least());
            let funds = if streams { flux(held + available) } else { flux(held) };
            let per_answer = bound.clamp(flux(held), flux(available)).unwrap_or(limit);
            prop_assert!(per_answer <= limit);
            // With several answers one token each may be more than is left for them.
            if per_answer > 1 || choices == 1 {
                prop_assert!(bound.price(per_answer * choices) <= funds);
            }
        }
    }

    #[test]
    fn a_long_prompt_is_judged_by_its_beginning() {
        let counter = Bytes;
        let text = "é".repeat(100_000);
        let body = serde_json::json!({ "messages": [{ "role": "", "content": text }] }).to_string();
        let tokens = prompt_tokens(&ChatBody::parse(body.as_bytes()).unwrap(), &counter);
        assert!((200_000..200_010).contains(&tokens), "{tokens}");
        let picture = r#"{"messages":[{"content":[{"image_url":{"url":"data:x"}}]}]}"#;
        assert_eq!(prompt_tokens(&ChatBody::parse(picture.as_bytes()).unwrap(), &counter), 1_004);
    }

    struct Bytes;

    #[async_trait::async_trait]
    impl TokenCounter for Bytes {
        async fn ready(&self) {}
        fn count(&self, text: &str) -> u64 {
            text.len() as u64
        }
    }
}
