//! Trying attempts until one answers (contract `gateway.md` §4).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};

use super::plan::{Attempt, Plan};
use super::reject::{Failed, Failure, Failures};
use super::sanitise::{explanation, names_usage_option, snippet};
use crate::core::error::{Code, Error};
use crate::core::model::fact::Fact;
use crate::core::model::ids::KeyEntryId;
use crate::core::model::llm::ChatBody;
use crate::core::model::secret::Secret;
use crate::ports::journal::Journal;
use crate::ports::llm::{LlmUpstream, UpstreamAnswer, UpstreamCall};
use crate::ports::runtime::Clock;
use crate::ports::upstream::{ByteStream, Patience, UpstreamError};
use crate::ports::vault::Vault;

/// Finds an upstream that answers. Nothing is promised to the client before that, so any failure may fall back.
pub struct Walk {
    /// Makes the attempts.
    pub upstream: Arc<dyn LlmUpstream>,
    /// Opens the keys, each just before its use.
    pub vault: Arc<dyn Vault>,
    /// Hears about failures.
    pub journal: Arc<dyn Journal>,
    /// Measures the chain.
    pub clock: Arc<dyn Clock>,
    /// What the operator chose.
    pub policy: RoutingPolicy,
    /// Which upstreams do not know the usage option; start with the default.
    pub usage_refusals: UsageRefusals,
}

/// What an operator chooses about routing at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoutingPolicy {
    /// `LLM_ROUTER_DECRYPT_FAILURE`.
    pub on_unreadable_key: OnUnreadableKey,
    /// Whether the built-in engine exists.
    pub sandbox: bool,
}

/// What a stored key that cannot be opened does to a call (GW-D21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnreadableKey {
    /// It ends the call: skipping would hide tampering.
    #[default]
    FailClosed,
    /// It is reported and skipped.
    Skip,
}

/// Upstreams that refused `stream_options.include_usage`, by address and model, for the life of the process.
#[derive(Debug, Default)]
pub struct UsageRefusals(Mutex<HashSet<(String, String)>>);

impl UsageRefusals {
    fn knows(&self, attempt: &Attempt) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&(attempt.url.clone(), attempt.model.clone()))
    }

    fn remember(&self, attempt: &Attempt) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((attempt.url.clone(), attempt.model.clone()));
    }
}

/// A success, and where it came from.
#[derive(Debug)]
pub struct Routed {
    /// What the upstream answered; a streamed body has at least one byte.
    pub answer: UpstreamAnswer,
    /// Upstream label.
    pub provider: String,
    /// The key slot.
    pub key: Option<KeyEntryId>,
    /// Attempts that failed before it (GW-D34).
    pub depth: u16,
}

/// What one walk carries along.
struct Chain<'a> {
    walk: &'a Walk,
    plan: &'a Plan,
    /// Logical model id: what keys are bound to.
    model: &'a str,
    body: &'a ChatBody,
    started: Duration,
    failures: Failures,
    /// A failure that becomes a fallback once another attempt is made (GW-D33).
    pending: Option<Fact>,
}

impl Walk {
    /// Makes the attempts of `plan` in order until one answers. `model` is the logical model id.
    pub async fn walk(&self, plan: &Plan, model: &str, body: &ChatBody) -> Result<Routed, Error> {
        let started = self.clock.elapsed();
        let failures = Failures::default();
        let mut chain = Chain { walk: self, plan, model, body, started, failures, pending: None };
        let routed = chain.run().await;
        if let Err(error) = &routed
            && error.code != Code::UpstreamRejected
        {
            self.journal.record(Fact::RequestExhausted { surface: "llm" });
        }
        routed
    }
}

/// What a failure means for the chain.
enum Verdict {
    NextKey,
    NextUpstream,
    /// The request itself is at fault, or the operator wants no fallback here.
    End(Error),
}

