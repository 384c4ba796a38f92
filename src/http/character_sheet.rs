//! Characters as they are shown.

use chrono::{DateTime, Utc};
use poem_openapi::Object;
use poem_openapi::types::Example;
use serde_json::{Value, json};

use super::character_documents::{AvatarConfig, CapabilityConfig};
use super::payload::{Described, iso_millis};
use crate::core::model::characters::{AvatarModel, Capability, Cover, Locale, Prompt, Sheet};
use crate::core::model::ids::UserId;

/// A character and what belongs to it. Members without a value are absent, never `null`, except `cover`.
#[derive(Object)]
#[oai(rename = "Character", rename_all = "camelCase", example)]
pub(super) struct CharacterSheet {
    /// Its id.
    id: String,
    /// Version of the card.
    version: String,
    /// Address of a picture.
    cover_url: String,
    /// Who made it.
    creator_id: String,
    /// Who may change it.
    owner_id: String,
    /// A free label.
    character_id: String,
    /// Address of a picture.
    #[oai(skip_serializing_if_is_none)]
    avatar_url: Option<String>,
    /// What the creator is to it.
    #[oai(skip_serializing_if_is_none)]
    creator_role: Option<String>,
    /// A number as text.
    price_credit: String,
    /// Likes of everybody.
    likes_count: i32,
    /// Bookmarks of everybody.
    bookmarks_count: i32,
    /// Not counted yet.
    interactions_count: i32,
    /// Not counted yet.
    forks_count: i32,
    /// When it was made.
    #[oai(serialize_with = "iso_millis")]
    created_at: DateTime<Utc>,
    /// When its owner last changed it.
    #[oai(serialize_with = "iso_millis")]
    updated_at: DateTime<Utc>,
    /// What it can do.
    capabilities: Vec<CharacterCapability>,
    /// What it looks like; absent in lists.
    #[oai(skip_serializing_if_is_none)]
    avatar_models: Option<Vec<CharacterAvatarModel>>,
    /// In which languages.
    i18n: Vec<CharacterLocale>,
    /// What models are told; absent in lists.
    #[oai(skip_serializing_if_is_none)]
    prompts: Option<Vec<CharacterPrompt>>,
    /// The caller's like, if there is one.
    likes: Vec<CharacterMark>,
    /// The caller's bookmark, if there is one.
    bookmarks: Vec<CharacterMark>,
    /// Its cover.
    #[oai(nullable)]
    cover: Option<CharacterCover>,
}

/// What a character can do.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CharacterCapability {
    /// Its id.
    id: String,
    /// Of this character.
    character_id: String,
    /// `llm`, `tts`, `vlm` or `asr`.
    r#type: String,
    /// With which service; `apiKey` is empty for everybody but the owner.
    config: Described<CapabilityConfig>,
}

/// What a character looks like.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CharacterAvatarModel {
    /// Its id.
    id: String,
    /// Of this character.
    character_id: String,
    /// A name.
    name: String,
    /// `vrm` or `live2d`.
    r#type: String,
    /// A text.
    description: String,
    /// Where the files are.
    config: Described<AvatarConfig>,
    /// When it was stored.
    #[oai(serialize_with = "iso_millis")]
    created_at: DateTime<Utc>,
    /// When it was stored.
    #[oai(serialize_with = "iso_millis")]
    updated_at: DateTime<Utc>,
}

/// A character in one language.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CharacterLocale {
    /// Its id.
    id: String,
    /// Of this character.
    character_id: String,
    /// A language tag.
    language: String,
    /// The character's name.
    name: String,
    /// One line.
    #[oai(skip_serializing_if_is_none)]
    tagline: Option<String>,
    /// A text.
    description: String,
    /// Words to find it by.
    tags: Vec<String>,
    /// When it was stored.
    #[oai(serialize_with = "iso_millis")]
    created_at: DateTime<Utc>,
    /// When it was stored.
    #[oai(serialize_with = "iso_millis")]
    updated_at: DateTime<Utc>,
}

/// What a model is told.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CharacterPrompt {
    /// Its id.
    id: String,
    /// Of this character.
    character_id: String,
    /// A language tag.
    language: String,
    /// `system`, `personality` or `greetings`.
    r#type: String,
    /// The text.
    content: String,
}

/// A like or a bookmark.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CharacterMark {
    /// The caller.
    user_id: String,
    /// Of this character.
    character_id: String,
    /// Since when.
    #[oai(serialize_with = "iso_millis")]
    created_at: DateTime<Utc>,
}

/// Pictures behind and in front of a character.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CharacterCover {
    /// Its id.
    id: String,
    /// Of this character.
    character_id: String,
    /// Address of a picture.
    foreground_url: String,
    /// Address of a picture.
    background_url: String,
    /// When it was stored.
    #[oai(serialize_with = "iso_millis")]
    created_at: DateTime<Utc>,
    /// When it was stored.
    #[oai(serialize_with = "iso_millis")]
    updated_at: DateTime<Utc>,
}

