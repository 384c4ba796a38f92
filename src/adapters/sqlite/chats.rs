//! `ChatRepo` on SQLite.
//!
//! There is one writer and its transactions are immediate: whatever is read inside one is locked.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::chat_rows::{self as rows, ChatRow, MemberRow, MessageRow, admitted, chat, member, message};
use super::fault::fault;
use super::{Sqlite, micros};
use crate::core::model::chats::{
    Append, Appended, Barred, Chat, ListAnchor, LogPage, Member, NewChat, Participant, Push, number,
};
use crate::core::model::ids::{ChatId, MemberId, UserId};
use crate::ports::Fault;
use crate::ports::chats::{ChatRepo, Creation, Join};

/// Chats in `chats`, `chat_members` and `messages`.
#[derive(Clone, Debug)]
pub struct SqliteChats {
    /// Where the tables are.
    pub db: Sqlite,
}

#[async_trait]
impl ChatRepo for SqliteChats {
    #[tracing::instrument(name = "sqlite.chats.create", skip_all, err(Debug))]
    async fn create(&self, new: &NewChat) -> Result<Creation, Fault> {
        const OPERATION: &str = "sqlite.chats.create";
        let mut tx = self.db.begin(OPERATION).await?;
        let stored = sqlx::query(
            "insert into chats (id, type, title, created_at, updated_at) values (?1, ?2, ?3, ?4, ?5) \
             on conflict (id) do nothing",
        )
        .bind(new.chat.id.as_str())
        .bind(new.chat.kind.as_str())
        .bind(new.chat.title.as_deref())
        .bind(micros(new.chat.created_at))
        .bind(micros(new.chat.updated_at))
        .execute(&mut *tx)
        .await
        .map_err(fault(OPERATION))?;
        if stored.rows_affected() == 0 {
            return Ok(Creation::Taken);
        }
        for member in &new.members {
            rows::insert_member(&mut tx, member).await.map_err(fault(OPERATION))?;
        }
        tx.commit().await.map_err(fault(OPERATION))?;
        Ok(Creation::Created)
    }

