//! The rows of `chats`, `chat_members` and `messages`: read and written the same way by every chat transaction.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{SqliteConnection, SqliteExecutor};

use super::fault::{corrupt, fault};
use super::{micros, time};
use crate::core::model::chats::{
    Barred, Chat, ChatKind, Known, Member, MemberKind, Message, Numbered, Participant, Push,
};
use crate::core::model::ids::{ChatId, MemberId, MessageId, UserId};
use crate::ports::Fault;

/// The highest number of a chat the caller is in.
pub(super) async fn admitted<'c>(
    executor: impl SqliteExecutor<'c>,
    chat: &ChatId,
    caller: &UserId,
    operation: &'static str,
) -> Result<Result<i64, Barred>, Fault> {
    let found: Option<(bool, Option<i64>)> = sqlx::query_as(
        "select exists (select 1 from chat_members where chat_id = chats.id and member_type = 'user' and user_id = ?2), \
         (select max(seq) from messages where chat_id = chats.id and seq is not null) \
         from chats where id = ?1 and deleted_at is null",
    )
    .bind(chat.as_str())
    .bind(caller.as_str())
    .fetch_optional(executor)
    .await
    .map_err(fault(operation))?;
    Ok(match found {
        None => Err(Barred::Missing),
        Some((false, _)) => Err(Barred::Stranger),
        Some((true, max)) => Ok(max.unwrap_or(0)),
    })
}

/// `id, type, title, created_at, updated_at, deleted_at`.
pub(super) type ChatRow = (String, String, Option<String>, i64, i64, Option<i64>);

