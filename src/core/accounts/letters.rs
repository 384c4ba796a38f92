//! Which letter leads where, and how often one is written.

use std::sync::Arc;

use chrono::Duration;
use url::form_urlencoded::byte_serialize;

use crate::core::limits::Limits;
use crate::core::model::accounts::Email;
use crate::core::model::fact::Fact;
use crate::core::model::letters::{Letter, Message};
use crate::core::model::limits::{LETTERS, VERIFICATION_LETTERS};
use crate::core::model::proofs::{EMAIL_PROOF_LIFETIME, EmailClaims, EmailStep};
use crate::core::model::secret::Secret;
use crate::core::model::texts::Language;
use crate::ports::journal::Journal;
use crate::ports::mailer::{Mailer, Undelivered};
use crate::ports::runtime::{Clock, Tasks};
use crate::ports::signatures::Signatures;

/// Writes letters with links to this server.
pub struct Letters {
    /// Hands them over.
    pub mailer: Arc<dyn Mailer>,
    /// Signs what they prove.
    pub signatures: Arc<dyn Signatures>,
    /// Keeps anybody from filling a stranger's inbox.
    pub limits: Arc<Limits>,
    /// Sends while the caller is answered: whether a letter was sent must not show in how long it took.
    pub tasks: Arc<dyn Tasks>,
    /// The process: its time and where it tells facts.
    pub process: Process,
    /// Our public origin, without a trailing slash.
    pub origin: String,
}

/// The time, and who hears of failures.
#[derive(Clone)]
pub struct Process {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Hears about failures.
    pub journal: Arc<dyn Journal>,
}

/// To whom a letter goes, and where its reader ends up.
#[derive(Clone, Debug)]
pub struct Errand {
    /// The recipient.
    pub to: Email,
    /// Judged address the link leads on to.
    pub callback: Option<String>,
    /// What the letter is written in.
    pub language: Language,
}

impl Letters {
    /// Asks the owner of the address to prove it, at most once a minute; sent in the background.
    pub async fn ask_for_proof(&self, errand: Errand) {
        if self.limits.admit_silently(&VERIFICATION_LETTERS, &self.key(&errand.to)).await {
            let claims = self.claims(errand.to.as_str(), None, EmailStep::Verify);
            self.post(self.proof(errand, Message::Verification, &claims));
        }
    }

    /// Asks the owner of the current address to agree to another one; sent in the background.
    pub async fn ask_for_change(&self, errand: Errand, to: &Email) {
        if self.may_write(&errand.to).await {
            let claims = self.claims(errand.to.as_str(), Some(to), EmailStep::ConfirmChange);
            self.post(self.proof(errand, Message::ChangeEmail { to: to.clone() }, &claims));
        }
    }

    /// Asks the owner of the new address to prove it; sent in the background. `errand.to` is the new address.
    pub async fn ask_for_new_proof(&self, errand: Errand, current: &str) {
        if self.may_write(&errand.to).await {
            let new = errand.to.clone();
            let claims = self.claims(current, Some(&new), EmailStep::VerifyChange);
            self.post(self.proof(errand, Message::NewAddress, &claims));
        }
    }

    /// Whether another letter may go to this address now; counts it.
    pub async fn may_write(&self, to: &Email) -> bool {
        self.limits.admit_silently(&LETTERS, &self.key(to)).await
    }

    /// Sends in the background; a failure is recorded.
    pub fn post(&self, letter: Letter) {
        let (mailer, journal) = (self.mailer.clone(), self.process.journal.clone());
        self.tasks.spawn(
            "letter",
            Box::pin(async move {
                if let Err(undelivered) = mailer.send(&letter).await {
                    journal.record(Fact::Degraded { operation: "mailer.send", cause: undelivered.to_string() });
                }
            }),
        );
    }

    /// Sends and waits for the outcome.
    pub async fn deliver(&self, letter: &Letter) -> Result<(), Undelivered> {
        self.mailer.send(letter).await
    }

    /// A letter whose link is this path of ours with these parameters.
    pub fn letter(&self, errand: Errand, message: Message, path: &str, query: &[(&str, &str)]) -> Letter {
        let mut link = format!("{}{path}", self.origin);
        for (index, (name, value)) in query.iter().enumerate() {
            link.push(if index == 0 { '?' } else { '&' });
            link.push_str(name);
            link.push('=');
            link.extend(byte_serialize(value.as_bytes()));
        }
        Letter { to: errand.to, message, link: Secret::new(link), language: errand.language }
    }

    fn proof(&self, errand: Errand, message: Message, claims: &EmailClaims) -> Letter {
        let token = self.signatures.issue_email_token(claims);
        let callback = errand.callback.clone().unwrap_or_else(|| "/".to_owned());
        let query = [("token", token.expose()), ("callbackURL", callback.as_str())];
        self.letter(errand, message, "/api/auth/verify-email", &query)
    }

    fn claims(&self, email: &str, update_to: Option<&Email>, step: EmailStep) -> EmailClaims {
        let now = self.process.clock.now();
        let issued_at = now - Duration::nanoseconds(i64::from(now.timestamp_subsec_nanos()));
        EmailClaims {
            email: email.to_lowercase(),
            update_to: update_to.map(ToString::to_string),
            step,
            issued_at,
            expires_at: issued_at + EMAIL_PROOF_LIFETIME,
        }
    }

    fn key(&self, to: &Email) -> String {
        self.signatures.blind(&to.as_str().to_lowercase())
    }
}
