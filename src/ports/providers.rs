//! Provider configurations.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::Fault;
use crate::core::model::ids::{ProviderId, UserId};
use crate::core::model::ownership::OwnerOnly;
use crate::core::model::providers::{NewProvider, Provider, ProviderChange, ProviderStored};
use crate::core::model::sealed::SealedRow;

/// `user_provider_configs`, and `system_provider_configs` for reading.
///
/// Rows with a `deleted_at` MUST be as good as absent, except that their ids stay taken. The configuration of a system
/// row MUST NOT be read. Configurations are stored as they are given: sealing is the caller's.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait ProviderRepo: Send + Sync {
    /// The owner's rows, then the system's, each by creation, then id.
    async fn list(&self, owner: &UserId) -> Result<Vec<Provider>, Fault>;

    /// The owner's row with this id, else the system's.
    async fn find(&self, id: &ProviderId, owner: &UserId) -> Result<Option<Provider>, Fault>;

    /// Stores a row unless its id is taken by any row of either table, or the owner has `most` live rows. Creations of
    /// one owner MUST be decided one after the other.
    async fn create(&self, new: &NewProvider, most: u32) -> Result<ProviderStored, Fault>;

    /// Changes what is given and stamps `updated_at`, if `owner` is the owner: one statement decides and changes.
    async fn update(
        &self,
        id: &ProviderId,
        owner: &UserId,
        change: &ProviderChange,
        at: DateTime<Utc>,
    ) -> Result<OwnerOnly<Box<Provider>>, Fault>;

    /// Stamps `deleted_at` and nothing else, if `owner` is the owner: one statement decides and changes.
    async fn delete(&self, id: &ProviderId, owner: &UserId, at: DateTime<Utc>) -> Result<OwnerOnly<()>, Fault>;

    /// Configurations of all users, deleted rows included, behind the row `after`, by id, at most `limit`: what a new
    /// master key has to be applied to.
    async fn list_sealed<'a>(&self, after: Option<&'a str>, limit: u32) -> Result<Vec<SealedRow>, Fault>;

    /// Replaces the configuration of a row, if it still is what `row` says, and answers whether it was. No time moves.
    async fn reseal(&self, row: &SealedRow, config: &Map<String, Value>) -> Result<bool, Fault>;
}
