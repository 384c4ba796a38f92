//! `characters`, its parts, and the marks people put on them.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::types::Json;
use sqlx::{Sqlite as Driver, SqliteConnection, Transaction};

use super::character_rows::{Extent, one, selected, sheets};
use super::fault::fault;
use super::{Sqlite, micros};
use crate::core::model::characters::draft::{CharacterChange, Draft, NewCharacter};
use crate::core::model::characters::{Mark, Selection, Sheet, Stored};
use crate::core::model::ids::{CharacterId, UserId};
use crate::core::model::ownership::OwnerOnly;
use crate::core::model::sealed::SealedRow;
use crate::ports::Fault;
use crate::ports::characters::CharacterRepo;

/// Characters in the embedded database.
#[derive(Clone, Debug)]
pub struct SqliteCharacters {
    /// Where the tables are.
    pub db: Sqlite,
}

#[async_trait]
impl CharacterRepo for SqliteCharacters {
    #[tracing::instrument(name = "sqlite.characters.list", skip_all, err(Debug))]
    async fn list(&self, selection: &Selection, viewer: &UserId) -> Result<Vec<Sheet>, Fault> {
        let fault = fault("sqlite.characters.list");
        let mut tx = self.snapshot().await.map_err(fault)?;
        let characters = selected(&mut tx, selection).await.map_err(fault)?;
        sheets(&mut tx, characters, viewer, Extent::List).await.map_err(fault)
    }

    #[tracing::instrument(name = "sqlite.characters.find", skip_all, err(Debug))]
    async fn find(&self, id: &CharacterId, viewer: &UserId) -> Result<Option<Sheet>, Fault> {
        let fault = fault("sqlite.characters.find");
        let mut tx = self.snapshot().await.map_err(fault)?;
        let found = one(&mut tx, id).await.map_err(fault)?;
        let sheets = sheets(&mut tx, found.into_iter().collect(), viewer, Extent::Full).await.map_err(fault)?;
        Ok(sheets.into_iter().next())
    }

    #[tracing::instrument(name = "sqlite.characters.create", skip_all, err(Debug))]
    async fn create(&self, new: &NewCharacter) -> Result<Stored, Fault> {
        const OPERATION: &str = "sqlite.characters.create";
        let fault = fault(OPERATION);
        let mut tx = self.db.begin(OPERATION).await?;
        match insert(&mut tx, new).await {
            Ok(()) => {}
            Err(error) if is_taken(&error) => return Ok(Stored::Taken),
            Err(error) => return Err(fault(error)),
        }
        tx.commit().await.map_err(fault)?;
        Ok(Stored::Stored)
    }

    #[tracing::instrument(name = "sqlite.characters.update", skip_all, err(Debug))]
    async fn update(
        &self,
        id: &CharacterId,
        owner: &UserId,
        change: &CharacterChange,
        at: DateTime<Utc>,
    ) -> Result<OwnerOnly<()>, Fault> {
        let fault = fault("sqlite.characters.update");
        let changed = sqlx::query(
            "UPDATE characters SET version = coalesce(?3, version), cover_url = coalesce(?4, cover_url),
                    character_id = coalesce(?5, character_id), avatar_url = coalesce(?6, avatar_url),
                    creator_role = coalesce(?7, creator_role), price_credit = coalesce(?8, price_credit),
                    updated_at = ?9
             WHERE id = ?1 AND owner_id = ?2 AND deleted_at IS NULL",
        )
        .bind(id.as_str())
        .bind(owner.as_str())
        .bind(&change.version)
        .bind(&change.cover_url)
        .bind(&change.label)
        .bind(&change.avatar_url)
        .bind(&change.creator_role)
        .bind(&change.price_credit)
        .bind(micros(at))
        .execute(&self.db.writer)
        .await
        .map_err(fault)?;
        self.outcome(changed.rows_affected(), id).await.map_err(fault)
    }

    #[tracing::instrument(name = "sqlite.characters.delete", skip_all, err(Debug))]
    async fn delete(&self, id: &CharacterId, owner: &UserId, at: DateTime<Utc>) -> Result<OwnerOnly<()>, Fault> {
        let fault = fault("sqlite.characters.delete");
        let changed =
            sqlx::query("UPDATE characters SET deleted_at = ?3 WHERE id = ?1 AND owner_id = ?2 AND deleted_at IS NULL")
                .bind(id.as_str())
                .bind(owner.as_str())
                .bind(micros(at))
                .execute(&self.db.writer)
                .await
                .map_err(fault)?;
        self.outcome(changed.rows_affected(), id).await.map_err(fault)
    }

