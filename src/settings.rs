//! What a restart may change: addresses, credentials, limits.
//!
//! Precedence: defaults < TOML file < `.env` < environment. The reference server's environment names work unchanged;
//! every key also answers to `AIRI_<SECTION>__<KEY>`, and every flat name to `<NAME>_FILE`. All mistakes are named
//! at once.

mod reader;
mod source;

use std::path::PathBuf;

use crate::adapters::llm::UpstreamSettings;
use crate::adapters::postgres::PostgresSettings;
use crate::adapters::redis::RedisSettings;
use crate::adapters::telemetry::TelemetrySettings;
use crate::core::llm::OnUnreadableKey;
use crate::core::model::principal::Administrators;
use crate::core::model::secret::Secret;
use crate::http::HttpSettings;

pub use reader::Problem;
use reader::{Expected, Reader};
pub use source::Source;

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The doors.
    pub http: HttpSettings,
    /// PostgreSQL; absent means the embedded database.
    pub postgres: Option<PostgresSettings>,
    /// Redis; absent means in-process cache, limits and broadcast.
    pub redis: Option<RedisSettings>,
    /// Where the embedded database and the generated secrets lie.
    pub data_dir: PathBuf,
    /// Signs cookies and tokens; generated once in embedded mode.
    pub auth_secret: Option<Secret>,
    /// Who may administer.
    pub administrators: Administrators,
    /// Upstream keys and routing.
    pub llm: LlmSettings,
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
    /// What an unreadable key means for its chain.
    pub on_unreadable_key: OnUnreadableKey,
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
        let postgres = postgres(read);
        let redis = read.optional::<Secret>("redis.url", "REDIS_URL", Expected::url(&["redis", "rediss"]));
        let data_dir = read.or("data.dir", "AIRI_DATA_DIR", PathBuf::from("./data"));
        let auth_secret = read.optional("accounts.secret", "BETTER_AUTH_SECRET", Expected::filled());
        let administrators = read.or("accounts.admin_emails", "ADMIN_EMAILS", Administrators::default());
        let llm = llm(read, postgres.is_none());
        let telemetry = telemetry(read);
        let instance_id = read.optional("instance.id", "SERVER_INSTANCE_ID", Expected::filled());
        if postgres.is_some() {
            if auth_secret.is_none() {
                read.missing("accounts.secret", "BETTER_AUTH_SECRET", "DATABASE_URL is set");
            }
            if llm.master_key.is_none() {
                read.missing("llm.master_key", "LLM_ROUTER_MASTER_KEY", "DATABASE_URL is set");
            }
        }
        Self {
            http,
            postgres,
            redis: redis.map(|url| RedisSettings { url }),
            data_dir,
            auth_secret,
            administrators,
            llm,
            telemetry,
            instance_id,
        }
    }
}
