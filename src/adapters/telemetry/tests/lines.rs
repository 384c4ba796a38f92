//! Log lines.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::trace::TracerProvider as _;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use super::super::*;
use super::telemetry;
use super::tour::tour;
use crate::ports::journal::Journal;

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
