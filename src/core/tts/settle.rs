//! What is billed for speech that reached routing, and the one row it leaves (contract `audio.md` §2.3, §6.3, §6.4,
//! §7.3).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::gate::Admission;
use super::walk::Routed;
use crate::core::error::Error;
use crate::core::ledger::{Ledger, pauses};
use crate::core::llm::metered::DeliveryEnd;
use crate::core::llm::settle::status_of;
use crate::core::model::fact::{Fact, StreamEnd};
use crate::core::model::ids::{EntryId, KeyEntryId, LogId};
use crate::core::model::ledger::Flux;
use crate::core::model::meter::{MeterReading, MeteredUse};
use crate::core::model::request_log::{CLIENT_CLOSED, GenerationKind, LoggedRequest, ms_between};
use crate::core::model::tts::METER;
use crate::ports::journal::Journal;
use crate::ports::ledger::UsageMeter;
use crate::ports::runtime::{Clock, IdSource, Tasks};

/// Settles speech; nothing it has begun depends on the client staying.
#[derive(Clone)]
pub struct Settle {
    /// The cache of balances.
    pub ledger: Arc<Ledger>,
    /// Takes units.
    pub meter: Arc<dyn UsageMeter>,
    /// Runs settlements to their end.
    pub tasks: Arc<dyn Tasks>,
    /// Hears how every call ended.
    pub journal: Arc<dyn Journal>,
    /// Measures calls.
    pub clock: Arc<dyn Clock>,
    /// Ids of entries and rows.
    pub ids: Arc<dyn IdSource>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// Resolved logical model id, or the label a stream was given.
    pub model: String,
    /// One-shot or stream.
    pub kind: GenerationKind,
    /// [`Clock::elapsed`] at the start of the call.
    pub started: Duration,
    /// From the start to the first byte of audio, ms.
    pub first_byte_ms: Option<i64>,
    /// Status of the row.
    pub status: u16,
    /// Code of the row.
    pub error: Option<&'static str>,
    /// Units to be billed.
    pub units: i64,
    /// Units spoken, but not asked of the user: an upstream broke off.
    pub forgiven: i64,
    /// How a stream ended.
    pub ended: Option<StreamEnd>,
    /// Upstream label.
    pub upstream: Option<String>,
    /// The key slot.
    pub key: Option<KeyEntryId>,
    /// Attempts that failed before it.
    pub depth: Option<u16>,
}

impl Settle {
    /// Takes charge of an admitted one-shot call.
    pub fn open(&self, admission: Admission, model: String, units: i64, started: Duration) -> OpenSpeech {
        let ending = Ending {
            model,
            kind: GenerationKind::Speech,
            started,
            first_byte_ms: None,
            status: CLIENT_CLOSED,
            error: None,
            units: 0,
            forgiven: 0,
            ended: None,
            upstream: None,
            key: None,
            depth: None,
        };
        OpenSpeech { settle: self.clone(), units, call: Some((admission, ending)) }
    }

    /// Writes the row of a call that ended: at once when nothing is to be billed, else in a task, after the meter.
    pub fn end(&self, admission: Admission, ending: Ending) {
        if ending.forgiven > 0 {
            self.unbilled(&admission, &ending, whole(ending.forgiven, &admission), "upstream_interrupted");
        }
        if ending.units <= 0 {
            self.log(&admission, ending, Flux::ZERO);
            return;
        }
        let this = self.clone();
        let job = async move {
            let charged = this.collect(&admission, &ending).await;
            this.log(&admission, ending, charged);
        };
        self.tasks.spawn("tts.settle", Box::pin(job));
    }

    /// Meters the units and says what was taken; what was due and could not be taken is told and stays in the debt.
    async fn collect(&self, admission: &Admission, ending: &Ending) -> Flux {
        let used = MeteredUse {
            user: admission.user.clone(),
            meter: METER,
            request: admission.request.clone(),
            units: ending.units,
            units_per_flux: admission.tariff.units_per_flux,
            debt_lifetime: admission.tariff.debt_lifetime,
            entry: EntryId::new(self.ids.id()),
            description: "tts_request",
            metadata: metadata(&ending.model),
        };
        let mut outcome = self.meter.settle(&used).await;
        for pause in pauses() {
            if outcome.is_ok() {
                break;
            }
            self.clock.sleep(pause).await;
            outcome = self.meter.settle(&used).await;
        }
        match outcome {
            Ok(reading) => {
                self.read(admission, ending, &reading).await;
                reading.charged
            }
            Err(fault) => {
                self.journal.record(Fact::Degraded { operation: "meter.settle", cause: fault.to_string() });
                self.unbilled(admission, ending, whole(ending.units, admission), "debit_failed");
                Flux::ZERO
            }
        }
    }

