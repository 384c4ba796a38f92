//! `verification`.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::fault::{corrupt, fault};
use super::{Sqlite, micros, time};
use crate::core::model::proofs::{KEPT_AFTER_END, Verification};
use crate::ports::Fault;
use crate::ports::verification::VerificationRepo;

/// One-time secrets in the embedded database.
#[derive(Clone, Debug)]
pub struct SqliteVerifications {
    /// Where the table is.
    pub db: Sqlite,
}

#[async_trait]
impl VerificationRepo for SqliteVerifications {
    #[tracing::instrument(name = "sqlite.verification.issue", skip_all, err(Debug))]
    async fn issue(&self, verification: &Verification) -> Result<(), Fault> {
        insert(&self.db, verification, "sqlite.verification.issue").await
    }

    #[tracing::instrument(name = "sqlite.verification.find", skip_all, err(Debug))]
    async fn find(&self, identifier: &str) -> Result<Option<Verification>, Fault> {
        const OPERATION: &str = "sqlite.verification.find";
        let fault = fault(OPERATION);
        let row = sqlx::query(
            "SELECT id, identifier, value, expires_at, created_at FROM verification WHERE identifier = ?1
             ORDER BY created_at DESC, id DESC LIMIT 1",
        )
        .bind(identifier)
        .fetch_optional(&self.db.readers)
        .await
        .map_err(fault)?;
        row.map(|row| verification(&row, OPERATION)).transpose()
    }

    #[tracing::instrument(name = "sqlite.verification.redeem", skip_all, err(Debug))]
    async fn redeem(&self, identifier: &str, now: DateTime<Utc>) -> Result<Option<Verification>, Fault> {
        const OPERATION: &str = "sqlite.verification.redeem";
        let fault = fault(OPERATION);
        let rows = sqlx::query(
            "DELETE FROM verification WHERE identifier = ?1
             RETURNING id, identifier, value, expires_at, created_at",
        )
        .bind(identifier)
        .fetch_all(&self.db.writer)
        .await
        .map_err(fault)?;
        let found = rows.iter().map(|row| verification(row, OPERATION)).collect::<Result<Vec<_>, _>>()?;
        let newest = found.into_iter().max_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(newest.filter(|found| found.is_alive(now)))
    }

    #[tracing::instrument(name = "sqlite.verification.swap", skip_all, err(Debug))]
    async fn swap(&self, identifier: &str, old: &str, new: &str, at: DateTime<Utc>) -> Result<bool, Fault> {
        sqlx::query("UPDATE verification SET value = ?3, updated_at = ?4 WHERE identifier = ?1 AND value = ?2")
            .bind(identifier)
            .bind(old)
            .bind(new)
            .bind(micros(at))
            .execute(&self.db.writer)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(fault("sqlite.verification.swap"))
    }
}

/// Stores the row; a hundred ended ones go in the same transaction.
pub(super) async fn insert(db: &Sqlite, row: &Verification, operation: &'static str) -> Result<(), Fault> {
    let fault = fault(operation);
    let mut tx = db.begin(operation).await?;
    sqlx::query("DELETE FROM verification WHERE id IN (SELECT id FROM verification WHERE expires_at < ?1 LIMIT 100)")
        .bind(micros(row.created_at - KEPT_AFTER_END))
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
    sqlx::query(
        "INSERT INTO verification (id, identifier, value, expires_at, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
    )
    .bind(&row.id)
    .bind(&row.identifier)
    .bind(&row.value)
    .bind(micros(row.expires_at))
    .bind(micros(row.created_at))
    .execute(&mut *tx)
    .await
    .map_err(fault)?;
    tx.commit().await.map_err(fault)
}

fn verification(row: &SqliteRow, operation: &'static str) -> Result<Verification, Fault> {
    let fault = fault(operation);
    let id: String = row.try_get("id").map_err(fault)?;
    let at = |column| -> Result<DateTime<Utc>, Fault> {
        time(row.try_get(column).map_err(fault)?).ok_or_else(|| corrupt(operation, "verification", column, &id))
    };
    Ok(Verification {
        expires_at: at("expires_at")?,
        created_at: at("created_at")?,
        identifier: row.try_get("identifier").map_err(fault)?,
        value: row.try_get("value").map_err(fault)?,
        id,
    })
}
