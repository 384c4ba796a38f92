//! Who pays what for a call that reached routing, and the one row it leaves (contract `gateway.md` §6.3d, §7, §13).

use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use serde_json::{Map, Value};

use super::metered::{Delivery, DeliveryEnd};
use super::reservation::Reservation;
use super::usage::TokenCounts;
use super::walk::Routed;
use crate::core::error::{Error, Kind};
use crate::core::ledger::{Ledger, pauses};
use crate::core::model::fact::{Fact, InterruptionStage, StreamEnd};
use crate::core::model::ids::{EntryId, KeyEntryId, LogId, RequestId, UserId};
use crate::core::model::ledger::{Debit, DebitOutcome, Flux};
use crate::core::model::llm::{Tariff, Usage};
use crate::core::model::request_log::{CLIENT_CLOSED, GenerationKind, LoggedRequest, ms_between};
use crate::ports::journal::Journal;
use crate::ports::runtime::{Clock, IdSource, Tasks};

/// Settles calls; nothing it has begun depends on the client staying.
#[derive(Clone)]
pub struct Settle {
    /// Charges.
    pub ledger: Arc<Ledger>,
    /// Runs settlements to their end.
    pub tasks: Arc<dyn Tasks>,
    /// Hears how every call ended.
    pub journal: Arc<dyn Journal>,
    /// Measures calls.
    pub clock: Arc<dyn Clock>,
    /// Ids of entries and rows.
    pub ids: Arc<dyn IdSource>,
}

/// Proof that a call passed the gate, with the prices of that moment. [`Settle::open`] consumes it; what a gate sets
/// aside for the call is to be given back by whoever holds this at its end.
#[derive(Debug)]
pub struct Admission {
    /// Who pays.
    pub user: UserId,
    /// For what.
    pub request: RequestId,
    /// At which prices.
    pub tariff: Tariff,
    /// What was set aside for it; nothing when calls are charged afterwards only.
    pub reservation: Option<Reservation>,
}

/// What is known about a call before it is routed.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Resolved logical model id.
    pub model: String,
    /// Whether the caller asked for a stream.
    pub stream: bool,
    /// Tokens of the prompt, as estimated.
    pub prompt_tokens: u64,
    /// [`Clock::elapsed`] at the start of the call.
    pub started: Duration,
    /// [`Clock::elapsed`] just before routing.
    pub routing: Duration,
}

/// A call on its way. However it is let go, exactly one [`Fact::GenerationEnded`] follows: dropped without a word, the
/// client left.
pub struct OpenCall {
    settle: Settle,
    call: Option<Call>,
}

struct Call {
    admission: Admission,
    generation: Generation,
    source: Option<Source>,
    first_byte_ms: Option<i64>,
}

/// Who answered.
struct Source {
    status: u16,
    provider: String,
    key: Option<KeyEntryId>,
    depth: u16,
}

/// What is owed for a call, and how its row ends.
struct Verdict {
    owed: Flux,
    /// Owed by rights, but not asked of the user.
    forgiven: Flux,
    status: u16,
    error: Option<&'static str>,
    ended: Option<StreamEnd>,
    counts: TokenCounts,
    /// The basis of a price nobody reported.
    estimate: Option<Usage>,
    by_client: bool,
}

impl Settle {
    /// Takes charge of an admitted call.
    pub fn open(&self, admission: Admission, generation: Generation) -> OpenCall {
        let call = Call { admission, generation, source: None, first_byte_ms: None };
        OpenCall { settle: self.clone(), call: Some(call) }
    }

    /// Settles at once when nothing is to be charged, else in a task; the receiver hears what was charged when it is
    /// done. It hears nothing when the first try fails: whoever waits for the answer's end must not wait for a database
    /// that is away.
    fn settle(self, mut call: Call, verdict: Verdict) -> oneshot::Receiver<Flux> {
        let (done, settled) = oneshot::channel();
        if !verdict.forgiven.is_zero() {
            self.unbilled(&call, verdict.forgiven, "upstream_interrupted");
        }
        if verdict.owed.is_zero() {
            self.log(&call, &verdict, Flux::ZERO);
            let _gone = done.send(Flux::ZERO);
            return settled;
        }
        let tasks = Arc::clone(&self.tasks);
        let job = async move {
            let mut done = Some(done);
            let charged = self.collect(&mut call, &verdict, &mut done).await;
            self.log(&call, &verdict, charged);
            if let Some(done) = done {
                // Nobody listens when the client left in between.
                let _gone = done.send(charged);
            }
        };
        tasks.spawn("llm.settle", Box::pin(job));
        settled
    }

