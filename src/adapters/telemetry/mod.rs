//! Log lines, metrics and traces: the only place that names tracing subscribers and OpenTelemetry
//! (contract `observability.md` §1–5).

mod facts;
mod instruments;
mod log_lines;
mod process;
mod settings;

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use prometheus::{Registry, TextEncoder};
use thiserror::Error;
use tracing::Metadata;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry as Spans;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

pub use facts::MetricsJournal;
pub use settings::{LogFormat, TelemetrySettings};

use facts::ProcessLabels;
use instruments::Instruments;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const EXPORT_INTERVAL: Duration = Duration::from_secs(15);
const EXPORT_LIMIT: Duration = Duration::from_secs(10);
/// How long shutdown waits for what is still unsent.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// Why telemetry cannot be set up.
#[derive(Debug, Error)]
pub enum InvalidTelemetry {
    /// The log filter cannot be read.
    #[error("log_level is not a level or a list of filter directives")]
    Filter,
    /// The exporter refused its settings.
    #[error("otlp exporter: {0}")]
    Exporter(String),
    /// Something else has taken the process-wide place.
    #[error("a log subscriber is already installed")]
    Installed,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// For `serve`.
    Stdout,
    /// For commands whose standard output is their result.
    Stderr,
}

/// The process's metrics, and its exporters when a collector is configured. Shut it down last, so that what shutdown
/// itself reports is still sent.
pub struct Telemetry {
    settings: TelemetrySettings,
    labels: ProcessLabels,
    instruments: Arc<Instruments>,
    meter: Meter,
    registry: Registry,
    metrics: SdkMeterProvider,
    traces: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
}

type LogLayer = Box<dyn Layer<Spans> + Send + Sync>;

impl Telemetry {
    /// Sets up metrics and exporters; touches nothing process-wide, so tests may have many.
    pub fn new(settings: &TelemetrySettings) -> Result<Self, InvalidTelemetry> {
        let instance = settings.instance_id.clone().filter(|id| !id.is_empty()).unwrap_or_else(random_uuid);
        let resource = resource(settings, &instance);
        let registry = Registry::new();
        let scrape = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()
            .map_err(|error| InvalidTelemetry::Exporter(error.to_string()))?;
        let mut metrics = SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(scrape);
        let (mut traces, mut logs) = (None, None);
        if let Some(endpoint) = settings.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) {
            let collector = Collector { endpoint: endpoint.trim_end_matches('/'), settings };
            metrics = metrics.with_reader(collector.metrics()?);
            traces = Some(collector.traces(resource.clone())?);
            logs = Some(collector.logs(resource)?);
        }
        let metrics = metrics.build();
        let scope = InstrumentationScope::builder(settings.service_name.clone()).with_version(VERSION).build();
        let meter = metrics.meter_with_scope(scope);
        process::observe(&meter);
        let labels = ProcessLabels { service_name: settings.service_name.clone(), service_version: VERSION, instance };
        let instruments = Arc::new(Instruments::new(&meter));
        Ok(Self { settings: settings.clone(), labels, instruments, meter, registry, metrics, traces, logs })
    }

    /// Makes this the place where the whole process logs and traces. Once per process.
    pub fn install(&self, output: LogOutput) -> Result<(), InvalidTelemetry> {
        let is_terminal = match output {
            LogOutput::Stdout => io::stdout().is_terminal(),
            LogOutput::Stderr => io::stderr().is_terminal(),
        };
        let format = self.settings.log_format.unwrap_or(if is_terminal { LogFormat::Text } else { LogFormat::Json });
        let lines = match output {
            LogOutput::Stdout => lines(format, is_terminal, io::stdout),
            LogOutput::Stderr => lines(format, is_terminal, io::stderr),
        };
        tracing_subscriber::registry().with(self.layers(lines)?).try_init().map_err(|_| InvalidTelemetry::Installed)?;
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        if self.settings.instance_id.is_none() {
            tracing::warn!(
                instance = self.labels.instance,
                "no instance id is configured, using a random one; series of restarts will not join"
            );
        }
        Ok(())
    }

    /// The sink that turns facts into metrics and log lines.
    pub fn journal(&self) -> MetricsJournal {
        MetricsJournal { instruments: Arc::clone(&self.instruments), labels: self.labels.clone() }
    }

    /// `service.instance.id`, configured or made up.
    pub fn instance_id(&self) -> &str {
        &self.labels.instance
    }

    /// Reports `read` under `name` at every export. Must be quick and must not block; `None` reports nothing, so that
    /// staleness shows the outage, and is counted.
    pub fn observe(
        &self,
        name: &'static str,
        labels: &[(&'static str, &'static str)],
        read: impl Fn() -> Option<i64> + Send + Sync + 'static,
    ) {
        let labels: Vec<KeyValue> = labels.iter().map(|(name, value)| KeyValue::new(*name, *value)).collect();
        let instruments = Arc::clone(&self.instruments);
        let callback = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<i64>| match read() {
            Some(value) => observer.observe(value, &labels),
            None => instruments.counters.read_errors.add(1, &[KeyValue::new("metric", name)]),
        };
        self.meter.i64_observable_gauge(name).with_callback(callback).build();
    }

    /// All metrics in the Prometheus text format, for a port or route of their own.
    pub fn render_prometheus(&self) -> String {
        let mut families = self.registry.gather();
        for family in &mut families {
            // The exporter appends only the units it knows, and this is none of them.
            if family.name() == "airi_stripe_revenue_total" {
                family.set_name("airi_stripe_revenue_minor_unit_total".to_owned());
            }
        }
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }

    /// Sends what is unsent and stops exporting, in at most five seconds. Answers whether all was sent in time.
    pub async fn shutdown(&self) -> bool {
        let (traces, logs, metrics) = (self.traces.clone(), self.logs.clone(), self.metrics.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        // A thread of its own: the runtime would wait at its end for a blocking task that hangs on a dead collector.
        std::thread::spawn(move || {
            let sent = [
                traces.map_or(Ok(()), |traces| traces.shutdown_with_timeout(FLUSH_LIMIT)),
                logs.map_or(Ok(()), |logs| logs.shutdown_with_timeout(FLUSH_LIMIT)),
                metrics.shutdown_with_timeout(FLUSH_LIMIT),
            ];
            let _ = tell.send(sent.iter().all(Result::is_ok));
        });
        matches!(tokio::time::timeout(FLUSH_LIMIT, told).await, Ok(Ok(true)))
    }

    fn layers(&self, lines: LogLayer) -> Result<Vec<LogLayer>, InvalidTelemetry> {
        let filter = || EnvFilter::try_new(self.settings.directives()).map_err(|_| InvalidTelemetry::Filter);
        let mut layers: Vec<LogLayer> = Vec::new();
        if let Some(traces) = &self.traces {
            let tracer = traces.tracer(self.labels.service_name.clone());
            let spans = tracing_opentelemetry::layer()
                .with_tracer(tracer)
                .with_location(false)
                .with_threads(false)
                .with_tracked_inactivity(false)
                .with_filter(filter_fn(|of| is_ours(of) && *of.level() <= tracing::Level::INFO));
            layers.push(spans.boxed());
        }
        layers.push(lines.with_filter(filter()?).boxed());
        if let Some(logs) = &self.logs {
            let bridge = OpenTelemetryTracingBridge::new(logs);
            layers.push(bridge.with_filter(filter()?.and(filter_fn(is_ours))).boxed());
        }
        Ok(layers)
    }
}

