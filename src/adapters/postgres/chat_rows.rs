//! The rows of `chats`, `chat_members` and `messages`: locked, read and written the same way by every chat transaction.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use super::fault::{corrupt, fault};
use crate::core::model::chats::{Barred, Chat, ChatKind, Known, Member, MemberKind, Message, Participant, Push};
use crate::core::model::ids::{ChatId, MemberId, MessageId, UserId};
use crate::ports::Fault;

pub(super) const CHAT_TABLE: &str = "messages";

/// Begins a transaction in which what is read behind the chat's lock is what its last holder committed.
pub(super) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    pool.begin_with("begin isolation level read committed").await
}

/// Locks the chat, then asks as [`is_member`] does.
pub(super) async fn admitted(
    connection: &mut PgConnection,
    chat: &ChatId,
    caller: &UserId,
    operation: &'static str,
) -> Result<Result<i64, Barred>, Fault> {
    let locked: Option<String> =
        sqlx::query_scalar("select id from chats where id = $1 and deleted_at is null for update")
            .bind(chat.as_str())
            .fetch_optional(&mut *connection)
            .await
            .map_err(fault(operation))?;
    if locked.is_none() {
        return Ok(Err(Barred::Missing));
    }
    // A statement of its own: it sees what was committed while the lock was awaited.
    is_member(connection, chat, caller, operation).await
}

/// The highest number of a chat the caller is in.
pub(super) async fn is_member(
    connection: &mut PgConnection,
    chat: &ChatId,
    caller: &UserId,
    operation: &'static str,
) -> Result<Result<i64, Barred>, Fault> {
    let found: Option<(bool, Option<i32>)> = sqlx::query_as(
        "select exists (select from chat_members where chat_id = chats.id and member_type = 'user' and user_id = $2), \
         (select max(seq) from messages where chat_id = chats.id) \
         from chats where id = $1 and deleted_at is null",
    )
    .bind(chat.as_str())
    .bind(caller.as_str())
    .fetch_optional(connection)
    .await
    .map_err(fault(operation))?;
    Ok(match found {
        None => Err(Barred::Missing),
        Some((false, _)) => Err(Barred::Stranger),
        Some((true, max)) => Ok(i64::from(max.unwrap_or(0))),
    })
}

/// `id, type, title, created_at, updated_at, deleted_at`.
pub(super) type ChatRow = (String, String, Option<String>, NaiveDateTime, NaiveDateTime, Option<NaiveDateTime>);

pub(super) fn chat(row: ChatRow, operation: &'static str) -> Result<Chat, Fault> {
    let (id, kind, title, created_at, updated_at, deleted_at) = row;
    Ok(Chat {
        kind: ChatKind::parse(&kind).ok_or_else(|| corrupt(operation, "chats", "type", &id))?,
        id: ChatId::new(id),
        title,
        created_at: created_at.and_utc(),
        updated_at: updated_at.and_utc(),
        deleted_at: deleted_at.map(|at| at.and_utc()),
    })
}

/// `id, chat_id, member_type, user_id, character_id`.
pub(super) type MemberRow = (String, String, String, Option<String>, Option<String>);

pub(super) fn member(row: MemberRow, operation: &'static str) -> Result<Member, Fault> {
    let (id, chat, kind, user, character) = row;
    let kind = MemberKind::parse(&kind).ok_or_else(|| corrupt(operation, "chat_members", "member_type", &id))?;
    Ok(Member { id: MemberId::new(id), chat: ChatId::new(chat), who: Participant::stored(kind, user, character) })
}

/// `id, chat_id, sender_id, role, content, seq, created_at, updated_at`.
pub(super) type MessageRow = (String, String, Option<String>, String, String, i32, NaiveDateTime, NaiveDateTime);

pub(super) fn message(row: MessageRow) -> Message {
    let (id, chat, sender, role, content, seq, created_at, updated_at) = row;
    Message {
        id: MessageId::new(id),
        chat: ChatId::new(chat),
        sender: sender.map(UserId::new),
        role,
        content,
        seq: i64::from(seq),
        created_at: created_at.and_utc(),
        updated_at: updated_at.and_utc(),
    }
}

/// Adds the members who are not there yet; says how many.
pub(super) async fn insert_members(connection: &mut PgConnection, members: &[Member]) -> Result<u64, sqlx::Error> {
    let column = |of: fn(&Member) -> Option<&str>| members.iter().map(of).collect::<Vec<_>>();
    sqlx::query(
        "insert into chat_members (id, chat_id, member_type, user_id, character_id) \
         select new.id, new.chat_id, new.member_type, new.user_id, new.character_id \
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) \
         as new (id, chat_id, member_type, user_id, character_id) on conflict do nothing",
    )
    .bind(column(|member| Some(member.id.as_str())))
    .bind(column(|member| Some(member.chat.as_str())))
    .bind(column(|member| Some(member.who.kind().as_str())))
    .bind(column(|member| member.who.user().map(UserId::as_str)))
    .bind(column(|member| member.who.character()))
    .execute(connection)
    .await
    .map(|done| done.rows_affected())
}

