//! What clients send to the REST routes, read and judged (contract `chats.md` §2).

use crate::core::model::chats::{ChatKind, MemberKind, Participant};
use crate::core::model::ids::UserId;
use crate::core::model::validation::{Form, Invalid, read};

/// A chat to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateChat {
    /// 1 to 30 UTF-16 units; made here when absent.
    pub id: Option<String>,
    /// A group when absent.
    pub kind: Option<ChatKind>,
    /// What it is called.
    pub title: Option<String>,
    /// Who is in it besides the caller.
    pub members: Vec<Participant>,
}

/// What can be changed of a chat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateChat {
    /// The new title.
    pub title: Option<String>,
}

/// Somebody to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddMember {
    /// Who.
    pub who: Participant,
}

const LONGEST_CHAT_ID: usize = 30;

const KINDS: [(&str, ChatKind); 4] = [
    (ChatKind::Private.as_str(), ChatKind::Private),
    (ChatKind::Bot.as_str(), ChatKind::Bot),
    (ChatKind::Group.as_str(), ChatKind::Group),
    (ChatKind::Channel.as_str(), ChatKind::Channel),
];

const MEMBER_KINDS: [(&str, MemberKind); 3] = [
    (MemberKind::User.as_str(), MemberKind::User),
    (MemberKind::Character.as_str(), MemberKind::Character),
    (MemberKind::Bot.as_str(), MemberKind::Bot),
];

impl CreateChat {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Self, Invalid> {
        read(body, |form| {
            let id = form.optional_text("id");
            if let Some(id) = &id
                && !(1..=LONGEST_CHAT_ID).contains(&id.encode_utf16().count())
            {
                form.refuse("id", if id.is_empty() { "min_length" } else { "max_length" }, "1 to 30 characters");
            }
            let kind = form.has("type").then(|| form.word("type", &KINDS)).flatten();
            let title = form.optional_text("title");
            Self { id, kind, title, members: form.forms("members").iter().filter_map(participant).collect() }
        })
    }
}

impl UpdateChat {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Self, Invalid> {
        read(body, |form| Self { title: form.optional_text("title") })
    }
}

impl AddMember {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Self, Invalid> {
        // Without a participant a problem was noted, so the placeholder never leaves.
        read(body, |form| Self { who: participant(form).unwrap_or(Participant::User(None)) })
    }
}

fn participant(form: &Form<'_>) -> Option<Participant> {
    let kind = form.word("type", &MEMBER_KINDS);
    let user = form.optional_text("userId");
    let character = form.optional_text("characterId");
    let (key, text) = match kind? {
        MemberKind::User => ("userId", user),
        MemberKind::Character | MemberKind::Bot => ("characterId", character),
    };
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        form.refuse(key, "min_length", "an id");
        return None;
    };
    Some(match kind? {
        MemberKind::User => Participant::User(Some(UserId::new(text))),
        MemberKind::Character => Participant::Character(Some(text)),
        MemberKind::Bot => Participant::Bot(Some(text)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_needs_nothing() {
        assert_eq!(CreateChat::read(b"{}").unwrap(), CreateChat::default());
        let full = r#"{"id":"é","type":"bot","title":"","members":[{"type":"character","characterId":"x","userId":"u"}],"more":1}"#;
        let read = CreateChat::read(full.as_bytes()).unwrap();
        assert_eq!((read.id.as_deref(), read.kind, read.title.as_deref()), (Some("é"), Some(ChatKind::Bot), Some("")));
        assert_eq!(read.members, [Participant::Character(Some("x".to_owned()))]);
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        let long = "😀".repeat(16);
        for bad in [
            r#"{"id":null}"#,
            r#"{"id":""}"#,
            &format!(r#"{{"id":"{long}"}}"#),
            r#"{"type":"x"}"#,
            r#"{"type":null}"#,
            r#"{"title":null}"#,
            r#"{"title":"\u0000"}"#,
            r#"{"members":{}}"#,
            r#"{"members":[{"type":"user"}]}"#,
            r#"{"members":[{"type":"bot","userId":"u"}]}"#,
            "[]",
            "",
        ] {
            assert!(CreateChat::read(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in ["{}", r#"{"type":"user"}"#, r#"{"type":"user","userId":7}"#, r#"{"type":"spirit","userId":"u"}"#] {
            assert!(AddMember::read(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(UpdateChat::read(br#"{"title":null}"#).is_err());
        assert_eq!(UpdateChat::read(b"{}").unwrap(), UpdateChat::default());
    }
}
