//! `jwks`.

use async_trait::async_trait;
use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgPool, PgRow};

use super::fault::fault;
use crate::core::model::oidc::keys::KeyRow;
use crate::core::model::secret::Secret;
use crate::ports::Fault;
use crate::ports::oidc::SigningKeyRepo;

/// Signing keys in PostgreSQL.
#[derive(Clone, Debug)]
pub struct PgSigningKeys {
    /// Where the table is.
    pub pool: PgPool,
}

/// One creator at a time, whatever the table holds (contract `auth.md` F-23).
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('airi_signing_keys'))";

#[async_trait]
impl SigningKeyRepo for PgSigningKeys {
    #[tracing::instrument(name = "postgres.signing_keys.list", skip_all, err(Debug))]
    async fn list(&self) -> Result<Vec<KeyRow>, Fault> {
        let fault = fault("postgres.signing_keys.list");
        let rows = sqlx::query(
            "SELECT id, public_key, private_key, created_at, expires_at FROM jwks ORDER BY created_at DESC, id",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(key).collect::<Result<_, _>>().map_err(fault)
    }

    #[tracing::instrument(name = "postgres.signing_keys.add_first", skip_all, err(Debug))]
    async fn add_first(&self, key: &KeyRow) -> Result<(), Fault> {
        let fault = fault("postgres.signing_keys.add_first");
        let mut tx = self.pool.begin().await.map_err(fault)?;
        sqlx::query(LOCK).execute(&mut *tx).await.map_err(fault)?;
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM jwks)").fetch_one(&mut *tx).await.map_err(fault)?;
        if !exists {
            insert(&mut tx, key).await.map_err(fault)?;
        }
        tx.commit().await.map_err(fault)
    }

    #[tracing::instrument(name = "postgres.signing_keys.rotate", skip_all, err(Debug))]
    async fn rotate(&self, key: &KeyRow, others_end: DateTime<Utc>) -> Result<(), Fault> {
        let fault = fault("postgres.signing_keys.rotate");
        let mut tx = self.pool.begin().await.map_err(fault)?;
        sqlx::query(LOCK).execute(&mut *tx).await.map_err(fault)?;
        sqlx::query("UPDATE jwks SET expires_at = $1 WHERE expires_at IS NULL")
            .bind(others_end.naive_utc())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        insert(&mut tx, key).await.map_err(fault)?;
        tx.commit().await.map_err(fault)
    }
}

async fn insert(connection: &mut PgConnection, key: &KeyRow) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO jwks (id, public_key, private_key, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(&key.id)
        .bind(&key.public_key)
        .bind(key.private_key.expose())
        .bind(key.created_at.naive_utc())
        .bind(key.expires_at.map(|at| at.naive_utc()))
        .execute(connection)
        .await
        .map(|_| ())
}

fn key(row: &PgRow) -> Result<KeyRow, sqlx::Error> {
    Ok(KeyRow {
        id: row.try_get("id")?,
        public_key: row.try_get("public_key")?,
        private_key: Secret::new(row.try_get::<String, _>("private_key")?),
        created_at: row.try_get::<NaiveDateTime, _>("created_at")?.and_utc(),
        expires_at: row.try_get::<Option<NaiveDateTime>, _>("expires_at")?.map(|at| at.and_utc()),
    })
}
