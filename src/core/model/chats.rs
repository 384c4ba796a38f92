//! Conversations: what is stored, how messages are numbered, and what other devices are told (contract `chats.md`).

mod log;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ids::{ChatId, InstanceId, MemberId, MessageId, UserId};

pub use log::{Append, Appended, Barred, Draft, Known, LogPage, Numbered, Push, number, page_limit};

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$word_doc])* $word,)+
        }

        impl $name {
            /// The stored and sent word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$word => $text,)+ }
            }

            /// Reads a stored or sent word.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$word),)+ _ => None }
            }
        }
    )+};
}

words! {
    /// What a chat is.
    ChatKind {
        /// Two people.
        Private = "private",
        /// A person and a character.
        Bot = "bot",
        /// Several people.
        Group = "group",
        /// One speaks, many read.
        Channel = "channel",
    }
    /// What a member is. Only people may read and write.
    MemberKind {
        /// A person.
        User = "user",
        /// A label.
        Character = "character",
        /// A label, too.
        Bot = "bot",
    }
    /// Who a message speaks for.
    Role {
        /// Instructions.
        System = "system",
        /// The person who pushed it.
        User = "user",
        /// The character.
        Assistant = "assistant",
        /// A tool's answer.
        Tool = "tool",
        /// A failure that was shown.
        Error = "error",
    }
}

/// One conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// Its id; clients may choose it.
    pub id: ChatId,
    /// What it is.
    pub kind: ChatKind,
    /// What it is called, if anything.
    pub title: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it or its log last changed.
    pub updated_at: DateTime<Utc>,
    /// When it was deleted; its rows stay.
    pub deleted_at: Option<DateTime<Utc>>,
}

/// The last chat of the page before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListAnchor {
    /// Its `updated_at`.
    pub updated_at: DateTime<Utc>,
    /// Its id.
    pub id: ChatId,
}

/// Somebody or something in a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The row.
    pub id: MemberId,
    /// Where.
    pub chat: ChatId,
    /// Who it is.
    pub who: Participant,
}

/// A person, or a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Participant {
    /// May read and write. Rows of the reference may lack the id.
    User(Option<UserId>),
    /// A character of this free-text id. Rows of the reference may lack it.
    Character(Option<String>),
    /// As a character.
    Bot(Option<String>),
}

impl Participant {
    /// Which kind.
    pub fn kind(&self) -> MemberKind {
        match self {
            Self::User(_) => MemberKind::User,
            Self::Character(_) => MemberKind::Character,
            Self::Bot(_) => MemberKind::Bot,
        }
    }

    /// The person.
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::User(user) => user.as_ref(),
            Self::Character(_) | Self::Bot(_) => None,
        }
    }

    /// The label.
    pub fn character(&self) -> Option<&str> {
        match self {
            Self::User(_) => None,
            Self::Character(label) | Self::Bot(label) => label.as_deref(),
        }
    }

    /// Reads a stored row; what does not belong to the kind is dropped.
    pub fn stored(kind: MemberKind, user: Option<String>, character: Option<String>) -> Self {
        match kind {
            MemberKind::User => Self::User(user.map(UserId::new)),
            MemberKind::Character => Self::Character(character),
            MemberKind::Bot => Self::Bot(character),
        }
    }
}

/// A chat about to be made, with its first members; the maker is among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChat {
    /// The chat.
    pub chat: Chat,
    /// Its members, each once.
    pub members: Vec<Member>,
}

/// One stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Chosen by the client; unique within the chat.
    pub id: MessageId,
    /// Where.
    pub chat: ChatId,
    /// Who pushed it; nobody unless the role is `user`.
    pub sender: Option<UserId>,
    /// The stored word; the reference stored foreign ones, too.
    pub role: String,
    /// Plain text.
    pub content: String,
    /// Place in the chat's log, from 1.
    pub seq: i64,
    /// First push.
    pub created_at: DateTime<Utc>,
    /// Latest push that changed it.
    pub updated_at: DateTime<Utc>,
}

impl Message {
    /// How clients see it (contract §4).
    pub fn wire(&self) -> Value {
        json!({
            "id": self.id, "chatId": self.chat, "senderId": self.sender, "role": self.role, "content": self.content,
            "seq": self.seq, "createdAt": self.created_at.timestamp_millis(),
            "updatedAt": self.updated_at.timestamp_millis(),
        })
    }
}

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

impl NewMessages {
    const MOST: usize = 500;
    const TEXT_LIMIT: usize = 1024 * 1024;

    /// What receivers are told about consecutive messages of one chat: events of at most 500, each with its own range.
    pub fn of(chat: &ChatId, written: &[Message]) -> Vec<Self> {
        let mut events: Vec<Self> = Vec::new();
        let mut text = 0;
        for message in written {
            text += message.content.len();
            match events.last_mut() {
                Some(event) if event.messages.len() < Self::MOST && text <= Self::TEXT_LIMIT => {
                    event.messages.push(message.wire());
                    event.to_seq = message.seq;
                }
                _ => {
                    text = message.content.len();
                    events.push(Self {
                        chat_id: chat.clone(),
                        messages: vec![message.wire()],
                        from_seq: message.seq,
                        to_seq: message.seq,
                    });
                }
            }
        }
        events
    }
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
    /// The account is gone: nothing more will come.
    Closed,
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const AT: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn draft(id: &str, role: Role, content: &str) -> Draft {
        Draft { id: MessageId::new(id), role, content: content.to_owned() }
    }

    fn push(drafts: Vec<Draft>) -> Push {
        Push::new(ChatId::new("c"), UserId::new("alice"), drafts, AT)
    }

