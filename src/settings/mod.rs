//! What a restart may change: addresses, credentials, limits.
//!
//! Precedence: defaults < TOML file < `.env` < environment. The reference server's environment names work unchanged;
//! every key also answers to `AIRI_<SECTION>__<KEY>`, and every flat name to `<NAME>_FILE`. All mistakes are named
//! at once.

mod people;
mod reader;
mod source;

use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use crate::adapters::llm::UpstreamSettings;
use crate::adapters::mail::MailSettings;
use crate::adapters::postgres::PostgresSettings;
use crate::adapters::redis::RedisSettings;
use crate::adapters::social::SocialSettings;
use crate::adapters::stripe::{self, StripeSettings};
use crate::adapters::telemetry::{LogFormat, TelemetrySettings};
use crate::core::model::secret::Secret;
use crate::http::HttpSettings;
use crate::http::middleware::cors::TrustedOrigins;

pub use reader::Problem;
use reader::Reader;
pub use source::Source;

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The doors.
    pub http: HttpSettings,
    /// Port of the metrics page, on the same host; absent switches it off.
    pub metrics_port: Option<u16>,
    /// PostgreSQL; absent means the embedded database.
    pub postgres: Option<PostgresSettings>,
    /// Redis; absent means in-process cache, limits and broadcast.
    pub redis: Option<RedisSettings>,
    /// Where the embedded database and the generated secrets lie.
    pub data_dir: PathBuf,
    /// Signs cookies and tokens; generated once in embedded mode.
    pub auth_secret: Option<Secret>,
    /// How long after its replacement a refresh token is forgiven, s; 0 forgives nothing.
    pub refresh_grace_seconds: u16,
    /// Upstream keys and routing.
    pub llm: LlmSettings,
    /// How letters leave.
    pub mail: MailSettings,
    /// Providers people have accounts with.
    pub social: SocialSettings,
    /// The payment provider; absent while no secret key is set.
    pub stripe: Option<StripeSettings>,
    /// Sign the payment provider's messages; the second one while a rotation is under way.
    pub stripe_webhook_secrets: Vec<Secret>,
    /// Logs, metrics, traces.
    pub telemetry: TelemetrySettings,
    /// Names this process among its siblings; drawn when absent.
    pub instance_id: Option<String>,
}

/// Upstream keys and routing.
#[derive(Clone, Debug)]
pub struct LlmSettings {
    /// Base64 of 32 bytes; generated once in embedded mode.
    pub master_key: Option<Secret>,
    /// The key before it, while a rotation is under way.
    pub master_key_previous: Option<Secret>,
    /// Whether a stored key that cannot be opened is skipped, loudly, instead of ending the call.
    pub skip_unreadable_keys: bool,
    /// The client that talks to upstreams.
    pub upstream: UpstreamSettings,
    /// Whether the sandbox models exist.
    pub sandbox: bool,
}

impl Settings {
    /// Reads and checks everything; on failure every problem, in the order of the settings.
    pub fn read(source: &Source) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::new(source)?;
        let settings = Self::from_reader(&mut reader);
        reader.finish()?;
        Ok(settings)
    }

    /// Whether the embedded database is used.
    pub fn embedded(&self) -> bool {
        self.postgres.is_none()
    }

    fn from_reader(read: &mut Reader) -> Self {
        let http = http(read);
        let metrics_port = read.get("http.metrics_port", "METRICS_PORT", PORT, port);
        let postgres = postgres(read);
        let redis = redis(read);
        let data_dir = read.get("data.dir", "AIRI_DATA_DIR", "a directory", filled).unwrap_or_else(|| "./data".into());
        let auth_secret = read.get("accounts.secret", "BETTER_AUTH_SECRET", "a secret text", filled).map(Secret::new);
        let refresh_grace_seconds = read
            .get("accounts.refresh_grace_seconds", "REFRESH_TOKEN_GRACE_SECONDS", "a whole number of seconds", parsed)
            .unwrap_or(30);
        let embedded = postgres.is_none();
        let llm = llm(read, embedded);
        let mail = people::mail(read);
        let social = people::social(read);
        let (stripe, stripe_webhook_secrets) = stripe(read);
        let telemetry = telemetry(read);
        let instance_id = read.get("instance.id", "SERVER_INSTANCE_ID", "a name", filled);
        if postgres.is_some() {
            if auth_secret.is_none() {
                read.missing("accounts.secret", "BETTER_AUTH_SECRET", "DATABASE_URL is set");
            }
            if llm.master_key.is_none() {
                read.missing("llm.master_key", "LLM_ROUTER_MASTER_KEY", "DATABASE_URL is set");
            }
        }
        if llm.master_key.is_some() && llm.master_key == llm.master_key_previous {
            read.fault("LLM_ROUTER_MASTER_KEY_PREVIOUS", "must differ from LLM_ROUTER_MASTER_KEY");
        }
        Self {
            http,
            metrics_port,
            postgres,
            redis,
            data_dir: PathBuf::from(data_dir),
            auth_secret,
            refresh_grace_seconds,
            llm,
            mail,
            social,
            stripe,
            stripe_webhook_secrets,
            telemetry: TelemetrySettings {
                // One process owns a data directory, so its series join over restarts without a name.
                instance_id: instance_id.clone().or_else(|| embedded.then(|| "embedded".to_owned())),
                ..telemetry
            },
            instance_id,
        }
    }
}

