//! What people change about their own account (contract `auth.md` §6.5, §6.7, §6.8).

use super::refusal::{Denied, Refusal};
use super::sign_in::SignIn;
use super::{Accounts, Device, length_of};
use crate::core::error::Error;
use crate::core::model::accounts::{PasswordIdentity, SESSION_LIFETIME, Session};
use crate::core::model::fact::Fact;
use crate::core::model::identity::{Afterwards, Closing, Identity, PasswordChange, ProfileChange, Unlinking};
use crate::core::model::ids::IdentityId;
use crate::core::model::principal::{Credential, Principal};
use crate::core::model::secret::Secret;

/// After this long a session is not enough for what cannot be undone.
const FRESH: chrono::Duration = chrono::Duration::hours(24);

impl Accounts {
    /// Stores what changed.
    pub async fn update(&self, caller: &Principal, change: &ProfileChange) -> Result<(), Error> {
        let now = self.clock.now();
        self.accounts.update(caller.user(), change, now).await?;
        // Copies of the session show the person as they were.
        if let Credential::Session(id) = &caller.credential {
            self.sessions.touch(id).await;
        }
        Ok(())
    }

    /// Every way the caller has to sign in.
    pub async fn identities(&self, caller: &Principal) -> Result<Vec<Identity>, Error> {
        Ok(self.accounts.list_identities(caller.user()).await?)
    }

    /// Removes one way to sign in. `opened` is when the caller's session was opened; a token counts as fresh.
    pub async fn unlink(
        &self,
        caller: &Principal,
        opened: Option<chrono::DateTime<chrono::Utc>>,
        provider: &str,
        account_id: Option<&str>,
    ) -> Result<(), Denied> {
        if opened.is_some_and(|opened| opened + FRESH <= self.clock.now()) {
            return Err(Refusal::SessionNotFresh.into());
        }
        match self.accounts.unlink(caller.user(), provider, account_id).await? {
            Unlinking::Unlinked => Ok(()),
            Unlinking::LastOne => Err(Refusal::LastAccount.into()),
            Unlinking::Missing => Err(Refusal::AccountNotFound.into()),
        }
    }

    /// The caller's live sessions, newest first.
    pub async fn list_sessions(&self, caller: &Principal) -> Result<Vec<Session>, Error> {
        Ok(self.sessions.list(caller.user(), self.clock.now()).await?)
    }

    /// Ends sessions of the caller, with what is tied to them.
    pub async fn end_sessions(&self, caller: &Principal, which: &Closing) -> Result<(), Error> {
        self.sessions.close(caller.user(), which, self.clock.now()).await?;
        Ok(())
    }

    /// Ends the session the caller came with. A token ends the session it was issued for.
    pub async fn sign_out(&self, caller: &Principal) -> Result<(), Error> {
        let Some(session) = caller.session() else { return Ok(()) };
        self.end_sessions(caller, &Closing::One(session.clone())).await
    }
}

impl SignIn {
    /// Sets another password for whoever knows the current one. With `revoke_others` every other session ends: a session
    /// caller gets a new session in place of the old one, a token caller stays signed in as they are.
    pub async fn change_password(
        &self,
        caller: &Principal,
        (current, new): (&Secret, &Secret),
        revoke_others: bool,
        device: &Device,
    ) -> Result<Option<Session>, Denied> {
        length_of(new)?;
        self.confirm_password(&caller.account, current).await?;
        let accounts = &self.accounts;
        let hash = accounts.passwords.hash(new).await?;
        let now = accounts.clock.now();
        let (sessions, opened) = match (&caller.credential, revoke_others) {
            (_, false) => (Afterwards::Leave, None),
            (Credential::Token(token), true) => (Afterwards::KeepOnly(token.session.clone()), None),
            (Credential::Session(old), true) => {
                let new = accounts.new_session(caller.user(), device, SESSION_LIFETIME);
                (Afterwards::Replace { old: old.clone(), new: new.clone() }, Some(new))
            }
        };
        let password = PasswordIdentity { id: IdentityId::new(accounts.ids.token()), hash };
        let change = PasswordChange { user: caller.user().clone(), password, at: now, sessions };
        let closed = accounts.accounts.change_password(&change).await?;
        accounts.forget_closed(&closed).await;
        if opened.is_some() {
            accounts.journal.record(Fact::SessionOpened { user: caller.user().clone() });
        }
        Ok(opened)
    }
}
