//! Accounts elsewhere: the providers themselves, and what we keep of them.

use async_trait::async_trait;

use super::Fault;
use crate::core::model::accounts::{Account, Creation};
use crate::core::model::ids::UserId;
use crate::core::model::social::{Arrived, Linking, Provider, SocialIdentity, Unknown};

/// What a browser is sent to a provider with.
#[derive(Clone, Debug)]
pub struct Departure<'a> {
    /// Comes back as it is.
    pub state: &'a str,
    /// The PKCE verifier; only its digest travels.
    pub verifier: &'a str,
    /// Where the provider sends the browser back to.
    pub redirect_uri: &'a str,
    /// Asked for besides the usual.
    pub scopes: &'a [String],
    /// Which account to offer.
    pub login_hint: Option<&'a str>,
}

/// A code a browser came back with.
#[derive(Clone, Debug)]
pub struct Return<'a> {
    /// The code.
    pub code: &'a str,
    /// The verifier of its departure.
    pub verifier: &'a str,
    /// The address of its departure.
    pub redirect_uri: &'a str,
}

/// Providers people have accounts with.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait SocialLogin: Send + Sync {
    /// Whether the installation is known there.
    fn is_known(&self, provider: Provider) -> bool;

    /// Where the browser goes; nothing when the installation is not known there.
    fn address<'a>(&self, provider: Provider, departure: &Departure<'a>) -> Option<String>;

    /// Exchanges a code for the person it stands for. Nothing of the provider's words MUST leave this.
    async fn exchange<'a>(&self, provider: Provider, returned: &Return<'a>) -> Result<Arrived, Unknown>;
}

/// Identities of other providers in the `account` table.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait SocialRepo: Send + Sync {
    /// Whose identity it is.
    async fn find_owner(&self, provider: Provider, account_id: &str) -> Result<Option<UserId>, Fault>;

    /// Stores an account with its identity in one transaction, unless the address is taken.
    async fn create_with(&self, account: &Account, identity: &SocialIdentity) -> Result<Creation, Fault>;

    /// Adds the identity to a person, or refreshes what was granted. Of many at once for one identity, one person gets
    /// it: the reference's table does not exclude two owners.
    async fn link(&self, user: &UserId, identity: &SocialIdentity) -> Result<Linking, Fault>;
}
