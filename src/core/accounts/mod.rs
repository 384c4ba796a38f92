//! Who is calling: accounts and the sessions that prove them.

mod email_proofs;
mod letters;
mod profile;
mod recovery;
mod refusal;
mod sign_in;
mod social;

use std::sync::Arc;

use chrono::Duration;

pub use email_proofs::{Opener, Verified};
pub use letters::{Errand, Letters, Process};
pub use recovery::{Arrival, Targets};
pub use refusal::{Denied, Refusal};
pub(crate) use sign_in::address_mark;
pub use sign_in::{Applicant, Attempt, Known, SignIn, errand};
pub use social::{Answer, Begun, Landing, Social, Traveller, Wish};

use super::error::{Code, Error};
use super::model::accounts::{
    Account, Creation, Email, NewAccount, PasswordIdentity, SESSION_LIFETIME, Session, SignedIn,
};
use super::model::fact::Fact;
use super::model::ids::{IdentityId, SessionId, UserId};
use super::model::principal::{Credential, Principal};
use super::model::secret::Secret;
use crate::ports::accounts::{AccountRepo, SessionRepo};
use crate::ports::journal::Journal;
use crate::ports::oidc::PasswordHasher;
use crate::ports::runtime::{Clock, IdSource};

/// Accounts and sessions.
pub struct Accounts {
    /// People.
    pub accounts: Arc<dyn AccountRepo>,
    /// Their devices.
    pub sessions: Arc<dyn SessionRepo>,
    /// Their passwords.
    pub passwords: Arc<dyn PasswordHasher>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids and tokens.
    pub ids: Arc<dyn IdSource>,
    /// Hears about sign-ups and sign-ins.
    pub journal: Arc<dyn Journal>,
}

/// A person to be created by an operator.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// The address.
    pub email: Email,
    /// Display name; the part before the `@` when absent.
    pub name: Option<String>,
    /// A password, 8 to 128 UTF-16 units.
    pub password: Option<Secret>,
    /// Whether the address counts as proved.
    pub verified: bool,
}

/// What a session is opened with; both may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The client's address.
    pub address: String,
    /// What the client calls itself.
    pub agent: String,
}

/// A session that was presented and is good.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The session, as it is after this use.
    pub session: Session,
    /// Its owner.
    pub account: Account,
    /// Whether this use moved its end.
    pub prolonged: bool,
}

impl Resolved {
    /// Who that makes the caller.
    pub fn principal(&self) -> Principal {
        let credential = Credential::Session(self.session.id.clone());
        Principal { account: self.account.clone(), credential }
    }
}

/// Life of a session that is not to be remembered.
const FORGOTTEN_AFTER: Duration = Duration::hours(24);

impl Accounts {
    /// The person behind a session token; nobody when it is unknown or has expired.
    pub async fn resolve(&self, token: &str) -> Result<Option<Principal>, Error> {
        Ok(self.resolve_session(token, true).await?.map(|found| found.principal()))
    }

    /// The session behind a token, with its owner. A use prolongs it where `prolong` says so.
    pub async fn resolve_session(&self, token: &str, prolong: bool) -> Result<Option<Resolved>, Error> {
        let Some(SignedIn { mut session, account }) = self.sessions.find_by_token(token).await? else {
            return Ok(None);
        };
        let now = self.clock.now();
        // It stays where it is: without it, a later sign-out would not find the refresh tokens that came from it.
        if session.expires_at <= now {
            return Ok(None);
        }
        let prolonged = prolong && session.is_due_for_extension(now);
        if prolonged {
            session.expires_at = now + SESSION_LIFETIME;
            session.updated_at = now;
            self.sessions.extend(&session.id, session.expires_at, now).await?;
        }
        Ok(Some(Resolved { session, account, prolonged }))
    }

    /// Creates an account; a taken address is a conflict.
    pub async fn create(&self, new: NewUser) -> Result<Account, Error> {
        let password = match &new.password {
            Some(password) => Some(self.password_identity(password).await?),
            None => None,
        };
        let name = new.name.unwrap_or_else(|| new.email.as_str().split('@').next().unwrap_or_default().to_owned());
        let account = self.new_account(name, new.email, None, new.verified);
        let new = NewAccount { account, password };
        match self.accounts.create(&new).await? {
            Creation::Created => {
                self.journal.record(Fact::UserRegistered { user: new.account.id.clone() });
                Ok(new.account)
            }
            Creation::AddressTaken => Err(Error::new(Code::Conflict).saying("a user with this e-mail address exists")),
        }
    }

    /// An account that begins now; nothing is stored.
    fn new_account(&self, name: String, email: Email, image: Option<String>, email_verified: bool) -> Account {
        let now = self.clock.now();
        let id = UserId::new(self.ids.token());
        Account { id, name, email, email_verified, image, created_at: now, updated_at: now }
    }

