//! Letters: how they read, and the ways they travel (contract `auth.md` §9, `observability.md` §12).

mod outbox;
mod resend;
mod smtp;
mod told;
mod written;

use std::fmt;

use crate::core::model::secret::Secret;

pub use outbox::MemoryOutbox;
pub use resend::ResendMailer;
pub use smtp::{SmtpMailer, UnusableSmtp};
pub use told::ToldMailer;

/// How letters leave.
#[derive(Clone, Debug, Default)]
pub struct MailSettings {
    /// Key of the Resend account; wins over SMTP.
    pub resend_api_key: Option<Secret>,
    /// Where Resend's interface is, without a trailing slash.
    pub resend_api_base: String,
    /// `smtp://` or `smtps://` address with credentials.
    pub smtp_url: Option<Secret>,
    /// Who writes.
    pub from: Sender,
}

/// Who writes.
#[derive(Clone, PartialEq, Eq)]
pub struct Sender {
    /// The address.
    pub email: String,
    /// The name; empty shows the address alone.
    pub name: String,
}

impl Default for Sender {
    fn default() -> Self {
        Self { email: "noreply@airi.moeru.ai".to_owned(), name: "Project AIRI".to_owned() }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return f.write_str(&self.email);
        }
        write!(f, "{} <{}>", self.name, self.email)
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
