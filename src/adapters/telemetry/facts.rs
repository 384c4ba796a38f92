//! Facts become metrics (contract `observability.md` §3) and log lines (§5).
//!
//! Lines and labels hold ids of ours, fixed words, counts and model names: never contents, keys, tokens or addresses.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;

use super::instruments::Instruments;
use crate::core::model::fact::{Fact, InterruptionStage, StreamEnd};
use crate::core::model::ids::KeyEntryId;
use crate::core::model::request_log::{GenerationKind, LoggedRequest};
use crate::ports::journal::Journal;

/// The sink behind dashboards and logs.
pub struct MetricsJournal {
    pub(super) instruments: Arc<Instruments>,
    pub(super) labels: ProcessLabels,
}

/// What labels tell about the process itself.
#[derive(Clone, Debug)]
pub(super) struct ProcessLabels {
    pub(super) service_name: String,
    pub(super) service_version: &'static str,
    pub(super) instance: String,
}

impl Journal for MetricsJournal {
    fn record(&self, fact: Fact) {
        self.count(&fact);
        write(&fact);
    }
}

impl MetricsJournal {
    fn count(&self, fact: &Fact) {
        let counters = &self.instruments.counters;
        match fact {
            Fact::GenerationEnded { row, ended } => self.generation_ended(row, *ended),
            Fact::FirstByte { model, after_ms } => self
                .instruments
                .first_token
                .record(seconds(*after_ms), &[model_label(model), text("gen_ai.operation.name", "chat")]),
            Fact::StreamInterrupted { model, stage } => {
                one(&counters.interrupted, &[model_label(model), text("stage", stage.as_str())]);
            }
            Fact::UpstreamRefused { provider, status } => {
                one(&counters.upstream_errors, &[text("provider", provider), number("status_code", *status)]);
            }
            Fact::FallbackTaken { provider, from_key, reason, .. } => one(
                &counters.fallback,
                &[text("provider", provider), text("from_key", from_key.as_str()), text("reason", reason)],
            ),
            Fact::KeysExhausted { provider } => one(&counters.key_exhausted, &[text("provider", provider)]),
            Fact::SameStatusExhaustion { provider, status } => {
                one(&counters.same_status, &[text("provider", provider), number("status_code", *status)]);
            }
            Fact::RequestExhausted { surface } => one(&counters.request_exhausted, &[text("surface", surface)]),
            Fact::KeyUnreadable { provider, key } => {
                one(&counters.decrypt_failures, &[text("provider", provider), text("key_entry_id", key.as_str())]);
            }
            Fact::Credited { amount, kind, source, .. } => counters
                .credited
                .add(amount.get().unsigned_abs(), &[text("source", source), text("type", kind.as_str())]),
            Fact::InsufficientBalance => one(&counters.insufficient_balance, &[]),
            Fact::HoldRefused { .. } => one(&counters.holds_refused, &[text("kind", "chat")]),
            Fact::LedgerVerified { drifts, .. } => self.instruments.ledger_drift.record(*drifts, &[]),
            Fact::Unbilled { amount, reason, stage, model, .. } => {
                counters.unbilled.add(amount.get().unsigned_abs(), &unbilled_labels(reason, stage, model));
            }
            Fact::RateLimited { route, key_type, limit } => one(
                &counters.rate_limited,
                &[text("route", route), text("key_type", key_type), text("limit", &limit.to_string())],
            ),
            Fact::ConfigReloaded { source } => {
                one(&counters.config_reload, &[text("source", source), self.instance()]);
            }
            Fact::ConfigStaleUse => one(&counters.config_stale_use, &[]),
            Fact::SubscriberState { state } => {
                one(&counters.subscriber_state, &[text("state", state), self.instance()]);
            }
            Fact::ConfigWritten { result } => one(&counters.config_write, &[text("result", result)]),
            Fact::AdminAction { action, outcome, .. } => {
                one(&counters.admin_actions, &[text("action", action), text("outcome", outcome)]);
            }
            Fact::UserRegistered { .. } => one(&counters.user_registered, &[]),
            Fact::SessionOpened { .. } => one(&counters.user_login, &[]),
            Fact::CharacterCreated => one(&counters.character_created, &[]),
            Fact::CharacterDeleted => one(&counters.character_deleted, &[]),
            Fact::CharacterEngaged { action } => one(&counters.character_engagement, &[text("action", action)]),
            Fact::AuthAttempted { method } => one(&counters.auth_attempts, &[text("auth.method", method)]),
            Fact::AuthFailed { method } => one(&counters.auth_failures, &[text("auth.method", method)]),
            Fact::LetterSent { template, failed, duration_ms } => {
                self.letter_sent(template, failed.as_deref(), *duration_ms);
            }
            Fact::CheckoutOpened { .. } => one(&counters.checkout_created, &[]),
            Fact::CheckoutPaid => one(&counters.checkout_completed, &[]),
            Fact::PaymentFailed => one(&counters.payment_failed, &[]),
            Fact::SubscriptionChanged { change } => {
                one(&counters.subscription_event, &[text("event_type", change)]);
            }
            Fact::PaymentEventReceived { kind, .. } => one(&counters.stripe_events, &[text("event_type", kind)]),
            Fact::PaymentEventEnded { kind, outcome, .. } => {
                one(&counters.webhook_outcome, &[text("event_type", kind), text("outcome", outcome)]);
            }
            Fact::Revenue { currency, amount, source } => counters
                .stripe_revenue
                .add(amount.unsigned_abs(), &[text("currency", currency), text("source", source)]),
            Fact::ClawedBack { unbilled, .. } => {
                if !unbilled.is_zero() {
                    counters.unbilled.add(unbilled.get().unsigned_abs(), &[text("reason", "refund_drained")]);
                }
            }
            Fact::HttpStarted { method } => self.instruments.http_active.add(1, &self.http_labels(method)),
            Fact::HttpEnded { method, route, status, duration_ms } => {
                let mut labels = self.http_labels(method).to_vec();
                self.instruments.http_active.add(-1, &labels);
                if !matches!(route.as_str(), "/livez" | "/readyz") {
                    labels.push(text("http.route", route));
                    labels.push(number("http.response.status_code", *status));
                    self.instruments.http_duration.record(duration_ms / 1_000.0, &labels);
                }
            }
            Fact::UnitsMetered { meter, model, units } => {
                counters.tts_chars.add(units.unsigned_abs(), &[text("meter", meter), text("model", model)]);
            }
            Fact::PreflightRejected { meter } => {
                one(&counters.tts_rejections, &[text("meter", meter), text("reason", "insufficient_balance")]);
            }
            Fact::SpeechSessionOpened => self.instruments.speech_active.add(1, &[]),
            Fact::SpeechSessionEnded { outcome } => {
                self.instruments.speech_active.add(-1, &[]);
                one(&counters.speech_sessions, &[text("outcome", outcome)]);
            }
            Fact::SpeechSessionRejected => one(&counters.speech_sessions, &[text("outcome", "rejected")]),
            Fact::FirstAudio { model, after_ms } => {
                self.instruments.first_audio.record(seconds(*after_ms), &[model_label(model)]);
            }
            Fact::ChatPushed { messages } => {
                counters.chat_messages.add(*messages as u64, &[]);
                counters.ws_received.add(*messages as u64, &[]);
            }
            Fact::ChatTold { messages } => counters.ws_sent.add(*messages as u64, &[]),
            Fact::SocketOpened => self.instruments.sockets.add(1, &[]),
            Fact::SocketClosed => self.instruments.sockets.add(-1, &[]),
            Fact::GenerationRequested { .. }
            | Fact::SpeechRequested { .. }
            | Fact::UpstreamMisconfigured { .. }
            | Fact::Debited { .. }
            | Fact::Degraded { .. }
            | Fact::ConfigInvalid { .. }
            | Fact::AccountErased { .. }
            | Fact::ErasureFailed { .. }
            | Fact::PaymentOrphan { .. }
            | Fact::PaymentAlert { .. }
            | Fact::PublishFailed { .. } => {}
        }
    }

