use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use opentelemetry::trace::TracerProvider as _;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::core::model::chats::{ChatEvent, NewMessages};
use crate::core::model::fact::{Fact, InterruptionStage, StreamEnd};
use crate::core::model::ids::{ChatId, InstanceId, KeyEntryId, LogId, RequestId, UserId};
use crate::core::model::ledger::{EntryKind, Flux};
use crate::core::model::request_log::{GenerationKind, LoggedRequest};
use crate::ports::journal::Journal;

/// Counters of the contract that belong to areas without facts: analytics and the forged invalidation that cannot be
/// received.
const NOT_OURS: &[&str] = &["airi.analytics.failures", "airi.gen_ai.gateway.config.invalid_hmac"];

#[test]
fn every_counter_this_server_can_move_exists_with_0_after_start() {
    let telemetry = telemetry();
    let text = telemetry.render_prometheus();
    let mut moved = BTreeSet::new();
    let contract = contract();
    for metric in &contract {
        if metric["type"] != "counter" || metric["group"] == "Runtime" {
            continue;
        }
        let name = metric["name"].as_str().unwrap();
        if NOT_OURS.contains(&name) {
            continue;
        }
        assert!(instruments::COUNTERS.contains(&name), "{name} is neither moved nor named as somebody else's");
        moved.insert(name);
        let series = metric["prometheus"].as_str().unwrap();
        assert!(text.lines().any(|line| line == format!("{series} 0")), "{series} in {text}");
    }
    assert_eq!(moved, instruments::COUNTERS.iter().copied().collect(), "a counter the contract does not know");
}

#[test]
fn the_process_reports_what_it_uses() {
    let text = telemetry().render_prometheus();
    for series in ["process_cpu_time_seconds_total{cpu_mode=\"user\"}", "process_memory_usage_bytes "] {
        assert!(text.contains(series), "{series} in {text}");
    }
    assert!(text.contains("target_info{") && text.contains("service_instance_id=\"one\""), "{text}");
}

