//! PostgreSQL: the tables of the reference and ours, on one pool.
//!
//! Columns are `timestamp without time zone` meaning UTC, and defaults are evaluated in the session's zone, so
//! every connection runs in UTC.

pub mod accounts;
pub mod audit;
pub mod billing;
mod billing_mirrors;
mod billing_money;
mod character_rows;
pub mod characters;
mod chat_rows;
pub mod chats;
pub mod clients;
pub mod config;
pub mod erasure;
pub mod fault;
mod grant_rows;
pub mod grants;
pub mod idempotency;
pub mod ledger;
pub mod ledger_batch;
mod ledger_rows;
mod ledger_walk;
pub mod meter;
pub mod migrate;
mod passwords;
pub mod providers;
pub mod request_log;
mod session_ends;
pub mod sessions;
pub mod signing_keys;
pub mod social;
pub mod verification;

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::core::model::secret::Secret;
use crate::ports::probe::Probe;
use crate::ports::{Fault, FaultKind};
use fault::fault;

const APPLICATION: &str = "airi-server";
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// A server without a statement limit keeps a lost query, its locks and its connection for ever.
const SESSION: &str =
    "SET TIME ZONE 'UTC'; SET statement_timeout = '15s'; SET idle_in_transaction_session_timeout = '30s'";

/// Where PostgreSQL is and how it is used.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database`; a secret because of the password.
    #[serde(deserialize_with = "secret")]
    pub url: Secret,
    /// Most connections at once.
    pub pool_max: u32,
    /// A connection unused for this long is closed, ms.
    pub idle_timeout_ms: u64,
    /// How long a caller waits for a connection, ms.
    pub connection_timeout_ms: u64,
    /// Whether `serve` migrates before it listens.
    pub migrate_on_start: bool,
    /// Run on a schema that a newer version of the reference has migrated.
    pub allow_newer_schema: bool,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            url: Secret::new(""),
            pool_max: 20,
            idle_timeout_ms: 30_000,
            connection_timeout_ms: 5_000,
            migrate_on_start: true,
            allow_newer_schema: false,
        }
    }
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

/// A pool that has reached the server once.
///
/// It outlives the server: connections are tried before they are lent, so after a restart of PostgreSQL the first
/// caller gets a new connection and not a dead one.
pub async fn connect(settings: &PostgresSettings) -> Result<PgPool, Fault> {
    PgPoolOptions::new()
        .max_connections(settings.pool_max.max(1))
        .idle_timeout(Duration::from_millis(settings.idle_timeout_ms))
        .acquire_timeout(Duration::from_millis(settings.connection_timeout_ms))
        .test_before_acquire(true)
        .after_connect(|connection, _| {
            Box::pin(async move { sqlx::raw_sql(SESSION).execute(connection).await.map(|_| ()) })
        })
        .connect_with(options(settings)?)
        .await
        .map_err(fault("postgres.connect"))
}

/// How one connection is made. The text of the URL is told to nobody.
fn options(settings: &PostgresSettings) -> Result<PgConnectOptions, Fault> {
    let options = PgConnectOptions::from_str(settings.url.expose()).map_err(|_| {
        Fault::new(
            FaultKind::Unavailable,
            "postgres.connect",
            "the URL is not of the form postgres://user@host/database",
        )
    })?;
    Ok(options.application_name(APPLICATION))
}

/// Whether PostgreSQL answers.
#[derive(Clone, Debug)]
pub struct PgProbe {
    /// The pool whose server is asked.
    pub pool: PgPool,
}

#[async_trait]
impl Probe for PgProbe {
    async fn check(&self) -> Result<(), Fault> {
        const OPERATION: &str = "postgres.probe";
        match tokio::time::timeout(PROBE_LIMIT, sqlx::query("SELECT 1").execute(&self.pool)).await {
            Ok(answer) => answer.map(|_| ()).map_err(fault(OPERATION)),
            Err(late) => Err(Fault::new(FaultKind::Timeout, OPERATION, late)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_hide_the_url_and_refuse_what_they_do_not_know() {
        let read: PostgresSettings = serde_json::from_str(r#"{"url":"postgres://u:s3cret@h/d"}"#).unwrap();
        assert_eq!((read.pool_max, read.idle_timeout_ms, read.connection_timeout_ms), (20, 30_000, 5_000));
        assert!(read.migrate_on_start && !read.allow_newer_schema);
        assert!(!format!("{read:?}").contains("s3cret"));
        serde_json::from_str::<PostgresSettings>(r#"{"pool_size":1}"#).unwrap_err();
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unavailable_within_the_connection_timeout() {
        let settings = PostgresSettings {
            url: Secret::new("postgres://u:s3cret@127.0.0.1:9/d"),
            connection_timeout_ms: 100,
            ..PostgresSettings::default()
        };
        let fault = connect(&settings).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Unavailable);
        assert!(!format!("{fault:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn an_unusable_url_is_not_repeated() {
        let settings = PostgresSettings { url: Secret::new("s3cret"), ..PostgresSettings::default() };
        assert!(!format!("{:?}", connect(&settings).await.unwrap_err()).contains("s3cret"));
    }
}