    /// Charges what is owed and says what was taken; what was not is told. The first failure lets go of `done`.
    async fn collect(&self, call: &mut Call, verdict: &Verdict, done: &mut Option<oneshot::Sender<Flux>>) -> Flux {
        let debit = Debit {
            entry: EntryId::new(self.ids.id()),
            user: call.admission.user.clone(),
            request: call.admission.request.clone(),
            amount: verdict.owed,
            description: "llm_request",
            metadata: metadata(&call.generation.model, verdict),
        };
        let mut outcome = self.charge(&mut call.admission, &debit).await;
        for pause in pauses() {
            if outcome.is_ok() {
                break;
            }
            *done = None;
            self.clock.sleep(pause).await;
            outcome = self.charge(&mut call.admission, &debit).await;
        }
        match outcome {
            Ok(DebitOutcome::Charged { charged, .. } | DebitOutcome::Replayed { charged, .. }) => {
                let missing = verdict.owed.saturating_sub(charged);
                if !missing.is_zero() {
                    self.unbilled(call, missing, "partial_debit_drained");
                }
                charged
            }
            Ok(DebitOutcome::Refused) | Err(_) => {
                self.unbilled(call, verdict.owed, "debit_failed");
                Flux::ZERO
            }
        }
    }

    async fn charge(&self, admission: &mut Admission, debit: &Debit) -> Result<DebitOutcome, Error> {
        match &mut admission.reservation {
            Some(reservation) => reservation.capture(debit).await,
            None => self.ledger.charge(debit).await,
        }
    }

    fn unbilled(&self, call: &Call, amount: Flux, reason: &'static str) {
        self.journal.record(Fact::Unbilled {
            request: call.admission.request.clone(),
            user: call.admission.user.clone(),
            amount,
            reason,
            stage: if call.generation.stream { "streaming" } else { "non_streaming" },
            model: call.generation.model.clone(),
        });
    }

    fn log(&self, call: &Call, verdict: &Verdict, charged: Flux) {
        let source = call.source.as_ref();
        let row = LoggedRequest {
            id: LogId::new(self.ids.id()),
            request: call.admission.request.clone(),
            user: call.admission.user.clone(),
            kind: GenerationKind::Chat,
            model: call.generation.model.clone(),
            status: verdict.status,
            duration_ms: ms_between(call.generation.started, self.clock.elapsed()),
            first_byte_ms: call.first_byte_ms,
            charged,
            prompt_tokens: reported(verdict.counts.prompt),
            completion_tokens: reported(verdict.counts.completion),
            upstream: source.map(|source| source.provider.clone()),
            key: source.and_then(|source| source.key.clone()),
            fallback_depth: source.map(|source| source.depth),
            error: verdict.error,
            stream: call.generation.stream,
            at: self.clock.now(),
        };
        self.journal.record(Fact::GenerationEnded { row, ended: verdict.ended });
    }
}

impl OpenCall {
    /// An upstream answered: the first byte of its body is in hand.
    pub fn answered(&mut self, routed: &Routed) {
        let Some(call) = &mut self.call else { return };
        let now = self.settle.clock.elapsed();
        call.first_byte_ms = Some(ms_between(call.generation.started, now));
        call.source = Some(Source {
            status: routed.answer.status,
            provider: routed.provider.clone(),
            key: routed.key.clone(),
            depth: routed.depth,
        });
        if call.generation.stream {
            let after_ms = ms_between(call.generation.routing, now);
            self.settle.journal.record(Fact::FirstByte { model: call.generation.model.clone(), after_ms });
        }
    }

    /// Whether something is set aside for it.
    pub fn holds(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.admission.reservation.is_some())
    }

    /// The call is answered with `error`; nothing is owed.
    pub fn refuse(mut self, error: &Error) {
        let Some(call) = self.call.take() else { return };
        let verdict = Verdict { error: Some(error.code.wire()), ..Verdict::nothing(status_of(error)) };
        self.settle.log(&call, &verdict, Flux::ZERO);
    }

    /// A whole answer is in hand, with `written` tokens as far as counted. It is charged although the caller may leave
    /// meanwhile, and before it is handed out. Answers what was charged, unless that takes more than one try.
    pub async fn deliver_whole(mut self, counts: TokenCounts, written: u64) -> Option<Flux> {
        let call = self.call.take()?;
        let status = call.source.as_ref().map_or(200, |source| source.status);
        let verdict = Verdict { ended: None, ..finished(&call, counts, written, status) };
        self.settle.clone().settle(call, verdict).await.ok()
    }

    /// A stream ended; the receiver hears what was charged.
    pub fn deliver_stream(mut self, delivery: Delivery) -> oneshot::Receiver<Flux> {
        // Nobody answers when the call was let go before, which its owner cannot do.
        let Some(call) = self.call.take() else { return oneshot::channel().1 };
        let verdict = judge(&call, delivery);
        if verdict.ended != Some(StreamEnd::Done) {
            let stage =
                if delivery.bytes == 0 { InterruptionStage::BeforeFirstChunk } else { InterruptionStage::MidStream };
            self.settle.journal.record(Fact::StreamInterrupted { model: call.generation.model.clone(), stage });
        }
        self.settle.clone().settle(call, verdict)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else { return };
        let ended = call.generation.stream.then_some(StreamEnd::ClientClosed);
        self.settle.log(&call, &Verdict { ended, ..Verdict::nothing(CLIENT_CLOSED) }, Flux::ZERO);
    }
}

