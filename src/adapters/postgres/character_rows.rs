//! Characters as they are read: one query for the characters, one for each relation of all of them.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row};

use crate::core::model::characters::{
    AvatarModel, Capability, Character, Counters, Cover, Locale, Prompt, Selection, Sheet,
};
use crate::core::model::ids::{CharacterId, UserId};

/// Whether the relations that lists leave out are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    List,
    Full,
}

pub(super) async fn selected(
    connection: &mut PgConnection,
    selection: &Selection,
) -> Result<Vec<Character>, sqlx::Error> {
    let rows = match &selection.owner {
        Some(owner) => {
            sqlx::query(
                "SELECT id, version, cover_url, creator_id, owner_id, character_id, avatar_url, creator_role,
                        price_credit, likes_count, bookmarks_count, interactions_count, forks_count, created_at,
                        updated_at
                 FROM characters WHERE owner_id = $3 AND deleted_at IS NULL
                 ORDER BY created_at DESC, id DESC LIMIT $1 OFFSET $2",
            )
            .bind(i64::from(selection.limit))
            .bind(i64::from(selection.offset))
            .bind(owner.as_str())
            .fetch_all(connection)
            .await?
        }
        None => {
            sqlx::query(
                "SELECT id, version, cover_url, creator_id, owner_id, character_id, avatar_url, creator_role,
                        price_credit, likes_count, bookmarks_count, interactions_count, forks_count, created_at,
                        updated_at
                 FROM characters WHERE deleted_at IS NULL
                 ORDER BY created_at DESC, id DESC LIMIT $1 OFFSET $2",
            )
            .bind(i64::from(selection.limit))
            .bind(i64::from(selection.offset))
            .fetch_all(connection)
            .await?
        }
    };
    rows.iter().map(character).collect()
}

pub(super) async fn one(connection: &mut PgConnection, id: &CharacterId) -> Result<Option<Character>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT id, version, cover_url, creator_id, owner_id, character_id, avatar_url, creator_role, price_credit,
                likes_count, bookmarks_count, interactions_count, forks_count, created_at, updated_at
         FROM characters WHERE id = $1 AND deleted_at IS NULL",
    )
    .bind(id.as_str())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(character).transpose()
}

