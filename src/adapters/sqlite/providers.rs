//! `user_provider_configs` and `system_provider_configs`.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;

use super::fault::fault;
use super::{Sqlite, micros, time};
use crate::core::model::ids::{ProviderId, UserId};
use crate::core::model::ownership::OwnerOnly;
use crate::core::model::providers::{NewProvider, Provider, ProviderChange, ProviderConfig, ProviderStored};
use crate::core::model::sealed::SealedRow;
use crate::ports::Fault;
use crate::ports::providers::ProviderRepo;

/// Provider configurations in the embedded database.
#[derive(Clone, Debug)]
pub struct SqliteProviders {
    /// Where the tables are.
    pub db: Sqlite,
}

#[async_trait]
impl ProviderRepo for SqliteProviders {
    #[tracing::instrument(name = "sqlite.providers.list", skip_all, err(Debug))]
    async fn list(&self, owner: &UserId) -> Result<Vec<Provider>, Fault> {
        let fault = fault("sqlite.providers.list");
        let rows = sqlx::query(
            "SELECT id, owner_id, definition_id, name, config, validated, validation_bypassed, created_at, updated_at
             FROM user_provider_configs WHERE owner_id = ?1 AND deleted_at IS NULL
             UNION ALL
             SELECT id, NULL, definition_id, name, '{}', validated, validation_bypassed, created_at, updated_at
             FROM system_provider_configs WHERE deleted_at IS NULL
             ORDER BY owner_id NULLS LAST, created_at, id",
        )
        .bind(owner.as_str())
        .fetch_all(&self.db.readers)
        .await
        .map_err(fault)?;
        rows.iter().map(provider).collect::<Result<_, _>>().map_err(fault)
    }

    #[tracing::instrument(name = "sqlite.providers.find", skip_all, err(Debug))]
    async fn find(&self, id: &ProviderId, owner: &UserId) -> Result<Option<Provider>, Fault> {
        let fault = fault("sqlite.providers.find");
        let row = sqlx::query(
            "SELECT id, owner_id, definition_id, name, config, validated, validation_bypassed, created_at, updated_at
             FROM user_provider_configs WHERE id = ?1 AND owner_id = ?2 AND deleted_at IS NULL
             UNION ALL
             SELECT id, NULL, definition_id, name, '{}', validated, validation_bypassed, created_at, updated_at
             FROM system_provider_configs WHERE id = ?1 AND deleted_at IS NULL
             ORDER BY owner_id NULLS LAST LIMIT 1",
        )
        .bind(id.as_str())
        .bind(owner.as_str())
        .fetch_optional(&self.db.readers)
        .await
        .map_err(fault)?;
        row.as_ref().map(provider).transpose().map_err(fault)
    }