impl CharacterSheet {
    /// What `viewer` gets to see.
    pub(super) fn seen_by(sheet: Sheet, viewer: &UserId) -> Self {
        let character = sheet.character;
        let id = character.id.as_str();
        let mark = |since: Option<DateTime<Utc>>| {
            let mark =
                |created_at| CharacterMark { user_id: viewer.to_string(), character_id: id.to_owned(), created_at };
            since.map(mark).into_iter().collect()
        };
        Self {
            capabilities: sheet.capabilities.into_iter().map(|part| capability(part, id)).collect(),
            avatar_models: sheet.avatar_models.map(|parts| parts.into_iter().map(|part| model(part, id)).collect()),
            i18n: sheet.locales.into_iter().map(|part| locale(part, id)).collect(),
            prompts: sheet.prompts.map(|parts| parts.into_iter().map(|part| prompt(part, id)).collect()),
            likes: mark(sheet.liked_at),
            bookmarks: mark(sheet.bookmarked_at),
            cover: sheet.cover.map(|part| cover(part, id)),
            id: id.to_owned(),
            version: character.version,
            cover_url: character.cover_url,
            creator_id: character.creator.to_string(),
            owner_id: character.owner.to_string(),
            character_id: character.label,
            avatar_url: character.avatar_url,
            creator_role: character.creator_role,
            price_credit: character.price_credit,
            likes_count: character.counters.likes,
            bookmarks_count: character.counters.bookmarks,
            interactions_count: character.counters.interactions,
            forks_count: character.counters.forks,
            created_at: character.created_at,
            updated_at: character.updated_at,
        }
    }
}

fn capability(part: Capability, of: &str) -> CharacterCapability {
    CharacterCapability {
        id: part.id,
        character_id: of.to_owned(),
        r#type: part.kind,
        config: Described::new(Value::Object(part.config)),
    }
}

fn model(part: AvatarModel, of: &str) -> CharacterAvatarModel {
    CharacterAvatarModel {
        id: part.id,
        character_id: of.to_owned(),
        name: part.name,
        r#type: part.kind,
        description: part.description,
        config: Described::new(part.config),
        created_at: part.created_at,
        updated_at: part.updated_at,
    }
}

fn locale(part: Locale, of: &str) -> CharacterLocale {
    CharacterLocale {
        id: part.id,
        character_id: of.to_owned(),
        language: part.language,
        name: part.name,
        tagline: part.tagline,
        description: part.description,
        tags: part.tags,
        created_at: part.created_at,
        updated_at: part.updated_at,
    }
}

fn prompt(part: Prompt, of: &str) -> CharacterPrompt {
    CharacterPrompt {
        id: part.id,
        character_id: of.to_owned(),
        language: part.language,
        r#type: part.kind,
        content: part.content,
    }
}

fn cover(part: Cover, of: &str) -> CharacterCover {
    CharacterCover {
        id: part.id,
        character_id: of.to_owned(),
        foreground_url: part.foreground_url,
        background_url: part.background_url,
        created_at: part.created_at,
        updated_at: part.updated_at,
    }
}

impl Example for CharacterSheet {
    fn example() -> Self {
        let of = || "V1StGXR8_Z5jdHi6B-myT".to_owned();
        let at = DateTime::from_timestamp_millis(1_795_377_131_370).unwrap_or_default();
        let config = json!({ "apiKey": "", "apiBaseUrl": "https://llm.example.com/v1" });
        Self {
            id: of(),
            version: "1".to_owned(),
            cover_url: "https://files.example.com/cover.png".to_owned(),
            creator_id: "2iPnVqXwVSmlnbQjyZBLHvwqKbNKl5Tc".to_owned(),
            owner_id: "2iPnVqXwVSmlnbQjyZBLHvwqKbNKl5Tc".to_owned(),
            character_id: "airi".to_owned(),
            avatar_url: None,
            creator_role: None,
            price_credit: "0".to_owned(),
            likes_count: 1,
            bookmarks_count: 0,
            interactions_count: 0,
            forks_count: 0,
            created_at: at,
            updated_at: at,
            capabilities: vec![CharacterCapability {
                id: "3Kq0mYw2sP7fVtZ_h9dBx".to_owned(),
                character_id: of(),
                r#type: "llm".to_owned(),
                config: Described::new(config),
            }],
            avatar_models: Some(Vec::new()),
            i18n: Vec::new(),
            prompts: Some(Vec::new()),
            likes: Vec::new(),
            bookmarks: Vec::new(),
            cover: None,
        }
    }
}