/// Puts around each character what belongs to it.
pub(super) async fn sheets(
    connection: &mut PgConnection,
    characters: Vec<Character>,
    viewer: &UserId,
    extent: Extent,
) -> Result<Vec<Sheet>, sqlx::Error> {
    if characters.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = characters.iter().map(|character| character.id.as_str()).collect();
    let rows = sqlx::query(
        "SELECT character_id, id, type, config FROM character_capabilities WHERE character_id = ANY($1) ORDER BY id",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?;
    let mut capabilities = grouped(&rows, capability)?;
    let rows = sqlx::query(
        "SELECT character_id, id, language, name, tagline, description, tags, created_at, updated_at
         FROM character_i18n WHERE character_id = ANY($1) AND deleted_at IS NULL ORDER BY id",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?;
    let mut locales = grouped(&rows, locale)?;
    let rows = sqlx::query(
        "SELECT DISTINCT ON (character_id) character_id, id, foreground_url, background_url, created_at, updated_at
         FROM character_covers WHERE character_id = ANY($1) AND deleted_at IS NULL
         ORDER BY character_id, created_at DESC, id DESC",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?;
    let mut covers = grouped(&rows, cover)?;
    let rows = sqlx::query(
        "SELECT character_id, created_at FROM user_character_likes
         WHERE character_id = ANY($1) AND user_id = $2 AND deleted_at IS NULL",
    )
    .bind(&ids)
    .bind(viewer.as_str())
    .fetch_all(&mut *connection)
    .await?;
    let mut likes = grouped(&rows, |row| time(row, "created_at"))?;
    let rows = sqlx::query(
        "SELECT character_id, created_at FROM user_character_bookmarks
         WHERE character_id = ANY($1) AND user_id = $2 AND deleted_at IS NULL",
    )
    .bind(&ids)
    .bind(viewer.as_str())
    .fetch_all(&mut *connection)
    .await?;
    let mut bookmarks = grouped(&rows, |row| time(row, "created_at"))?;
    let (mut models, mut prompts) = (HashMap::new(), HashMap::new());
    if extent == Extent::Full {
        let rows = sqlx::query(
            "SELECT character_id, id, name, type, description, config, created_at, updated_at
             FROM avatar_model WHERE character_id = ANY($1) AND deleted_at IS NULL ORDER BY id",
        )
        .bind(&ids)
        .fetch_all(&mut *connection)
        .await?;
        models = grouped(&rows, avatar_model)?;
        let rows = sqlx::query("SELECT character_id, id, language, type, content FROM character_prompts WHERE character_id = ANY($1) ORDER BY id")
            .bind(&ids)
            .fetch_all(&mut *connection)
            .await?;
        prompts = grouped(&rows, prompt)?;
    }
    let is_full = extent == Extent::Full;
    let sheet = |character: Character| {
        let id = character.id.as_str();
        Sheet {
            capabilities: capabilities.remove(id).unwrap_or_default(),
            avatar_models: is_full.then(|| models.remove(id).unwrap_or_default()),
            locales: locales.remove(id).unwrap_or_default(),
            prompts: is_full.then(|| prompts.remove(id).unwrap_or_default()),
            liked_at: likes.remove(id).and_then(|times| times.into_iter().next()),
            bookmarked_at: bookmarks.remove(id).and_then(|times| times.into_iter().next()),
            cover: covers.remove(id).and_then(|covers| covers.into_iter().next()),
            character,
        }
    };
    Ok(characters.into_iter().map(sheet).collect())
}

fn grouped<T>(
    rows: &[PgRow],
    read: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
) -> Result<HashMap<String, Vec<T>>, sqlx::Error> {
    let mut groups: HashMap<String, Vec<T>> = HashMap::new();
    for row in rows {
        groups.entry(row.try_get("character_id")?).or_default().push(read(row)?);
    }
    Ok(groups)
}

fn character(row: &PgRow) -> Result<Character, sqlx::Error> {
    Ok(Character {
        id: CharacterId::new(row.try_get::<String, _>("id")?),
        version: row.try_get("version")?,
        cover_url: row.try_get("cover_url")?,
        creator: UserId::new(row.try_get::<String, _>("creator_id")?),
        owner: UserId::new(row.try_get::<String, _>("owner_id")?),
        label: row.try_get("character_id")?,
        avatar_url: row.try_get("avatar_url")?,
        creator_role: row.try_get("creator_role")?,
        price_credit: row.try_get("price_credit")?,
        counters: Counters {
            likes: row.try_get("likes_count")?,
            bookmarks: row.try_get("bookmarks_count")?,
            interactions: row.try_get("interactions_count")?,
            forks: row.try_get("forks_count")?,
        },
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

fn capability(row: &PgRow) -> Result<Capability, sqlx::Error> {
    let Json(config) = row.try_get::<Json<Map<String, Value>>, _>("config")?;
    Ok(Capability { id: row.try_get("id")?, kind: row.try_get("type")?, config })
}

fn avatar_model(row: &PgRow) -> Result<AvatarModel, sqlx::Error> {
    let Json(config) = row.try_get::<Json<Value>, _>("config")?;
    Ok(AvatarModel {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        kind: row.try_get("type")?,
        description: row.try_get("description")?,
        config,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

fn locale(row: &PgRow) -> Result<Locale, sqlx::Error> {
    Ok(Locale {
        id: row.try_get("id")?,
        language: row.try_get("language")?,
        name: row.try_get("name")?,
        tagline: row.try_get("tagline")?,
        description: row.try_get("description")?,
        tags: row.try_get("tags")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

fn prompt(row: &PgRow) -> Result<Prompt, sqlx::Error> {
    Ok(Prompt {
        id: row.try_get("id")?,
        language: row.try_get("language")?,
        kind: row.try_get("type")?,
        content: row.try_get("content")?,
    })
}

fn cover(row: &PgRow) -> Result<Cover, sqlx::Error> {
    Ok(Cover {
        id: row.try_get("id")?,
        foreground_url: row.try_get("foreground_url")?,
        background_url: row.try_get("background_url")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

fn time(row: &PgRow, column: &str) -> Result<DateTime<Utc>, sqlx::Error> {
    Ok(row.try_get::<NaiveDateTime, _>(column)?.and_utc())
}