    fn letter_sent(&self, template: &'static str, failed: Option<&str>, duration_ms: f64) {
        let counters = &self.instruments.counters;
        one(&counters.email_send, &[text("template", template)]);
        if let Some(name) = failed {
            one(&counters.email_failures, &[text("template", template), text("error_name", name)]);
        }
        let outcome = if failed.is_some() { "error" } else { "ok" };
        let labels = [text("template", template), text("outcome", outcome)];
        self.instruments.email_duration.record(duration_ms / 1_000.0, &labels);
    }

    fn generation_ended(&self, row: &LoggedRequest, ended: Option<StreamEnd>) {
        let counters = &self.instruments.counters;
        let kind = match row.kind {
            GenerationKind::Chat => text("gen_ai.operation.name", row.kind.as_str()),
            GenerationKind::Speech | GenerationKind::SpeechStream => {
                text("airi.gen_ai.operation.kind", row.kind.as_str())
            }
        };
        // A model nobody configured is the caller's own text: as a label it would let anybody make series without end.
        let model = if row.error == Some("BAD_REQUEST") { "unknown" } else { row.model.as_str() };
        let labels = [model_label(model), kind, number("http.response.status_code", row.status)];
        one(&counters.operations, &labels);
        self.instruments.operation_duration.record(seconds(row.first_byte_ms.unwrap_or(row.duration_ms)), &labels);
        counters.consumed.add(row.charged.get().unsigned_abs(), &labels);
        if let Some(tokens) = row.prompt_tokens {
            counters.input_tokens.add(tokens.unsigned_abs(), &labels);
        }
        if let Some(tokens) = row.completion_tokens {
            counters.output_tokens.add(tokens.unsigned_abs(), &labels);
        }
        if let Some(end) = ended {
            let labels = [model_label(model), text("outcome", end.as_str())];
            self.instruments.stream_duration.record(seconds(row.duration_ms), &labels);
        }
    }