const PORT: &str = "a port from 1 to 65535";

fn http(read: &mut Reader) -> HttpSettings {
    let usual = HttpSettings::default();
    HttpSettings {
        host: read.get("http.host", "HOST", "an address to listen on", filled).unwrap_or("127.0.0.1".into()),
        port: read.get("http.port", "PORT", PORT, port).unwrap_or(usual.port),
        api_server_url: read
            .get("http.api_server_url", "API_SERVER_URL", "an http or https origin without a path", origin)
            .unwrap_or(usual.api_server_url),
        additional_trusted_origins: read
            .get(
                "http.additional_trusted_origins",
                "ADDITIONAL_TRUSTED_ORIGINS",
                "a comma-separated list of absolute URLs",
                |text| TrustedOrigins::try_from(text.to_owned()).ok(),
            )
            .unwrap_or(usual.additional_trusted_origins),
        admin_emails: read
            .get("accounts.admin_emails", "ADMIN_EMAILS", "a comma-separated list of addresses", any)
            .unwrap_or(usual.admin_emails),
        body_limit_bytes: read
            .get("http.body_limit_bytes", "BODY_LIMIT_BYTES", AT_LEAST_ONE, positive)
            .unwrap_or(usual.body_limit_bytes),
        chat_body_limit_bytes: read
            .get("http.chat_body_limit_bytes", "CHAT_BODY_LIMIT_BYTES", AT_LEAST_ONE, positive)
            .unwrap_or(usual.chat_body_limit_bytes),
        ws_frame_limit_bytes: read
            .get("http.ws_frame_limit_bytes", "WS_FRAME_LIMIT_BYTES", AT_LEAST_ONE, positive)
            .unwrap_or(usual.ws_frame_limit_bytes),
        ws_hold_first_pushes: read
            .get("http.ws_hold_first_pushes", "WS_HOLD_FIRST_PUSHES", FLAG, flag)
            .unwrap_or(usual.ws_hold_first_pushes),
        trusted_proxy_hops: read
            .get("http.trusted_proxy_hops", "TRUSTED_PROXY_HOPS", "a whole number from 0 to 255", parsed)
            .unwrap_or(usual.trusted_proxy_hops),
        shutdown_grace_ms: read
            .get("http.shutdown_grace_ms", "SHUTDOWN_GRACE_MS", "a whole number of milliseconds", parsed)
            .unwrap_or(usual.shutdown_grace_ms),
    }
}

fn postgres(read: &mut Reader) -> Option<PostgresSettings> {
    let usual = PostgresSettings::default();
    let url = read.get("database.url", "DATABASE_URL", "postgres://user:password@host/database", |text| {
        url_of(text, &["postgres", "postgresql"])
    });
    let settings = PostgresSettings {
        url: url.clone().unwrap_or(usual.url),
        pool_max: read.get("database.pool_max", "DB_POOL_MAX", AT_LEAST_ONE, positive).unwrap_or(usual.pool_max),
        idle_timeout_ms: read
            .get("database.idle_timeout_ms", "DB_POOL_IDLE_TIMEOUT_MS", AT_LEAST_ONE, positive)
            .unwrap_or(usual.idle_timeout_ms),
        connection_timeout_ms: read
            .get("database.connection_timeout_ms", "DB_POOL_CONNECTION_TIMEOUT_MS", AT_LEAST_ONE, positive)
            .unwrap_or(usual.connection_timeout_ms),
        migrate_on_start: read
            .get("database.migrate_on_start", "DB_MIGRATE_ON_START", FLAG, flag)
            .unwrap_or(usual.migrate_on_start),
        allow_newer_schema: read
            .get("database.allow_newer_schema", "DB_ALLOW_NEWER_SCHEMA", FLAG, flag)
            .unwrap_or(usual.allow_newer_schema),
    };
    url.map(|_| settings)
}

