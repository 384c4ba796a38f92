//! `llm_request_log`: finished generations as rows.

use chrono::{DateTime, Utc};
use sqlx::{QueryBuilder, Sqlite as Driver};

use super::fault::fault;
use super::{Sqlite, micros};
use crate::core::model::ids::KeyEntryId;
use crate::core::model::request_log::LoggedRequest;
use crate::ports::Fault;

/// Longest model name stored, characters.
const MODEL_LIMIT: usize = 200;
/// Rows in one statement: 17 parameters each, and SQLite takes 32 766 at most.
const INSERT_STEP: usize = 1_000;
/// Rows deleted in one statement, so that a sweep never keeps the writer long.
const SWEEP_STEP: i64 = 1_000;

/// The request log in the embedded database. Rows are never updated and outlive the user.
#[derive(Clone, Debug)]
pub struct SqliteRequestLog {
    /// Where the table is.
    pub db: Sqlite,
}

impl SqliteRequestLog {
    /// Stores all rows or none. A row that is there already is left as it is, so a batch may be tried again.
    #[tracing::instrument(name = "sqlite.request_log.insert", skip_all, err(Debug))]
    pub async fn insert(&self, rows: &[LoggedRequest]) -> Result<(), Fault> {
        const OPERATION: &str = "sqlite.request_log.insert";
        let mut tx = self.db.begin(OPERATION).await?;
        for rows in rows.chunks(INSERT_STEP) {
            let mut query = QueryBuilder::<Driver>::new(
                "INSERT INTO llm_request_log (id, user_id, model, status, duration_ms, flux_consumed, prompt_tokens,
                     completion_tokens, created_at, request_id, ttfb_ms, kind, upstream, key_id, fallback_depth,
                     error_code, stream) ",
            );
            query.push_values(rows, |mut values, row| {
                values
                    .push_bind(row.id.as_str())
                    .push_bind(row.user.as_str())
                    .push_bind(row.model.chars().take(MODEL_LIMIT).collect::<String>())
                    .push_bind(row.status)
                    .push_bind(row.duration_ms)
                    .push_bind(row.charged.get())
                    .push_bind(row.prompt_tokens)
                    .push_bind(row.completion_tokens)
                    .push_bind(micros(row.at))
                    .push_bind(row.request.as_str())
                    .push_bind(row.first_byte_ms)
                    .push_bind(row.kind.as_str())
                    .push_bind(row.upstream.as_deref())
                    .push_bind(row.key.as_ref().map(KeyEntryId::as_str))
                    .push_bind(row.fallback_depth)
                    .push_bind(row.error)
                    .push_bind(row.stream);
            });
            query.push(" ON CONFLICT (id) DO NOTHING");
            query.build().execute(&mut *tx).await.map_err(fault(OPERATION))?;
        }
        tx.commit().await.map_err(fault(OPERATION))
    }

    /// Deletes rows made before `older_than`, in small steps, and tells how many. Safe to drop between steps.
    #[tracing::instrument(name = "sqlite.request_log.sweep", skip_all, err(Debug))]
    pub async fn sweep(&self, older_than: DateTime<Utc>) -> Result<u64, Fault> {
        let mut swept = 0;
        loop {
            let step = sqlx::query(
                "DELETE FROM llm_request_log WHERE id IN (
                     SELECT id FROM llm_request_log WHERE created_at < ? ORDER BY created_at LIMIT ?)",
            )
            .bind(micros(older_than))
            .bind(SWEEP_STEP)
            .execute(&self.db.writer)
            .await
            .map_err(fault("sqlite.request_log.sweep"))?
            .rows_affected();
            swept += step;
            if step == 0 {
                return Ok(swept);
            }
        }
    }
}
