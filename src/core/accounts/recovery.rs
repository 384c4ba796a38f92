//! Ways in for whoever has no password at hand: reset and magic link (contract `auth.md` §6.4, §6.6).

use serde_json::{Value, json};

use super::letters::Errand;
use super::refusal::{Denied, Refusal};
use super::sign_in::SignIn;
use super::{Device, length_of};
use crate::core::error::{Code, Error};
use crate::core::model::accounts::{Account, Creation, Email, NewAccount, PasswordIdentity, Session};
use crate::core::model::identity::{PasswordReset, Proof, Proving};
use crate::core::model::ids::IdentityId;
use crate::core::model::letters::Message;
use crate::core::model::proofs::{MAGIC_LINK_LIFETIME, RESET_LIFETIME, Verification};
use crate::core::model::secret::Secret;

/// What the error and success targets of a magic link are.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Where a person who had no account ends up.
    pub new_user: Option<String>,
    /// Where a failure is told.
    pub error: Option<String>,
}

/// Somebody who came by a magic link.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Their session.
    pub session: Session,
    /// Who they are.
    pub account: Account,
    /// Whether the account was made just now.
    pub is_new: bool,
}

impl SignIn {
    /// Mails a reset link if somebody has the address. The answer is the same and as quick if nobody has.
    pub async fn request_reset(&self, errand: Errand) -> Result<(), Error> {
        let Some(account) = self.accounts.accounts.find_by_email(&errand.to).await? else { return Ok(()) };
        if !self.letters.may_write(&errand.to).await {
            return Ok(());
        }
        let token: String = self.accounts.ids.token().chars().take(24).collect();
        let now = self.accounts.clock.now();
        let row = Verification {
            id: self.accounts.ids.token(),
            identifier: reset_identifier(&token),
            value: account.id.to_string(),
            expires_at: now + RESET_LIFETIME,
            created_at: now,
        };
        self.verifications.issue(&row).await?;
        let callback = errand.callback.clone().unwrap_or_default();
        let errand = Errand { to: account.email, ..errand };
        let path = format!("/api/auth/reset-password/{token}");
        self.letters.post(self.letters.letter(errand, Message::PasswordReset, &path, &[("callbackURL", &callback)]));
        Ok(())
    }

    /// Whether a reset token would be accepted now. Uses nothing up.
    pub async fn is_reset_token(&self, token: &str) -> Result<bool, Error> {
        let now = self.accounts.clock.now();
        Ok(self.verifications.find(&reset_identifier(token)).await?.is_some_and(|row| row.is_alive(now)))
    }

    /// Sets a password with a mailed token, once. Every session and refresh token ends.
    pub async fn reset_password(&self, token: &str, password: &Secret) -> Result<(), Denied> {
        length_of(password)?;
        // A hash costs more than a look-up: strangers without a token do not get one.
        if !self.is_reset_token(token).await? {
            return Err(Refusal::InvalidToken.into());
        }
        let accounts = &self.accounts;
        let hash = accounts.passwords.hash(password).await?;
        let reset = PasswordReset {
            identifier: reset_identifier(token),
            password: PasswordIdentity { id: IdentityId::new(accounts.ids.token()), hash },
            at: accounts.clock.now(),
        };
        let done = accounts.accounts.reset_password(&reset).await?.ok_or(Refusal::InvalidToken)?;
        accounts.forget_closed(&done.closed).await;
        Ok(())
    }

    /// Mails a link that signs in; a failure of the mail is told.
    pub async fn send_magic_link(&self, errand: Errand, name: Option<String>, targets: &Targets) -> Result<(), Denied> {
        if !self.letters.may_write(&errand.to).await {
            return Ok(());
        }
        let token = self.letters_only();
        let now = self.accounts.clock.now();
        let mut value = json!({ "email": errand.to.as_str(), "attempt": 0 });
        if let Some(name) = name {
            value["name"] = name.into();
        }
        let row = Verification {
            id: self.accounts.ids.token(),
            identifier: token.clone(),
            value: value.to_string(),
            expires_at: now + MAGIC_LINK_LIFETIME,
            created_at: now,
        };
        self.verifications.issue(&row).await?;
        let callback = errand.callback.clone().unwrap_or_else(|| "/".to_owned());
        let mut query = vec![("token", token.as_str()), ("callbackURL", callback.as_str())];
        query.extend(targets.new_user.as_deref().map(|url| ("newUserCallbackURL", url)));
        query.extend(targets.error.as_deref().map(|url| ("errorCallbackURL", url)));
        let letter = self.letters.letter(errand, Message::MagicLink, "/api/auth/magic-link/verify", &query);
        self.letters.deliver(&letter).await.map_err(|undelivered| Error::new(Code::Internal).because(undelivered))?;
        Ok(())
    }

    /// Signs in whoever opens the link first.
    pub async fn open_magic_link(&self, token: &str, device: &Device) -> Result<Arrival, Denied> {
        let now = self.accounts.clock.now();
        let is_magic = |value: &Value| value["email"].is_string() && value["attempt"].is_u64();
        let found = self.verifications.find(token).await?;
        let value = found.as_ref().and_then(|row| serde_json::from_str::<Value>(&row.value).ok()).filter(is_magic);
        // Rows of other purposes share the table: none of them is a magic link.
        let (Some(row), Some(mut value)) = (found, value) else { return Err(Refusal::InvalidToken.into()) };
        if !row.is_alive(now) {
            self.verifications.redeem(token, now).await?;
            return Err(Refusal::ExpiredToken.into());
        }
        if value["attempt"] != 0 {
            self.verifications.redeem(token, now).await?;
            return Err(Refusal::AttemptsExceeded.into());
        }
        value["attempt"] = 1.into();
        if !self.verifications.swap(token, &row.value, &value.to_string(), now).await? {
            return Err(Refusal::AttemptsExceeded.into());
        }
        let email = value["email"].as_str().and_then(|email| Email::parse(email).ok()).ok_or(Refusal::InvalidToken)?;
        let name = value["name"].as_str().unwrap_or_default().to_owned();
        let (account, is_new) = self.find_or_create(email, name).await?;
        let session = self.accounts.open_for(&account.id, device, true).await?;
        Ok(Arrival { session, account, is_new })
    }

    async fn find_or_create(&self, email: Email, name: String) -> Result<(Account, bool), Denied> {
        // Twice: the address may be taken between looking and creating.
        for _ in 0..2 {
            if let Some(mut account) = self.accounts.accounts.find_by_email(&email).await? {
                let now = self.accounts.clock.now();
                if let Proving::Newly(closed) =
                    self.accounts.accounts.prove_email(&account.id, Proof::Elsewhere, now).await?
                {
                    self.accounts.forget_closed(&closed).await;
                }
                account.email_verified = true;
                return Ok((account, false));
            }
            let account = self.accounts.new_account(name.clone(), email.clone(), None, true);
            let creation = self.create(NewAccount { account: account.clone(), password: None }).await?;
            if creation == Creation::Created {
                return Ok((account, true));
            }
        }
        Err(Refusal::NotCreated.into())
    }

    fn letters_only(&self) -> String {
        let mut token = String::new();
        while token.len() < 32 {
            token.extend(self.accounts.ids.token().chars().filter(char::is_ascii_alphabetic));
        }
        token.truncate(32);
        token
    }
}

fn reset_identifier(token: &str) -> String {
    format!("reset-password:{token}")
}
