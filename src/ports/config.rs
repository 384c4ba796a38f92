//! Where configuration entries live.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::Fault;
use crate::core::model::config::{ConfigChange, ConfigEntry, ConfigWrite, WriteOutcome};

/// Named JSON texts with one version for all of them.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait ConfigStore: Send + Sync {
    /// The entry stored under this name.
    async fn find(&self, name: &'static str) -> Result<Option<Arc<ConfigEntry>>, Fault>;

    /// The entry as the store itself has it now. A store that keeps copies MUST override this and ask past them: an
    /// operator's change is computed from this reading, and one computed from an old copy would undo a newer one.
    async fn find_fresh(&self, name: &'static str) -> Result<Option<Arc<ConfigEntry>>, Fault> {
        self.find(name).await
    }

    /// Grows by one with every write; 0 before the first.
    async fn version(&self) -> Result<i64, Fault>;

    /// Writes all entries or none, bumps the version and tells every listener, atomically.
    async fn write(&self, write: &ConfigWrite) -> Result<WriteOutcome, Fault>;

    /// What changes from now on, in this process and in others. Ends only with the process.
    fn changes(&self) -> BoxStream<'static, ConfigChange>;
}
