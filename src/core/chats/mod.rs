//! Conversations: made, shared, read and written, and told to the other devices of their members.

pub mod protocol;
mod request;
pub mod session;
mod tell;

use std::sync::Arc;

use futures::channel::oneshot;
use indexmap::IndexSet;
use serde_json::json;

use super::error::{Code, Error};
use super::model::chats::{
    Append, Appended, Barred, Chat, ChatKind, Draft, ListAnchor, LogPage, Member, NewChat, Participant, Push,
};
use super::model::fact::Fact;
use super::model::ids::{ChatId, MemberId, UserId};
use crate::ports::chats::{ChatRepo, Creation, Join};
use crate::ports::runtime::{Clock, IdSource, Tasks};

use protocol::Request;
use session::Answer;

pub use request::{AddMember, CreateChat, UpdateChat};
pub use tell::Teller;

/// Chats and their logs.
pub struct Chats {
    /// The tables.
    pub repo: Arc<dyn ChatRepo>,
    /// Tells devices.
    pub teller: Teller,
    /// Finishes pushes whose sender left.
    pub tasks: Arc<dyn Tasks>,
    /// Ids.
    pub ids: Arc<dyn IdSource>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What a push came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The highest number of the chat.
    pub seq: i64,
    /// The numbers given, first and last; none when the push changed nothing.
    pub given: Option<(i64, i64)>,
}

impl Chats {
    /// Makes a chat with the caller in it. The id is a conflict when it is or was in use.
    pub async fn create(&self, caller: &UserId, wish: CreateChat) -> Result<Chat, Error> {
        let now = self.clock.now();
        let chat = Chat {
            id: ChatId::new(wish.id.unwrap_or_else(|| self.ids.id())),
            kind: wish.kind.unwrap_or(ChatKind::Group),
            title: wish.title,
            created_at: now,
            updated_at: now,
            deleted_at: None,
        };
        // Thousands fit into a body: looking each up in a list would be quadratic.
        let maker = Participant::User(Some(caller.clone()));
        let people: IndexSet<_> = std::iter::once(maker).chain(wish.members).collect();
        let asked: Vec<UserId> = people.iter().skip(1).filter_map(Participant::user).cloned().collect();
        if !asked.is_empty() && !self.repo.unknown_users(&asked).await?.is_empty() {
            return Err(unknown_user());
        }
        let member = |who| Member { id: MemberId::new(self.ids.id()), chat: chat.id.clone(), who };
        let new = NewChat { members: people.into_iter().map(member).collect(), chat };
        match self.repo.create(&new).await? {
            Creation::Created => Ok(new.chat),
            Creation::Taken => Err(Error::new(Code::Conflict).saying("Chat already exists")),
        }
    }

    /// The caller's chats, newest change first: all of them, or those behind `after`, at most `limit`, and whether there
    /// are more.
    pub async fn list(
        &self,
        caller: &UserId,
        after: Option<&ListAnchor>,
        limit: Option<u32>,
    ) -> Result<(Vec<Chat>, bool), Error> {
        let mut chats = self.repo.list(caller, after, limit.map(|limit| limit + 1)).await?;
        let Some(limit) = limit else { return Ok((chats, false)) };
        let has_more = chats.len() > limit as usize;
        chats.truncate(limit as usize);
        Ok((chats, has_more))
    }

    /// A chat and its members.
    pub async fn find(&self, caller: &UserId, chat: &ChatId) -> Result<(Chat, Vec<Member>), Error> {
        storable(chat)?;
        self.repo.find(chat, caller).await?.map_err(barred)
    }

    /// Changes what can be changed; moves `updated_at` in any case.
    pub async fn update(&self, caller: &UserId, chat: &ChatId, change: UpdateChat) -> Result<Chat, Error> {
        storable(chat)?;
        self.repo.rename(chat, caller, change.title.as_deref(), self.clock.now()).await?.map_err(barred)
    }

    /// Deletes a chat for everybody in it.
    pub async fn delete(&self, caller: &UserId, chat: &ChatId) -> Result<Chat, Error> {
        storable(chat)?;
        self.repo.retire(chat, caller, self.clock.now()).await?.map_err(barred)
    }

