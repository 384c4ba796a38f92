//! How letters leave: Resend, SMTP, or not at all.

use std::sync::Arc;

use super::StartError;
use crate::adapters::mail::{MemoryOutbox, ResendMailer, SmtpMailer};
use crate::ports::mailer::{Mailer, Outbox};
use crate::settings::Settings;

/// What the settings make of letters.
#[derive(Default)]
pub(super) struct Post {
    /// What sends; absent means every letter fails.
    pub(super) mailer: Option<Arc<dyn Mailer>>,
    /// Where letters stay.
    pub(super) outbox: Option<Arc<dyn Outbox>>,
}

/// A configured provider, else the outbox in embedded mode, else nothing.
pub(super) fn of(settings: &Settings) -> Result<Post, StartError> {
    let mail = &settings.mail;
    if let Some(key) = &mail.resend_api_key {
        let mailer = ResendMailer::new(mail, key.clone())?;
        return Ok(Post { mailer: Some(Arc::new(mailer)), outbox: None });
    }
    if let Some(url) = &mail.smtp_url {
        let mailer = SmtpMailer::new(url, &mail.from)?;
        return Ok(Post { mailer: Some(Arc::new(mailer)), outbox: None });
    }
    if !settings.embedded() {
        tracing::warn!("neither RESEND_API_KEY nor SMTP_URL is set: no letter can be sent");
        return Ok(Post::default());
    }
    Ok(kept())
}

/// Letters stay in memory.
pub(super) fn kept() -> Post {
    let outbox = Arc::new(MemoryOutbox::default());
    Post { mailer: Some(outbox.clone()), outbox: Some(outbox) }
}
