//! Series, labels and buckets.

use std::collections::BTreeSet;

use serde_json::Value;

use super::telemetry;
use super::tour::tour;
use crate::adapters::telemetry::instruments;
use crate::core::model::fact::Fact;
use crate::core::model::request_log::LoggedRequest;
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

fn contract() -> Vec<Value> {
    let fixture: Value = serde_json::from_str(include_str!("../../../../tests/fixtures/metrics.json")).unwrap();
    ["reference", "targetAdditions"].iter().flat_map(|list| fixture[list].as_array().unwrap().clone()).collect()
}
