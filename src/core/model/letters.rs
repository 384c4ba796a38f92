//! What is mailed (contract `auth.md` §9).

use super::accounts::Email;
use super::secret::Secret;
use super::texts::Language;

/// One message to one address. The link is a secret: whoever has it may act for the recipient.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The recipient.
    pub to: Email,
    /// What it is about.
    pub message: Message,
    /// Where its button leads.
    pub link: Secret,
    /// What it is written in.
    pub language: Language,
}

/// The six messages there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Prove the address of a new account.
    Verification,
    /// Prove the address an account is to have.
    NewAddress,
    /// Set a new password.
    PasswordReset,
    /// Sign in without a password.
    MagicLink,
    /// Agree to another address; told to the current one.
    ChangeEmail {
        /// The other address.
        to: Email,
    },
    /// Agree to the deletion of the account.
    DeleteAccount,
}

impl Message {
    /// The label in metrics and logs.
    pub const fn template(&self) -> &'static str {
        match self {
            Self::Verification | Self::NewAddress => "verification",
            Self::PasswordReset => "password_reset",
            Self::MagicLink => "magic_link",
            Self::ChangeEmail { .. } => "change_email",
            Self::DeleteAccount => "delete_account",
        }
    }

    /// The prefix of its texts in the catalogue.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Verification => "mail.verification",
            Self::NewAddress => "mail.new_address",
            Self::PasswordReset => "mail.password_reset",
            Self::MagicLink => "mail.magic_link",
            Self::ChangeEmail { .. } => "mail.change_email",
            Self::DeleteAccount => "mail.delete_account",
        }
    }
}
