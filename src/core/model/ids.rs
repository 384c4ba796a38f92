//! One type per identifier, so that a session id is never taken for a user id.
//!
//! Ids are opaque text (contract `schema.md` §1). Ours are 21 characters of `0-9A-Z_a-z-`; rows of the
//! reference server and of clients may carry anything else, so nothing here checks a shape.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text, as stored and as sent.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether a row may have it: no stored text holds U+0000, and PostgreSQL does not even look for one that
            /// does.
            pub fn is_storable(&self) -> bool {
                !self.0.contains('\0')
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    )+};
}

ids! {
    /// A person's account. Business rows keep it after the account is gone.
    UserId;
    /// One row of `session`; not the secret that proves it.
    SessionId;
    /// One row of `account`: a way to sign in.
    IdentityId;
    /// One accepted call: the same id in the ledger, the request log, the log lines and `X-Request-Id`.
    RequestId;
    /// One row of `flux_transaction`.
    EntryId;
    /// One row of `llm_request_log`.
    LogId;
    /// One conversation.
    ChatId;
    /// One message; unique within its chat only.
    MessageId;
    /// One row of `chat_members`.
    MemberId;
    /// One character.
    CharacterId;
    /// One provider configuration, of a user or of the system.
    ProviderId;
    /// One running process of this server.
    InstanceId;
    /// A key slot of an upstream (`keys[].id`): safe to label metrics with, unlike the key.
    KeyEntryId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_text_on_the_wire() {
        let id = UserId::new("u1");
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"u1\"");
        assert_eq!(serde_json::from_str::<UserId>("\"u1\"").unwrap(), id);
        assert_eq!(format!("{id:?} {id}"), "UserId(u1) u1");
    }
}
