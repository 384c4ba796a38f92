//! What a session is told and what it asks for.

use std::time::Duration;

use crate::core::chats::Sent;
use crate::core::chats::protocol::{Message, Request};
use crate::core::error::Error;
use crate::core::model::chats::{Heard, LogPage};
use crate::core::model::ids::{ChatId, UserId};

/// Names a call that was asked to be performed.
pub type CallId = u64;

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A text frame arrived.
    Text(String),
    /// A binary frame arrived.
    Binary,
    /// The peer gave a sign of life.
    Pong,
    /// The token check of [`Output::Authenticate`] or [`Output::Recheck`] ended.
    Judged(Result<Option<UserId>, Error>),
    /// Something was published for the user.
    Heard(Heard),
    /// A call ended.
    Done(CallId, Result<Answer, Error>),
    /// So much time has passed since the socket was opened.
    Tick(Duration),
}

/// What to do.
#[derive(Debug)]
pub enum Output {
    /// Send a frame.
    Send(Message),
    /// Send a ping.
    Ping,
    /// Find out whose token this is.
    Authenticate(String),
    /// Find out whether the token the socket was opened with is still good.
    Recheck,
    /// Somebody is known: listen for what is published for them.
    Listen(UserId),
    /// Run a call for the user.
    Perform(CallId, Call),
    /// End the socket.
    Close(Close),
}

/// A use-case to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Push or pull, as the client asked.
    Client(Request),
    /// Read what this device has missed. May wait until what was sent before is on its way.
    Repair {
        /// Where.
        chat: ChatId,
        /// Behind which number.
        after: i64,
    },
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A push.
    Sent(Sent),
    /// A pull.
    Page(LogPage),
}

/// Why a socket ends, as a close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The token will never be good.
    Unauthorized,
    /// The server leaves.
    Leaving,
    /// A frame was too long.
    TooLarge,
    /// The peer does not read, or the token cannot be judged now; come again.
    Overloaded,
    /// The peer is dead.
    Silent,
}

impl Close {
    /// The code.
    pub const fn code(self) -> u16 {
        match self {
            Self::Unauthorized => 4001,
            Self::Leaving => 1001,
            Self::TooLarge => 1009,
            Self::Overloaded => 1013,
            Self::Silent => 1011,
        }
    }

    /// The reason.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Leaving => "server is leaving",
            Self::TooLarge => "frame too large",
            Self::Overloaded => "try again later",
            Self::Silent => "no answer to pings",
        }
    }
}