    #[tracing::instrument(name = "sqlite.providers.create", skip_all, err(Debug))]
    async fn create(&self, new: &NewProvider, most: u32) -> Result<ProviderStored, Fault> {
        const OPERATION: &str = "sqlite.providers.create";
        let fault = fault(OPERATION);
        let mut tx = self.db.begin(OPERATION).await?;
        let (taken, live): (bool, i64) = sqlx::query_as(
            "SELECT EXISTS (SELECT 1 FROM user_provider_configs WHERE id = ?1)
                    OR EXISTS (SELECT 1 FROM system_provider_configs WHERE id = ?1),
                    (SELECT count(*) FROM user_provider_configs WHERE owner_id = ?2 AND deleted_at IS NULL)",
        )
        .bind(new.id.as_str())
        .bind(new.owner.as_str())
        .fetch_one(&mut *tx)
        .await
        .map_err(fault)?;
        if taken {
            return Ok(ProviderStored::Taken);
        }
        if live >= i64::from(most) {
            return Ok(ProviderStored::Full);
        }
        let row = sqlx::query(
            "INSERT INTO user_provider_configs (id, owner_id, definition_id, name, config, validated,
                                                validation_bypassed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING
             RETURNING id, owner_id, definition_id, name, config, validated, validation_bypassed, created_at, updated_at",
        )
        .bind(new.id.as_str())
        .bind(new.owner.as_str())
        .bind(&new.definition)
        .bind(&new.name)
        .bind(Json(&new.config.0))
        .bind(new.validated)
        .bind(new.validation_bypassed)
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault)?;
        let Some(row) = row else { return Ok(ProviderStored::Taken) };
        let stored = provider(&row).map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(ProviderStored::Stored(Box::new(stored)))
    }

    #[tracing::instrument(name = "sqlite.providers.update", skip_all, err(Debug))]
    async fn update(
        &self,
        id: &ProviderId,
        owner: &UserId,
        change: &ProviderChange,
        at: DateTime<Utc>,
    ) -> Result<OwnerOnly<Box<Provider>>, Fault> {
        let fault = fault("sqlite.providers.update");
        let row = sqlx::query(
            "UPDATE user_provider_configs SET name = coalesce(?3, name), config = coalesce(?4, config),
                    validated = coalesce(?5, validated),
                    validation_bypassed = coalesce(?6, validation_bypassed), updated_at = ?7
             WHERE id = ?1 AND owner_id = ?2 AND deleted_at IS NULL
             RETURNING id, owner_id, definition_id, name, config, validated, validation_bypassed, created_at, updated_at",
        )
        .bind(id.as_str())
        .bind(owner.as_str())
        .bind(&change.name)
        .bind(change.config.as_ref().map(|config| Json(&config.0)))
        .bind(change.validated)
        .bind(change.validation_bypassed)
        .bind(micros(at))
        .fetch_optional(&self.db.writer)
        .await
        .map_err(fault)?;
        match row {
            Some(row) => Ok(OwnerOnly::Done(Box::new(provider(&row).map_err(fault)?))),
            None if self.is_live(id).await.map_err(fault)? => Ok(OwnerOnly::Foreign),
            None => Ok(OwnerOnly::Missing),
        }
    }

    #[tracing::instrument(name = "sqlite.providers.delete", skip_all, err(Debug))]
    async fn delete(&self, id: &ProviderId, owner: &UserId, at: DateTime<Utc>) -> Result<OwnerOnly<()>, Fault> {
        let fault = fault("sqlite.providers.delete");
        let changed = sqlx::query(
            "UPDATE user_provider_configs SET deleted_at = ?3
             WHERE id = ?1 AND owner_id = ?2 AND deleted_at IS NULL",
        )
        .bind(id.as_str())
        .bind(owner.as_str())
        .bind(micros(at))
        .execute(&self.db.writer)
        .await
        .map_err(fault)?;
        if changed.rows_affected() > 0 {
            return Ok(OwnerOnly::Done(()));
        }
        Ok(if self.is_live(id).await.map_err(fault)? { OwnerOnly::Foreign } else { OwnerOnly::Missing })
    }

    #[tracing::instrument(name = "sqlite.providers.list_sealed", skip_all, err(Debug))]
    async fn list_sealed<'a>(&self, after: Option<&'a str>, limit: u32) -> Result<Vec<SealedRow>, Fault> {
        let rows: Vec<(String, String, Json<Map<String, Value>>)> = sqlx::query_as(
            "SELECT id, owner_id, config FROM user_provider_configs
             WHERE ?1 IS NULL OR id > ?1 ORDER BY id LIMIT ?2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.db.readers)
        .await
        .map_err(fault("sqlite.providers.list_sealed"))?;
        Ok(rows.into_iter().map(|(id, within, Json(config))| SealedRow { id, within, config }).collect())
    }

    #[tracing::instrument(name = "sqlite.providers.reseal", skip_all, err(Debug))]
    async fn reseal(&self, row: &SealedRow, config: &Map<String, Value>) -> Result<bool, Fault> {
        let changed =
            sqlx::query("UPDATE user_provider_configs SET config = ?3 WHERE id = ?1 AND json(config) = json(?2)")
                .bind(row.id.as_str())
                .bind(Json(&row.config))
                .bind(Json(config))
                .execute(&self.db.writer)
                .await
                .map_err(fault("sqlite.providers.reseal"))?;
        Ok(changed.rows_affected() > 0)
    }
}

impl SqliteProviders {
    async fn is_live(&self, id: &ProviderId) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM user_provider_configs WHERE id = ?1 AND deleted_at IS NULL)")
            .bind(id.as_str())
            .fetch_one(&self.db.readers)
            .await
    }
}

fn provider(row: &SqliteRow) -> Result<Provider, sqlx::Error> {
    let Json(config) = row.try_get::<Json<Map<String, Value>>, _>("config")?;
    Ok(Provider {
        id: ProviderId::new(row.try_get::<String, _>("id")?),
        owner: row.try_get::<Option<String>, _>("owner_id")?.map(UserId::new),
        definition: row.try_get("definition_id")?,
        name: row.try_get("name")?,
        config: ProviderConfig(config),
        validated: row.try_get("validated")?,
        validation_bypassed: row.try_get("validation_bypassed")?,
        created_at: at(row, "created_at")?,
        updated_at: at(row, "updated_at")?,
    })
}

fn at(row: &SqliteRow, column: &str) -> Result<DateTime<Utc>, sqlx::Error> {
    time(row.try_get(column)?)
        .ok_or_else(|| sqlx::Error::ColumnDecode { index: column.to_owned(), source: "beyond the calendar".into() })
}