pub(super) fn chat(row: ChatRow, operation: &'static str) -> Result<Chat, Fault> {
    let (id, kind, title, created_at, updated_at, deleted_at) = row;
    let at = |column, micros| time(micros).ok_or_else(|| corrupt(operation, "chats", column, &id));
    Ok(Chat {
        kind: ChatKind::parse(&kind).ok_or_else(|| corrupt(operation, "chats", "type", &id))?,
        title,
        created_at: at("created_at", created_at)?,
        updated_at: at("updated_at", updated_at)?,
        deleted_at: deleted_at.map(|deleted_at| at("deleted_at", deleted_at)).transpose()?,
        id: ChatId::new(id),
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
pub(super) type MessageRow = (String, String, Option<String>, String, String, i64, i64, i64);

pub(super) fn message(row: MessageRow, operation: &'static str) -> Result<Message, Fault> {
    let (id, chat, sender, role, content, seq, created_at, updated_at) = row;
    let at = |column, micros| time(micros).ok_or_else(|| corrupt(operation, "messages", column, &id));
    Ok(Message {
        chat: ChatId::new(chat),
        sender: sender.map(UserId::new),
        role,
        content,
        seq,
        created_at: at("created_at", created_at)?,
        updated_at: at("updated_at", updated_at)?,
        id: MessageId::new(id),
    })
}

pub(super) async fn insert_member(connection: &mut SqliteConnection, member: &Member) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into chat_members (id, chat_id, member_type, user_id, character_id) values (?1, ?2, ?3, ?4, ?5) \
         on conflict do nothing",
    )
    .bind(member.id.as_str())
    .bind(member.chat.as_str())
    .bind(member.who.kind().as_str())
    .bind(member.who.user().map(UserId::as_str))
    .bind(member.who.character())
    .execute(connection)
    .await
    .map(|_| ())
}

/// The row of somebody who is in the chat.
pub(super) async fn find_member(
    connection: &mut SqliteConnection,
    chat: &ChatId,
    who: &Participant,
    operation: &'static str,
) -> Result<Option<Member>, Fault> {
    let row: Option<MemberRow> = sqlx::query_as(
        "select id, chat_id, member_type, user_id, character_id from chat_members \
         where chat_id = ?1 and member_type = ?2 and (user_id = ?3 or character_id = ?4) order by id limit 1",
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
pub(super) async fn readers(connection: &mut SqliteConnection, chat: &ChatId) -> Result<Vec<UserId>, sqlx::Error> {
    let readers: Vec<String> = sqlx::query_scalar(
        "select distinct user_id from chat_members \
         where chat_id = ?1 and member_type = 'user' and user_id is not null",
    )
    .bind(chat.as_str())
    .fetch_all(connection)
    .await?;
    Ok(readers.into_iter().map(UserId::new).collect())
}

/// Stamps a chat as deleted.
pub(super) async fn retire(
    connection: &mut SqliteConnection,
    chat: &ChatId,
    at: DateTime<Utc>,
) -> Result<ChatRow, sqlx::Error> {
    sqlx::query_as(
        "update chats set deleted_at = ?2, updated_at = ?2 where id = ?1 \
         returning id, type, title, created_at, updated_at, deleted_at",
    )
    .bind(chat.as_str())
    .bind(micros(at))
    .fetch_one(connection)
    .await
}

/// What the log has under the ids of a push.
pub(super) async fn known(
    connection: &mut SqliteConnection,
    push: &Push,
    operation: &'static str,
) -> Result<HashMap<MessageId, Known>, Fault> {
    type Row = (String, Option<String>, String, String, bool, i64);
    let rows: Vec<Row> = sqlx::query_as(
        "select id, sender_id, role, content, seq is not null, created_at from messages \
         where chat_id = ?1 and id in (select value from json_each(?2))",
    )
    .bind(push.chat.as_str())
    .bind(list(push.drafts.iter().map(|draft| draft.id.as_str())))
    .fetch_all(connection)
    .await
    .map_err(fault(operation))?;
    rows.into_iter()
        .map(|(id, sender, role, content, numbered, created_at)| {
            let created_at = time(created_at).ok_or_else(|| corrupt(operation, "messages", "created_at", &id))?;
            let sender = sender.map(UserId::new);
            Ok((MessageId::new(id), Known { sender, role, content, numbered, created_at }))
        })
        .collect()
}

/// Writes a numbered push and the time of its chat.
pub(super) async fn write(connection: &mut SqliteConnection, push: &Push, plan: &Numbered) -> Result<(), sqlx::Error> {
    let fields = |message: &Message| {
        let sender = message.sender.as_ref().map(UserId::as_str);
        json!([message.id, sender, message.role, message.content, message.seq])
    };
    let rows = |messages: &[Message]| Value::Array(messages.iter().map(fields).collect()).to_string();
    if !plan.inserts.is_empty() {
        sqlx::query(
            "insert into messages \
             (id, chat_id, sender_id, role, content, media_ids, sticker_ids, created_at, updated_at, seq) \
             select json_extract(value, '$[0]'), ?1, json_extract(value, '$[1]'), json_extract(value, '$[2]'), \
             json_extract(value, '$[3]'), '[]', '[]', ?2, ?2, json_extract(value, '$[4]') from json_each(?3)",
        )
        .bind(push.chat.as_str())
        .bind(micros(push.at))
        .bind(rows(&plan.inserts))
        .execute(&mut *connection)
        .await?;
    }
    if !plan.updates.is_empty() {
        sqlx::query(
            "update messages set content = json_extract(moved.value, '$[3]'), seq = json_extract(moved.value, '$[4]'), \
             updated_at = ?2 from json_each(?3) as moved \
             where chat_id = ?1 and messages.id = json_extract(moved.value, '$[0]')",
        )
        .bind(push.chat.as_str())
        .bind(micros(push.at))
        .bind(rows(&plan.updates))
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query("update chats set updated_at = ?2 where id = ?1")
        .bind(push.chat.as_str())
        .bind(micros(push.at))
        .execute(connection)
        .await
        .map(|_| ())
}

/// A list of texts as one parameter.
pub(super) fn list<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    Value::Array(texts.map(Value::from).collect()).to_string()
}