    /// Opens a session for the person with this address.
    pub async fn open_session(&self, email: &Email) -> Result<Session, Error> {
        let account = self.find_by_email(email).await?;
        self.open_for(&account.id, &Device::default(), true).await
    }

    /// Opens a session: 7 days, or 24 hours when it is not to be remembered (contract `auth.md` §4.1).
    pub async fn open_for(&self, user: &UserId, device: &Device, remember: bool) -> Result<Session, Error> {
        let lifetime = if remember { SESSION_LIFETIME } else { FORGOTTEN_AFTER };
        let session = self.new_session(user, device, lifetime);
        self.sessions.open(&session).await?;
        self.journal.record(Fact::SessionOpened { user: user.clone() });
        Ok(session)
    }

    fn new_session(&self, user: &UserId, device: &Device, lifetime: Duration) -> Session {
        let now = self.clock.now();
        Session {
            id: SessionId::new(self.ids.token()),
            token: Secret::new(self.ids.token()),
            user: user.clone(),
            expires_at: now + lifetime,
            created_at: now,
            updated_at: now,
            ip_address: Some(device.address.clone()),
            user_agent: Some(device.agent.clone()),
        }
    }

    /// Tells copies about sessions another transaction ended; the sessions are gone already.
    pub(crate) async fn forget_closed(&self, closed: &[SessionId]) {
        for id in closed {
            self.sessions.touch(id).await;
        }
    }

    /// The person with this address, or [`Code::NotFound`].
    pub async fn find_by_email(&self, email: &Email) -> Result<Account, Error> {
        self.accounts
            .find_by_email(email)
            .await?
            .ok_or_else(|| Error::new(Code::NotFound).saying("no user has this e-mail address"))
    }

    async fn password_identity(&self, password: &Secret) -> Result<PasswordIdentity, Error> {
        length_of(password)
            .map_err(|_| Error::new(Code::InvalidRequest).saying("a password has 8 to 128 characters"))?;
        Ok(PasswordIdentity { id: IdentityId::new(self.ids.token()), hash: self.passwords.hash(password).await? })
    }
}

/// Accepted lengths, UTF-16 units (contract `auth.md` §1).
fn length_of(password: &Secret) -> Result<(), Refusal> {
    match password.expose().encode_utf16().count() {
        ..8 => Err(Refusal::PasswordTooShort),
        8..=128 => Ok(()),
        _ => Err(Refusal::PasswordTooLong),
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::ports::mocks::{
        MockAccountRepo, MockClock, MockIdSource, MockJournal, MockPasswordHasher, MockSessionRepo,
    };

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn accounts(sessions: MockSessionRepo) -> Accounts {
        let mut clock = MockClock::new();
        clock.expect_now().return_const(NOW);
        Accounts {
            accounts: Arc::new(MockAccountRepo::new()),
            sessions: Arc::new(sessions),
            passwords: Arc::new(MockPasswordHasher::new()),
            clock: Arc::new(clock),
            ids: Arc::new(MockIdSource::new()),
            journal: Arc::new(MockJournal::new()),
        }
    }

    fn ending_in(left: Duration) -> MockSessionRepo {
        let mut sessions = MockSessionRepo::new();
        sessions.expect_find_by_token().returning(move |token| {
            let account = Account {
                id: UserId::new("u"),
                name: String::new(),
                email: Email::stored("a@b.co"),
                email_verified: true,
                image: None,
                created_at: NOW,
                updated_at: NOW,
            };
            let session = Session {
                id: SessionId::new("s"),
                token: Secret::new(token),
                user: account.id.clone(),
                expires_at: NOW + left,
                created_at: NOW,
                updated_at: NOW,
                ip_address: None,
                user_agent: None,
            };
            Ok(Some(SignedIn { session, account }))
        });
        sessions
    }

    #[tokio::test]
    async fn a_fresh_session_is_left_alone() {
        let found = accounts(ending_in(Duration::days(7))).resolve("t").await.unwrap();
        assert_eq!(found.unwrap().user().as_str(), "u");
    }

    #[tokio::test]
    async fn a_day_old_session_is_extended() {
        let mut sessions = ending_in(Duration::days(6));
        sessions
            .expect_extend()
            .withf(|_, until, _| *until == NOW + Duration::days(7))
            .times(1)
            .returning(|_, _, _| Ok(()));
        assert!(accounts(sessions).resolve("t").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn an_expired_session_is_nobody_and_nothing_is_written() {
        assert!(accounts(ending_in(Duration::zero())).resolve("t").await.unwrap().is_none());
    }
}
