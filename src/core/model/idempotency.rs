//! Calls named by their caller: whoever repeats one hears the first answer again (contract `gateway.md` §7.2).

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use super::ids::{RequestId, UserId};

/// How long an answer is kept.
const KEPT: TimeDelta = TimeDelta::hours(24);

/// After this a call that never ended is taken for one whose process died; longer than any call lasts.
const ABANDONED: TimeDelta = TimeDelta::minutes(20);

/// Longest answer that is kept, bytes.
pub const LONGEST_ANSWER: usize = 1 << 20;

/// A caller's own name for a call: 1 to 255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallKey(String);

impl CallKey {
    /// Refuses what is no name.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.to_owned()))
    }

    /// As given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A call that is about to begin.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who calls; keys of different users never meet.
    pub user: UserId,
    /// The caller's name for it.
    pub key: CallKey,
    /// The whole body: the same key never stands for another one.
    pub body: Bytes,
    /// Our name for it, unless it has one already.
    pub request: RequestId,
    /// Now.
    pub at: DateTime<Utc>,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The call is to be made, under this name: a repetition is charged under the first one, and so once.
    Mine(RequestId),
    /// Somebody is making it.
    Running,
    /// The key stands for another body.
    Mismatch,
    /// It was answered.
    Answered {
        /// Its name.
        request: RequestId,
        /// The JSON text.
        body: Bytes,
    },
    /// It was answered, by a stream or at a length that is not kept.
    NotKept,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallState {
    /// Being made.
    Running,
    /// Begun and given up; it may be made again.
    Free,
    /// Answered.
    Answered,
}

impl CallState {
    /// The stored word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Free => "free",
            Self::Answered => "answered",
        }
    }

    /// Reads the stored word; an unknown one is a call somebody is making.
    pub fn of(word: &str) -> Self {
        match word {
            "free" => Self::Free,
            "answered" => Self::Answered,
            _ => Self::Running,
        }
    }
}

/// A stored call.
#[derive(Clone, Debug)]
pub struct KeptCall {
    /// SHA-256 of the body.
    pub body_hash: Vec<u8>,
    /// Its name.
    pub request: RequestId,
    /// Where it stands.
    pub state: CallState,
    /// What was answered, when that is kept.
    pub answer: Option<Bytes>,
    /// When it was last begun.
    pub at: DateTime<Utc>,
}

/// What a claim does to the row it found, as read under its lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The row is too old to count: the claim takes its place.
    Replace,
    /// The call is begun again under its first name.
    Resume(RequestId),
    /// Nothing is written.
    Tell(Claimed),
}

impl KeptCall {
    /// Decides for a claim whose body has this hash.
    pub fn judge(self, claim: &Claim, body_hash: &[u8]) -> Judgement {
        let age = claim.at - self.at;
        if age >= KEPT {
            return Judgement::Replace;
        }
        if self.body_hash != body_hash {
            return Judgement::Tell(Claimed::Mismatch);
        }
        match (self.state, self.answer) {
            (CallState::Free, _) => Judgement::Resume(self.request),
            (CallState::Running, _) if age >= ABANDONED => Judgement::Resume(self.request),
            (CallState::Running, _) => Judgement::Tell(Claimed::Running),
            (CallState::Answered, Some(body)) => Judgement::Tell(Claimed::Answered { request: self.request, body }),
            (CallState::Answered, None) => Judgement::Tell(Claimed::NotKept),
        }
    }
}

/// Rows begun before this are as good as none.
pub fn forgotten_before(now: DateTime<Utc>) -> DateTime<Utc> {
    now - KEPT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_short_and_visible() {
        for good in ["a", "550e8400-e29b-41d4-a716-446655440000", &"x".repeat(255)] {
            assert_eq!(CallKey::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", " ", "a b", "é", "a\n", &"x".repeat(256)] {
            assert!(CallKey::parse(bad).is_none(), "{bad:?}");
        }
    }
}
