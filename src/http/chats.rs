//! `/chats`: conversations and who is in them; messages travel by socket (contract `chats.md` §2).

use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};

use super::auth::SignedIn;
use super::error::ApiError;
use super::payload::{Raw, iso_millis};
use super::spec::Tag;
use crate::core::App;
use crate::core::chats::{AddMember, CreateChat, UpdateChat};
use crate::core::error::{Code, Error};
use crate::core::model::chats::{Chat, ChatKind, ListAnchor, Member, MemberKind};
use crate::core::model::ids::{ChatId, MemberId};

/// Operations on the caller's chats.
pub(super) struct ChatsApi;

/// What a chat is.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
enum ChatType {
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
enum MemberType {
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
struct ChatDraft {
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
struct MemberDraft {
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
struct ChatChange {
    /// The new title.
    title: Option<String>,
}

/// A chat that was just made.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct NewChatView {
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
#[oai(rename_all = "camelCase")]
struct ChatView {
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
#[oai(rename_all = "camelCase")]
struct ChatWithMembers {
    /// The chat.
    #[oai(flatten)]
    chat: ChatView,
    /// Who is in it.
    members: Vec<MemberView>,
}

/// Somebody in a chat.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct MemberView {
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
#[oai(rename_all = "camelCase")]
struct ChatList {
    /// The chats.
    chats: Vec<ChatView>,
    /// Where the next page begins; absent on the last one and without `limit`.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<String>,
}

#[derive(ApiResponse)]
enum Created {
    /// The chat exists now.
    #[oai(status = 201)]
    Created(Json<NewChatView>),
}

#[OpenApi(prefix_path = "/api/v1/chats", tag = "Tag::Chats")]
impl ChatsApi {
    /// Make a chat
    ///
    /// The caller is its first member. An id that is or was in use answers 409.
    #[oai(path = "/", method = "post", operation_id = "createChat")]
    async fn create(&self, app: Data<&Arc<App>>, caller: SignedIn, body: Raw<ChatDraft>) -> Result<Created, ApiError> {
        let wish = CreateChat::read(&body.bytes).map_err(Error::from)?;
        let chat = app.chats.create(caller.0.user(), wish).await?;
        Ok(Created::Created(Json(NewChatView {
            id: chat.id.to_string(),
            r#type: chat.kind.into(),
            title: chat.title,
            created_at: chat.created_at,
            updated_at: chat.updated_at,
        })))
    }

    /// List the caller's chats, newest change first
    ///
    /// Without parameters the list is complete.
    #[oai(path = "/", method = "get", operation_id = "listChats")]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// Chats wanted.
        #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<Option<u32>>,
        /// `nextCursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<ChatList>, ApiError> {
        const USUAL: u32 = 100;
        let after = cursor.0.as_deref().map(anchor).transpose()?;
        let limit = limit.0.or(after.as_ref().map(|_| USUAL));
        let (chats, has_more) = app.chats.list(caller.0.user(), after.as_ref(), limit).await?;
        let next_cursor = chats.last().filter(|_| has_more).map(text_of_anchor);
        Ok(Json(ChatList { chats: chats.into_iter().map(ChatView::from).collect(), next_cursor }))
    }

    /// Read a chat and its members
    #[oai(path = "/:id", method = "get", operation_id = "getChat")]
    async fn find(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// The chat.
        id: Path<String>,
    ) -> Result<Json<ChatWithMembers>, ApiError> {
        let (chat, members) = app.chats.find(caller.0.user(), &ChatId::new(id.0)).await?;
        Ok(Json(ChatWithMembers { chat: chat.into(), members: members.into_iter().map(MemberView::from).collect() }))
    }

    /// Change a chat
    ///
    /// Any member may. An empty object moves `updatedAt`.
    #[oai(path = "/:id", method = "patch", operation_id = "updateChat")]
    async fn update(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// The chat.
        id: Path<String>,
        body: Raw<ChatChange>,
    ) -> Result<Json<ChatView>, ApiError> {
        let change = UpdateChat::read(&body.bytes).map_err(Error::from)?;
        Ok(Json(app.chats.update(caller.0.user(), &ChatId::new(id.0), change).await?.into()))
    }

    /// Delete a chat for everybody in it
    ///
    /// Any member may. Its id is never free again.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteChat")]
    async fn delete(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// The chat.
        id: Path<String>,
    ) -> Result<Json<ChatView>, ApiError> {
        Ok(Json(app.chats.delete(caller.0.user(), &ChatId::new(id.0)).await?.into()))
    }

    /// Add somebody to a chat
    ///
    /// Any member may. Somebody who is there already is answered as they are.
    #[oai(path = "/:id/members", method = "post", operation_id = "addChatMember")]
    async fn add(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// The chat.
        id: Path<String>,
        body: Raw<MemberDraft>,
    ) -> Result<Json<MemberView>, ApiError> {
        let new = AddMember::read(&body.bytes).map_err(Error::from)?;
        Ok(Json(app.chats.add(caller.0.user(), &ChatId::new(id.0), new).await?.into()))
    }

    /// Remove somebody from a chat
    ///
    /// Any member may, themselves included. The last person to leave takes the chat along.
    #[oai(path = "/:id/members/:member_id", method = "delete", operation_id = "removeChatMember")]
    async fn remove(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// The chat.
        id: Path<String>,
        /// The member's row.
        member_id: Path<String>,
    ) -> Result<Json<MemberView>, ApiError> {
        let (chat, member) = (ChatId::new(id.0), MemberId::new(member_id.0));
        Ok(Json(app.chats.remove(caller.0.user(), &chat, &member).await?.into()))
    }
}

/// A cursor is the microsecond and the id of the last chat told.
fn text_of_anchor(chat: &Chat) -> String {
    format!("{}.{}", chat.updated_at.timestamp_micros(), chat.id)
}

fn anchor(text: &str) -> Result<ListAnchor, ApiError> {
    let read = text.split_once('.').and_then(|(micros, id)| {
        let updated_at = DateTime::from_timestamp_micros(micros.parse().ok()?)?;
        Some(ListAnchor { updated_at, id: ChatId::new(id) })
    });
    read.filter(|anchor| !anchor.id.as_str().contains('\0'))
        .ok_or_else(|| Error::new(Code::InvalidRequest).saying("parameter cursor is unusable").into())
}

fn iso_millis_if_any(at: &Option<DateTime<Utc>>) -> Option<serde_json::Value> {
    Some(at.as_ref().and_then(iso_millis).unwrap_or(serde_json::Value::Null))
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
