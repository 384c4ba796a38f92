//! Why a sign-in, a link or a change is refused (contract `auth.md` §2.4).

use crate::core::error::Error;
use crate::ports::Fault;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident => ($wire:literal, $message:literal);)+) => {
        /// Every refusal the identity doors have words for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[$doc])* $name,)+
        }

        impl Refusal {
            /// The word in `code`.
            pub const fn wire(self) -> &'static str {
                match self { $(Self::$name => $wire,)+ }
            }

            /// The text in `message`.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)+ }
            }
        }
    };
}

refusals! {
    /// Not an address.
    InvalidEmail => ("INVALID_EMAIL", "Invalid email");
    /// Not the password of the account.
    InvalidPassword => ("INVALID_PASSWORD", "Invalid password");
    /// Nobody has this address with this password.
    InvalidEmailOrPassword => ("INVALID_EMAIL_OR_PASSWORD", "Invalid email or password");
    /// The address is unproved.
    EmailNotVerified => ("EMAIL_NOT_VERIFIED", "Email not verified");
    /// Fewer than 8 UTF-16 units.
    PasswordTooShort => ("PASSWORD_TOO_SHORT", "Password too short");
    /// More than 128 UTF-16 units.
    PasswordTooLong => ("PASSWORD_TOO_LONG", "Password too long");
    /// A link that proves nothing.
    InvalidToken => ("INVALID_TOKEN", "Invalid token");
    /// A link that came too late.
    TokenExpired => ("TOKEN_EXPIRED", "Token expired");
    /// A magic link that came too late.
    ExpiredToken => ("EXPIRED_TOKEN", "Token expired");
    /// A magic link that was used before.
    AttemptsExceeded => ("ATTEMPTS_EXCEEDED", "This link has been used already");
    /// The account of a link is gone.
    UserNotFound => ("USER_NOT_FOUND", "User not found");
    /// The caller is somebody else.
    InvalidUser => ("INVALID_USER", "Invalid user");
    /// There is no such provider.
    ProviderNotFound => ("PROVIDER_NOT_FOUND", "Provider not found");
    /// The account has no password.
    CredentialAccountNotFound => ("CREDENTIAL_ACCOUNT_NOT_FOUND", "Credential account not found");
    /// There is no such way to sign in.
    AccountNotFound => ("ACCOUNT_NOT_FOUND", "Account not found");
    /// Nobody could sign in any more.
    LastAccount => ("FAILED_TO_UNLINK_LAST_ACCOUNT", "You can't unlink your last account");
    /// Signed in too long ago.
    SessionNotFresh => ("SESSION_NOT_FRESH", "Session is not fresh");
    /// Addresses change by another way.
    EmailCanNotBeUpdated => ("EMAIL_CAN_NOT_BE_UPDATED", "Email can not be updated");
    /// Somebody else's address.
    EmailMismatch => ("EMAIL_MISMATCH", "Email mismatch");
    /// Nothing to prove.
    EmailAlreadyVerified => ("EMAIL_ALREADY_VERIFIED", "Email is already verified");
    /// The row could not be made.
    NotCreated => ("FAILED_TO_CREATE_USER", "Failed to create user");
    /// The letter could not be sent.
    EmailSendFailed => ("EMAIL_SEND_FAILED", "The email could not be sent");
    /// Nobody is signed in.
    Unauthorized => ("UNAUTHORIZED", "Unauthorized");
}

/// Why a use-case did nothing.
#[derive(Debug)]
pub enum Denied {
    /// For a reason the caller is told.
    Refused(Refusal),
    /// For one of the reasons every operation has.
    Failed(Error),
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Denied {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Fault> for Denied {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault.into())
    }
}