fn lines<W>(format: LogFormat, colours: bool, writer: W) -> LogLayer
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.fmt_fields(JsonFields::new()).event_format(log_lines::JsonLine).boxed(),
    }
}

/// Whether an event or span may be exported: what the exporter's own client logs would be exported again for ever.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    const OF_THE_EXPORTER: [&str; 6] = ["hyper", "reqwest", "h2", "opentelemetry", "rustls", "tower"];
    !OF_THE_EXPORTER.iter().any(|prefix| metadata.target().starts_with(prefix))
}

/// The one collector, three signals.
struct Collector<'a> {
    endpoint: &'a str,
    settings: &'a TelemetrySettings,
}

impl Collector<'_> {
    fn traces(&self, resource: Resource) -> Result<SdkTracerProvider, InvalidTelemetry> {
        let exporter =
            self.aim(SpanExporter::builder().with_http(), "traces").build().map_err(|error| refused(&error))?;
        let ratio = Sampler::TraceIdRatioBased(self.settings.traces_sampling_ratio);
        Ok(SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(ratio)))
            .with_batch_exporter(exporter)
            .build())
    }

    fn logs(&self, resource: Resource) -> Result<SdkLoggerProvider, InvalidTelemetry> {
        let exporter = self.aim(LogExporter::builder().with_http(), "logs").build().map_err(|error| refused(&error))?;
        Ok(SdkLoggerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
    }

    fn metrics(&self) -> Result<PeriodicReader<MetricExporter>, InvalidTelemetry> {
        let builder = MetricExporter::builder().with_http().with_temporality(Temporality::Cumulative);
        let exporter = self.aim(builder, "metrics").build().map_err(|error| refused(&error))?;
        Ok(PeriodicReader::builder(exporter).with_interval(EXPORT_INTERVAL).build())
    }

    fn aim<B: WithExportConfig + WithHttpConfig>(&self, builder: B, signal: &str) -> B {
        builder
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/{signal}", self.endpoint))
            .with_timeout(EXPORT_LIMIT)
            .with_headers(self.settings.headers().into_iter().collect::<HashMap<_, _>>())
    }
}

fn refused(error: &opentelemetry_otlp::ExporterBuildError) -> InvalidTelemetry {
    InvalidTelemetry::Exporter(error.to_string())
}

fn resource(settings: &TelemetrySettings, instance: &str) -> Resource {
    Resource::builder()
        .with_attributes([
            KeyValue::new("service.name", settings.service_name.clone()),
            KeyValue::new("service.namespace", settings.service_namespace.clone()),
            KeyValue::new("service.version", VERSION),
            KeyValue::new("service.instance.id", instance.to_owned()),
            KeyValue::new("deployment.environment", settings.deployment_environment.clone()),
        ])
        .build()
}

/// Version 4 (RFC 9562 §5.4).
fn random_uuid() -> String {
    let mut bytes = rand::random::<[u8; 16]>();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex::encode(bytes);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

#[cfg(test)]
mod tests;
