//! Characters and what belongs to them.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::Fault;
use crate::core::model::characters::draft::{CharacterChange, NewCharacter};
use crate::core::model::characters::{Mark, Selection, Sheet, Stored};
use crate::core::model::ids::{CharacterId, UserId};
use crate::core::model::ownership::OwnerOnly;
use crate::core::model::sealed::SealedRow;

/// `characters`, its parts, `user_character_likes` and `user_character_bookmarks`.
///
/// Rows with a `deleted_at` MUST be as good as absent everywhere.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait CharacterRepo: Send + Sync {
    /// The selected characters, newest first (creation, then id, descending), each without avatar models and prompts
    /// and with `viewer`'s own marks. MUST ask once per relation, not per row.
    async fn list(&self, selection: &Selection, viewer: &UserId) -> Result<Vec<Sheet>, Fault>;

    /// One character with everything, and with `viewer`'s own marks.
    async fn find(&self, id: &CharacterId, viewer: &UserId) -> Result<Option<Sheet>, Fault>;

    /// Stores a character and all its parts, or nothing when any id in it is taken.
    async fn create(&self, new: &NewCharacter) -> Result<Stored, Fault>;

    /// Changes what is given and stamps `updated_at`, if `owner` is the owner: one statement decides and changes.
    async fn update(
        &self,
        id: &CharacterId,
        owner: &UserId,
        change: &CharacterChange,
        at: DateTime<Utc>,
    ) -> Result<OwnerOnly<()>, Fault>;

    /// Stamps `deleted_at` and nothing else, if `owner` is the owner: one statement decides and changes.
    async fn delete(&self, id: &CharacterId, owner: &UserId, at: DateTime<Utc>) -> Result<OwnerOnly<()>, Fault>;

    /// Takes the user's mark away or puts it on, and answers whether it is there now; `None` when there is no such
    /// character. The counter MUST move by exactly the rows removed and inserted, in the same transaction, never below
    /// 0, and `updated_at` stays.
    async fn toggle(&self, id: &CharacterId, user: &UserId, mark: Mark) -> Result<Option<bool>, Fault>;

    /// Sets the counters of every character to the number of live marks and answers how many were wrong.
    async fn recount(&self) -> Result<u64, Fault>;

    /// Capabilities of all characters, deleted ones included, behind the row `after`, by id, at most `limit`: what a new
    /// master key has to be applied to.
    async fn list_sealed<'a>(&self, after: Option<&'a str>, limit: u32) -> Result<Vec<SealedRow>, Fault>;

    /// Replaces the configuration of a row, if it still is what `row` says, and answers whether it was. No time moves.
    async fn reseal(&self, row: &SealedRow, config: &Map<String, Value>) -> Result<bool, Fault>;
}