/// The row of somebody who is in the chat.
pub(super) async fn find_member(
    connection: &mut PgConnection,
    chat: &ChatId,
    who: &Participant,
    operation: &'static str,
) -> Result<Option<Member>, Fault> {
    let row: Option<MemberRow> = sqlx::query_as(
        "select id, chat_id, member_type, user_id, character_id from chat_members \
         where chat_id = $1 and member_type = $2 and (user_id = $3 or character_id = $4) order by id limit 1",
    )
    .bind(chat.as_str())
    .bind(who.kind().as_str())
    .bind(who.user().map(UserId::as_str))
    .bind(who.character())
    .fetch_optional(connection)
    .await
    .map_err(fault(operation))?;
    row.map(|row| member(row, operation)).transpose()
}

/// The people in a chat, each once.
pub(super) async fn readers(connection: &mut PgConnection, chat: &ChatId) -> Result<Vec<UserId>, sqlx::Error> {
    let readers: Vec<String> = sqlx::query_scalar(
        "select distinct user_id from chat_members \
         where chat_id = $1 and member_type = 'user' and user_id is not null",
    )
    .bind(chat.as_str())
    .fetch_all(connection)
    .await?;
    Ok(readers.into_iter().map(UserId::new).collect())
}

/// Stamps a locked chat as deleted.
pub(super) async fn retire(
    connection: &mut PgConnection,
    chat: &ChatId,
    at: DateTime<Utc>,
) -> Result<ChatRow, sqlx::Error> {
    sqlx::query_as(
        "update chats set deleted_at = $2, updated_at = $2 where id = $1 \
         returning id, type, title, created_at, updated_at, deleted_at",
    )
    .bind(chat.as_str())
    .bind(at.naive_utc())
    .fetch_one(connection)
    .await
}

/// What the log has under the ids of a push.
pub(super) async fn known(
    connection: &mut PgConnection,
    push: &Push,
) -> Result<HashMap<MessageId, Known>, sqlx::Error> {
    type Row = (String, Option<String>, String, String, bool, NaiveDateTime);
    let ids: Vec<&str> = push.drafts.iter().map(|draft| draft.id.as_str()).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<Row> = sqlx::query_as(
        "select id, sender_id, role, content, seq is not null, created_at from messages \
         where chat_id = $1 and id = any($2)",
    )
    .bind(push.chat.as_str())
    .bind(ids)
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(id, sender, role, content, numbered, created_at)| {
            let sender = sender.map(UserId::new);
            (MessageId::new(id), Known { sender, role, content, numbered, created_at: created_at.and_utc() })
        })
        .collect())
}

pub(super) async fn insert_messages(
    connection: &mut PgConnection,
    push: &Push,
    new: &[Message],
) -> Result<(), sqlx::Error> {
    if new.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into messages \
         (id, chat_id, sender_id, role, content, media_ids, sticker_ids, created_at, updated_at, seq) \
         select id, $1, sender_id, role, content, '{}', '{}', $2, $2, seq \
         from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::int4[]) \
         as new (id, sender_id, role, content, seq)",
    )
    .bind(push.chat.as_str())
    .bind(push.at.naive_utc())
    .bind(new.iter().map(|message| message.id.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|message| message.sender.as_ref().map(UserId::as_str)).collect::<Vec<_>>())
    .bind(new.iter().map(|message| message.role.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|message| message.content.as_str()).collect::<Vec<_>>())
    .bind(numbers(new))
    .execute(connection)
    .await
    .map(|_| ())
}

pub(super) async fn move_messages(
    connection: &mut PgConnection,
    push: &Push,
    moved: &[Message],
) -> Result<(), sqlx::Error> {
    if moved.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update messages set content = moved.content, seq = moved.seq, updated_at = $2 \
         from unnest($3::text[], $4::text[], $5::int4[]) as moved (id, content, seq) \
         where messages.chat_id = $1 and messages.id = moved.id",
    )
    .bind(push.chat.as_str())
    .bind(push.at.naive_utc())
    .bind(moved.iter().map(|message| message.id.as_str()).collect::<Vec<_>>())
    .bind(moved.iter().map(|message| message.content.as_str()).collect::<Vec<_>>())
    .bind(numbers(moved))
    .execute(connection)
    .await
    .map(|_| ())
}

/// Whoever calls has seen that the highest number fits the column.
fn numbers(messages: &[Message]) -> Vec<i32> {
    messages.iter().map(|message| i32::try_from(message.seq).unwrap_or(i32::MAX)).collect()
}