    /// Adds somebody, or answers the member that is there already.
    pub async fn add(&self, caller: &UserId, chat: &ChatId, new: AddMember) -> Result<Member, Error> {
        storable(chat)?;
        let id = MemberId::new(self.ids.id());
        match self.repo.join(chat, caller, &id, &new.who).await?.map_err(barred)? {
            Join::Joined(member) | Join::Present(member) => Ok(member),
            Join::UnknownUser => Err(unknown_user()),
        }
    }

    /// Removes a member.
    pub async fn remove(&self, caller: &UserId, chat: &ChatId, member: &MemberId) -> Result<Member, Error> {
        storable(chat)?;
        if !member.is_storable() {
            return Err(Error::new(Code::NotFound).saying("Member not found"));
        }
        let removed = self.repo.leave(chat, caller, member, self.clock.now()).await?.map_err(barred)?;
        removed.ok_or_else(|| Error::new(Code::NotFound).saying("Member not found"))
    }

    /// Stores messages and tells the devices of everybody in the chat.
    ///
    /// Runs to its end whether or not the caller waits: a stored push that is not told would be missed by others.
    pub async fn send(self: &Arc<Self>, caller: &UserId, chat: ChatId, drafts: Vec<Draft>) -> Result<Sent, Error> {
        let (answer, answered) = oneshot::channel();
        let push = Push::new(chat, caller.clone(), drafts, self.clock.now());
        let chats = Arc::clone(self);
        self.tasks.spawn(
            "chats.send",
            Box::pin(async move {
                // Fails when nobody waits.
                let _ = answer.send(chats.append(&push).await);
            }),
        );
        answered.await.unwrap_or_else(|gone| Err(Error::new(Code::Internal).because(gone)))
    }

    async fn append(&self, push: &Push) -> Result<Sent, Error> {
        self.teller.journal.record(Fact::ChatPushed { messages: push.drafts.len() });
        // Held until the push is told, so that devices hear of pushes in the order in which they were numbered.
        let _turn = self.teller.turn(&push.chat).await;
        let Appended { written, seq, readers } = match self.repo.append(push).await? {
            Append::Appended(appended) => appended,
            Append::Barred(why) => return Err(barred(why)),
            Append::Foreign(ids) => {
                return Err(Error::new(Code::Forbidden).with_details(json!({ "messageIds": ids })));
            }
        };
        self.teller.tell(&push.chat, &written, &readers).await;
        let given = written.first().zip(written.last()).map(|(first, last)| (first.seq, last.seq));
        Ok(Sent { seq, given })
    }

    /// Runs a call of a socket.
    pub async fn perform(self: &Arc<Self>, caller: &UserId, request: Request) -> Result<Answer, Error> {
        match request {
            Request::Send { chat, drafts } => self.send(caller, chat, drafts).await.map(Answer::Sent),
            Request::Pull { chat, after, limit } => self.pull(caller, &chat, after, limit).await.map(Answer::Page),
            // The session answers these itself.
            Request::Authenticate { .. } => Err(Error::new(Code::BadRequest)),
        }
    }

    /// Closes the sockets of an account that is gone, in every process. Call it when the deletion is stored: what cannot
    /// be told now is recorded, and those sockets end when their token is next asked after.
    pub async fn close_account(&self, user: &UserId) {
        if let Err(fault) = self.teller.broadcaster.close(user).await {
            let cause = fault.to_string();
            self.teller.journal.record(Fact::Degraded { operation: "chats.close_account", cause });
        }
    }

    /// The messages behind `after`.
    pub async fn pull(&self, caller: &UserId, chat: &ChatId, after: i64, limit: u32) -> Result<LogPage, Error> {
        self.repo.pull(chat, caller, after, limit).await?.map_err(barred)
    }
}

/// Nobody has a chat whose id no row may have.
fn storable(chat: &ChatId) -> Result<(), Error> {
    if chat.is_storable() { Ok(()) } else { Err(barred(Barred::Missing)) }
}

fn barred(why: Barred) -> Error {
    match why {
        Barred::Missing => Error::new(Code::NotFound).saying("Chat not found"),
        Barred::Stranger => Error::new(Code::Forbidden),
    }
}

fn unknown_user() -> Error {
    Error::new(Code::NotFound).saying("User not found")
}

#[cfg(test)]
mod tests;
