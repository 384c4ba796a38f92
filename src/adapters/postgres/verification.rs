//! `verification`.

use async_trait::async_trait;
use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::Row;
use sqlx::postgres::{PgPool, PgRow};

use super::fault::fault;
use crate::core::model::proofs::{KEPT_AFTER_END, Verification};
use crate::ports::Fault;
use crate::ports::verification::VerificationRepo;

/// One-time secrets in PostgreSQL.
#[derive(Clone, Debug)]
pub struct PgVerifications {
    /// Where the table is.
    pub pool: PgPool,
}

#[async_trait]
impl VerificationRepo for PgVerifications {
    #[tracing::instrument(name = "postgres.verification.issue", skip_all, err(Debug))]
    async fn issue(&self, verification: &Verification) -> Result<(), Fault> {
        insert(&self.pool, verification).await.map_err(fault("postgres.verification.issue"))
    }

    #[tracing::instrument(name = "postgres.verification.find", skip_all, err(Debug))]
    async fn find(&self, identifier: &str) -> Result<Option<Verification>, Fault> {
        let fault = fault("postgres.verification.find");
        let row = sqlx::query(
            "SELECT id, identifier, value, expires_at, created_at FROM verification WHERE identifier = $1
             ORDER BY created_at DESC, id DESC LIMIT 1",
        )
        .bind(identifier)
        .fetch_optional(&self.pool)
        .await
        .map_err(fault)?;
        row.as_ref().map(verification).transpose().map_err(fault)
    }

    #[tracing::instrument(name = "postgres.verification.redeem", skip_all, err(Debug))]
    async fn redeem(&self, identifier: &str, now: DateTime<Utc>) -> Result<Option<Verification>, Fault> {
        let fault = fault("postgres.verification.redeem");
        let rows = sqlx::query(
            "DELETE FROM verification WHERE identifier = $1
             RETURNING id, identifier, value, expires_at, created_at",
        )
        .bind(identifier)
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        let found = rows.iter().map(verification).collect::<Result<Vec<_>, _>>().map_err(fault)?;
        let newest = found.into_iter().max_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(newest.filter(|found| found.is_alive(now)))
    }

    #[tracing::instrument(name = "postgres.verification.swap", skip_all, err(Debug))]
    async fn swap(&self, identifier: &str, old: &str, new: &str, at: DateTime<Utc>) -> Result<bool, Fault> {
        sqlx::query("UPDATE verification SET value = $3, updated_at = $4 WHERE identifier = $1 AND value = $2")
            .bind(identifier)
            .bind(old)
            .bind(new)
            .bind(at.naive_utc())
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(fault("postgres.verification.swap"))
    }
}

/// Stores the row; a hundred ended ones go with the same statement. Those another process is removing are left to it.
pub(super) async fn insert(pool: &PgPool, row: &Verification) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH ended AS (
             SELECT id FROM verification WHERE expires_at < $6 LIMIT 100 FOR UPDATE SKIP LOCKED
         ), swept AS (
             DELETE FROM verification USING ended WHERE verification.id = ended.id
         )
         INSERT INTO verification (id, identifier, value, expires_at, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $5)",
    )
    .bind(&row.id)
    .bind(&row.identifier)
    .bind(&row.value)
    .bind(row.expires_at.naive_utc())
    .bind(row.created_at.naive_utc())
    .bind((row.created_at - KEPT_AFTER_END).naive_utc())
    .execute(pool)
    .await
    .map(|_| ())
}

fn verification(row: &PgRow) -> Result<Verification, sqlx::Error> {
    Ok(Verification {
        id: row.try_get("id")?,
        identifier: row.try_get("identifier")?,
        value: row.try_get("value")?,
        expires_at: row.try_get::<NaiveDateTime, _>("expires_at")?.and_utc(),
        created_at: row.try_get::<NaiveDateTime, _>("created_at")?.and_utc(),
    })
}
