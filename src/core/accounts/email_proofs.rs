//! Proof and change of addresses by mailed, signed tokens (contract `auth.md` §6.3).

use super::Device;
use super::letters::Errand;
use super::refusal::{Denied, Refusal};
use super::sign_in::SignIn;
use crate::core::error::Error;
use crate::core::model::accounts::{Account, Email, Session};
use crate::core::model::identity::{Moving, Proof, Proving};
use crate::core::model::principal::Principal;
use crate::core::model::proofs::{BadEmailToken, EmailClaims, EmailStep};
use crate::core::model::texts::Language;

/// What a mailed token led to.
#[derive(Clone, Debug)]
pub enum Verified {
    /// The address is proved; a session where the caller had none for it.
    Proved(Option<Session>),
    /// It had been proved before.
    Already,
    /// The new address has been asked for its proof.
    Asked,
    /// The account has its new address.
    Moved(Account, Option<Session>),
}

/// Who opens a link, and with what.
#[derive(Clone, Debug)]
pub struct Opener<'a> {
    /// Who is signed in there.
    pub principal: Option<&'a Principal>,
    /// What they use.
    pub device: Device,
    /// What further letters are written in.
    pub language: Language,
    /// Where the link leads on to.
    pub callback: Option<String>,
}

impl SignIn {
    /// Sends the proof letter again. A stranger learns nothing; the owner learns why there is nothing to prove.
    pub async fn ask_again(&self, caller: Option<&Principal>, errand: Errand) -> Result<(), Denied> {
        if let Some(principal) = caller {
            if principal.account.email.as_str().to_lowercase() != errand.to.as_str() {
                return Err(Refusal::EmailMismatch.into());
            }
            if principal.account.email_verified {
                return Err(Refusal::EmailAlreadyVerified.into());
            }
        }
        let holder = self.accounts.accounts.find_by_email(&errand.to).await?;
        if holder.is_some_and(|holder| !holder.email_verified) {
            self.letters.ask_for_proof(errand).await;
        }
        Ok(())
    }

    /// Begins a change of address. A taken one looks like a free one.
    pub async fn begin_move(&self, caller: &Principal, to: Email, errand: Errand) -> Result<(), Error> {
        if self.accounts.accounts.find_by_email(&to).await?.is_some() {
            return Ok(());
        }
        let account = &caller.account;
        if account.email_verified {
            self.letters.ask_for_change(Errand { to: account.email.clone(), ..errand }, &to).await;
        } else {
            self.letters.ask_for_new_proof(Errand { to, ..errand }, account.email.as_str()).await;
        }
        Ok(())
    }

    /// Does what the token of a mailed link asks for.
    pub async fn verify(&self, token: &str, opener: Opener<'_>) -> Result<Verified, Denied> {
        let now = self.accounts.clock.now();
        let claims = self.letters.signatures.read_email_token(token, now).map_err(|bad| match bad {
            BadEmailToken::Invalid => Refusal::InvalidToken,
            BadEmailToken::Expired => Refusal::TokenExpired,
        })?;
        let holder = self.accounts.accounts.find_by_email(&Email::stored(claims.email.clone())).await?;
        let Some(account) = holder else { return Err(Refusal::UserNotFound.into()) };
        if claims.step == EmailStep::Verify {
            return self.prove(account, opener).await;
        }
        if opener.principal.is_some_and(|caller| *caller.user() != account.id) {
            return Err(Refusal::InvalidUser.into());
        }
        self.go_on_moving(account, &claims, opener).await
    }

    async fn prove(&self, account: Account, opener: Opener<'_>) -> Result<Verified, Denied> {
        let now = self.accounts.clock.now();
        match self.accounts.accounts.prove_email(&account.id, Proof::OwnLink, now).await? {
            Proving::Newly(_) => Ok(Verified::Proved(self.session_unless_same(&account, opener).await?)),
            Proving::Already => Ok(Verified::Already),
            Proving::Gone => Err(Refusal::UserNotFound.into()),
        }
    }

    async fn go_on_moving(
        &self,
        account: Account,
        claims: &EmailClaims,
        opener: Opener<'_>,
    ) -> Result<Verified, Denied> {
        let to = claims.update_to.as_deref().and_then(|to| Email::parse(to).ok()).ok_or(Refusal::InvalidToken)?;
        if claims.step == EmailStep::ConfirmChange {
            let errand = Errand { to, callback: opener.callback, language: opener.language };
            self.letters.ask_for_new_proof(errand, account.email.as_str()).await;
            return Ok(Verified::Asked);
        }
        let now = self.accounts.clock.now();
        match self.accounts.accounts.move_email(&account.id, &account.email, &to, now).await? {
            Moving::Moved => {
                let session = self.session_unless_same(&account, opener).await?;
                let moved = self.accounts.accounts.find(&account.id).await?;
                Ok(Verified::Moved(moved.ok_or(Refusal::UserNotFound)?, session))
            }
            Moving::AddressTaken => Err(Refusal::InvalidToken.into()),
            Moving::Gone => Err(Refusal::UserNotFound.into()),
        }
    }

    async fn session_unless_same(&self, account: &Account, opener: Opener<'_>) -> Result<Option<Session>, Error> {
        if opener.principal.is_some_and(|caller| *caller.user() == account.id) {
            return Ok(None);
        }
        self.accounts.open_for(&account.id, &opener.device, true).await.map(Some)
    }
}
