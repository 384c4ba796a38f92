//! The metrics this server moves: names, units and buckets of contract `observability.md` §3.

use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter};

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident = $name:literal $(in $unit:literal)?;)+) => {
        /// Every counter, by what it counts.
        pub(super) struct Counters {
            $($(#[$doc])* pub(super) $field: Counter<u64>,)+
        }

        impl Counters {
            fn new(meter: &Meter) -> Self {
                Self { $($field: meter.u64_counter($name)$(.with_unit($unit))?.build(),)+ }
            }

            /// Alerts on absence and empty panels need every series to exist before its first event.
            fn touch(&self) {
                $(self.$field.add(0, &[]);)+
            }
        }

        #[cfg(test)]
        pub(super) const COUNTERS: &[&str] = &[$($name),+];
    };
}

counters! {
    user_registered = "user.registered";
    user_login = "user.login";
    insufficient_balance = "flux.insufficient_balance";
    consumed = "airi.billing.flux.consumed";
    credited = "airi.billing.flux.credited";
    unbilled = "airi.billing.flux.unbilled";
    operations = "gen_ai.client.operation.count";
    input_tokens = "gen_ai.client.token.usage.input";
    output_tokens = "gen_ai.client.token.usage.output";
    interrupted = "airi.gen_ai.stream.interrupted";
    fallback = "airi.gen_ai.gateway.fallback.count";
    upstream_errors = "airi.gen_ai.gateway.upstream.errors";
    key_exhausted = "airi.gen_ai.gateway.key.exhausted";
    same_status = "airi.gen_ai.gateway.same_status_exhaustion";
    request_exhausted = "airi.gen_ai.gateway.request.exhausted";
    config_reload = "airi.gen_ai.gateway.config.reload";
    config_stale_use = "airi.gen_ai.gateway.config.stale_use";
    config_write = "airi.gen_ai.gateway.config.write";
    decrypt_failures = "airi.gen_ai.gateway.decrypt.failures";
    subscriber_state = "airi.gen_ai.gateway.subscriber_state";
    rate_limited = "airi.rate_limit.blocked";
    read_errors = "airi.observability.read_errors";
    admin_actions = "airi.admin.actions";
    holds_refused = "airi.billing.holds.refused";
    tts_chars = "airi.billing.tts.chars";
    tts_rejections = "airi.billing.tts.preflight_rejections";
    speech_sessions = "airi.tts.stream.sessions";
    character_created = "character.created";
    character_deleted = "character.deleted";
    character_engagement = "character.engagement";
    auth_attempts = "auth.attempts";
    auth_failures = "auth.failures";
    email_send = "airi.email.send";
    email_failures = "airi.email.failures";
    checkout_created = "stripe.checkout.created";
    checkout_completed = "stripe.checkout.completed";
    payment_failed = "stripe.payment.failed";
    subscription_event = "stripe.subscription.event";
    stripe_events = "stripe.events";
    stripe_revenue = "airi.stripe.revenue" in "minor_unit";
    webhook_outcome = "airi.stripe.webhook.outcome";
    chat_messages = "chat.messages";
    ws_sent = "ws.messages.sent";
    ws_received = "ws.messages.received";
}

const HTTP_SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const OPERATION_SECONDS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0];
const FIRST_TOKEN_SECONDS: [f64; 12] = [0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 30.0];
/// Up to the longest stream the default limits allow.
const STREAM_SECONDS: [f64; 12] = [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0];

/// Every instrument.
pub(super) struct Instruments {
    pub(super) counters: Counters,
    /// What the last walk through the books found.
    pub(super) ledger_drift: Gauge<u64>,
    /// End of every request but those for health.
    pub(super) http_duration: Histogram<f64>,
    /// Letters handed over.
    pub(super) email_duration: Histogram<f64>,
    /// Requests under way.
    pub(super) http_active: UpDownCounter<i64>,
    /// Open chat sockets of people who are known.
    pub(super) sockets: UpDownCounter<i64>,
    /// Until the first byte of the answer.
    pub(super) operation_duration: Histogram<f64>,
    /// Until the first byte of a streamed answer.
    pub(super) first_token: Histogram<f64>,
    /// Whole streams, by how they ended.
    pub(super) stream_duration: Histogram<f64>,
    /// Speech sockets open now.
    pub(super) speech_active: UpDownCounter<i64>,
    /// From the first text of a speech socket to its first audio.
    pub(super) first_audio: Histogram<f64>,
}

impl Instruments {
    /// Registers all of them and brings every counter into being with 0.
    pub(super) fn new(meter: &Meter) -> Self {
        let counters = Counters::new(meter);
        counters.touch();
        let seconds = |name: &'static str, boundaries: &[f64]| {
            meter.f64_histogram(name).with_unit("s").with_boundaries(boundaries.to_vec()).build()
        };
        Self {
            counters,
            ledger_drift: meter.u64_gauge("airi.billing.ledger_drift").build(),
            http_duration: seconds("http.server.request.duration", &HTTP_SECONDS),
            email_duration: seconds("airi.email.duration", &HTTP_SECONDS),
            http_active: meter.i64_up_down_counter("http.server.active_requests").build(),
            sockets: {
                let sockets = meter.i64_up_down_counter("ws.connections.active").build();
                sockets.add(0, &[]);
                sockets
            },
            operation_duration: seconds("gen_ai.client.operation.duration", &OPERATION_SECONDS),
            first_token: seconds("gen_ai.client.first_token.duration", &FIRST_TOKEN_SECONDS),
            stream_duration: seconds("airi.gen_ai.stream.duration", &STREAM_SECONDS),
            speech_active: meter.i64_up_down_counter("airi.tts.stream.sessions.active").build(),
            first_audio: seconds("airi.tts.stream.first_audio.duration", &FIRST_TOKEN_SECONDS),
        }
    }
}
