//! `/chats`: conversations and who is in them; messages travel by socket (contract `chats.md` §2).

use std::sync::Arc;

use chrono::DateTime;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, OpenApi};

use super::auth::SignedIn;
use super::chat_documents::{
    ChatChange, ChatDraft, ChatList, ChatView, ChatWithMembers, MemberDraft, MemberView, NewChatView,
};
use super::error::ApiError;
use super::payload::Raw;
use super::spec::Tag;
use crate::core::App;
use crate::core::chats::{AddMember, CreateChat, UpdateChat};
use crate::core::error::{Code, Error};
use crate::core::model::chats::{Chat, ListAnchor};
use crate::core::model::ids::{ChatId, MemberId};

/// Operations on the caller's chats.
pub(super) struct ChatsApi;

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
        Ok(Created::Created(Json(chat.into())))
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