    fn http_labels(&self, method: &'static str) -> [KeyValue; 3] {
        [
            text("http.request.method", method),
            text("service.name", &self.labels.service_name),
            text("service.version", self.labels.service_version),
        ]
    }

    fn instance(&self) -> KeyValue {
        text("service_instance_id", &self.labels.instance)
    }
}

/// The label sets of the contract differ by reason: what was interrupted upstream has no stage, and speech is told by
/// its meter.
fn unbilled_labels(reason: &'static str, stage: &'static str, model: &str) -> Vec<KeyValue> {
    let mut labels = vec![text("reason", reason), model_label(model)];
    match (reason, stage) {
        ("upstream_interrupted", _) => {}
        (_, "tts_meter") => labels.extend([text("source", "tts_meter"), text("meter", "tts")]),
        _ => labels.push(text("stage", stage)),
    }
    labels
}

fn one(counter: &Counter<u64>, labels: &[KeyValue]) {
    counter.add(1, labels);
}

fn text(name: &'static str, value: &str) -> KeyValue {
    KeyValue::new(name, value.to_owned())
}

fn number(name: &'static str, value: u16) -> KeyValue {
    KeyValue::new(name, i64::from(value))
}

fn model_label(model: &str) -> KeyValue {
    text("gen_ai.request.model", model)
}

#[expect(clippy::cast_precision_loss, reason = "a duration that loses precision took longer than the universe")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

