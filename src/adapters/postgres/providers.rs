//! `user_provider_configs` and `system_provider_configs`.

use async_trait::async_trait;
use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::types::Json;

use super::fault::fault;
use crate::core::model::ids::{ProviderId, UserId};
use crate::core::model::ownership::OwnerOnly;
use crate::core::model::providers::{NewProvider, Provider, ProviderChange, ProviderConfig, ProviderStored};
use crate::core::model::sealed::SealedRow;
use crate::ports::Fault;
use crate::ports::providers::ProviderRepo;

/// Provider configurations in PostgreSQL.
#[derive(Clone, Debug)]
pub struct PgProviders {
    /// Where the tables are.
    pub pool: PgPool,
}

#[async_trait]
impl ProviderRepo for PgProviders {
    #[tracing::instrument(name = "postgres.providers.list", skip_all, err(Debug))]
    async fn list(&self, owner: &UserId) -> Result<Vec<Provider>, Fault> {
        let fault = fault("postgres.providers.list");
        let rows = sqlx::query(
            "SELECT id, owner_id, definition_id, name, config, validated, validation_bypassed, created_at, updated_at
             FROM user_provider_configs WHERE owner_id = $1 AND deleted_at IS NULL
             UNION ALL
             SELECT id, NULL, definition_id, name, '{}', validated, validation_bypassed, created_at, updated_at
             FROM system_provider_configs WHERE deleted_at IS NULL
             ORDER BY owner_id NULLS LAST, created_at, id",
        )
        .bind(owner.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(provider).collect::<Result<_, _>>().map_err(fault)
    }

    #[tracing::instrument(name = "postgres.providers.find", skip_all, err(Debug))]
    async fn find(&self, id: &ProviderId, owner: &UserId) -> Result<Option<Provider>, Fault> {
        let fault = fault("postgres.providers.find");
        let row = sqlx::query(
            "SELECT id, owner_id, definition_id, name, config, validated, validation_bypassed, created_at, updated_at
             FROM user_provider_configs WHERE id = $1 AND owner_id = $2 AND deleted_at IS NULL
             UNION ALL
             SELECT id, NULL, definition_id, name, '{}', validated, validation_bypassed, created_at, updated_at
             FROM system_provider_configs WHERE id = $1 AND deleted_at IS NULL
             ORDER BY owner_id NULLS LAST LIMIT 1",
        )
        .bind(id.as_str())
        .bind(owner.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(fault)?;
        row.as_ref().map(provider).transpose().map_err(fault)
    }

    #[tracing::instrument(name = "postgres.providers.create", skip_all, err(Debug))]
    async fn create(&self, new: &NewProvider, most: u32) -> Result<ProviderStored, Fault> {
        let fault = fault("postgres.providers.create");
        let mut tx = self.pool.begin_with("begin isolation level read committed").await.map_err(fault)?;
        // No row of the owner's stands for all of them, so the owner's name is locked.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('airi.provider-configs.' || $1, 0))")
            .bind(new.owner.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        let (taken, live): (bool, i64) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM user_provider_configs WHERE id = $1)
                    OR EXISTS (SELECT FROM system_provider_configs WHERE id = $1),
                    (SELECT count(*) FROM user_provider_configs WHERE owner_id = $2 AND deleted_at IS NULL)",
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
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
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

    #[tracing::instrument(name = "postgres.providers.update", skip_all, err(Debug))]
    async fn update(
        &self,
        id: &ProviderId,
        owner: &UserId,
        change: &ProviderChange,
        at: DateTime<Utc>,
    ) -> Result<OwnerOnly<Box<Provider>>, Fault> {
        let fault = fault("postgres.providers.update");
        let row = sqlx::query(
            "UPDATE user_provider_configs SET name = coalesce($3, name), config = coalesce($4, config),
                    validated = coalesce($5, validated),
                    validation_bypassed = coalesce($6, validation_bypassed), updated_at = $7
             WHERE id = $1 AND owner_id = $2 AND deleted_at IS NULL
             RETURNING id, owner_id, definition_id, name, config, validated, validation_bypassed, created_at, updated_at",
        )
        .bind(id.as_str())
        .bind(owner.as_str())
        .bind(&change.name)
        .bind(change.config.as_ref().map(|config| Json(&config.0)))
        .bind(change.validated)
        .bind(change.validation_bypassed)
        .bind(at.naive_utc())
        .fetch_optional(&self.pool)
        .await
        .map_err(fault)?;
        match row {
            Some(row) => Ok(OwnerOnly::Done(Box::new(provider(&row).map_err(fault)?))),
            None if self.is_live(id).await.map_err(fault)? => Ok(OwnerOnly::Foreign),
            None => Ok(OwnerOnly::Missing),
        }
    }

    #[tracing::instrument(name = "postgres.providers.delete", skip_all, err(Debug))]
    async fn delete(&self, id: &ProviderId, owner: &UserId, at: DateTime<Utc>) -> Result<OwnerOnly<()>, Fault> {
        let fault = fault("postgres.providers.delete");
        let changed = sqlx::query(
            "UPDATE user_provider_configs SET deleted_at = $3
             WHERE id = $1 AND owner_id = $2 AND deleted_at IS NULL",
        )
        .bind(id.as_str())
        .bind(owner.as_str())
        .bind(at.naive_utc())
        .execute(&self.pool)
        .await
        .map_err(fault)?;
        if changed.rows_affected() > 0 {
            return Ok(OwnerOnly::Done(()));
        }
        Ok(if self.is_live(id).await.map_err(fault)? { OwnerOnly::Foreign } else { OwnerOnly::Missing })
    }

    #[tracing::instrument(name = "postgres.providers.list_sealed", skip_all, err(Debug))]
    async fn list_sealed<'a>(&self, after: Option<&'a str>, limit: u32) -> Result<Vec<SealedRow>, Fault> {
        let rows: Vec<(String, String, Json<Map<String, Value>>)> = sqlx::query_as(
            "SELECT id, owner_id, config FROM user_provider_configs
             WHERE $1::text IS NULL OR id > $1 ORDER BY id LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(fault("postgres.providers.list_sealed"))?;
        Ok(rows.into_iter().map(|(id, within, Json(config))| SealedRow { id, within, config }).collect())
    }

    #[tracing::instrument(name = "postgres.providers.reseal", skip_all, err(Debug))]
    async fn reseal(&self, row: &SealedRow, config: &Map<String, Value>) -> Result<bool, Fault> {
        let changed = sqlx::query("UPDATE user_provider_configs SET config = $3 WHERE id = $1 AND config = $2")
            .bind(row.id.as_str())
            .bind(Json(&row.config))
            .bind(Json(config))
            .execute(&self.pool)
            .await
            .map_err(fault("postgres.providers.reseal"))?;
        Ok(changed.rows_affected() > 0)
    }
}

impl PgProviders {
    async fn is_live(&self, id: &ProviderId) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM user_provider_configs WHERE id = $1 AND deleted_at IS NULL)")
            .bind(id.as_str())
            .fetch_one(&self.pool)
            .await
    }
}

fn provider(row: &PgRow) -> Result<Provider, sqlx::Error> {
    let Json(config) = row.try_get::<Json<Map<String, Value>>, _>("config")?;
    Ok(Provider {
        id: ProviderId::new(row.try_get::<String, _>("id")?),
        owner: row.try_get::<Option<String>, _>("owner_id")?.map(UserId::new),
        definition: row.try_get("definition_id")?,
        name: row.try_get("name")?,
        config: ProviderConfig(config),
        validated: row.try_get("validated")?,
        validation_bypassed: row.try_get("validation_bypassed")?,
        created_at: row.try_get::<NaiveDateTime, _>("created_at")?.and_utc(),
        updated_at: row.try_get::<NaiveDateTime, _>("updated_at")?.and_utc(),
    })
}
