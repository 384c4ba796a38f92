//! People, the sessions that prove them, and the addresses they sign in with.

use std::fmt;

use chrono::{DateTime, Duration, Utc};
use thiserror::Error;

use super::ids::{IdentityId, SessionId, UserId};
use super::secret::Secret;

/// A person as the identity tables know them (contract `auth.md` §4.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The id business rows refer to.
    pub id: UserId,
    /// Display name; may be empty.
    pub name: String,
    /// Lower-case address, unique.
    pub email: Email,
    /// Whether the owner of the address has proved it.
    pub email_verified: bool,
    /// Picture address, if any.
    pub image: Option<String>,
    /// When the account was made.
    pub created_at: DateTime<Utc>,
    /// When a field last changed.
    pub updated_at: DateTime<Utc>,
}

/// An account about to be stored, with the ids and times the caller decided.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// The account itself.
    pub account: Account,
    /// A password identity to store with it, in the same transaction.
    pub password: Option<PasswordIdentity>,
}

/// The `credential` row of `account` (contract `auth.md` §3.3).
#[derive(Clone, Debug)]
pub struct PasswordIdentity {
    /// Row id.
    pub id: IdentityId,
    /// `<salt>:<key>`, both hexadecimal.
    pub hash: Secret,
}

/// What became of a request to create an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// Stored.
    Created,
    /// Somebody has this address; nothing was written.
    AddressTaken,
}

/// One signed-in device.
#[derive(Clone, Debug)]
pub struct Session {
    /// Row id; safe to show to its owner.
    pub id: SessionId,
    /// What the device presents. Stored in clear by the reference, so we read it the same way.
    pub token: Secret,
    /// Whose session it is.
    pub user: UserId,
    /// Not valid from this instant on.
    pub expires_at: DateTime<Utc>,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// When it was last extended.
    pub updated_at: DateTime<Utc>,
    /// Address it was opened from, or empty.
    pub ip_address: Option<String>,
    /// Client it was opened with, or empty.
    pub user_agent: Option<String>,
}

/// How long a session lives from its opening or last extension.
pub const SESSION_LIFETIME: Duration = Duration::days(7);
/// A session used at least this long after its last extension is extended again.
pub const SESSION_REFRESH_STEP: Duration = Duration::days(1);

impl Session {
    /// Whether a use at `now` moves the end of the session (contract `auth.md` §4.1).
    pub fn is_due_for_extension(&self, now: DateTime<Utc>) -> bool {
        self.expires_at - SESSION_LIFETIME + SESSION_REFRESH_STEP <= now
    }
}

/// A live session together with its owner: what one look-up by token answers.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The session that was presented.
    pub session: Session,
    /// The person it belongs to.
    pub account: Account,
}

/// A lower-case e-mail address that passed the sign-up rule.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Email(String);

/// Why a text is not an address we accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an e-mail address; expected name@domain.tld")]
pub struct InvalidEmail;

impl Email {
    /// Accepts what the sign-up form accepts (contract `auth.md` §6.2) and stores it lower-case.
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        let text = text.trim().to_lowercase();
        let (local, domain) = text.split_once('@').ok_or(InvalidEmail)?;
        if !is_local_part(local) || !is_domain(domain) {
            return Err(InvalidEmail);
        }
        Ok(Self(text))
    }

    /// Takes an address the database already holds, whatever rule it passed when it was stored.
    pub fn stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_local_part(local: &str) -> bool {
    !local.is_empty()
        && local.chars().all(|c| c.is_ascii_alphanumeric() || "_'+-.".contains(c))
        && !local.starts_with('.')
        && !local.contains("..")
        && !local.ends_with(['.', '\''])
}

fn is_domain(domain: &str) -> bool {
    let Some((_, top)) = domain.rsplit_once('.') else { return false };
    top.len() >= 2
        && top.chars().all(|c| c.is_ascii_alphabetic())
        && domain.split('.').all(|label| {
            label.starts_with(|c: char| c.is_ascii_alphanumeric())
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Addresses are personal: logs and panics show the domain only.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = self.0.rsplit_once('@').map_or("", |(_, domain)| domain);
        write!(f, "Email(…@{domain})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_lower_cased_and_checked() {
        assert_eq!(Email::parse(" Alice@Example.COM ").unwrap().as_str(), "alice@example.com");
        for good in ["a@b.co", "a.b+c_d-e'f@x-y.example.org", "1@2.io"] {
            assert!(Email::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "@",
            "a@",
            "@b.co",
            "a@b",
            "a b@c.de",
            "a..b@c.de",
            ".a@c.de",
            "a.@c.de",
            "a'@c.de",
            "a@-b.co",
            "a@b..co",
            "a@b.c",
            "a@b.c0",
            "a@b@c.de",
            "a@.co",
        ] {
            assert_eq!(Email::parse(bad), Err(InvalidEmail), "{bad}");
        }
    }

    #[test]
    fn an_address_is_not_printed_by_debug() {
        assert_eq!(format!("{:?}", Email::stored("alice@example.com")), "Email(…@example.com)");
    }
}