    #[tracing::instrument(name = "sqlite.chats.list", skip_all, err(Debug))]
    async fn list<'a>(
        &self,
        caller: &UserId,
        after: Option<&'a ListAnchor>,
        limit: Option<u32>,
    ) -> Result<Vec<Chat>, Fault> {
        const OPERATION: &str = "sqlite.chats.list";
        let found: Vec<ChatRow> = sqlx::query_as(
            "select id, type, title, created_at, updated_at, deleted_at from chats \
             where deleted_at is null \
             and id in (select chat_id from chat_members where member_type = 'user' and user_id = ?1) \
             and (?2 is null or updated_at < ?2 or updated_at = ?2 and id > ?3) \
             order by updated_at desc, id limit ?4",
        )
        .bind(caller.as_str())
        .bind(after.map(|anchor| micros(anchor.updated_at)))
        .bind(after.map(|anchor| anchor.id.as_str()))
        .bind(limit.map_or(-1, i64::from))
        .fetch_all(&self.db.readers)
        .await
        .map_err(fault(OPERATION))?;
        found.into_iter().map(|row| chat(row, OPERATION)).collect()
    }

    #[tracing::instrument(name = "sqlite.chats.find", skip_all, err(Debug))]
    async fn find(&self, id: &ChatId, caller: &UserId) -> Result<Result<(Chat, Vec<Member>), Barred>, Fault> {
        const OPERATION: &str = "sqlite.chats.find";
        let found: Option<ChatRow> = sqlx::query_as(
            "select id, type, title, created_at, updated_at, deleted_at from chats where id = ?1 and deleted_at is null",
        )
        .bind(id.as_str())
        .fetch_optional(&self.db.readers)
        .await
        .map_err(fault(OPERATION))?;
        let Some(found) = found else { return Ok(Err(Barred::Missing)) };
        let members: Vec<MemberRow> = sqlx::query_as(
            "select id, chat_id, member_type, user_id, character_id from chat_members where chat_id = ?1 \
             order by member_type <> 'user', id",
        )
        .bind(id.as_str())
        .fetch_all(&self.db.readers)
        .await
        .map_err(fault(OPERATION))?;
        let members = members.into_iter().map(|row| member(row, OPERATION)).collect::<Result<Vec<_>, _>>()?;
        if !members.iter().any(|member| member.who.user() == Some(caller)) {
            return Ok(Err(Barred::Stranger));
        }
        Ok(Ok((chat(found, OPERATION)?, members)))
    }

    #[tracing::instrument(name = "sqlite.chats.rename", skip_all, err(Debug))]
    async fn rename<'a>(
        &self,
        id: &ChatId,
        caller: &UserId,
        title: Option<&'a str>,
        at: DateTime<Utc>,
    ) -> Result<Result<Chat, Barred>, Fault> {
        const OPERATION: &str = "sqlite.chats.rename";
        let mut tx = self.db.begin(OPERATION).await?;
        if let Err(barred) = admitted(&mut *tx, id, caller, OPERATION).await? {
            return Ok(Err(barred));
        }
        let row: ChatRow = sqlx::query_as(
            "update chats set title = coalesce(?2, title), updated_at = ?3 where id = ?1 \
             returning id, type, title, created_at, updated_at, deleted_at",
        )
        .bind(id.as_str())
        .bind(title)
        .bind(micros(at))
        .fetch_one(&mut *tx)
        .await
        .map_err(fault(OPERATION))?;
        tx.commit().await.map_err(fault(OPERATION))?;
        chat(row, OPERATION).map(Ok)
    }

    #[tracing::instrument(name = "sqlite.chats.retire", skip_all, err(Debug))]
    async fn retire(&self, id: &ChatId, caller: &UserId, at: DateTime<Utc>) -> Result<Result<Chat, Barred>, Fault> {
        const OPERATION: &str = "sqlite.chats.retire";
        let mut tx = self.db.begin(OPERATION).await?;
        if let Err(barred) = admitted(&mut *tx, id, caller, OPERATION).await? {
            return Ok(Err(barred));
        }
        let row = rows::retire(&mut tx, id, at).await.map_err(fault(OPERATION))?;
        tx.commit().await.map_err(fault(OPERATION))?;
        chat(row, OPERATION).map(Ok)
    }

    #[tracing::instrument(name = "sqlite.chats.join", skip_all, err(Debug))]
    async fn join(
        &self,
        id: &ChatId,
        caller: &UserId,
        new: &MemberId,
        who: &Participant,
    ) -> Result<Result<Join, Barred>, Fault> {
        const OPERATION: &str = "sqlite.chats.join";
        let mut tx = self.db.begin(OPERATION).await?;
        if let Err(barred) = admitted(&mut *tx, id, caller, OPERATION).await? {
            return Ok(Err(barred));
        }
        if let Some(user) = who.user() {
            let known: bool = sqlx::query_scalar("select exists (select 1 from user where id = ?1)")
                .bind(user.as_str())
                .fetch_one(&mut *tx)
                .await
                .map_err(fault(OPERATION))?;
            if !known {
                return Ok(Ok(Join::UnknownUser));
            }
        }
        if let Some(present) = rows::find_member(&mut tx, id, who, OPERATION).await? {
            return Ok(Ok(Join::Present(present)));
        }
        let joined = Member { id: new.clone(), chat: id.clone(), who: who.clone() };
        rows::insert_member(&mut tx, &joined).await.map_err(fault(OPERATION))?;
        tx.commit().await.map_err(fault(OPERATION))?;
        Ok(Ok(Join::Joined(joined)))
    }

    #[tracing::instrument(name = "sqlite.chats.leave", skip_all, err(Debug))]
    async fn leave(
        &self,
        id: &ChatId,
        caller: &UserId,
        leaving: &MemberId,
        at: DateTime<Utc>,
    ) -> Result<Result<Option<Member>, Barred>, Fault> {
        const OPERATION: &str = "sqlite.chats.leave";
        let mut tx = self.db.begin(OPERATION).await?;
        if let Err(barred) = admitted(&mut *tx, id, caller, OPERATION).await? {
            return Ok(Err(barred));
        }
        let removed: Option<MemberRow> = sqlx::query_as(
            "delete from chat_members where chat_id = ?1 and id = ?2 \
             returning id, chat_id, member_type, user_id, character_id",
        )
        .bind(id.as_str())
        .bind(leaving.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault(OPERATION))?;
        let Some(removed) = removed else { return Ok(Ok(None)) };
        if rows::readers(&mut tx, id).await.map_err(fault(OPERATION))?.is_empty() {
            rows::retire(&mut tx, id, at).await.map_err(fault(OPERATION))?;
        }
        tx.commit().await.map_err(fault(OPERATION))?;
        member(removed, OPERATION).map(|member| Ok(Some(member)))
    }

    #[tracing::instrument(name = "sqlite.chats.append", skip_all, err(Debug))]
    async fn append(&self, push: &Push) -> Result<Append, Fault> {
        const OPERATION: &str = "sqlite.chats.append";
        let mut tx = self.db.begin(OPERATION).await?;
        let base = match admitted(&mut *tx, &push.chat, &push.user, OPERATION).await? {
            Ok(base) => base,
            Err(barred) => return Ok(Append::Barred(barred)),
        };
        let known = rows::known(&mut tx, push, OPERATION).await?;
        let plan = match number(push, base, &known) {
            Ok(plan) => plan,
            Err(foreign) => return Ok(Append::Foreign(foreign)),
        };
        if plan.is_empty() {
            return Ok(Append::Appended(Appended { seq: base, ..Appended::default() }));
        }
        rows::write(&mut tx, push, &plan).await.map_err(fault(OPERATION))?;
        let readers = rows::readers(&mut tx, &push.chat).await.map_err(fault(OPERATION))?;
        tx.commit().await.map_err(fault(OPERATION))?;
        let written = plan.into_messages();
        Ok(Append::Appended(Appended { seq: written.last().map_or(base, |message| message.seq), written, readers }))
    }

    #[tracing::instrument(name = "sqlite.chats.pull", skip_all, err(Debug))]
    async fn pull(
        &self,
        id: &ChatId,
        caller: &UserId,
        after: i64,
        limit: u32,
    ) -> Result<Result<LogPage, Barred>, Fault> {
        const OPERATION: &str = "sqlite.chats.pull";
        let max = match admitted(&self.db.readers, id, caller, OPERATION).await? {
            Ok(max) => max,
            Err(barred) => return Ok(Err(barred)),
        };
        let found: Vec<MessageRow> = sqlx::query_as(
            // Five hundred long messages would be half a gigabyte: what does not fit into the page is not read.
            "select id, chat_id, sender_id, role, content, seq, created_at, updated_at from ( \
             select id, chat_id, sender_id, role, content, seq, created_at, updated_at, \
             sum(octet_length(content)) over (order by seq) - octet_length(content) as before \
             from (select id, chat_id, sender_id, role, content, seq, created_at, updated_at from messages \
             where chat_id = ?1 and seq > ?2 order by seq limit ?3) as wanted) as page \
             where before <= ?4 order by seq",
        )
        .bind(id.as_str())
        .bind(after.max(0))
        .bind(i64::from(limit) + 1)
        .bind(i64::try_from(LogPage::TEXT_LIMIT).unwrap_or(i64::MAX))
        .fetch_all(&self.db.readers)
        .await
        .map_err(fault(OPERATION))?;
        let messages = found.into_iter().map(|row| message(row, OPERATION)).collect::<Result<_, _>>()?;
        Ok(Ok(LogPage::cut(messages, limit, max)))
    }

    #[tracing::instrument(name = "sqlite.chats.unknown_users", skip_all, err(Debug))]
    async fn unknown_users(&self, users: &[UserId]) -> Result<Vec<UserId>, Fault> {
        let asked = rows::list(users.iter().map(UserId::as_str));
        let unknown: Vec<String> = sqlx::query_scalar(
            "select value from json_each(?1) where not exists (select 1 from user where user.id = value)",
        )
        .bind(asked)
        .fetch_all(&self.db.readers)
        .await
        .map_err(fault("sqlite.chats.unknown_users"))?;
        Ok(unknown.into_iter().map(UserId::new).collect())
    }
}
