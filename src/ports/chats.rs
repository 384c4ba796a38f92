//! Chats and their logs, and chat events between the devices of a user.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;

use super::Fault;
use crate::core::model::chats::{
    Append, Barred, Chat, ChatEvent, Heard, ListAnchor, LogPage, Member, NewChat, Participant, Push,
};
use crate::core::model::ids::{ChatId, MemberId, UserId};

/// The tables `chats`, `chat_members` and `messages` (contract `chats.md` §2–4).
///
/// Every method but [`create`](Self::create) and [`list`](Self::list) asks, in this order: does the chat exist, and is
/// `caller` a person in it. A method that writes MUST lock the chat's row before it looks at anything else, so that a
/// deletion cannot be overtaken and numbers of one chat are given one push at a time.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait ChatRepo: Send + Sync {
    /// Stores a chat and its members; says whether the id was free. Ids of deleted chats are taken for ever.
    async fn create(&self, new: &NewChat) -> Result<Creation, Fault>;

    /// The chats `caller` is in, newest `updated_at` first, then by id; those behind `after`, at most `limit`.
    async fn list<'a>(
        &self,
        caller: &UserId,
        after: Option<&'a ListAnchor>,
        limit: Option<u32>,
    ) -> Result<Vec<Chat>, Fault>;

    /// A chat and its members in a fixed order.
    async fn find(&self, chat: &ChatId, caller: &UserId) -> Result<Result<(Chat, Vec<Member>), Barred>, Fault>;

    /// Changes the title, if one is given, and `updated_at` in any case.
    async fn rename<'a>(
        &self,
        chat: &ChatId,
        caller: &UserId,
        title: Option<&'a str>,
        at: DateTime<Utc>,
    ) -> Result<Result<Chat, Barred>, Fault>;

    /// Stamps `deleted_at` and `updated_at`; everything stays.
    async fn retire(&self, chat: &ChatId, caller: &UserId, at: DateTime<Utc>) -> Result<Result<Chat, Barred>, Fault>;

    /// Adds somebody under this id, or answers the member that is there already. A person MUST have an account.
    async fn join(
        &self,
        chat: &ChatId,
        caller: &UserId,
        member: &MemberId,
        who: &Participant,
    ) -> Result<Result<Join, Barred>, Fault>;

    /// Removes a member. A chat whose last person left is deleted in the same transaction.
    async fn leave(
        &self,
        chat: &ChatId,
        caller: &UserId,
        member: &MemberId,
        at: DateTime<Utc>,
    ) -> Result<Result<Option<Member>, Barred>, Fault>;

    /// Stores a push as [`number`](crate::core::model::chats::number) says, in one transaction with `updated_at` of the
    /// chat. A push that changes nothing writes nothing. Numbers of one chat are given without gaps in the order of
    /// commits.
    async fn append(&self, push: &Push) -> Result<Append, Fault>;

    /// The messages behind `after`, as [`LogPage::cut`] cuts them.
    async fn pull(
        &self,
        chat: &ChatId,
        caller: &UserId,
        after: i64,
        limit: u32,
    ) -> Result<Result<LogPage, Barred>, Fault>;

    /// Those of `users` who have no account.
    async fn unknown_users(&self, users: &[UserId]) -> Result<Vec<UserId>, Fault>;
}

/// What became of a request to make a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// Stored.
    Created,
    /// The id is in use, or was; nothing was written.
    Taken,
}

/// What became of a request to add somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Join {
    /// There now.
    Joined(Member),
    /// There before; nothing was written.
    Present(Member),
    /// Nobody has this account; nothing was written.
    UnknownUser,
}

/// Publishes to every process and hears what others publish (contract `chats.md` §7).
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Broadcaster: Send + Sync {
    /// Tells every subscriber of `event.user_id`, in this process and in others, once each.
    async fn publish(&self, event: &ChatEvent) -> Result<(), Fault>;

    /// What is published for `user` from now on, in the order in which each process published it. What another
    /// process published before may still be under way; then it comes first and at most once, so readers go by the
    /// number. Dropping the stream ends the subscription. After an outage of the transport the stream yields
    /// [`Heard::Gap`]. A subscriber that does not read is told of a gap, too, instead of growing a queue.
    async fn subscribe(&self, user: &UserId) -> Result<BoxStream<'static, Heard>, Fault>;

    /// Tells every subscriber of `user`, in this process and in others, [`Heard::Closed`]. Those in this process are
    /// told whatever becomes of the others.
    async fn close(&self, user: &UserId) -> Result<(), Fault>;
}