fn redis(read: &mut Reader) -> Option<RedisSettings> {
    let url =
        read.get("redis.url", "REDIS_URL", "redis://host or rediss://host", |text| url_of(text, &["redis", "rediss"]));
    let namespace = read.get("redis.namespace", "REDIS_NAMESPACE", "a prefix of key names", any).unwrap_or_default();
    url.map(|url| RedisSettings { url, namespace })
}

fn llm(read: &mut Reader, embedded: bool) -> LlmSettings {
    const KEY: &str = "base64 of exactly 32 bytes (airi-server keys generate-master makes one)";
    let usual = UpstreamSettings::default();
    LlmSettings {
        master_key: read.get("llm.master_key", "LLM_ROUTER_MASTER_KEY", KEY, master_key),
        master_key_previous: read.get("llm.master_key_previous", "LLM_ROUTER_MASTER_KEY_PREVIOUS", KEY, master_key),
        skip_unreadable_keys: read
            .get("llm.decrypt_failure", "LLM_ROUTER_DECRYPT_FAILURE", "fail or skip", |text| match text {
                "fail" => Some(false),
                "skip" => Some(true),
                _ => None,
            })
            .unwrap_or_default(),
        upstream: UpstreamSettings {
            allow_insecure: read
                .get("llm.allow_insecure_upstreams", "ALLOW_INSECURE_UPSTREAMS", FLAG, flag)
                .unwrap_or(usual.allow_insecure),
            ..usual
        },
        sandbox: read
            .get("llm.sandbox", "AIRI_SANDBOX", "auto, true or false", |text| match text {
                "auto" => Some(embedded),
                other => flag(other),
            })
            .unwrap_or(embedded),
    }
}

fn stripe(read: &mut Reader) -> (Option<StripeSettings>, Vec<Secret>) {
    const SECRET: &str = "a secret text";
    let secret_key = read.get("stripe.secret_key", "STRIPE_SECRET_KEY", SECRET, filled).map(Secret::new);
    let base = read
        .get("stripe.api_base", "STRIPE_API_BASE", "an http or https origin without a path", origin)
        .unwrap_or_else(|| stripe::BASE.to_owned());
    let current = read.get("stripe.webhook_secret", "STRIPE_WEBHOOK_SECRET", SECRET, filled);
    let previous = read.get("stripe.webhook_secret_previous", "STRIPE_WEBHOOK_SECRET_PREVIOUS", SECRET, filled);
    let secrets = current.into_iter().chain(previous).map(Secret::new).collect();
    (secret_key.map(|secret_key| StripeSettings { secret_key, base }), secrets)
}

fn telemetry(read: &mut Reader) -> TelemetrySettings {
    let usual = TelemetrySettings::default();
    let environment = read.get("telemetry.environment", "DEPLOYMENT_ENVIRONMENT", "a name", filled);
    TelemetrySettings {
        log_format: read.get("telemetry.log_format", "LOG_FORMAT", "json or text", |text| match text {
            "json" => Some(LogFormat::Json),
            "text" => Some(LogFormat::Text),
            _ => None,
        }),
        log_level: read.get("telemetry.log_level", "LOG_LEVEL", "a level", filled).unwrap_or(usual.log_level),
        rust_log: read.get("telemetry.rust_log", "RUST_LOG", "filter directives", any),
        otlp_endpoint: read.get(
            "telemetry.otlp_endpoint",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "an http or https address",
            |text| url_of(text, &["http", "https"]).map(|url| url.expose().to_owned()),
        ),
        otlp_headers: read
            .get("telemetry.otlp_headers", "OTEL_EXPORTER_OTLP_HEADERS", "key=value,key2=value2", any)
            .map(Secret::new),
        service_name: read
            .get("telemetry.service_name", "OTEL_SERVICE_NAME", "a name", filled)
            .unwrap_or(usual.service_name),
        service_namespace: read
            .get("telemetry.service_namespace", "OTEL_SERVICE_NAMESPACE", "a name", filled)
            .unwrap_or(usual.service_namespace),
        deployment_environment: environment
            .or_else(|| read.get("telemetry.node_env", "NODE_ENV", "a name", filled))
            .unwrap_or(usual.deployment_environment),
        traces_sampling_ratio: read
            // An unusable ratio means everything (contract `observability.md` §1): it must not stop a server.
            .get("telemetry.traces_sampling_ratio", "OTEL_TRACES_SAMPLING_RATIO", "a number", |text| {
                Some(text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).unwrap_or(1.0))
            })
            .unwrap_or(usual.traces_sampling_ratio),
        otel_debug: read.get("telemetry.otel_debug", "OTEL_DEBUG", FLAG, flag).unwrap_or(usual.otel_debug),
        instance_id: None,
    }
}

