//! The ledger and the request log, read from the database the server writes.

use std::collections::HashMap;
use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, PgConnection, PgPool, SqliteConnection, SqlitePool};

use crate::server::Server;

/// One charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) user_id: String,
    pub(crate) request_id: String,
    pub(crate) amount: i64,
    pub(crate) balance_after: i64,
    /// The entry's metadata, as JSON text.
    pub(crate) metadata: String,
}

/// One row of the request log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) user_id: String,
    pub(crate) request_id: String,
    pub(crate) model: String,
    pub(crate) status: i32,
    pub(crate) flux_consumed: i64,
    pub(crate) prompt_tokens: Option<i32>,
    pub(crate) completion_tokens: Option<i32>,
    pub(crate) fallback_depth: Option<i32>,
}

/// Lets every lease be over, while no process runs.
pub(crate) async fn end_leases(server: &Server) {
    if let Some(database) = &server.database {
        let mut connection = PgConnection::connect(&database.url()).await.unwrap();
        let sql = "UPDATE flux_hold SET expires_at = expires_at - INTERVAL '1 day'";
        sqlx::query(sql).execute(&mut connection).await.unwrap();
        return;
    }
    let options = SqliteConnectOptions::new().filename(server.data().join("airi.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("UPDATE flux_hold SET expires_at = 0").execute(&mut connection).await.unwrap();
}

/// A reader of its own; it takes no lock that the server would notice.
pub(crate) enum Books {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

type LogRow = (String, String, String, i32, i64, Option<i32>, Option<i32>, Option<i32>);

const CHARGES: &str = "SELECT user_id, request_id, amount, balance_after, CAST(metadata AS TEXT) AS metadata \
    FROM flux_transaction WHERE type = 'debit' ORDER BY created_at, id";
const LOG: &str = "SELECT user_id, request_id, model, status, flux_consumed, prompt_tokens, completion_tokens, \
    fallback_depth FROM llm_request_log ORDER BY created_at, id";
const ENTRIES: &str = "SELECT user_id, type, amount, balance_before, balance_after FROM flux_transaction \
    ORDER BY created_at, id";
const METERED: &str = "SELECT units FROM flux_meter_usage WHERE user_id = $1 ORDER BY created_at";
const DEBT: &str = "SELECT units FROM flux_meter_debt WHERE user_id = $1 AND meter = 'tts'";
const BALANCES: &str = "SELECT user_id, flux FROM user_flux";

impl Books {
    pub(crate) async fn postgres(url: &str) -> Self {
        Self::Postgres(PgPool::connect(url).await.unwrap())
    }

    pub(crate) async fn sqlite(data: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(data.join("airi.db")).read_only(true);
        Self::Sqlite(SqlitePool::connect_with(options).await.unwrap())
    }

    /// Every debit, oldest first.
    pub(crate) async fn charges(&self) -> Vec<Charge> {
        let rows: Vec<(String, String, i64, i64, String)> = match self {
            Self::Postgres(pool) => sqlx::query_as(CHARGES).fetch_all(pool).await.unwrap(),
            Self::Sqlite(pool) => sqlx::query_as(CHARGES).fetch_all(pool).await.unwrap(),
        };
        let charge = |(user_id, request_id, amount, balance_after, metadata)| Charge {
            user_id,
            request_id,
            amount,
            balance_after,
            metadata,
        };
        rows.into_iter().map(charge).collect()
    }

    /// Every generation, oldest first.
    pub(crate) async fn log(&self) -> Vec<Logged> {
        let rows: Vec<LogRow> = match self {
            Self::Postgres(pool) => sqlx::query_as(LOG).fetch_all(pool).await.unwrap(),
            Self::Sqlite(pool) => sqlx::query_as(LOG).fetch_all(pool).await.unwrap(),
        };
        let logged = |(user_id, request_id, model, status, flux_consumed, prompt, completion, fallback_depth)| Logged {
            user_id,
            request_id,
            model,
            status,
            flux_consumed,
            prompt_tokens: prompt,
            completion_tokens: completion,
            fallback_depth,
        };
        rows.into_iter().map(logged).collect()
    }

    /// Units of each metered use of a user.
    pub(crate) async fn metered(&self, user: &str) -> Vec<i64> {
        match self {
            Self::Postgres(pool) => sqlx::query_scalar(METERED).bind(user).fetch_all(pool).await.unwrap(),
            Self::Sqlite(pool) => sqlx::query_scalar(METERED).bind(user).fetch_all(pool).await.unwrap(),
        }
    }

    /// Units a user was not charged yet.
    pub(crate) async fn debt(&self, user: &str) -> i64 {
        let units: Option<i64> = match self {
            Self::Postgres(pool) => sqlx::query_scalar(DEBT).bind(user).fetch_optional(pool).await.unwrap(),
            Self::Sqlite(pool) => sqlx::query_scalar(DEBT).bind(user).fetch_optional(pool).await.unwrap(),
        };
        units.unwrap_or_default()
    }

    /// A configuration entry of an embedded installation.
    pub(crate) async fn entry(&self, name: &str) -> String {
        let Self::Sqlite(pool) = self else { panic!("entries live in Redis") };
        sqlx::query_scalar("SELECT value FROM airi_config_entry WHERE name = $1")
            .bind(name)
            .fetch_one(pool)
            .await
            .unwrap()
    }

    /// Writes one, while nobody holds the data directory.
    pub(crate) async fn configure(data: &Path, name: &str, text: &str) {
        let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(data.join("airi.db"))).await.unwrap();
        let put = "INSERT INTO airi_config_entry (name, value) VALUES ($1, $2)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        sqlx::query(put).bind(name).bind(text).execute(&pool).await.unwrap();
        pool.close().await;
    }

    /// What each user has.
    pub(crate) async fn balances(&self) -> HashMap<String, i64> {
        let held: Vec<(String, i64)> = match self {
            Self::Postgres(pool) => sqlx::query_as(BALANCES).fetch_all(pool).await.unwrap(),
            Self::Sqlite(pool) => sqlx::query_as(BALANCES).fetch_all(pool).await.unwrap(),
        };
        held.into_iter().collect()
    }

    /// How many holds there are, and how much their owners have set aside.
    pub(crate) async fn held(&self) -> (usize, i64) {
        const HOLDS: &str = "SELECT count(*), CAST((SELECT sum(held) FROM user_flux) AS BIGINT) FROM flux_hold";
        let (holds, held): (i64, i64) = match self {
            Self::Postgres(pool) => sqlx::query_as(HOLDS).fetch_one(pool).await.unwrap(),
            Self::Sqlite(pool) => sqlx::query_as(HOLDS).fetch_one(pool).await.unwrap(),
        };
        (usize::try_from(holds).unwrap(), held)
    }

    /// Every entry continues the one before, and the last one is the balance.
    pub(crate) async fn balance(&self) {
        let entries: Vec<(String, String, i64, i64, i64)> = match self {
            Self::Postgres(pool) => sqlx::query_as(ENTRIES).fetch_all(pool).await.unwrap(),
            Self::Sqlite(pool) => sqlx::query_as(ENTRIES).fetch_all(pool).await.unwrap(),
        };
        let mut left: HashMap<String, i64> = HashMap::new();
        for entry in entries {
            let (user, kind, amount, before, after) = entry.clone();
            assert_eq!(before, left.get(&user).copied().unwrap_or_default(), "{entry:?}");
            assert_eq!(after, if kind == "debit" { before - amount } else { before + amount }, "{entry:?}");
            left.insert(user, after);
        }
        assert_eq!(left, self.balances().await);
    }
}
