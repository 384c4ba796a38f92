//! `llm_request_log`: finished generations as rows.

use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::postgres::PgPool;

use super::fault::fault;
use crate::core::model::ids::KeyEntryId;
use crate::core::model::request_log::LoggedRequest;
use crate::ports::Fault;

/// Longest model name stored, characters.
const MODEL_LIMIT: usize = 200;
/// Rows deleted in one statement, so that a sweep never holds many locks.
const SWEEP_STEP: i64 = 1_000;

/// The request log in PostgreSQL. Rows are never updated and outlive the user.
#[derive(Clone, Debug)]
pub struct PgRequestLog {
    /// Where the table is.
    pub pool: PgPool,
}

impl PgRequestLog {
    /// Stores all rows or none, in one statement. A row that is there already is left as it is, so a batch may be
    /// tried again.
    #[tracing::instrument(name = "postgres.request_log.insert", skip_all, err(Debug))]
    pub async fn insert(&self, rows: &[LoggedRequest]) -> Result<(), Fault> {
        if rows.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO llm_request_log (id, user_id, model, status, duration_ms, flux_consumed, prompt_tokens,
                 completion_tokens, created_at, request_id, ttfb_ms, kind, upstream, key_id, fallback_depth,
                 error_code, stream)
             SELECT id, user_id, model, status, duration_ms, flux_consumed, prompt_tokens,
                 completion_tokens, created_at, request_id, ttfb_ms, kind, upstream, key_id, fallback_depth,
                 error_code, stream
             FROM unnest($1::text[], $2::text[], $3::text[], $4::int4[], $5::int4[], $6::int8[], $7::int4[],
                 $8::int4[], $9::timestamp[], $10::text[], $11::int8[], $12::text[], $13::text[], $14::text[],
                 $15::int4[], $16::text[], $17::bool[])
                 AS row (id, user_id, model, status, duration_ms, flux_consumed, prompt_tokens,
                 completion_tokens, created_at, request_id, ttfb_ms, kind, upstream, key_id, fallback_depth,
                 error_code, stream)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(column(rows, |row| row.id.as_str()))
        .bind(column(rows, |row| row.user.as_str()))
        .bind(column(rows, |row| row.model.chars().take(MODEL_LIMIT).collect::<String>()))
        .bind(column(rows, |row| i32::from(row.status)))
        .bind(column(rows, |row| clamped(row.duration_ms)))
        .bind(column(rows, |row| row.charged.get()))
        .bind(column(rows, |row| row.prompt_tokens.map(clamped)))
        .bind(column(rows, |row| row.completion_tokens.map(clamped)))
        .bind(column::<NaiveDateTime>(rows, |row| row.at.naive_utc()))
        .bind(column(rows, |row| row.request.as_str()))
        .bind(column(rows, |row| row.first_byte_ms))
        .bind(column(rows, |row| row.kind.as_str()))
        .bind(column(rows, |row| row.upstream.as_deref()))
        .bind(column(rows, |row| row.key.as_ref().map(KeyEntryId::as_str)))
        .bind(column(rows, |row| row.fallback_depth.map(i32::from)))
        .bind(column(rows, |row| row.error))
        .bind(column(rows, |row| row.stream))
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(fault("postgres.request_log.insert"))
    }

    /// Deletes rows made before `older_than`, in small steps, and tells how many. Safe to drop between steps.
    #[tracing::instrument(name = "postgres.request_log.sweep", skip_all, err(Debug))]
    pub async fn sweep(&self, older_than: DateTime<Utc>) -> Result<u64, Fault> {
        let mut swept = 0;
        loop {
            let step = sqlx::query(
                "DELETE FROM llm_request_log WHERE id IN (
                     SELECT id FROM llm_request_log WHERE created_at < $1 ORDER BY created_at LIMIT $2
                     FOR UPDATE SKIP LOCKED)",
            )
            .bind(older_than.naive_utc())
            .bind(SWEEP_STEP)
            .execute(&self.pool)
            .await
            .map_err(fault("postgres.request_log.sweep"))?
            .rows_affected();
            swept += step;
            if step == 0 {
                return Ok(swept);
            }
        }
    }
}

fn column<'a, T>(rows: &'a [LoggedRequest], value: impl Fn(&'a LoggedRequest) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// The reference's columns are four bytes wide.
fn clamped(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX })
}