const FLAG: &str = "true or false";
const AT_LEAST_ONE: &str = "a whole number, 1 or more";

fn any(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn filled(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn positive<T: FromStr + Default + PartialOrd>(text: &str) -> Option<T> {
    parsed(text).filter(|number| *number > T::default())
}

fn port(text: &str) -> Option<u16> {
    positive(text)
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn url_of(text: &str, schemes: &[&str]) -> Option<Secret> {
    let url = Url::parse(text).ok()?;
    schemes.contains(&url.scheme()).then(|| Secret::new(text))
}

/// A bare origin: other addresses are built by appending to it (contract `auth.md` F-31).
fn origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let bare = matches!(url.scheme(), "http" | "https") && url.path() == "/" && url.query().is_none();
    bare.then(|| url.origin().ascii_serialization())
}

fn master_key(text: &str) -> Option<Secret> {
    let bytes = zeroize::Zeroizing::new(STANDARD.decode(text).ok()?);
    (bytes.len() == 32).then(|| Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str, variables: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let source = Source { toml: Some(toml.to_owned()), variables };
        Settings::read(&source).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn nothing_set_means_embedded_on_loopback_with_the_sandbox() {
        let settings = read("", &[]).unwrap();
        assert!(settings.embedded() && settings.llm.sandbox);
        assert_eq!((settings.http.host.as_str(), settings.http.port), ("127.0.0.1", 3000));
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let toml = "[http]\nport = 4000\nhost = \"0.0.0.0\"";
        assert_eq!(read(toml, &[]).unwrap().http.port, 4000);
        assert_eq!(read(toml, &[("AIRI_HTTP__PORT", "4001")]).unwrap().http.port, 4001);
        let settings = read(toml, &[("PORT", "4002")]).unwrap();
        assert_eq!((settings.http.port, settings.http.host.as_str()), (4002, "0.0.0.0"));
    }

    #[test]
    fn every_mistake_is_named_at_once_and_no_value_is_quoted() {
        let problems = read(
            "[htpp]\nport = 1\n[http]\nprot = 2",
            &[("PORT", "s3cret"), ("LLM_ROUTER_MASTER_KEY", "s3cret"), ("DATABASE_URL", "postgres://db/airi")],
        )
        .unwrap_err();
        let told = problems.join("\n");
        for expected in [
            "PORT: expected",
            "LLM_ROUTER_MASTER_KEY: expected",
            "BETTER_AUTH_SECRET: is required",
            "http.prot: is not",
        ] {
            assert!(told.contains(expected), "{expected} in {told}");
        }
        assert!(told.contains("did you mean http.port?"), "{told}");
        assert!(!told.contains("s3cret"));
        assert_eq!(problems.len(), 5, "{told}");
    }

    #[test]
    fn secrets_are_not_printed() {
        let key = STANDARD.encode([7; 32]);
        let settings = read("", &[("LLM_ROUTER_MASTER_KEY", &key), ("REDIS_URL", "redis://:pass@cache")]).unwrap();
        let printed = format!("{settings:?}");
        assert!(!printed.contains(&key) && !printed.contains("pass@"), "{printed}");
        let same = read("", &[("LLM_ROUTER_MASTER_KEY", &key), ("LLM_ROUTER_MASTER_KEY_PREVIOUS", &key)]).unwrap_err();
        assert!(same[0].contains("must differ"), "{same:?}");
    }

    #[test]
    fn a_server_address_is_a_bare_origin() {
        for bad in ["https://api.example.com/path", "ftp://x", "api.example.com"] {
            assert!(read("", &[("API_SERVER_URL", bad)]).is_err(), "{bad}");
        }
        let settings = read("", &[("API_SERVER_URL", "https://api.example.com/")]).unwrap();
        assert_eq!(settings.http.api_server_url, "https://api.example.com");
    }
}