impl Chain<'_> {
    async fn run(&mut self) -> Result<Routed, Error> {
        let attempts = &self.plan.attempts;
        let (mut at, mut entered, mut unreadable) = (0, None, false);
        while let Some(attempt) = attempts.get(at) {
            if self.remaining().is_zero() {
                return Err(self.failures.out_of_time());
            }
            if entered.replace(attempt.upstream) != Some(attempt.upstream) {
                self.failures.upstreams += 1;
            }
            let Some(key) = self.open(attempt) else {
                if self.walk.policy.on_unreadable_key == OnUnreadableKey::FailClosed {
                    return Err(Error::new(Code::DecryptFailed).because(self.failures.to_string()));
                }
                unreadable = true;
                at = self.after(at, &Verdict::NextKey);
                continue;
            };
            if let Some(fallback) = self.pending.take() {
                self.record(fallback);
            }
            let failure = match self.attempt(attempt, &key).await {
                Ok(answer) => return Ok(self.routed(attempt, answer)),
                Err(failure) => failure,
            };
            let verdict = self.judge(attempt, &failure, &key);
            at = self.after(at, &verdict);
            if let Verdict::End(error) = verdict {
                return Err(error);
            }
        }
        if unreadable && self.failures.attempts.is_empty() {
            return Err(Error::new(Code::DecryptFailed));
        }
        self.report_same_status();
        Err(self.failures.exhausted())
    }

    /// Where the chain goes on. Leaving an upstream without an answer is told, unless the request was at fault.
    fn after(&self, at: usize, verdict: &Verdict) -> usize {
        let attempts = &self.plan.attempts;
        let here = &attempts[at];
        let other = || attempts[at..].iter().position(|next| next.upstream != here.upstream);
        let next = match verdict {
            Verdict::NextKey | Verdict::End(_) => at + 1,
            Verdict::NextUpstream => other().map_or(attempts.len(), |ahead| at + ahead),
        };
        let leaves = attempts.get(next).is_none_or(|next| next.upstream != here.upstream);
        let rejected = matches!(verdict, Verdict::End(error) if error.code == Code::UpstreamRejected);
        if leaves && !rejected {
            self.record(Fact::KeysExhausted { provider: here.label.clone() });
        }
        next
    }

    /// The key of an attempt in the clear; an upstream without keys gets an empty one.
    fn open(&self, attempt: &Attempt) -> Option<Secret> {
        let Some(entry) = &attempt.key else { return Some(Secret::new("")) };
        match self.walk.vault.open(&entry.ciphertext, self.model, entry.id.as_str()) {
            Ok(opened) => Some(opened.plaintext),
            Err(_) => {
                self.record(Fact::KeyUnreadable { provider: attempt.label.clone(), key: entry.id.clone() });
                None
            }
        }
    }

    /// One attempt; a second one with the same key when the upstream does not know the usage option we added.
    async fn attempt(&self, attempt: &Attempt, key: &Secret) -> Result<UpstreamAnswer, UpstreamError> {
        let adds_usage = attempt.include_usage
            && self.body.streams()
            && !self.body.asks_for_usage()
            && !self.walk.usage_refusals.knows(attempt);
        match self.send(attempt, key, adds_usage).await {
            Err(UpstreamError::Status { status: 400, body, .. })
                if adds_usage && names_usage_option(&body) && !self.remaining().is_zero() =>
            {
                self.record(Fact::UpstreamRefused { provider: attempt.label.clone(), status: 400 });
                let second = self.send(attempt, key, false).await;
                // Only a success proves that our option was the fault: a caller's own odd options must not switch
                // usage off for everybody.
                if second.is_ok() {
                    self.walk.usage_refusals.remember(attempt);
                }
                second
            }
            answered => answered,
        }
    }

    async fn send(&self, attempt: &Attempt, key: &Secret, add_usage: bool) -> Result<UpstreamAnswer, UpstreamError> {
        let authorization = match attempt.key {
            Some(_) => attempt.template.replace("{KEY}", key.expose()),
            None => String::new(),
        };
        let call = UpstreamCall {
            url: attempt.url.clone(),
            authorization: Secret::new(authorization),
            body: self.body.for_upstream(&attempt.model, add_usage),
            patience: self.patience(attempt),
        };
        let mut answer = self.walk.upstream.send(&call).await?;
        if self.body.streams() {
            answer.body = begun(answer.body).await?;
        }
        Ok(answer)
    }

    /// A whole answer has the rest of the chain's time; a stream has it until its first byte only.
    fn patience(&self, attempt: &Attempt) -> Patience {
        let remaining = self.remaining();
        let head = attempt.limit.min(remaining);
        if self.body.streams() {
            Patience { head, first_byte: remaining, idle: self.plan.idle, total: self.plan.total }
        } else {
            Patience { head, first_byte: remaining, idle: remaining, total: remaining }
        }
    }

    fn routed(&self, attempt: &Attempt, answer: UpstreamAnswer) -> Routed {
        Routed {
            answer,
            provider: attempt.label.clone(),
            key: attempt.key.as_ref().map(|key| key.id.clone()),
            depth: u16::try_from(self.failures.attempts.len()).unwrap_or(u16::MAX),
        }
    }

    /// Records a failed attempt and says how the chain goes on.
    fn judge(&mut self, attempt: &Attempt, error: &UpstreamError, key: &Secret) -> Verdict {
        let (failure, text, retry_after) = match error {
            UpstreamError::Status { status, body, retry_after } => {
                self.record(Fact::UpstreamRefused { provider: attempt.label.clone(), status: *status });
                (Failure::Status(*status), snippet(body, key.expose()), *retry_after)
            }
            UpstreamError::Transport(cause) => (Failure::Timeout, snippet(cause.as_bytes(), key.expose()), None),
            UpstreamError::Timeout | UpstreamError::Stalled => (Failure::Timeout, None, None),
        };
        let slot = attempt.key.as_ref().map(|key| key.id.clone());
        self.pending = Some(Fact::FallbackTaken {
            provider: attempt.label.clone(),
            from_key: slot.clone().unwrap_or_else(|| KeyEntryId::new("none")),
            reason: failure.to_string(),
            snippet: text.clone(),
        });
        let provider = attempt.label.clone();
        self.failures.attempts.push(Failed { provider, key: slot, failure, snippet: text, retry_after });
        match error {
            UpstreamError::Status { status, .. } if self.plan.fallback_on.contains(status) => Verdict::NextKey,
            UpstreamError::Status { status, body, .. } if failure.is_request_fault() => {
                Verdict::End(self.failures.rejected(*status, explanation(*status, body, key.expose())))
            }
            UpstreamError::Status { .. } => Verdict::NextUpstream,
            _ if self.plan.past_timeouts => Verdict::NextKey,
            _ => Verdict::End(self.failures.exhausted()),
        }
    }

    /// A limit of the whole account shows as one and the same status from everywhere.
    fn report_same_status(&self) {
        let attempts = &self.failures.attempts;
        let Some(Failure::Status(status)) = attempts.first().map(|attempt| attempt.failure) else { return };
        if attempts.iter().any(|attempt| attempt.failure != Failure::Status(status)) {
            return;
        }
        let mut told = HashSet::new();
        for provider in attempts.iter().map(|attempt| &attempt.provider).filter(|provider| told.insert(*provider)) {
            self.record(Fact::SameStatusExhaustion { provider: provider.clone(), status });
        }
    }

    fn remaining(&self) -> Duration {
        let spent = self.walk.clock.elapsed().saturating_sub(self.started);
        self.plan.chain.saturating_sub(spent)
    }

    fn record(&self, fact: Fact) {
        self.walk.journal.record(fact);
    }
}

/// The same body once its first byte is in hand; a body without any is a failed attempt (GW-D11).
async fn begun(mut body: ByteStream) -> Result<ByteStream, UpstreamError> {
    loop {
        match body.next().await {
            Some(Ok(chunk)) if chunk.is_empty() => {}
            Some(Ok(chunk)) => return Ok(stream::iter([Ok::<Bytes, UpstreamError>(chunk)]).chain(body).boxed()),
            Some(Err(error)) => return Err(error),
            None => return Err(UpstreamError::Transport("the answer ended before its first byte".to_owned())),
        }
    }
}