/// The line of a fact; facts that only count have none.
fn write(fact: &Fact) {
    match fact {
        Fact::GenerationRequested { request, user, model, stream, messages } => tracing::info!(
            requestId = %request, userId = %user, model, stream, messages, "chat completion request"
        ),
        Fact::SpeechRequested { request, user, model, units, voice } => tracing::info!(
            requestId = %request, userId = %user, model, inputChars = units, voice, "tts speech request"
        ),
        Fact::UpstreamMisconfigured { provider, what } => {
            tracing::error!(provider, what, "upstream passed over, its configuration is incomplete");
        }
        Fact::GenerationEnded { row, ended } => write_generation(row, *ended),
        Fact::StreamInterrupted { model, stage } => {
            let delivered = *stage == InterruptionStage::MidStream;
            tracing::warn!(model, delivered, "stream interrupted");
        }
        Fact::FallbackTaken { provider, from_key, reason, snippet } => tracing::warn!(
            provider, keyEntryId = %from_key, reason, snippet, "upstream attempt failed, trying the next"
        ),
        Fact::KeysExhausted { provider } => tracing::warn!(provider, "every key of the upstream failed"),
        Fact::SameStatusExhaustion { provider, status } => {
            tracing::warn!(provider, status, "every attempt failed with the same status");
        }
        Fact::RequestExhausted { surface } => tracing::error!(surface, "no upstream answered"),
        Fact::KeyUnreadable { provider, key } => {
            tracing::error!(provider, keyEntryId = %key, "stored key cannot be opened");
        }
        Fact::Debited { user, request, requested, charged, balance, replayed } => tracing::info!(
            userId = %user,
            requestId = %request,
            amount = requested.get(),
            charged = charged.get(),
            balance = balance.get(),
            replayed,
            "Debited flux"
        ),
        Fact::Credited { user, amount, kind, source, balance } => tracing::info!(
            userId = %user,
            amount = amount.get(),
            kind = kind.as_str(),
            source,
            balance = balance.get(),
            "Credited flux"
        ),
        Fact::HoldRefused { user, asked } => {
            tracing::debug!(userId = %user, asked = asked.get(), "the balance does not afford a hold");
        }
        Fact::LedgerVerified { entries, drifts: 0 } => tracing::info!(entries, "the books add up"),
        Fact::LedgerVerified { entries, drifts } => tracing::error!(entries, drifts, "the books do not add up"),
        Fact::Unbilled { request, user, amount, reason: reason @ "partial_debit_drained", stage, model } => {
            tracing::warn!(
                requestId = %request, userId = %user, amount = amount.get(), reason, stage, model, "flux was not collected"
            );
        }
        Fact::Unbilled { request, user, amount, reason, stage, model } => tracing::error!(
            requestId = %request, userId = %user, amount = amount.get(), reason, stage, model, "flux was not collected"
        ),
        Fact::RateLimited { route, key_type, limit } => tracing::debug!(route, key_type, limit, "rate limited"),
        Fact::Degraded { operation, cause } => tracing::warn!(operation, cause, "going on without a dependency"),
        Fact::ConfigReloaded { source } => tracing::debug!(source, "configuration dropped"),
        Fact::ConfigStaleUse => tracing::warn!("using expired configuration, the store cannot be reached"),
        Fact::ConfigInvalid { name, why } => tracing::error!(name, why, "stored configuration is unusable"),
        Fact::SubscriberState { state: state @ "connected" } => tracing::info!(state, "subscriber state"),
        Fact::SubscriberState { state } => tracing::warn!(state, "subscriber state"),
        Fact::ConfigWritten { result } => tracing::info!(result, "configuration written"),
        Fact::AdminAction { action, actor, outcome } => {
            tracing::info!(action, actorId = %actor, outcome, "admin action");
        }
        Fact::UserRegistered { user } => tracing::info!(userId = %user, "user registered"),
        Fact::SessionOpened { user } => tracing::info!(userId = %user, "session opened"),
        Fact::LetterSent { template, failed: Some(name), .. } => {
            tracing::warn!(template, error = name, "a letter could not be sent");
        }
        Fact::AccountErased { user, reason, counts } => {
            tracing::info!(userId = %user, reason, counts = ?counts, "account erased");
        }
        Fact::ErasureFailed { user, step } => tracing::error!(userId = %user, step, "account could not be erased"),
        Fact::PublishFailed { event } => tracing::warn!(
            userId = %event.user_id,
            chatId = %event.payload.chat_id,
            fromSeq = event.payload.from_seq,
            toSeq = event.payload.to_seq,
            "chat event could not be published"
        ),
        Fact::CheckoutOpened { user } => tracing::info!(userId = %user, "checkout session opened"),
        Fact::PaymentEventReceived { kind, event } => tracing::info!(kind, event, "payment event received"),
        Fact::PaymentEventEnded { kind, event, outcome: outcome @ "error" } => {
            tracing::error!(kind, event, outcome, "payment event failed, it will come again");
        }
        Fact::PaymentEventEnded { kind, event, outcome } => {
            tracing::info!(kind, event, outcome, "payment event handled");
        }
        Fact::PaymentOrphan { event } => tracing::warn!(event, "payment event about nobody known"),
        Fact::PaymentAlert { what, about } => tracing::error!(about, "payment needs an operator: {what}"),
        Fact::ClawedBack { user, request, taken, unbilled } => tracing::warn!(
            userId = %user,
            requestId = %request,
            taken = taken.get(),
            unbilled = unbilled.get(),
            "flux of a returned payment was taken back"
        ),
        Fact::CheckoutPaid
        | Fact::PaymentFailed
        | Fact::SubscriptionChanged { .. }
        | Fact::Revenue { .. }
        | Fact::FirstByte { .. }
        | Fact::UnitsMetered { .. }
        | Fact::PreflightRejected { .. }
        | Fact::SpeechSessionOpened
        | Fact::SpeechSessionEnded { .. }
        | Fact::SpeechSessionRejected
        | Fact::FirstAudio { .. }
        | Fact::ChatPushed { .. }
        | Fact::ChatTold { .. }
        | Fact::SocketOpened
        | Fact::SocketClosed
        | Fact::UpstreamRefused { .. }
        | Fact::InsufficientBalance
        | Fact::CharacterCreated
        | Fact::CharacterDeleted
        | Fact::CharacterEngaged { .. }
        | Fact::AuthAttempted { .. }
        | Fact::AuthFailed { .. }
        | Fact::LetterSent { .. }
        | Fact::HttpStarted { .. }
        | Fact::HttpEnded { .. } => {}
    }
}

