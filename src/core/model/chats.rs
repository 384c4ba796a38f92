//! What a chat tells the other devices of its members.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ids::{ChatId, InstanceId, UserId};

/// New messages of one chat, as published to one member (contract `chats.md` §7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewMessages {
    /// The chat.
    pub chat_id: ChatId,
    /// Wire messages, in order of `seq`.
    pub messages: Vec<Value>,
    /// First number of the range.
    pub from_seq: i64,
    /// Last number of the range.
    pub to_seq: i64,
}

/// One publication: who gets it, what, and which process said it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatEvent {
    /// The member whose devices receive it; decides the target, not the channel.
    pub user_id: UserId,
    /// The messages.
    pub payload: NewMessages,
    /// The publishing process, which drops its own echo.
    pub origin_instance_id: InstanceId,
}

/// What a subscriber hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A publication of another device or process.
    Event(ChatEvent),
    /// Publications may have been missed; pull after the last number seen.
    Gap,
}