    async fn read(&self, admission: &Admission, ending: &Ending, reading: &MeterReading) {
        if reading.replayed {
            return;
        }
        let model = ending.model.clone();
        self.journal.record(Fact::UnitsMetered { meter: METER, model, units: ending.units });
        if let Some(balance) = reading.balance
            && let Err(fault) = self.ledger.cache.offer(&admission.user, balance).await
        {
            self.journal.record(Fact::Degraded { operation: "balance_cache.offer", cause: fault.to_string() });
        }
        if !reading.unbilled.is_zero() {
            self.journal.record(Fact::InsufficientBalance);
            self.unbilled(admission, ending, reading.unbilled, "partial_debit_drained");
        }
        if !reading.charged.is_zero() {
            self.journal.record(Fact::Debited {
                user: admission.user.clone(),
                request: admission.request.clone(),
                requested: Flux::saturating(reading.charged.get().saturating_add(reading.unbilled.get())),
                charged: reading.charged,
                balance: reading.balance.map_or(Flux::ZERO, |balance| balance.flux),
                replayed: false,
            });
        }
    }

    fn unbilled(&self, admission: &Admission, ending: &Ending, amount: Flux, reason: &'static str) {
        self.journal.record(Fact::Unbilled {
            request: admission.request.clone(),
            user: admission.user.clone(),
            amount,
            reason,
            stage: "tts_meter",
            model: ending.model.clone(),
        });
    }

    fn log(&self, admission: &Admission, ending: Ending, charged: Flux) {
        let row = LoggedRequest {
            id: LogId::new(self.ids.id()),
            request: admission.request.clone(),
            user: admission.user.clone(),
            kind: ending.kind,
            model: ending.model,
            status: ending.status,
            duration_ms: ms_between(ending.started, self.clock.elapsed()),
            first_byte_ms: ending.first_byte_ms,
            charged,
            prompt_tokens: None,
            completion_tokens: None,
            upstream: ending.upstream,
            key: ending.key,
            fallback_depth: ending.depth,
            error: ending.error,
            stream: ending.kind == GenerationKind::SpeechStream,
            at: self.clock.now(),
        };
        self.journal.record(Fact::GenerationEnded { row, ended: ending.ended });
    }
}

/// A one-shot call on its way. However it is let go, exactly one [`Fact::GenerationEnded`] follows: dropped without a
/// word, the client left before any audio.
pub struct OpenSpeech {
    settle: Settle,
    /// What the whole text costs.
    units: i64,
    call: Option<(Admission, Ending)>,
}

impl OpenSpeech {
    /// An upstream speaks: the first byte of audio is in hand. Says how long that took since the start of the call.
    pub fn answered(&mut self, routed: &Routed) -> Duration {
        let now = self.settle.clock.elapsed();
        let Some((_, ending)) = &mut self.call else { return Duration::ZERO };
        ending.first_byte_ms = Some(ms_between(ending.started, now));
        ending.upstream = Some(routed.provider.clone());
        ending.key.clone_from(&routed.key);
        ending.depth = Some(routed.depth);
        now.saturating_sub(ending.started)
    }

    /// The call is answered with `error`; nothing is owed.
    pub fn refuse(mut self, error: &Error) {
        let Some((admission, ending)) = self.call.take() else { return };
        let ending = Ending { status: status_of(error), error: Some(error.code.wire()), ..ending };
        self.settle.end(admission, ending);
    }

    /// The delivery ended after `bytes` of audio. What a provider made and the client heard, if only in part, is owed;
    /// what the provider broke off is not.
    pub fn delivered(mut self, end: DeliveryEnd, bytes: u64) {
        let Some((admission, ending)) = self.call.take() else { return };
        let spoken = if bytes > 0 { self.units } else { 0 };
        let ending = match end {
            DeliveryEnd::Finished | DeliveryEnd::Exhausted => Ending { status: 200, units: spoken, ..ending },
            DeliveryEnd::Abandoned => Ending { status: CLIENT_CLOSED, units: spoken, ..ending },
            DeliveryEnd::Broken | DeliveryEnd::Stalled => {
                Ending { status: 502, error: Some("stream_interrupted"), forgiven: spoken, ..ending }
            }
        };
        self.settle.end(admission, ending);
    }
}

impl Drop for OpenSpeech {
    fn drop(&mut self) {
        if let Some((admission, ending)) = self.call.take() {
            self.settle.end(admission, ending);
        }
    }
}

fn metadata(model: &str) -> Map<String, Value> {
    Map::from_iter([("model".to_owned(), model.into()), ("source".to_owned(), "llm.request".into())])
}

/// Flux the units are worth, a begun one counted whole: what an operator is told was lost.
fn whole(units: i64, admission: &Admission) -> Flux {
    let per = admission.tariff.units_per_flux.max(1);
    Flux::saturating(units / per + i64::from(units % per > 0))
}