    fn known(sender: Option<&str>, role: &str, content: &str) -> Known {
        let sender = sender.map(UserId::new);
        Known { sender, role: role.to_owned(), content: content.to_owned(), numbered: true, created_at: AT }
    }

    fn numbers(messages: &[Message]) -> Vec<(&str, i64)> {
        messages.iter().map(|message| (message.id.as_str(), message.seq)).collect()
    }

    #[test]
    fn inserts_are_numbered_before_updates() {
        let log = HashMap::from([(MessageId::new("m-1"), known(Some("alice"), "user", "old"))]);
        let plan = number(&push(vec![draft("m-1", Role::User, "new"), draft("m-3", Role::Tool, "")]), 2, &log).unwrap();
        assert_eq!((numbers(&plan.inserts), numbers(&plan.updates)), (vec![("m-3", 3)], vec![("m-1", 4)]));
        assert_eq!((plan.inserts[0].sender.as_ref(), plan.inserts[0].role.as_str()), (None, "tool"));
    }

    #[test]
    fn a_repeated_text_is_left_where_it_is_whoever_wrote_it() {
        let log = HashMap::from([(MessageId::new("m"), known(Some("bob"), "user", "same"))]);
        assert!(number(&push(vec![draft("m", Role::User, "same")]), 7, &log).unwrap().is_empty());
        let unnumbered = Known { numbered: false, ..known(Some("alice"), "user", "same") };
        let log = HashMap::from([(MessageId::new("m"), unnumbered)]);
        assert_eq!(numbers(&number(&push(vec![draft("m", Role::User, "same")]), 7, &log).unwrap().updates), [("m", 8)]);
    }

    #[test]
    fn only_the_sender_changes_what_a_person_said() {
        let log = HashMap::from([
            (MessageId::new("hers"), known(Some("bob"), "user", "old")),
            (MessageId::new("its"), known(None, "assistant", "old")),
        ]);
        let both = push(vec![draft("hers", Role::Assistant, "new"), draft("its", Role::User, "new")]);
        assert_eq!(number(&both, 0, &log).unwrap_err(), [MessageId::new("hers")]);
        let plan = number(&push(vec![draft("its", Role::User, "new")]), 0, &log).unwrap();
        assert_eq!((plan.updates[0].role.as_str(), &plan.updates[0].sender), ("assistant", &None));
    }

    #[test]
    fn of_two_drafts_with_one_id_the_last_counts() {
        let push = push(vec![draft("a", Role::User, "1"), draft("b", Role::User, "2"), draft("a", Role::User, "3")]);
        let kept: Vec<_> = push.drafts.iter().map(|draft| (draft.id.as_str(), draft.content.as_str())).collect();
        assert_eq!(kept, [("b", "2"), ("a", "3")]);
    }

    fn message(seq: i64, content: &str) -> Message {
        let plan = number(&push(vec![draft(&format!("m{seq}"), Role::User, content)]), seq - 1, &HashMap::new());
        plan.unwrap().into_messages().remove(0)
    }

    #[test]
    fn a_cursor_never_passes_what_was_cut_off() {
        let rows = |count: i64| (1..=count).map(|seq| message(seq, "x")).collect::<Vec<_>>();
        let page = LogPage::cut(rows(3), 2, 9);
        assert_eq!((page.messages.len(), page.seq, page.has_more), (2, 2, true));
        let page = LogPage::cut(rows(2), 2, 9);
        assert_eq!((page.messages.len(), page.seq, page.has_more), (2, 9, false));
        assert_eq!(LogPage::cut(rows(3), 5, 2).seq, 3);
        assert_eq!(LogPage::cut(Vec::new(), 5, 2), LogPage { messages: vec![], seq: 2, has_more: false });
        let long = "y".repeat(LogPage::TEXT_LIMIT);
        let page = LogPage::cut(vec![message(1, &long), message(2, &long)], 5, 2);
        assert_eq!((page.messages.len(), page.seq, page.has_more), (1, 1, true));
    }

    #[test]
    fn limits_of_the_acceptance_list() {
        for (asked, limit) in [(-5.0, 100), (0.0, 100), (50.0, 50), (501.0, 500), (1.5, 1), (0.5, 100), (1e300, 500)] {
            assert_eq!(page_limit(Some(asked)), limit, "{asked}");
        }
        assert_eq!((page_limit(None), page_limit(Some(f64::NAN))), (100, 100));
    }

    #[test]
    fn a_large_push_is_told_in_pieces_with_their_own_ranges() {
        let written: Vec<_> = (1..=1_200).map(|seq| message(seq, "x")).collect();
        let ranges = |written: &[Message]| {
            let events = NewMessages::of(&ChatId::new("c"), written);
            events.iter().map(|event| (event.from_seq, event.to_seq, event.messages.len())).collect::<Vec<_>>()
        };
        assert_eq!(ranges(&written), [(1, 500, 500), (501, 1_000, 500), (1_001, 1_200, 200)]);
        let long = "y".repeat(NewMessages::TEXT_LIMIT);
        assert_eq!(ranges(&[message(1, "x"), message(2, &long), message(3, "")]), [(1, 1, 1), (2, 3, 2)]);
        assert_eq!(ranges(&[]), []);
    }

    #[test]
    fn a_message_is_told_as_the_reference_tells_it() {
        let told = serde_json::to_string(&message(1, "hi").wire()).unwrap();
        let expected = r#"{"id":"m1","chatId":"c","senderId":"alice","role":"user","content":"hi","seq":1,"createdAt":0,"updatedAt":0}"#;
        assert_eq!(told, expected);
    }
}
