//! Sign-up and sign-in with a password (contract `auth.md` §6.1, §6.2).

use std::sync::Arc;

use super::letters::{Errand, Letters};
use super::refusal::{Denied, Refusal};
use super::{Accounts, Device, length_of};
use crate::core::error::{Code, Error};
use crate::core::limits::Limits;
use crate::core::model::accounts::{Account, Creation, Email, NewAccount, PasswordIdentity, Session};
use crate::core::model::fact::Fact;
use crate::core::model::ids::IdentityId;
use crate::core::model::limits::PASSWORD_ATTEMPTS;
use crate::core::model::secret::Secret;
use crate::core::model::texts::Language;
use crate::ports::erasure::ErasureRepo;
use crate::ports::verification::VerificationRepo;

/// The ways in.
pub struct SignIn {
    /// People and their sessions.
    pub accounts: Arc<Accounts>,
    /// One-time secrets.
    pub verifications: Arc<dyn VerificationRepo>,
    /// Knows addresses that had an account before.
    pub erasures: Arc<dyn ErasureRepo>,
    /// Writes to people.
    pub letters: Arc<Letters>,
    /// Counts attempts.
    pub limits: Arc<Limits>,
}

/// What is known about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whether somebody has it.
    pub exists: bool,
    /// Whether that person has a password.
    pub has_password: bool,
}

/// Somebody who wants an account.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// Display name; may be empty.
    pub name: String,
    /// The address.
    pub email: Email,
    /// The password.
    pub password: Secret,
    /// Picture address.
    pub image: Option<String>,
}

/// Somebody who says who they are.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The address.
    pub email: Email,
    /// The password.
    pub password: Secret,
    /// What they use.
    pub device: Device,
    /// Whether the session outlives the browser.
    pub remember: bool,
}

/// A hash nobody has the password of, with the cost of a real one.
const NOBODY: &str = "00000000000000000000000000000000:\
    0000000000000000000000000000000000000000000000000000000000000000\
    0000000000000000000000000000000000000000000000000000000000000000";

impl SignIn {
    /// What a sign-in form needs to know about an address. Disclosing it is deliberate.
    pub async fn check(&self, email: &Email) -> Result<Known, Error> {
        let Some(account) = self.accounts.accounts.find_by_email(email).await? else {
            return Ok(Known { exists: false, has_password: false });
        };
        let password = self.accounts.accounts.find_password(&account.id).await?;
        Ok(Known { exists: true, has_password: password.is_some() })
    }

    /// Makes an account and asks for the proof of its address. A taken address gets the same answer after the same
    /// work; if it is unproved, the letter is sent again.
    pub async fn sign_up(&self, applicant: Applicant, errand: Errand) -> Result<Account, Denied> {
        length_of(&applicant.password)?;
        let accounts = &self.accounts;
        let hash = accounts.passwords.hash(&applicant.password).await?;
        let Applicant { name, email, image, .. } = applicant;
        let account = accounts.new_account(name, email, image, false);
        let password = PasswordIdentity { id: IdentityId::new(accounts.ids.token()), hash };
        let mut holder = accounts.accounts.find_by_email(&account.email).await?;
        if holder.is_none() {
            let new = NewAccount { account: account.clone(), password: Some(password) };
            if self.create(new).await? == Creation::AddressTaken {
                holder = accounts.accounts.find_by_email(&account.email).await?;
            }
        }
        if holder.is_none_or(|holder| !holder.email_verified) {
            self.letters.ask_for_proof(errand).await;
        }
        Ok(account)
    }

    /// Opens a session for the right password of a proved address.
    pub async fn sign_in(&self, attempt: Attempt, errand: Errand) -> Result<(Session, Account), Denied> {
        self.count_attempt(&attempt.email).await?;
        let accounts = &self.accounts;
        let account = accounts.accounts.find_by_email(&attempt.email).await?;
        let hash = match &account {
            Some(account) => accounts.accounts.find_password(&account.id).await?,
            None => None,
        };
        let nobody = Secret::new(NOBODY);
        let matches = accounts.passwords.verify(&attempt.password, hash.as_ref().unwrap_or(&nobody)).await?;
        let Some(account) = account.filter(|_| matches && hash.is_some()) else {
            return Err(Refusal::InvalidEmailOrPassword.into());
        };
        if !account.email_verified {
            self.letters.ask_for_proof(errand).await;
            return Err(Refusal::EmailNotVerified.into());
        }
        let session = accounts.open_for(&account.id, &attempt.device, attempt.remember).await?;
        Ok((session, account))
    }

    /// Checks the password of somebody who is signed in already.
    pub async fn confirm_password(&self, account: &Account, password: &Secret) -> Result<(), Denied> {
        self.count_attempt(&account.email).await?;
        let hash = self.accounts.accounts.find_password(&account.id).await?;
        let Some(hash) = hash else { return Err(Refusal::CredentialAccountNotFound.into()) };
        if self.accounts.passwords.verify(password, &hash).await? {
            return Ok(());
        }
        Err(Refusal::InvalidPassword.into())
    }

    /// Stores an account, without an opening grant where an erased account had the address. For an address that nobody
    /// was just seen to have: what is written about the grant stays when somebody is faster.
    pub(super) async fn create(&self, new: NewAccount) -> Result<Creation, Error> {
        let account = &new.account;
        let mark = address_mark(&self.letters, &account.email);
        // Before the account: a crash in between leaves a balance nobody owns instead of a second grant.
        self.erasures.withhold_grant(&account.id, &mark, account.created_at).await?;
        let creation = self.accounts.accounts.create(&new).await?;
        if creation == Creation::Created {
            self.accounts.journal.record(Fact::UserRegistered { user: account.id.clone() });
        }
        Ok(creation)
    }

    /// Guessing is counted per address, whoever guesses and from wherever (contract `auth.md` F-22).
    async fn count_attempt(&self, email: &Email) -> Result<(), Error> {
        let key = self.letters.signatures.blind(&email.as_str().to_lowercase());
        let admission = self.limits.admit_key(&PASSWORD_ATTEMPTS, "account", &key).await;
        if admission.admitted {
            return Ok(());
        }
        Err(Error::new(Code::TooManyRequests).retry_after(admission.resets_in.as_secs().max(1)))
    }
}

/// What an erased address is remembered as.
pub(crate) fn address_mark(letters: &Letters, email: &Email) -> String {
    letters.signatures.blind(&format!("erased\n{}", email.as_str().to_lowercase()))
}

/// An errand without a destination.
pub fn errand(to: &Email, callback: Option<String>, language: Language) -> Errand {
    Errand { to: to.clone(), callback, language }
}
