//! The log of a chat: how pushes are numbered and how pages are cut (contract `chats.md` §4).

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::{Message, Role};
use crate::core::model::ids::{ChatId, MessageId, UserId};

/// A message as a client pushes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The client's id.
    pub id: MessageId,
    /// Who it speaks for.
    pub role: Role,
    /// Plain text.
    pub content: String,
}

/// A batch of drafts for one chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Where.
    pub chat: ChatId,
    /// Who pushes.
    pub user: UserId,
    /// What, each id once.
    pub drafts: Vec<Draft>,
    /// When.
    pub at: DateTime<Utc>,
}

impl Push {
    /// A batch in which, of drafts with one id, the last counts, at its own place.
    pub fn new(chat: ChatId, user: UserId, drafts: Vec<Draft>, at: DateTime<Utc>) -> Self {
        let mut seen = HashSet::new();
        let mut drafts: Vec<Draft> = drafts.into_iter().rev().filter(|draft| seen.insert(draft.id.clone())).collect();
        drafts.reverse();
        Self { chat, user, drafts, at }
    }
}

/// What the log already has under the id of a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Who pushed it first.
    pub sender: Option<UserId>,
    /// The stored word.
    pub role: String,
    /// The stored text.
    pub content: String,
    /// Whether it has a number; rows older than the column have none and are invisible.
    pub numbered: bool,
    /// First push.
    pub created_at: DateTime<Utc>,
}

/// What a push writes: rows to insert and rows to move to the end of the log. Numbers rise through both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbered {
    /// New rows.
    pub inserts: Vec<Message>,
    /// Known rows with their new text and number.
    pub updates: Vec<Message>,
}

impl Numbered {
    /// Everything written, in order of number.
    pub fn into_messages(self) -> Vec<Message> {
        self.inserts.into_iter().chain(self.updates).collect()
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.inserts.is_empty() && self.updates.is_empty()
    }
}

/// Numbers a push behind `base`, the highest number of its chat: new messages first, in batch order, then changed ones,
/// in batch order. A known text is left where it is, so that a repeated push changes nothing (contract §9, W-6).
///
/// Fails with the ids of messages that somebody else wrote as `user` (W-7).
pub fn number(push: &Push, base: i64, known: &HashMap<MessageId, Known>) -> Result<Numbered, Vec<MessageId>> {
    let changes = |draft: &Draft, known: &Known| !known.numbered || known.content != draft.content;
    let foreign: Vec<MessageId> = push
        .drafts
        .iter()
        .filter(|draft| {
            known.get(&draft.id).is_some_and(|known| {
                known.role == Role::User.as_str() && known.sender.as_ref() != Some(&push.user) && changes(draft, known)
            })
        })
        .map(|draft| draft.id.clone())
        .collect();
    if !foreign.is_empty() {
        return Err(foreign);
    }
    let mut seq = base;
    let mut numbered = |draft: &Draft, sender: Option<UserId>, role: &str, created_at: DateTime<Utc>| {
        seq += 1;
        Message {
            id: draft.id.clone(),
            chat: push.chat.clone(),
            sender,
            role: role.to_owned(),
            content: draft.content.clone(),
            seq,
            created_at,
            updated_at: push.at,
        }
    };
    let mut plan = Numbered::default();
    for draft in push.drafts.iter().filter(|draft| !known.contains_key(&draft.id)) {
        let sender = (draft.role == Role::User).then(|| push.user.clone());
        plan.inserts.push(numbered(draft, sender, draft.role.as_str(), push.at));
    }
    for draft in &push.drafts {
        if let Some(known) = known.get(&draft.id)
            && changes(draft, known)
        {
            plan.updates.push(numbered(draft, known.sender.clone(), &known.role, known.created_at));
        }
    }
    Ok(plan)
}

/// Why a caller gets nothing of a chat. Existence is told before membership (contract §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// Unknown or deleted.
    Missing,
    /// The caller is no member.
    Stranger,
}

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Append {
    /// Stored, or there already.
    Appended(Appended),
    /// Nothing was written.
    Barred(Barred),
    /// These ids are somebody else's; nothing was written.
    Foreign(Vec<MessageId>),
}

/// A stored push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// What was written, in order of number.
    pub written: Vec<Message>,
    /// The highest number of the chat.
    pub seq: i64,
    /// The people in the chat, each once; empty when nothing was written.
    pub readers: Vec<UserId>,
}

/// Part of a log, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// The messages.
    pub messages: Vec<Message>,
    /// What to ask for next: nothing up to here is missing (W-2).
    pub seq: i64,
    /// Whether messages lie beyond.
    pub has_more: bool,
}

impl LogPage {
    /// Most bytes of text in one page, so that a page of long messages does not fill a socket's buffer.
    pub const TEXT_LIMIT: usize = 4 * 1024 * 1024;

    /// Cuts rows that were read with one more than `limit`; rows behind the one that breaks
    /// [`TEXT_LIMIT`](Self::TEXT_LIMIT) need not be read. `max` is the chat's highest number, read before them.
    pub fn cut(mut messages: Vec<Message>, limit: u32, max: i64) -> Self {
        let mut text = 0;
        let fitting = messages.iter().take_while(|message| {
            text += message.content.len();
            text <= Self::TEXT_LIMIT
        });
        let kept = fitting.count().max(1).min(limit as usize);
        let has_more = messages.len() > kept;
        messages.truncate(kept);
        let last = messages.last().map_or(0, |message| message.seq);
        let seq = if has_more { last } else { last.max(max) };
        Self { messages, seq, has_more }
    }
}

/// How many messages a pull may answer (contract §4).
pub fn page_limit(asked: Option<f64>) -> u32 {
    const USUAL: u32 = 100;
    const MOST: f64 = 500.0;
    match asked.map(f64::floor) {
        Some(limit) if limit >= 1.0 => limit.min(MOST) as u32,
        _ => USUAL,
    }
}
