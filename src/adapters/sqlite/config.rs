//! Configuration entries of the embedded mode: `airi_config_*`.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::broadcast::{self, Sender, error::RecvError};

use super::Sqlite;
use super::fault::fault;
use crate::core::model::config::{ConfigChange, ConfigEntry, ConfigWrite, WriteOutcome};
use crate::ports::Fault;
use crate::ports::config::ConfigStore;

/// Changes a listener may lag behind before it is told to forget everything.
const BACKLOG: usize = 64;

/// Configuration in the embedded database, which no other process writes.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// Where the tables are.
    pub db: Sqlite,
    /// Tells the listeners of this process; see [`listeners`].
    pub listeners: Sender<ConfigChange>,
}

/// A channel nobody listens to yet.
pub fn listeners() -> Sender<ConfigChange> {
    broadcast::channel(BACKLOG).0
}

#[async_trait]
impl ConfigStore for SqliteConfig {
    #[tracing::instrument(name = "sqlite.config.find", skip_all, err(Debug))]
    async fn find(&self, name: &'static str) -> Result<Option<Arc<ConfigEntry>>, Fault> {
        let value: Option<String> = sqlx::query_scalar("SELECT value FROM airi_config_entry WHERE name = ?1")
            .bind(name)
            .fetch_optional(&self.db.readers)
            .await
            .map_err(fault("sqlite.config.find"))?;
        Ok(value.map(|value| Arc::new(ConfigEntry::new(value))))
    }

    #[tracing::instrument(name = "sqlite.config.version", skip_all, err(Debug))]
    async fn version(&self) -> Result<i64, Fault> {
        sqlx::query_scalar("SELECT version FROM airi_config_version")
            .fetch_one(&self.db.readers)
            .await
            .map_err(fault("sqlite.config.version"))
    }

    #[tracing::instrument(name = "sqlite.config.write", skip_all, err(Debug))]
    async fn write(&self, write: &ConfigWrite) -> Result<WriteOutcome, Fault> {
        const OPERATION: &str = "sqlite.config.write";
        let fault = fault(OPERATION);
        let mut tx = self.db.begin(OPERATION).await?;
        let found: i64 =
            sqlx::query_scalar("SELECT version FROM airi_config_version").fetch_one(&mut *tx).await.map_err(fault)?;
        if write.expected_version.is_some_and(|expected| expected != found) {
            return Ok(WriteOutcome::Stale(found));
        }
        let version = found + 1;
        sqlx::query("UPDATE airi_config_version SET version = ?1")
            .bind(version)
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        for (name, value) in &write.entries {
            // A name given twice keeps the value it had before the write; the last one given stands.
            sqlx::query(
                "INSERT INTO airi_config_history (version, name, previous_value)
                 VALUES (?1, ?2, (SELECT value FROM airi_config_entry WHERE name = ?2))
                 ON CONFLICT (version, name) DO NOTHING",
            )
            .bind(version)
            .bind(name)
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
            let query = match value {
                Some(value) => sqlx::query(
                    "INSERT INTO airi_config_entry (name, value) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
                )
                .bind(name)
                .bind(value),
                None => sqlx::query("DELETE FROM airi_config_entry WHERE name = ?1").bind(name),
            };
            query.execute(&mut *tx).await.map_err(fault)?;
        }
        // Before the commit nobody may hear of it, and after it a dropped future would keep it to itself.
        let announcement = Announcement { listeners: &self.listeners, write };
        tx.commit().await.map_err(fault)?;
        drop(announcement);
        Ok(WriteOutcome::Written(version))
    }

    fn changes(&self) -> BoxStream<'static, ConfigChange> {
        // The sender is kept beside the receiver, so the stream ends with the process only.
        let channel = (self.listeners.subscribe(), self.listeners.clone());
        stream::unfold(channel, |(mut receiver, sender)| async move {
            let change = match receiver.recv().await {
                Ok(change) => change,
                Err(RecvError::Lagged(_)) => ConfigChange::Gap,
                Err(RecvError::Closed) => return None,
            };
            Some((change, (receiver, sender)))
        })
        .boxed()
    }
}

/// Tells listeners on drop: once the commit is under way its outcome may be unknown, and a copy too often forgotten
/// does no harm.
struct Announcement<'a> {
    listeners: &'a Sender<ConfigChange>,
    write: &'a ConfigWrite,
}

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        for (name, _) in &self.write.entries {
            // Refused only while nobody listens.
            let _ = self.listeners.send(ConfigChange::Entry((*name).to_owned()));
        }
    }
}
