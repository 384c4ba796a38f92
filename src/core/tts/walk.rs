//! Trying attempts until one speaks (contract `audio.md` §3, AU-D05).
//!
//! The order of attempts and what a caller is told at the end are those of chat; what differs is what an attempt can come
//! to. Counting and telling are shared with [`crate::core::llm::reject`].

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::plan::{Attempt, Plan};
use crate::core::error::{Code, Error};
use crate::core::llm::reject::{Failed, Failure, Failures};
use crate::core::llm::sanitise::{explanation, snippet};
use crate::core::llm::{OnUnreadableKey, RoutingPolicy};
use crate::core::model::fact::Fact;
use crate::core::model::ids::KeyEntryId;
use crate::core::model::secret::Secret;
use crate::core::model::tts::SpeechBody;
use crate::ports::journal::Journal;
use crate::ports::runtime::Clock;
use crate::ports::tts::{SpeechAttempt, SpeechFailure, SpokenAudio, TtsEngine};
use crate::ports::upstream::Patience;
use crate::ports::vault::Vault;

/// Finds an upstream that speaks. Nothing is promised to the client before the first byte, so any failure may fall back.
pub struct Walk {
    /// Makes the attempts.
    pub engine: Arc<dyn TtsEngine>,
    /// Opens the keys, each just before its use.
    pub vault: Arc<dyn Vault>,
    /// Hears about failures.
    pub journal: Arc<dyn Journal>,
    /// Measures the chain.
    pub clock: Arc<dyn Clock>,
    /// What the operator chose.
    pub policy: RoutingPolicy,
}

/// A success, and where it came from.
#[derive(Debug)]
pub struct Routed {
    /// The audio, from its first byte.
    pub audio: SpokenAudio,
    /// Upstream label.
    pub provider: String,
    /// The key slot.
    pub key: Option<KeyEntryId>,
    /// Attempts that failed before it.
    pub depth: u16,
}

/// What one walk carries along.
struct Chain<'a> {
    walk: &'a Walk,
    plan: &'a Plan,
    /// Logical model id: what keys are bound to.
    model: &'a str,
    body: &'a SpeechBody,
    started: Duration,
    failures: Failures,
    /// Whether the last upstream was passed over because its configuration lacks something.
    misconfigured: bool,
    /// A failure that becomes a fallback once another attempt is made.
    pending: Option<Fact>,
}

/// What a failure means for the chain.
enum Verdict {
    NextKey,
    NextUpstream,
    /// Nothing else is tried.
    End(Error),
}

