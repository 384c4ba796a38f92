//! `jwks`.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::fault::{corrupt, fault};
use super::{Sqlite, micros, time};
use crate::core::model::oidc::keys::KeyRow;
use crate::core::model::secret::Secret;
use crate::ports::Fault;
use crate::ports::oidc::SigningKeyRepo;

/// Signing keys in the embedded database.
#[derive(Clone, Debug)]
pub struct SqliteSigningKeys {
    /// Where the table is.
    pub db: Sqlite,
}

#[async_trait]
impl SigningKeyRepo for SqliteSigningKeys {
    #[tracing::instrument(name = "sqlite.signing_keys.list", skip_all, err(Debug))]
    async fn list(&self) -> Result<Vec<KeyRow>, Fault> {
        const OPERATION: &str = "sqlite.signing_keys.list";
        let rows = sqlx::query(
            "SELECT id, public_key, private_key, created_at, expires_at FROM jwks ORDER BY created_at DESC, id",
        )
        .fetch_all(&self.db.readers)
        .await
        .map_err(fault(OPERATION))?;
        rows.iter().map(|row| key(row, OPERATION)).collect()
    }

    #[tracing::instrument(name = "sqlite.signing_keys.add_first", skip_all, err(Debug))]
    async fn add_first(&self, key: &KeyRow) -> Result<(), Fault> {
        const OPERATION: &str = "sqlite.signing_keys.add_first";
        let fault = fault(OPERATION);
        let mut tx = self.db.begin(OPERATION).await?;
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM jwks)").fetch_one(&mut *tx).await.map_err(fault)?;
        if !exists {
            insert(&mut tx, key).await.map_err(fault)?;
        }
        tx.commit().await.map_err(fault)
    }

    #[tracing::instrument(name = "sqlite.signing_keys.rotate", skip_all, err(Debug))]
    async fn rotate(&self, key: &KeyRow, others_end: DateTime<Utc>) -> Result<(), Fault> {
        const OPERATION: &str = "sqlite.signing_keys.rotate";
        let fault = fault(OPERATION);
        let mut tx = self.db.begin(OPERATION).await?;
        sqlx::query("UPDATE jwks SET expires_at = ? WHERE expires_at IS NULL")
            .bind(micros(others_end))
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        insert(&mut tx, key).await.map_err(fault)?;
        tx.commit().await.map_err(fault)
    }
}

async fn insert(connection: &mut SqliteConnection, key: &KeyRow) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO jwks (id, public_key, private_key, created_at, expires_at) VALUES (?, ?, ?, ?, ?)")
        .bind(&key.id)
        .bind(&key.public_key)
        .bind(key.private_key.expose())
        .bind(micros(key.created_at))
        .bind(key.expires_at.map(micros))
        .execute(connection)
        .await
        .map(|_| ())
}

fn key(row: &SqliteRow, operation: &'static str) -> Result<KeyRow, Fault> {
    let fault = fault(operation);
    let id: String = row.try_get("id").map_err(fault)?;
    let at = |micros: i64, column| time(micros).ok_or_else(|| corrupt(operation, "jwks", column, &id));
    let expires_at = row.try_get::<Option<i64>, _>("expires_at").map_err(fault)?;
    Ok(KeyRow {
        public_key: row.try_get("public_key").map_err(fault)?,
        private_key: Secret::new(row.try_get::<String, _>("private_key").map_err(fault)?),
        created_at: at(row.try_get("created_at").map_err(fault)?, "created_at")?,
        expires_at: expires_at.map(|end| at(end, "expires_at")).transpose()?,
        id,
    })
}