impl Verdict {
    fn nothing(status: u16) -> Self {
        Self {
            owed: Flux::ZERO,
            forgiven: Flux::ZERO,
            status,
            error: None,
            ended: None,
            counts: TokenCounts::default(),
            estimate: None,
            by_client: false,
        }
    }
}

/// An answer that was delivered as a whole. Where nothing was set aside, the reference's rule prices an answer without
/// usage; where something was, its tokens are counted.
fn finished(call: &Call, counts: TokenCounts, written: u64, status: u16) -> Verdict {
    let estimate = Usage { prompt: call.generation.prompt_tokens, completion: written };
    let guessed = counts.complete().is_none() && call.admission.reservation.is_some();
    let usage = if guessed { Some(estimate) } else { counts.complete() };
    Verdict {
        owed: call.admission.tariff.price(usage),
        counts,
        estimate: guessed.then_some(estimate),
        ended: Some(StreamEnd::Done),
        ..Verdict::nothing(status)
    }
}

/// The table of contract `gateway.md` §6.3d.
fn judge(call: &Call, delivery: Delivery) -> Verdict {
    let tariff = call.admission.tariff;
    let counts = delivery.counts;
    let begun = delivery.bytes > 0;
    let estimate = Usage { prompt: call.generation.prompt_tokens, completion: delivery.text_tokens };
    let guessed = counts.complete().is_none();
    let worth = if begun { tariff.price(Some(counts.complete().unwrap_or(estimate))) } else { Flux::ZERO };
    let status = call.source.as_ref().map_or(200, |source| source.status);
    match delivery.end {
        DeliveryEnd::Finished => finished(call, counts, delivery.text_tokens, status),
        DeliveryEnd::Exhausted => {
            // The upstream was cut off: what it reported until then may lie behind what it had said.
            let completion = counts.completion.map(|reported| reported.max(delivery.text_tokens));
            finished(call, TokenCounts { completion, ..counts }, delivery.text_tokens, status)
        }
        DeliveryEnd::Abandoned => Verdict {
            owed: worth,
            counts,
            estimate: guessed.then_some(estimate),
            by_client: true,
            ended: Some(StreamEnd::ClientClosed),
            ..Verdict::nothing(CLIENT_CLOSED)
        },
        DeliveryEnd::Broken | DeliveryEnd::Stalled => {
            let stalled = delivery.end == DeliveryEnd::Stalled;
            let ended = if stalled { StreamEnd::IdleTimeout } else { StreamEnd::UpstreamError };
            Verdict {
                forgiven: worth,
                counts,
                error: Some("stream_interrupted"),
                ended: Some(ended),
                ..Verdict::nothing(502)
            }
        }
    }
}

fn metadata(model: &str, verdict: &Verdict) -> Map<String, Value> {
    let estimate = verdict.estimate;
    let prompt = estimate.map(|usage| usage.prompt).or(verdict.counts.prompt);
    let completion = estimate.map(|usage| usage.completion).or(verdict.counts.completion);
    let mut metadata = Map::new();
    metadata.insert("model".into(), model.into());
    if let Some(tokens) = prompt {
        metadata.insert("promptTokens".into(), tokens.into());
    }
    if let Some(tokens) = completion {
        metadata.insert("completionTokens".into(), tokens.into());
    }
    metadata.insert("source".into(), "llm.request".into());
    if estimate.is_some() {
        metadata.insert("estimated".into(), true.into());
    }
    if verdict.by_client {
        metadata.insert("interrupted".into(), "client".into());
    }
    metadata
}

/// The status the doors answer for a refusal, as a row tells it.
pub fn status_of(error: &Error) -> u16 {
    let kind = error.code.kind();
    error.upstream_status.filter(|_| kind == Kind::Rejected).unwrap_or(kind.status())
}

fn reported(tokens: Option<u64>) -> Option<i64> {
    tokens.map(|tokens| i64::try_from(tokens).unwrap_or(i64::MAX))
}
