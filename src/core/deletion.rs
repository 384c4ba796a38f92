//! The end of an account: ordered, safe to repeat, and complete or not begun (contract `auth.md` §10, `ledger.md` §4).

use std::sync::Arc;

use async_trait::async_trait;

use super::accounts::{Denied, Errand, Refusal, SignIn, address_mark};
use super::billing::Billing;
use super::chats::Chats;
use super::error::Error;
use super::model::accounts::Account;
use super::model::erasure::Erasure;
use super::model::fact::Fact;
use super::model::ids::UserId;
use super::model::letters::Message;
use super::model::principal::Principal;
use super::model::proofs::{DELETION_LIFETIME, Verification};
use super::model::secret::Secret;
use crate::ports::Fault;
use crate::ports::erasure::ErasureRepo;
use crate::ports::ledger::BalanceCache;
use crate::ports::oidc::AccountSnapshots;

/// What must have happened elsewhere before the database forgets: a subscription that goes on charging cannot be
/// cancelled any more once nobody knows whose it was.
#[async_trait]
pub trait BeforeErasure: Send + Sync {
    /// Names the step in logs.
    fn name(&self) -> &'static str;

    /// Does it; MUST be safe to repeat. A failure leaves the account as it is, and the next call begins anew.
    async fn undo(&self, user: &UserId) -> Result<(), Error>;
}

/// Deletes accounts.
pub struct Deletion {
    /// People, their passwords and their letters.
    pub sign_in: Arc<SignIn>,
    /// Everything the database does, in one transaction.
    pub erasures: Arc<dyn ErasureRepo>,
    /// Copies of balances.
    pub balances: Arc<dyn BalanceCache>,
    /// Copies of people: access tokens stop working with them.
    pub people: Arc<dyn AccountSnapshots>,
    /// Sockets of people who are gone are closed, in every process.
    pub chats: Arc<Chats>,
    /// Steps elsewhere, in order.
    pub before: Vec<Arc<dyn BeforeErasure>>,
}

/// Why an account is deleted.
pub const USER_REQUESTED: &str = "user-requested";

impl Deletion {
    /// Mails the link that deletes, after the password when one is given.
    pub async fn request(&self, caller: &Principal, password: Option<&Secret>, errand: Errand) -> Result<(), Denied> {
        if let Some(password) = password {
            self.sign_in.confirm_password(&caller.account, password).await?;
        }
        let accounts = &self.sign_in.accounts;
        let letters = &self.sign_in.letters;
        let errand = Errand { to: caller.account.email.clone(), ..errand };
        if !letters.may_write(&errand.to).await {
            return Ok(());
        }
        let token = accounts.ids.token().to_ascii_lowercase();
        let now = accounts.clock.now();
        let row = Verification {
            id: accounts.ids.token(),
            identifier: identifier(&token),
            value: caller.user().to_string(),
            expires_at: now + DELETION_LIFETIME,
            created_at: now,
        };
        self.sign_in.verifications.issue(&row).await?;
        let callback = errand.callback.clone().unwrap_or_else(|| "/".to_owned());
        let query = [("token", token.as_str()), ("callbackURL", callback.as_str())];
        let letter = letters.letter(errand, Message::DeleteAccount, "/api/auth/delete-user/callback", &query);
        letters.deliver(&letter).await.map_err(|_| Refusal::EmailSendFailed)?;
        Ok(())
    }

    /// Whether a mailed token would be accepted from this person now. Uses nothing up.
    pub async fn is_token_of(&self, token: &str, user: &UserId) -> Result<bool, Error> {
        let now = self.sign_in.accounts.clock.now();
        let found = self.sign_in.verifications.find(&identifier(token)).await?;
        Ok(found.is_some_and(|row| row.is_alive(now) && row.value == user.as_str()))
    }

    /// Deletes the account of whoever holds both the mailed token and a session of that account. The token stays good
    /// until the account is gone, so an interrupted deletion is finished by the next call.
    pub async fn confirm(&self, token: &str, caller: &Principal) -> Result<(), Denied> {
        if !self.is_token_of(token, caller.user()).await? {
            return Err(Refusal::InvalidToken.into());
        }
        self.erase(&caller.account, USER_REQUESTED).await?;
        Ok(())
    }

    /// What the mailed token alone allows: its owner has no session here and confirmed on a page of ours.
    pub async fn confirm_without_session(&self, token: &str) -> Result<(), Denied> {
        let accounts = &self.sign_in.accounts;
        let now = accounts.clock.now();
        let found = self.sign_in.verifications.find(&identifier(token)).await?;
        let row = found.filter(|row| row.is_alive(now)).ok_or(Refusal::InvalidToken)?;
        let account = accounts.accounts.find(&UserId::new(row.value)).await?.ok_or(Refusal::InvalidToken)?;
        self.erase(&account, USER_REQUESTED).await?;
        Ok(())
    }

    async fn erase(&self, person: &Account, reason: &'static str) -> Result<(), Error> {
        let accounts = &self.sign_in.accounts;
        let user = &person.id;
        let failed = |step| accounts.journal.record(Fact::ErasureFailed { user: user.clone(), step });
        for step in &self.before {
            if let Err(error) = step.undo(user).await {
                failed(step.name());
                return Err(error);
            }
        }
        let address_mark = address_mark(&self.sign_in.letters, &person.email);
        let erasure = Erasure { user: user.clone(), address_mark, at: accounts.clock.now() };
        let erased = match self.erasures.erase(&erasure).await {
            Ok(erased) => erased,
            Err(fault) => {
                failed("database");
                return Err(fault.into());
            }
        };
        // Somebody else's click was faster.
        let Some(erased) = erased else { return Ok(()) };
        accounts.forget_closed(&erased.sessions).await;
        let degraded = |operation, fault: Fault| {
            accounts.journal.record(Fact::Degraded { operation, cause: fault.to_string() });
        };
        if let Err(fault) = self.people.forget(user).await {
            degraded("snapshots.forget", fault);
        }
        if let Err(fault) = self.balances.forget(user).await {
            degraded("balance_cache.forget", fault);
        }
        self.chats.close_account(user).await;
        accounts.journal.record(Fact::AccountErased { user: user.clone(), reason, counts: erased.counts });
        Ok(())
    }
}

#[async_trait]
impl BeforeErasure for Billing {
    fn name(&self) -> &'static str {
        "billing"
    }

    async fn undo(&self, user: &UserId) -> Result<(), Error> {
        self.close_account(user).await
    }
}

fn identifier(token: &str) -> String {
    format!("delete-account-{token}")
}