#[test]
fn a_tour_of_all_facts_moves_the_series_and_labels_of_the_contract() {
    let telemetry = telemetry();
    let journal = telemetry.journal();
    tour().into_iter().for_each(|fact| journal.record(fact));
    let text = telemetry.render_prometheus();
    for expected in [
        r#"airi_billing_flux_consumed_total{gen_ai_operation_name="chat",gen_ai_request_model="m",http_response_status_code="200"} 5"#,
        r#"airi_billing_flux_consumed_total{airi_gen_ai_operation_kind="tts",gen_ai_request_model="v",http_response_status_code="499"} 5"#,
        r#"gen_ai_client_operation_count_total{gen_ai_operation_name="chat",gen_ai_request_model="m",http_response_status_code="200"} 1"#,
        r#"gen_ai_client_token_usage_input_total{gen_ai_operation_name="chat",gen_ai_request_model="m",http_response_status_code="200"} 11"#,
        r#"gen_ai_client_token_usage_output_total{gen_ai_operation_name="chat",gen_ai_request_model="m",http_response_status_code="200"} 7"#,
        r#"gen_ai_client_first_token_duration_seconds_sum{gen_ai_operation_name="chat",gen_ai_request_model="m"} 0.25"#,
        r#"gen_ai_client_operation_duration_seconds_sum{gen_ai_operation_name="chat",gen_ai_request_model="m",http_response_status_code="200"} 0.3"#,
        r#"airi_gen_ai_stream_duration_seconds_count{gen_ai_request_model="m",outcome="done"} 1"#,
        r#"airi_gen_ai_stream_interrupted_total{gen_ai_request_model="m",stage="mid_stream"} 1"#,
        r#"airi_gen_ai_gateway_fallback_count_total{from_key="slot-1",provider="p",reason="429"} 1"#,
        r#"airi_gen_ai_gateway_upstream_errors_total{provider="p",status_code="429"} 1"#,
        r#"airi_gen_ai_gateway_config_reload_total{service_instance_id="one",source="ttl"} 1"#,
        r#"airi_gen_ai_gateway_subscriber_state_total{service_instance_id="one",state="connected"} 1"#,
        r#"airi_billing_flux_unbilled_total{gen_ai_request_model="m",reason="debit_failed",stage="streaming"} 3"#,
        r#"airi_billing_flux_unbilled_total{gen_ai_request_model="m",reason="upstream_interrupted"} 4"#,
        r#"airi_billing_flux_unbilled_total{gen_ai_request_model="m",meter="tts",reason="debit_failed",source="tts_meter"} 2"#,
        r#"airi_billing_flux_credited_total{source="admin_promo",type="promo"} 100"#,
        r#"airi_rate_limit_blocked_total{key_type="user",limit="60",route="openai.completions"} 1"#,
        r#"airi_admin_actions_total{action="flux_grants",outcome="applied"} 1"#,
        r"user_registered_total 1",
        r#"auth_attempts_total{auth_method="email"} 1"#,
        r#"auth_failures_total{auth_method="email"} 1"#,
        r#"airi_email_send_total{template="verification"} 1"#,
        r#"airi_email_failures_total{error_name="rate_limited",template="magic_link"} 1"#,
        r#"airi_email_duration_seconds_sum{outcome="ok",template="verification"} 0.25"#,
        r"stripe_checkout_created_total 1",
        r"stripe_checkout_completed_total 1",
        r"stripe_payment_failed_total 1",
        r#"stripe_subscription_event_total{event_type="deleted"} 1"#,
        r#"stripe_events_total{event_type="invoice.paid"} 1"#,
        r#"airi_stripe_webhook_outcome_total{event_type="other",outcome="error"} 1"#,
        r#"airi_stripe_revenue_minor_unit_total{currency="usd",source="checkout"} 300"#,
        r#"airi_billing_flux_unbilled_total{reason="refund_drained"} 6"#,
        "chat_messages_total 3",
        "ws_messages_received_total 3",
        "ws_messages_sent_total 2",
        "ws_connections_active 1",
        r#"http_server_active_requests{http_request_method="GET",service_name="server",service_version=""#,
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let active = text.lines().filter(|line| line.starts_with("http_server_active_requests{"));
    assert!(active.into_iter().all(|line| line.ends_with(" 1")), "three began and two ended: {text}");
    let measured = text.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count{"));
    assert_eq!(measured.count(), 1, "health is not measured: {text}");
    for told in ["user-1", "request-1", "evt_secret", "a secret line", "someone@example.com", "sk-"] {
        assert!(!text.contains(told), "{told} became a label: {text}");
    }
    labels_are_those_of_the_contract(&text);
}

fn labels_are_those_of_the_contract(text: &str) {
    let mut checked = 0;
    for metric in contract() {
        let series = metric["prometheus"].as_str().unwrap();
        let stem = series.split("_{").next().unwrap();
        let allowed: BTreeSet<String> = metric["labels"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|label| label.as_str().unwrap().split('|'))
            .map(|label| label.replace('.', "_"))
            .chain(["le".to_owned()])
            .collect();
        let suffixes = if metric["type"] == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
        for line in text.lines() {
            for suffix in suffixes {
                let Some(rest) = line.strip_prefix(&format!("{stem}{suffix}{{")) else { continue };
                for pair in rest.split_once('}').unwrap().0.split(',') {
                    let label = pair.split_once('=').unwrap().0;
                    assert!(allowed.contains(label), "{stem} must not carry {label}: {line}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 60, "{checked}");
}

#[test]
fn a_model_nobody_configured_makes_no_series_of_its_own() {
    let telemetry = telemetry();
    let journal = telemetry.journal();
    for fact in tour() {
        let Fact::GenerationEnded { row, ended } = fact else { continue };
        let row = LoggedRequest { model: "made-up".to_owned(), status: 400, error: Some("BAD_REQUEST"), ..row };
        journal.record(Fact::GenerationEnded { row, ended });
    }
    let text = telemetry.render_prometheus();
    assert!(text.contains("gen_ai_request_model=\"unknown\"") && !text.contains("made-up"), "{text}");
}

#[test]
fn seconds_have_the_buckets_of_the_contract() {
    let telemetry = telemetry();
    tour().into_iter().for_each(|fact| telemetry.journal().record(fact));
    let text = telemetry.render_prometheus();
    let mut checked = 0;
    for metric in contract() {
        let note = metric["note"].as_str().unwrap();
        let Some((_, numbers)) = note.split_once("buckets ") else { continue };
        let stem = metric["prometheus"].as_str().unwrap().split("_{").next().unwrap().to_owned();
        if stem == "airi_email_duration_seconds" {
            continue;
        }
        let expected: Vec<f64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
        let series = format!("{stem}_bucket{{");
        let mut found: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with(&series))
            .filter_map(|line| line.split_once("le=\"")?.1.split_once('"')?.0.parse().ok())
            .filter(|bound: &f64| bound.is_finite())
            .collect();
        found.sort_by(f64::total_cmp);
        found.dedup();
        assert_eq!(found, expected, "{stem}");
        checked += 1;
    }
    assert_eq!(checked, 3);
}

#[test]
fn a_gauge_that_cannot_read_its_source_reports_nothing_and_counts() {
    let telemetry = telemetry();
    telemetry.observe("user.active_sessions", &[], || Some(3));
    telemetry.observe("user.distinct_active", &[], || None);
    telemetry.render_prometheus();
    let text = telemetry.render_prometheus();
    assert!(text.contains("user_active_sessions 3"), "{text}");
    assert!(!text.contains("user_distinct_active "), "{text}");
    assert!(text.contains(r#"airi_observability_read_errors_total{metric="user.distinct_active"}"#), "{text}");
}

#[test]
fn the_lines_of_the_contract_are_written_and_tell_nothing_private() {
    let telemetry = telemetry();
    let written = captured(&telemetry, |journal| tour().into_iter().for_each(|fact| journal.record(fact)));
    let line = |message: &str| written.iter().find(|line| line["message"] == message).cloned().unwrap_or_default();
    let requested = line("chat completion request");
    for (field, value) in [
        ("level", json!("info")),
        ("requestId", json!("request-1")),
        ("userId", json!("user-1")),
        ("model", json!("m")),
        ("stream", json!(true)),
        ("messages", json!(3)),
    ] {
        assert_eq!(requested[field], value, "{field} of {requested}");
    }
    let delivered = line("chat completion delivered");
    assert_eq!((&delivered["fluxConsumed"], &delivered["durationMs"]), (&json!(5), &json!(900)), "{delivered}");
    assert_eq!(line("Debited flux")["charged"], 5);
    assert_eq!(line("Credited flux")["amount"], 100);
    assert_eq!(line("flux was not collected")["level"], "error");
    assert_eq!(line("chat event could not be published")["toSeq"], 2);
    let all = written.iter().map(Value::to_string).collect::<String>();
    for private in ["a secret line", "someone@example.com", "sk-"] {
        assert!(!all.contains(private), "{private} was logged");
    }
}

#[test]
fn a_line_within_a_span_carries_its_fields_and_the_ids_of_the_trace() {
    let telemetry = telemetry();
    let written = captured(&telemetry, |_| {
        tracing::info_span!("request", request_id = "r-1").in_scope(|| tracing::info!(n = 1, "inside"));
        tracing::info!("outside");
    });
    let inside = written.iter().find(|line| line["message"] == "inside").unwrap();
    assert_eq!((&inside["request_id"], &inside["n"]), (&json!("r-1"), &json!(1)));
    assert_eq!(inside["trace_id"].as_str().unwrap().len(), 32);
    assert_eq!(inside["span_id"].as_str().unwrap().len(), 16);
    assert!(
        inside["time"].as_str().unwrap().ends_with('Z') && inside["logger"].as_str().unwrap().contains("telemetry")
    );
    assert!(written.iter().find(|line| line["message"] == "outside").unwrap().get("trace_id").is_none());
}

#[test]
fn an_unreadable_filter_is_refused() {
    let settings = TelemetrySettings { log_level: "a=b=c".to_owned(), ..TelemetrySettings::default() };
    let telemetry = Telemetry::new(&settings).unwrap();
    let lines = lines(LogFormat::Json, false, io::sink);
    assert!(matches!(telemetry.layers(lines), Err(InvalidTelemetry::Filter)));
}

#[test]
fn an_instance_without_a_name_gets_one_of_its_own() {
    let ids = [random_uuid(), random_uuid()];
    assert_ne!(ids[0], ids[1]);
    assert!(ids.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'4'), "{ids:?}");
}

fn telemetry() -> Telemetry {
    let settings = TelemetrySettings { instance_id: Some("one".to_owned()), ..TelemetrySettings::default() };
    Telemetry::new(&settings).unwrap()
}

fn contract() -> Vec<Value> {
    let fixture: Value = serde_json::from_str(include_str!("../../../tests/fixtures/metrics.json")).unwrap();
    ["reference", "targetAdditions"].iter().flat_map(|list| fixture[list].as_array().unwrap().clone()).collect()
}

/// Runs `work` with JSON lines and local traces, and reads what was written.
fn captured(telemetry: &Telemetry, work: impl FnOnce(&MetricsJournal)) -> Vec<Value> {
    let buffer = Buffer::default();
    let traces = SdkTracerProvider::builder().build();
    let layers: Vec<LogLayer> = vec![
        tracing_opentelemetry::layer().with_tracer(traces.tracer("test")).boxed(),
        lines(LogFormat::Json, false, buffer.clone()),
    ];
    let subscriber = tracing_subscriber::registry().with(layers);
    tracing::subscriber::with_default(subscriber, || work(&telemetry.journal()));
    let bytes = buffer.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Buffer {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// At least one of every fact.
fn tour() -> Vec<Fact> {
    let (user, request) = (UserId::new("user-1"), RequestId::new("request-1"));
    let flux = |amount| Flux::new(amount).unwrap();
    let (model, provider) = ("m".to_owned(), "p".to_owned());
    let row = LoggedRequest {
        id: LogId::new("log-1"),
        request: request.clone(),
        user: user.clone(),
        kind: GenerationKind::Chat,
        model: model.clone(),
        status: 200,
        duration_ms: 900,
        first_byte_ms: Some(300),
        charged: flux(5),
        prompt_tokens: Some(11),
        completion_tokens: Some(7),
        upstream: Some(provider.clone()),
        key: Some(KeyEntryId::new("slot-1")),
        fallback_depth: Some(0),
        error: None,
        stream: true,
        at: chrono::DateTime::UNIX_EPOCH,
    };
    let speech = LoggedRequest {
        kind: GenerationKind::Speech,
        model: "v".to_owned(),
        status: 499,
        prompt_tokens: None,
        completion_tokens: None,
        ..row.clone()
    };
    let unbilled = |amount, reason, stage| Fact::Unbilled {
        request: request.clone(),
        user: user.clone(),
        amount: flux(amount),
        reason,
        stage,
        model: model.clone(),
    };
    let payload = NewMessages {
        chat_id: ChatId::new("chat-1"),
        messages: vec![json!({ "content": "a secret line" })],
        from_seq: 1,
        to_seq: 2,
    };
    let event = ChatEvent { user_id: user.clone(), payload, origin_instance_id: InstanceId::new("two") };
    let ended = |route: &str| Fact::HttpEnded { method: "GET", route: route.to_owned(), status: 200, duration_ms: 1.5 };
    vec![
        Fact::GenerationRequested {
            request: request.clone(),
            user: user.clone(),
            model: model.clone(),
            stream: true,
            messages: Some(3),
        },
        Fact::GenerationEnded { row, ended: Some(StreamEnd::Done) },
        Fact::GenerationEnded { row: speech, ended: None },
        Fact::FirstByte { model: model.clone(), after_ms: 250 },
        Fact::StreamInterrupted { model: model.clone(), stage: InterruptionStage::MidStream },
        Fact::UpstreamRefused { provider: provider.clone(), status: 429 },
        Fact::FallbackTaken {
            provider: provider.clone(),
            from_key: KeyEntryId::new("slot-1"),
            reason: "429".to_owned(),
            snippet: Some("slow down".to_owned()),
        },
        Fact::KeysExhausted { provider: provider.clone() },
        Fact::SameStatusExhaustion { provider: provider.clone(), status: 429 },
        Fact::RequestExhausted { surface: "llm" },
        Fact::KeyUnreadable { provider, key: KeyEntryId::new("slot-1") },
        Fact::Debited {
            user: user.clone(),
            request: request.clone(),
            requested: flux(5),
            charged: flux(5),
            balance: flux(95),
            replayed: false,
        },
        Fact::Credited {
            user: user.clone(),
            amount: flux(100),
            kind: EntryKind::Promo,
            source: "admin_promo",
            balance: flux(100),
        },
        Fact::InsufficientBalance,
        Fact::CheckoutOpened { user: user.clone() },
        Fact::PaymentEventReceived { kind: "invoice.paid", event: "evt_secret".to_owned() },
        Fact::PaymentEventEnded { kind: "invoice.paid", event: "evt_secret".to_owned(), outcome: "applied" },
        Fact::PaymentEventEnded { kind: "other", event: "evt_secret".to_owned(), outcome: "error" },
        Fact::CheckoutPaid,
        Fact::PaymentFailed,
        Fact::SubscriptionChanged { change: "deleted" },
        Fact::PaymentOrphan { event: "evt_secret".to_owned() },
        Fact::Revenue { currency: "usd".to_owned(), amount: 300, source: "checkout" },
        Fact::ClawedBack { user: user.clone(), request: request.clone(), taken: flux(10), unbilled: flux(6) },
        Fact::PaymentAlert { what: "checkout without a user", about: "evt_secret".to_owned() },
        unbilled(3, "debit_failed", "streaming"),
        unbilled(1, "partial_debit_drained", "non_streaming"),
        unbilled(4, "upstream_interrupted", "streaming"),
        unbilled(2, "debit_failed", "tts_meter"),
        Fact::RateLimited { route: "openai.completions", key_type: "user", limit: 60 },
        Fact::Degraded { operation: "balance_cache.find", cause: "connection refused".to_owned() },
        Fact::ConfigReloaded { source: "ttl" },
        Fact::ConfigStaleUse,
        Fact::ConfigInvalid { name: "LLM_ROUTER_CONFIG", why: "expected an object".to_owned() },
        Fact::SubscriberState { state: "connected" },
        Fact::SubscriberState { state: "error" },
        Fact::ConfigWritten { result: "success" },
        Fact::AdminAction { action: "flux_grants", actor: user.clone(), outcome: "applied" },
        Fact::UserRegistered { user: user.clone() },
        Fact::SessionOpened { user: user.clone() },
        Fact::AuthAttempted { method: "email" },
        Fact::AuthFailed { method: "email" },
        Fact::LetterSent { template: "verification", failed: None, duration_ms: 250.0 },
        Fact::LetterSent { template: "magic_link", failed: Some("rate_limited".to_owned()), duration_ms: 1.0 },
        Fact::AccountErased { user: user.clone(), reason: "user-requested", counts: vec![("sessions", 2)] },
        Fact::ErasureFailed { user, step: "stripe" },
        Fact::HttpStarted { method: "GET" },
        Fact::HttpStarted { method: "GET" },
        Fact::HttpStarted { method: "GET" },
        ended("/api/v1/flux"),
        ended("/livez"),
        Fact::PublishFailed { event: Box::new(event) },
        Fact::SocketOpened,
        Fact::SocketOpened,
        Fact::SocketClosed,
        Fact::ChatPushed { messages: 3 },
        Fact::ChatTold { messages: 2 },
    ]
}
