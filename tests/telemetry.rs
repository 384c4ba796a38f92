//! Telemetry against a collector: one process, one installed subscriber, so a binary of its own.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

#[path = "support/upstream/mod.rs"]
mod upstream;

use std::time::{Duration, Instant};

use airi_server::adapters::telemetry::{InvalidTelemetry, LogOutput, Telemetry, TelemetrySettings};
use airi_server::core::model::fact::Fact;
use airi_server::core::model::ids::UserId;
use airi_server::core::model::secret::Secret;
use airi_server::ports::journal::Journal;
use upstream::{Reply, ScriptedUpstream, Seen};

fn settings(endpoint: &str) -> TelemetrySettings {
    TelemetrySettings {
        otlp_endpoint: Some(endpoint.to_owned()),
        otlp_headers: Some(Secret::new("x-tenant=airi,authorization=Basic abc==")),
        instance_id: Some("replica-7".to_owned()),
        deployment_environment: "test".to_owned(),
        ..TelemetrySettings::default()
    }
}

fn endpoint(collector: &ScriptedUpstream) -> String {
    collector.base_url().trim_end_matches("/v1").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_signals_reach_the_collector_at_shutdown() {
    let collector = ScriptedUpstream::start().await;
    collector.any_key().always(Reply::plain(200, &[("content-type", "application/x-protobuf")], ""));
    let telemetry = Telemetry::new(&settings(&endpoint(&collector))).unwrap();
    telemetry.install(LogOutput::Stderr).unwrap();
    assert!(matches!(telemetry.install(LogOutput::Stderr), Err(InvalidTelemetry::Installed)));

    let journal = telemetry.journal();
    tracing::info_span!("GET /api/v1/flux", otel.kind = "server").in_scope(|| {
        journal.record(Fact::UserRegistered { user: UserId::new("user-1") });
    });
    tracing::error!(target: "hyper::client", "a line of the exporter's own client");
    assert!(telemetry.shutdown().await);

    let seen = collector.seen();
    let of = |signal: &str| -> Vec<u8> {
        let path = format!("/v1/{signal}");
        let sent: Vec<&Seen> = seen.iter().filter(|seen| seen.path == path).collect();
        assert!(!sent.is_empty(), "nothing for {path}");
        for request in &sent {
            assert_eq!(request.method, "POST");
            assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
            assert_eq!(
                (request.header("x-tenant"), request.header("authorization")),
                (Some("airi"), Some("Basic abc=="))
            );
        }
        sent.iter().flat_map(|request| request.body.clone()).collect()
    };
    for signal in ["traces", "metrics", "logs"] {
        let body = of(signal);
        for attribute in ["service.name", "service.namespace", "replica-7", "deployment.environment"] {
            assert!(holds(&body, attribute.as_bytes()), "{attribute} in {signal}");
        }
    }
    assert!(holds(&of("traces"), b"GET /api/v1/flux"));
    assert!(holds(&of("metrics"), b"user.registered"));
    let logs = of("logs");
    assert!(holds(&logs, b"user registered") && holds(&logs, b"user-1"));
    assert!(!holds(&logs, b"exporter's own client"));
    let trace = trace_id(&of("traces"));
    assert!(holds(&logs, &trace), "the line does not name its trace");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_delays_nothing_and_shutdown_gives_up() {
    let collector = ScriptedUpstream::start().await;
    collector.any_key().always(Reply::hang_before_head());
    let telemetry = Telemetry::new(&settings(&endpoint(&collector))).unwrap();
    let journal = telemetry.journal();
    let begun = Instant::now();
    for _ in 0..10_000 {
        journal.record(Fact::ConfigStaleUse);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "facts must not wait for the collector");
    let begun = Instant::now();
    assert!(!telemetry.shutdown().await);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_exported_and_metrics_can_be_read() {
    let telemetry = Telemetry::new(&TelemetrySettings::default()).unwrap();
    telemetry.journal().record(Fact::InsufficientBalance);
    assert!(telemetry.render_prometheus().contains("flux_insufficient_balance_total 1"));
    assert!(telemetry.shutdown().await);
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The first field of the first span: tag `0a`, length 16, the id.
fn trace_id(traces: &[u8]) -> Vec<u8> {
    let at = traces.windows(2).position(|window| window == [0x0a, 16]).expect("a trace id");
    traces[at + 2..at + 18].to_vec()
}
