//! What an operator says about logs, metrics and traces.

use serde::{Deserialize, Deserializer};

use crate::core::model::secret::Secret;

/// Logs, metrics and traces (contract `observability.md` §1, §5).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySettings {
    /// Form of the log lines; JSON outside a terminal unless said otherwise.
    pub log_format: Option<LogFormat>,
    /// A level (`error`, `warn`, `info`, `debug`, `trace`; also `log` and `verbose`) or filter directives.
    pub log_level: String,
    /// Filter directives that replace `log_level`, in the form of `RUST_LOG`.
    pub rust_log: Option<String>,
    /// Base address of an OTLP/HTTP collector; absent means that nothing is exported.
    pub otlp_endpoint: Option<String>,
    /// `key=value,key2=value2`, sent with every export.
    #[serde(deserialize_with = "secret")]
    pub otlp_headers: Option<Secret>,
    /// `service.name`, and the name of the meter.
    pub service_name: String,
    /// `service.namespace`.
    pub service_namespace: String,
    /// `service.instance.id`; must differ between processes. Absent means a random one.
    pub instance_id: Option<String>,
    /// `deployment.environment`.
    pub deployment_environment: String,
    /// Share of new traces that are kept, 0 to 1; anything else means 1.
    #[serde(deserialize_with = "ratio")]
    pub traces_sampling_ratio: f64,
    /// Whether the exporters' own diagnostics are logged.
    pub otel_debug: bool,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One object per line.
    Json,
    /// For people.
    Text,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            log_format: None,
            log_level: "info".to_owned(),
            rust_log: None,
            otlp_endpoint: None,
            otlp_headers: None,
            service_name: "server".to_owned(),
            service_namespace: "airi".to_owned(),
            instance_id: None,
            deployment_environment: "development".to_owned(),
            traces_sampling_ratio: 1.0,
            otel_debug: false,
        }
    }
}

impl TelemetrySettings {
    /// The directives that decide which lines are written.
    pub(super) fn directives(&self) -> String {
        let chosen = self.rust_log.as_deref().filter(|text| !text.trim().is_empty()).unwrap_or(&self.log_level);
        let chosen = match chosen.trim().to_ascii_lowercase().as_str() {
            "verbose" => "trace".to_owned(),
            "log" | "" => "info".to_owned(),
            _ => chosen.to_owned(),
        };
        let own = if self.otel_debug { "debug" } else { "warn" };
        // The library's own lines come first, so that an operator's directives about them win.
        format!("opentelemetry={own},opentelemetry_sdk={own},opentelemetry-otlp={own},{chosen}")
    }

    /// The headers of every export, split at the first `=` and trimmed.
    pub(super) fn headers(&self) -> Vec<(String, String)> {
        let text = self.otlp_headers.as_ref().map(Secret::expose).unwrap_or_default();
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .filter(|(name, _)| !name.is_empty())
            .collect()
    }
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(Secret::new))
}

/// An unusable ratio must not stop a server, so text is taken too.
fn ratio<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
        Other(serde::de::IgnoredAny),
    }
    let ratio = match Written::deserialize(from)? {
        Written::Number(ratio) => ratio,
        Written::Text(text) => text.trim().parse().unwrap_or(1.0),
        Written::Other(_) => 1.0,
    };
    Ok(if (0.0..=1.0).contains(&ratio) { ratio } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> TelemetrySettings {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_unusable_sampling_ratio_means_everything() {
        for (json, expected) in
            [("0.25", 0.25), ("0", 0.0), ("\"0.5\"", 0.5), ("2", 1.0), ("\"lots\"", 1.0), ("true", 1.0)]
        {
            let settings = read(&format!("{{\"traces_sampling_ratio\":{json}}}"));
            assert!((settings.traces_sampling_ratio - expected).abs() < f64::EPSILON, "{json}");
        }
    }

    #[test]
    fn headers_are_split_at_the_first_equals_sign_and_never_printed() {
        let settings = read(r#"{"otlp_headers":" authorization = Basic a==, x-b=c ,nonsense"}"#);
        let expected = [("authorization", "Basic a=="), ("x-b", "c")];
        assert_eq!(settings.headers(), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(!format!("{settings:?}").contains("Basic"));
    }

    #[test]
    fn the_words_of_the_reference_are_levels() {
        for (word, level) in
            [("verbose", "trace"), ("log", "info"), ("", "info"), ("warn,sqlx=error", "warn,sqlx=error")]
        {
            let settings = TelemetrySettings { log_level: word.to_owned(), ..TelemetrySettings::default() };
            assert!(settings.directives().ends_with(&format!(",{level}")), "{word}");
        }
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(serde_json::from_str::<TelemetrySettings>(r#"{"log_levle":"info"}"#).is_err());
    }
}