impl Walk {
    /// Makes the attempts of `plan` in order until one speaks. `model` is the logical model id.
    pub async fn walk(&self, plan: &Plan, model: &str, body: &SpeechBody) -> Result<Routed, Error> {
        let mut chain = Chain {
            walk: self,
            plan,
            model,
            body,
            started: self.clock.elapsed(),
            failures: Failures::default(),
            misconfigured: false,
            pending: None,
        };
        let routed = chain.run().await;
        let by_caller =
            |error: &Error| matches!(error.code, Code::UpstreamRejected | Code::BadRequest | Code::InvalidRequest);
        if routed.as_ref().is_err_and(|error| !by_caller(error)) {
            self.journal.record(Fact::RequestExhausted { surface: "tts" });
        }
        routed
    }
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
                self.walk.journal.record(fallback);
            }
            let failure = match self.walk.engine.speak(&self.call(attempt, &key)).await {
                Ok(audio) => return Ok(self.routed(attempt, audio)),
                Err(failure) => failure,
            };
            match self.judge(attempt, failure, &key) {
                Verdict::End(error) => return Err(error),
                verdict => at = self.after(at, &verdict),
            }
        }
        if self.misconfigured {
            return Err(Error::new(Code::ConfigNotSet).because(self.failures.to_string()));
        }
        if unreadable && self.failures.attempts.is_empty() {
            return Err(Error::new(Code::DecryptFailed));
        }
        Err(self.failures.exhausted())
    }

    /// Where the chain goes on. Leaving an upstream without audio is told.
    fn after(&self, at: usize, verdict: &Verdict) -> usize {
        let attempts = &self.plan.attempts;
        let here = &attempts[at];
        let next = match verdict {
            Verdict::NextUpstream => {
                let other = attempts[at..].iter().position(|next| next.upstream != here.upstream);
                other.map_or(attempts.len(), |ahead| at + ahead)
            }
            Verdict::NextKey | Verdict::End(_) => at + 1,
        };
        let leaves = attempts.get(next).is_none_or(|next| next.upstream != here.upstream);
        if leaves && !self.misconfigured {
            self.walk.journal.record(Fact::KeysExhausted { provider: here.label.clone() });
        }
        next
    }

    /// The key of an attempt in the clear; the built-in engine gets an empty one.
    fn open(&self, attempt: &Attempt) -> Option<Secret> {
        let Some(entry) = &attempt.key else { return Some(Secret::new("")) };
        match self.walk.vault.open(&entry.ciphertext, self.model, entry.id.as_str()) {
            Ok(opened) => Some(opened.plaintext),
            Err(_) => {
                let fact = Fact::KeyUnreadable { provider: attempt.label.clone(), key: entry.id.clone() };
                self.walk.journal.record(fact);
                None
            }
        }
    }

    fn call(&self, attempt: &Attempt, key: &Secret) -> SpeechAttempt {
        let first_byte = attempt.limit.min(self.remaining());
        SpeechAttempt {
            provider: attempt.provider,
            base_url: attempt.base_url.clone(),
            key: key.clone(),
            params: attempt.params.clone(),
            text: self.body.input.clone(),
            voice: self.body.voice.clone(),
            speed: self.body.speed,
            response_format: self.body.response_format.clone(),
            patience: Patience { head: first_byte, first_byte, idle: self.plan.idle, total: self.plan.total },
        }
    }

    fn routed(&self, attempt: &Attempt, audio: SpokenAudio) -> Routed {
        Routed {
            audio,
            provider: attempt.label.clone(),
            key: attempt.key.as_ref().map(|key| key.id.clone()),
            depth: u16::try_from(self.failures.attempts.len()).unwrap_or(u16::MAX),
        }
    }

    /// The table of AU-D05: records a failed attempt and says how the chain goes on.
    fn judge(&mut self, attempt: &Attempt, failure: SpeechFailure, key: &Secret) -> Verdict {
        self.misconfigured = false;
        match failure {
            SpeechFailure::BadRequest { message, details } => {
                let error = Error::new(Code::BadRequest).saying(message);
                Verdict::End(match details {
                    Some(details) => error.with_details(details),
                    None => error,
                })
            }
            SpeechFailure::Unsupported { path, message } => {
                let details = json!([{ "path": path, "message": message }]);
                Verdict::End(Error::new(Code::InvalidRequest).saying(format!("{path} {message}")).with_details(details))
            }
            SpeechFailure::Misconfigured(what) => {
                self.misconfigured = true;
                let provider = attempt.label.clone();
                self.walk.journal.record(Fact::UpstreamMisconfigured { provider, what });
                Verdict::NextUpstream
            }
            SpeechFailure::Timeout => self.past_timeout(attempt, None),
            SpeechFailure::Transport(cause) => self.past_timeout(attempt, snippet(cause.as_bytes(), key.expose())),
            SpeechFailure::Status { status, body, retry_after } => {
                self.failed(attempt, Failure::Status(status), snippet(&body, key.expose()), retry_after);
                if self.plan.fallback_on.contains(&status) {
                    Verdict::NextKey
                } else if Failure::Status(status).is_request_fault() {
                    Verdict::End(self.failures.rejected(status, explanation(status, &body, key.expose())))
                } else {
                    Verdict::NextUpstream
                }
            }
            SpeechFailure::NoAudio(said) => {
                self.failed(attempt, Failure::Status(502), snippet(said.as_bytes(), key.expose()), None);
                Verdict::NextKey
            }
            SpeechFailure::TooLarge => {
                self.failed(attempt, Failure::Status(502), None, None);
                Verdict::NextUpstream
            }
        }
    }

    fn past_timeout(&mut self, attempt: &Attempt, text: Option<String>) -> Verdict {
        self.failed(attempt, Failure::Timeout, text, None);
        if self.plan.past_timeouts { Verdict::NextKey } else { Verdict::End(self.failures.exhausted()) }
    }

    fn failed(&mut self, attempt: &Attempt, failure: Failure, snippet: Option<String>, retry_after: Option<u64>) {
        let (provider, key) = (attempt.label.clone(), attempt.key.as_ref().map(|key| key.id.clone()));
        if let Failure::Status(status) = failure {
            self.walk.journal.record(Fact::UpstreamRefused { provider: provider.clone(), status });
        }
        self.pending = Some(Fact::FallbackTaken {
            provider: provider.clone(),
            from_key: key.clone().unwrap_or_else(|| KeyEntryId::new("none")),
            reason: failure.to_string(),
            snippet: snippet.clone(),
        });
        self.failures.attempts.push(Failed { provider, key, failure, snippet, retry_after });
    }

    fn remaining(&self) -> Duration {
        let spent = self.walk.clock.elapsed().saturating_sub(self.started);
        self.plan.chain.saturating_sub(spent)
    }
}
