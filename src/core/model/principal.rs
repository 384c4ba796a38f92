//! Who is asking, and what follows from it.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::accounts::Account;
use super::ids::{SessionId, UserId};
use super::secret::Secret;

/// A caller whose credential has been judged good.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The person.
    pub account: Account,
    /// What they proved it with.
    pub credential: Credential,
}

/// What a caller presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A session token, from a cookie or a bearer header.
    Session(SessionId),
    /// A signed access token; nothing is stored about it.
    Token(AccessToken),
}

/// What a good access token says (contract `auth.md` §4.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// As it was presented.
    pub text: Secret,
    /// The session it was issued for, which may be gone.
    pub session: Option<SessionId>,
    /// When it was issued.
    pub issued_at: DateTime<Utc>,
    /// Not valid from this instant on.
    pub expires_at: DateTime<Utc>,
}

impl Principal {
    /// Shorthand for the id every use-case asks for.
    pub fn user(&self) -> &UserId {
        &self.account.id
    }

    /// The session behind the credential. One a token was issued for may be gone.
    pub fn session(&self) -> Option<&SessionId> {
        match &self.credential {
            Credential::Session(id) => Some(id),
            Credential::Token(token) => token.session.as_ref(),
        }
    }
}

/// The verified addresses that may administer, lower-case (`ADMIN_EMAILS`, contract `admin.md` §1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Administrators(BTreeSet<String>);

/// A principal that passed the admin guard; operator use-cases ask for this type.
#[derive(Clone, Debug)]
pub struct Administrator {
    /// The person who answers for the action.
    pub account: Account,
}

/// Why a signed-in caller is not an administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdministrator {
    /// The address is unproved. Told before the list is consulted, as the reference does.
    Unverified,
    /// The address is not on the list.
    NotListed,
}

impl Administrators {
    /// Reads a comma-separated list: items are trimmed and lower-cased, empty ones dropped.
    pub fn parse(list: &str) -> Self {
        Self(list.split(',').map(|item| item.trim().to_lowercase()).filter(|item| !item.is_empty()).collect())
    }

    /// Adds one address.
    pub fn insert(&mut self, email: &str) {
        self.0.insert(email.to_lowercase());
    }

    /// Admits a verified address of the list.
    pub fn admit(&self, principal: &Principal) -> Result<Administrator, NotAdministrator> {
        if !principal.account.email_verified {
            return Err(NotAdministrator::Unverified);
        }
        if !self.0.contains(&principal.account.email.as_str().to_lowercase()) {
            return Err(NotAdministrator::NotListed);
        }
        Ok(Administrator { account: principal.account.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::accounts::Email;

    fn principal(email: &str, verified: bool) -> Principal {
        let at = chrono::DateTime::UNIX_EPOCH;
        Principal {
            account: Account {
                id: UserId::new("u1"),
                name: String::new(),
                email: Email::stored(email),
                email_verified: verified,
                image: None,
                created_at: at,
                updated_at: at,
            },
            credential: Credential::Session(SessionId::new("s1")),
        }
    }

    #[test]
    fn the_list_is_trimmed_lower_cased_and_may_be_empty() {
        let list = Administrators::parse(" Alice@Example.com , ,bob@x.io");
        assert!(list.admit(&principal("alice@example.com", true)).is_ok());
        assert!(list.admit(&principal("BOB@x.io", true)).is_ok());
        assert_eq!(list.admit(&principal("eve@x.io", true)).unwrap_err(), NotAdministrator::NotListed);
        assert_eq!(list.admit(&principal("eve@x.io", false)).unwrap_err(), NotAdministrator::Unverified);
        assert_eq!(list.admit(&principal("bob@x.io", false)).unwrap_err(), NotAdministrator::Unverified);
        assert_eq!(
            Administrators::parse(" ").admit(&principal("a@b.co", true)).unwrap_err(),
            NotAdministrator::NotListed
        );
    }
}
