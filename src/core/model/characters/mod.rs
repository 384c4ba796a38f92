//! Characters: what they are made of, who may see what of them, and what a client may write
//! (contract `characters-providers.md`, part A).

pub mod draft;

use std::fmt;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::ids::{CharacterId, UserId};

/// A live character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Character {
    /// Its id.
    pub id: CharacterId,
    /// Version of the card, the client's business.
    pub version: String,
    /// Address of a picture.
    pub cover_url: String,
    /// Who made it.
    pub creator: UserId,
    /// Who may change it.
    pub owner: UserId,
    /// A free label, not a reference.
    pub label: String,
    /// Address of a picture.
    pub avatar_url: Option<String>,
    /// What the creator is to it.
    pub creator_role: Option<String>,
    /// Decimal text.
    pub price_credit: String,
    /// What people did with it.
    pub counters: Counters,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its owner last changed it.
    pub updated_at: DateTime<Utc>,
}

/// What people did with a character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Live likes.
    pub likes: i32,
    /// Live bookmarks.
    pub bookmarks: i32,
    /// Kept by the reference; nothing moves it.
    pub interactions: i32,
    /// Kept by the reference; nothing moves it.
    pub forks: i32,
}

/// A character and what one viewer sees around it. Rows stamped as deleted are not among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// The character.
    pub character: Character,
    /// By id.
    pub capabilities: Vec<Capability>,
    /// By id; lists leave them out.
    pub avatar_models: Option<Vec<AvatarModel>>,
    /// By id.
    pub locales: Vec<Locale>,
    /// By id; lists leave them out.
    pub prompts: Option<Vec<Prompt>>,
    /// When the viewer liked it.
    pub liked_at: Option<DateTime<Utc>>,
    /// When the viewer bookmarked it.
    pub bookmarked_at: Option<DateTime<Utc>>,
    /// The newest cover.
    pub cover: Option<Cover>,
}

/// What a character can do, with the key it does it with.
#[derive(Clone, PartialEq)]
pub struct Capability {
    /// Its id.
    pub id: String,
    /// `llm`, `tts`, `vlm` or `asr`; rows of other servers may hold other words.
    pub kind: String,
    /// `apiKey`, `apiBaseUrl` and members for each kind. The key is sealed in what repositories take and give.
    pub config: Map<String, Value>,
}

/// The member of a capability's configuration that is a secret.
pub const API_KEY: &str = "apiKey";

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capability").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What a character looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct AvatarModel {
    /// Its id.
    pub id: String,
    /// A name.
    pub name: String,
    /// `vrm` or `live2d`.
    pub kind: String,
    /// A text.
    pub description: String,
    /// Where the files are.
    pub config: Value,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// When it was stored.
    pub updated_at: DateTime<Utc>,
}

/// A character in one language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locale {
    /// Its id.
    pub id: String,
    /// A language tag.
    pub language: String,
    /// The character's name.
    pub name: String,
    /// One line.
    pub tagline: Option<String>,
    /// A text.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// When it was stored.
    pub updated_at: DateTime<Utc>,
}

/// What a model is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Its id.
    pub id: String,
    /// A language tag.
    pub language: String,
    /// `system`, `personality` or `greetings`; rows of other servers may hold other words.
    pub kind: String,
    /// The text.
    pub content: String,
}

/// Pictures behind and in front of a character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cover {
    /// Its id.
    pub id: String,
    /// Address of a picture.
    pub foreground_url: String,
    /// Address of a picture.
    pub background_url: String,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// When it was stored.
    pub updated_at: DateTime<Utc>,
}

/// Whether something new was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It was, whole.
    Stored,
    /// An id in it is taken; nothing was.
    Taken,
}

/// What a user may put on a character and take away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `user_character_likes`.
    Like,
    /// `user_character_bookmarks`.
    Bookmark,
}

impl Mark {
    /// The metric label for putting it on (`set`) or taking it away.
    pub const fn action(self, set: bool) -> &'static str {
        match (self, set) {
            (Self::Like, true) => "like",
            (Self::Like, false) => "unlike",
            (Self::Bookmark, true) => "bookmark",
            (Self::Bookmark, false) => "unbookmark",
        }
    }
}

/// Which characters a list shows, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Of one owner, or of everybody.
    pub owner: Option<UserId>,
    /// Rows wanted.
    pub limit: u32,
    /// Rows skipped.
    pub offset: u32,
}
