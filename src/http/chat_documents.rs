//! Chats and members as clients write and read them; the core reads the bodies itself.

use chrono::{DateTime, Utc};
use poem_openapi::types::Example;
use poem_openapi::{Enum, Object};

use super::payload::{iso_millis, iso_millis_if_any};
use crate::core::model::chats::{Chat, ChatKind, Member, MemberKind};

/// What a chat is.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
pub(super) enum ChatType {
    /// Two people.
    Private,
    /// A person and a character.
    Bot,
    /// Several people.
    Group,
    /// One speaks, many read.
    Channel,
}

/// What a member is.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
pub(super) enum MemberType {
    /// A person, who may read and write.
    User,
    /// A label.
    Character,
    /// A label.
    Bot,
}

/// A chat to be made.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct ChatDraft {
    /// Chosen by the client, or made by the server.
    #[oai(validator(min_length = 1, max_length = 30))]
    id: Option<String>,
    /// A group when absent.
    r#type: Option<ChatType>,
    /// What it is called.
    title: Option<String>,
    /// Who is in it besides the caller.
    members: Option<Vec<MemberDraft>>,
}

/// Somebody to be added.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct MemberDraft {
    /// Who it is.
    r#type: MemberType,
    /// The person, needed for `user`.
    user_id: Option<String>,
    /// The label, needed for `character` and `bot`.
    character_id: Option<String>,
}

/// What can be changed of a chat.
#[derive(Object)]
#[oai(example)]
pub(super) struct ChatChange {
    /// The new title.
    title: Option<String>,
}

/// A chat that was just made.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct NewChatView {
    /// Its id.
    id: String,
    /// What it is.
    r#type: ChatType,
    /// What it is called.
    #[oai(nullable)]
    title: Option<String>,
    /// When it was made.
    #[oai(serialize_with = "iso_millis")]
    created_at: DateTime<Utc>,
    /// The same instant.
    #[oai(serialize_with = "iso_millis")]
    updated_at: DateTime<Utc>,
}

/// A chat.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct ChatView {
    /// Its id.
    id: String,
    /// What it is.
    r#type: ChatType,
    /// What it is called.
    #[oai(nullable)]
    title: Option<String>,
    /// When it was made.
    #[oai(serialize_with = "iso_millis")]
    created_at: DateTime<Utc>,
    /// When it or its messages last changed.
    #[oai(serialize_with = "iso_millis")]
    updated_at: DateTime<Utc>,
    /// When it was deleted; null while it lives.
    #[oai(nullable, serialize_with = "iso_millis_if_any")]
    deleted_at: Option<DateTime<Utc>>,
}

/// A chat and its members.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct ChatWithMembers {
    /// The chat.
    #[oai(flatten)]
    pub(super) chat: ChatView,
    /// Who is in it.
    pub(super) members: Vec<MemberView>,
}

/// Somebody in a chat.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct MemberView {
    /// Its row; accepted where a member is removed.
    id: String,
    /// Where.
    chat_id: String,
    /// Who it is.
    member_type: MemberType,
    /// The person.
    #[oai(nullable)]
    user_id: Option<String>,
    /// The label.
    #[oai(nullable)]
    character_id: Option<String>,
}

/// Chats, newest change first.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct ChatList {
    /// The chats.
    pub(super) chats: Vec<ChatView>,
    /// Where the next page begins; absent on the last one and without `limit`.
    #[oai(skip_serializing_if_is_none)]
    pub(super) next_cursor: Option<String>,
}

impl From<ChatKind> for ChatType {
    fn from(kind: ChatKind) -> Self {
        match kind {
            ChatKind::Private => Self::Private,
            ChatKind::Bot => Self::Bot,
            ChatKind::Group => Self::Group,
            ChatKind::Channel => Self::Channel,
        }
    }
}

impl From<Chat> for NewChatView {
    fn from(chat: Chat) -> Self {
        Self {
            id: chat.id.to_string(),
            r#type: chat.kind.into(),
            title: chat.title,
            created_at: chat.created_at,
            updated_at: chat.updated_at,
        }
    }
}

impl From<Chat> for ChatView {
    fn from(chat: Chat) -> Self {
        Self {
            id: chat.id.to_string(),
            r#type: chat.kind.into(),
            title: chat.title,
            created_at: chat.created_at,
            updated_at: chat.updated_at,
            deleted_at: chat.deleted_at,
        }
    }
}

impl From<Member> for MemberView {
    fn from(member: Member) -> Self {
        Self {
            id: member.id.to_string(),
            chat_id: member.chat.to_string(),
            member_type: match member.who.kind() {
                MemberKind::User => MemberType::User,
                MemberKind::Character => MemberType::Character,
                MemberKind::Bot => MemberType::Bot,
            },
            user_id: member.who.user().map(ToString::to_string),
            character_id: member.who.character().map(str::to_owned),
        }
    }
}

impl Example for ChatDraft {
    fn example() -> Self {
        Self { id: None, r#type: Some(ChatType::Bot), title: None, members: Some(vec![MemberDraft::example()]) }
    }
}

impl Example for MemberDraft {
    fn example() -> Self {
        Self { r#type: MemberType::Character, user_id: None, character_id: Some("lain".to_owned()) }
    }
}

impl Example for ChatChange {
    fn example() -> Self {
        Self { title: Some("Present day".to_owned()) }
    }
}

const CHAT: &str = "V1StGXR8_Z5jdHi6B-myT";

impl Example for NewChatView {
    fn example() -> Self {
        let ChatView { id, r#type, title, created_at, updated_at, .. } = ChatView::example();
        Self { id, r#type, title, created_at, updated_at }
    }
}

impl Example for ChatView {
    fn example() -> Self {
        let at = DateTime::from_timestamp_millis(1_795_377_131_370).unwrap_or_default();
        Self {
            id: CHAT.to_owned(),
            r#type: ChatType::Bot,
            title: Some("Present day".to_owned()),
            created_at: at,
            updated_at: at,
            deleted_at: None,
        }
    }
}

impl Example for ChatWithMembers {
    fn example() -> Self {
        Self { chat: ChatView::example(), members: vec![MemberView::example()] }
    }
}

impl Example for MemberView {
    fn example() -> Self {
        Self {
            id: "Uakgb_J5m9g-0JDMbcJqL".to_owned(),
            chat_id: CHAT.to_owned(),
            member_type: MemberType::User,
            user_id: Some("2iPnVqXwVSmlnbQjyZBLHvwqKbNKl5Tc".to_owned()),
            character_id: None,
        }
    }
}

impl Example for ChatList {
    fn example() -> Self {
        Self { chats: vec![ChatView::example()], next_cursor: None }
    }
}