    #[tracing::instrument(name = "sqlite.characters.toggle", skip_all, err(Debug))]
    async fn toggle(&self, id: &CharacterId, user: &UserId, mark: Mark) -> Result<Option<bool>, Fault> {
        const OPERATION: &str = "sqlite.characters.toggle";
        let fault = fault(OPERATION);
        let mut tx = self.db.begin(OPERATION).await?;
        if !is_live(&mut tx, id).await.map_err(fault)? {
            return Ok(None);
        }
        let (is_set, moved) = match take_away(&mut tx, id, user, mark).await.map_err(fault)? {
            Some(was_live) if was_live => (false, -1),
            // Nothing, or a row of a closed account, which is counted nowhere.
            _ => (true, put_on(&mut tx, id, user, mark).await.map_err(fault)?),
        };
        if moved != 0 {
            count(&mut tx, id, mark, moved).await.map_err(fault)?;
        }
        tx.commit().await.map_err(fault)?;
        Ok(Some(is_set))
    }

    #[tracing::instrument(name = "sqlite.characters.recount", skip_all, err(Debug))]
    async fn recount(&self) -> Result<u64, Fault> {
        let mended = sqlx::query(
            "WITH counted AS (
                 SELECT id,
                        (SELECT count(*) FROM user_character_likes AS mark
                         WHERE mark.character_id = characters.id AND mark.deleted_at IS NULL) AS likes,
                        (SELECT count(*) FROM user_character_bookmarks AS mark
                         WHERE mark.character_id = characters.id AND mark.deleted_at IS NULL) AS bookmarks
                 FROM characters
             )
             UPDATE characters SET likes_count = counted.likes, bookmarks_count = counted.bookmarks
             FROM counted
             WHERE counted.id = characters.id
               AND (likes_count <> counted.likes OR bookmarks_count <> counted.bookmarks)",
        )
        .execute(&self.db.writer)
        .await
        .map_err(fault("sqlite.characters.recount"))?;
        Ok(mended.rows_affected())
    }

    #[tracing::instrument(name = "sqlite.characters.list_sealed", skip_all, err(Debug))]
    async fn list_sealed<'a>(&self, after: Option<&'a str>, limit: u32) -> Result<Vec<SealedRow>, Fault> {
        let rows: Vec<(String, String, Json<Map<String, Value>>)> = sqlx::query_as(
            "SELECT id, character_id, config FROM character_capabilities
             WHERE ?1 IS NULL OR id > ?1 ORDER BY id LIMIT ?2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.db.readers)
        .await
        .map_err(fault("sqlite.characters.list_sealed"))?;
        Ok(rows.into_iter().map(|(id, within, Json(config))| SealedRow { id, within, config }).collect())
    }

    #[tracing::instrument(name = "sqlite.characters.reseal", skip_all, err(Debug))]
    async fn reseal(&self, row: &SealedRow, config: &Map<String, Value>) -> Result<bool, Fault> {
        let changed =
            sqlx::query("UPDATE character_capabilities SET config = ?3 WHERE id = ?1 AND json(config) = json(?2)")
                .bind(row.id.as_str())
                .bind(Json(&row.config))
                .bind(Json(config))
                .execute(&self.db.writer)
                .await
                .map_err(fault("sqlite.characters.reseal"))?;
        Ok(changed.rows_affected() > 0)
    }
}

impl SqliteCharacters {
    /// Every query of one reading sees the same rows.
    async fn snapshot(&self) -> Result<Transaction<'static, Driver>, sqlx::Error> {
        self.db.readers.begin().await
    }

    async fn outcome(&self, changed: u64, id: &CharacterId) -> Result<OwnerOnly<()>, sqlx::Error> {
        if changed > 0 {
            return Ok(OwnerOnly::Done(()));
        }
        let exists = is_live(&mut *self.db.readers.acquire().await?, id).await?;
        Ok(if exists { OwnerOnly::Foreign } else { OwnerOnly::Missing })
    }
}

async fn is_live(connection: &mut SqliteConnection, id: &CharacterId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM characters WHERE id = ?1 AND deleted_at IS NULL)")
        .bind(id.as_str())
        .fetch_one(connection)
        .await
}

fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// Removes the mark's row and tells whether it was live; nothing when there was none.
async fn take_away(
    connection: &mut SqliteConnection,
    id: &CharacterId,
    user: &UserId,
    mark: Mark,
) -> Result<Option<bool>, sqlx::Error> {
    let statement = match mark {
        Mark::Like => {
            "DELETE FROM user_character_likes WHERE user_id = ?1 AND character_id = ?2 RETURNING deleted_at IS NULL"
        }
        Mark::Bookmark => {
            "DELETE FROM user_character_bookmarks WHERE user_id = ?1 AND character_id = ?2 RETURNING deleted_at IS NULL"
        }
    };
    sqlx::query_scalar(statement).bind(user.as_str()).bind(id.as_str()).fetch_optional(connection).await
}

/// Adds the mark's row and tells how many were added: none when another call of the same user was faster.
async fn put_on(
    connection: &mut SqliteConnection,
    id: &CharacterId,
    user: &UserId,
    mark: Mark,
) -> Result<i32, sqlx::Error> {
    let statement = match mark {
        Mark::Like => "INSERT INTO user_character_likes (user_id, character_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        Mark::Bookmark => {
            "INSERT INTO user_character_bookmarks (user_id, character_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING"
        }
    };
    let added = sqlx::query(statement).bind(user.as_str()).bind(id.as_str()).execute(connection).await?;
    Ok(i32::from(added.rows_affected() > 0))
}

async fn count(connection: &mut SqliteConnection, id: &CharacterId, mark: Mark, moved: i32) -> Result<(), sqlx::Error> {
    let statement = match mark {
        Mark::Like => "UPDATE characters SET likes_count = max(likes_count + ?2, 0) WHERE id = ?1",
        Mark::Bookmark => "UPDATE characters SET bookmarks_count = max(bookmarks_count + ?2, 0) WHERE id = ?1",
    };
    sqlx::query(statement).bind(id.as_str()).bind(moved).execute(connection).await.map(|_| ())
}

async fn insert(connection: &mut SqliteConnection, new: &NewCharacter) -> Result<(), sqlx::Error> {
    let Draft { id, version, cover_url, label, avatar_url, creator_role, price_credit, .. } = &new.draft;
    sqlx::query(
        "INSERT INTO characters (id, version, cover_url, creator_id, owner_id, character_id, avatar_url, creator_role,
                                 price_credit)
         VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(id)
    .bind(version)
    .bind(cover_url)
    .bind(new.owner.as_str())
    .bind(label)
    .bind(avatar_url)
    .bind(creator_role)
    .bind(price_credit)
    .execute(&mut *connection)
    .await?;
    if let Some(cover) = &new.draft.cover {
        sqlx::query(
            "INSERT INTO character_covers (id, character_id, foreground_url, background_url) VALUES (?1, ?2, ?3, ?4)",
        )
        .bind(&cover.id)
        .bind(id)
        .bind(&cover.foreground_url)
        .bind(&cover.background_url)
        .execute(&mut *connection)
        .await?;
    }
    insert_parts(connection, &new.draft).await
}

async fn insert_parts(connection: &mut SqliteConnection, draft: &Draft) -> Result<(), sqlx::Error> {
    for capability in &draft.capabilities {
        sqlx::query("INSERT INTO character_capabilities (id, character_id, type, config) VALUES (?1, ?2, ?3, ?4)")
            .bind(&capability.id)
            .bind(&draft.id)
            .bind(capability.kind)
            .bind(Json(&capability.config))
            .execute(&mut *connection)
            .await?;
    }
    for model in &draft.avatar_models {
        sqlx::query(
            "INSERT INTO avatar_model (id, character_id, name, type, description, config)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(&model.id)
        .bind(&draft.id)
        .bind(&model.name)
        .bind(model.kind)
        .bind(&model.description)
        .bind(Json(&model.config))
        .execute(&mut *connection)
        .await?;
    }
    for locale in &draft.locales {
        sqlx::query(
            "INSERT INTO character_i18n (id, character_id, language, name, tagline, description, tags)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(&locale.id)
        .bind(&draft.id)
        .bind(&locale.language)
        .bind(&locale.name)
        .bind(&locale.tagline)
        .bind(&locale.description)
        .bind(Json(&locale.tags))
        .execute(&mut *connection)
        .await?;
    }
    for prompt in &draft.prompts {
        sqlx::query(
            "INSERT INTO character_prompts (id, character_id, language, type, content) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .bind(&prompt.id)
        .bind(&draft.id)
        .bind(&prompt.language)
        .bind(prompt.kind)
        .bind(&prompt.content)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