fn write_generation(row: &LoggedRequest, ended: Option<StreamEnd>) {
    let what = match (row.kind, row.status < 400) {
        (GenerationKind::Chat, true) => "chat completion delivered",
        (GenerationKind::Chat, false) => "chat completion failed",
        (_, true) => "tts speech delivered",
        (_, false) => "tts speech failed",
    };
    tracing::info!(
        requestId = %row.request,
        userId = %row.user,
        model = row.model,
        status = row.status,
        durationMs = row.duration_ms,
        promptTokens = row.prompt_tokens,
        completionTokens = row.completion_tokens,
        fluxConsumed = row.charged.get(),
        stream = row.stream,
        ended = ended.map(StreamEnd::as_str),
        upstream = row.upstream,
        keyEntryId = row.key.as_ref().map(KeyEntryId::as_str),
        fallbackDepth = row.fallback_depth,
        error = row.error,
        "{what}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::telemetry::{Telemetry, TelemetrySettings};

    #[test]
    fn what_happens_to_characters_is_counted() {
        let telemetry = Telemetry::new(&TelemetrySettings::default()).unwrap();
        let engaged = Fact::CharacterEngaged { action: "unlike" };
        for fact in [Fact::CharacterCreated, Fact::CharacterDeleted, engaged.clone(), engaged] {
            telemetry.journal().record(fact);
        }
        let text = telemetry.render_prometheus();
        for series in [
            "character_created_total 1",
            "character_deleted_total 1",
            r#"character_engagement_total{action="unlike"} 2"#,
        ] {
            assert!(text.contains(series), "{series} in {text}");
        }
    }
}
