//! The OpenID provider: who may have which token for what (contract `auth.md` §7).

mod authorize;
mod bearer;
mod mint;
mod redeem;
mod session_end;
mod tokens_known;

use std::sync::Arc;

use chrono::Duration;
use serde_json::Value;

use super::error::{Error, Kind};
use super::model::oidc::Issuer;
use super::model::oidc::clients::{Client, first_party};
use super::model::secret::Secret;
use crate::ports::Fault;
use crate::ports::accounts::{AccountRepo, SessionRepo};
use crate::ports::oidc::{AccountSnapshots, ClientRepo, GrantRepo, TokenSigner};
use crate::ports::runtime::{Clock, IdSource};

pub use authorize::Authorized;
pub use redeem::{TokenAnswer, TokenRequest};
pub use session_end::EndRequest;

/// Gives tokens, knows them again and takes them back.
pub struct Oidc {
    /// Programs that may ask.
    pub clients: Arc<dyn ClientRepo>,
    /// What they were given.
    pub grants: Arc<dyn GrantRepo>,
    /// Signatures.
    pub tokens: Arc<dyn TokenSigner>,
    /// People, as they are now: asked when a token is made.
    pub accounts: Arc<dyn AccountRepo>,
    /// People, as they were a moment ago: asked when a token is used.
    pub people: Arc<dyn AccountSnapshots>,
    /// Sessions, which end here too.
    pub sessions: Arc<dyn SessionRepo>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids and tokens.
    pub ids: Arc<dyn IdSource>,
    /// Where we are on the web.
    pub issuer: Issuer,
    /// What the settings decide.
    pub policy: Policy,
}

/// What the settings decide about tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long after its replacement a refresh token is forgiven: two windows of one client may refresh at once
    /// (contract F-10). Zero forgives nothing.
    pub refresh_grace: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { refresh_grace: Duration::seconds(30) }
    }
}

/// A refusal in the words of OAuth (RFC 6749 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `error`.
    pub error: &'static str,
    /// `error_description`.
    pub description: &'static str,
    /// [`Kind::Invalid`] or [`Kind::Unauthenticated`].
    pub kind: Kind,
}

/// Why nothing was given.
#[derive(Debug)]
pub enum Denied {
    /// The request is at fault.
    Refused(Refusal),
    /// We are.
    Failed(Error),
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Fault> for Denied {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault.into())
    }
}

fn invalid(error: &'static str, description: &'static str) -> Refusal {
    Refusal { error, description, kind: Kind::Invalid }
}

fn unproved(error: &'static str, description: &'static str) -> Refusal {
    Refusal { error, description, kind: Kind::Unauthenticated }
}

impl Oidc {
    /// Brings the rows of our own clients up to date. Safe for several processes at once.
    pub async fn seed(&self) -> Result<(), Error> {
        let now = self.clock.now();
        for client in first_party(&self.issuer) {
            self.clients.seed(&client, &self.ids.token(), now).await?;
        }
        Ok(())
    }

    /// The public keys.
    pub async fn keys(&self) -> Result<Vec<Value>, Error> {
        Ok(self.tokens.published().await?)
    }

    /// Adds a signing key; the others go on verifying for a day. Its `kid`.
    pub async fn rotate_keys(&self) -> Result<String, Error> {
        Ok(self.tokens.rotate().await?)
    }

    /// A client that is there, is on, and is who it says.
    async fn authenticated(&self, client_id: &str, secret: Option<&Secret>) -> Result<Client, Denied> {
        let client = self.known(client_id).await?;
        match (&client.secret, secret) {
            (None, None) => Ok(client),
            (Some(kept), Some(given)) if self.tokens.digest(given.expose()) == kept.expose() => Ok(client),
            (None, Some(_)) => Err(invalid("invalid_client", "this client has no secret").into()),
            _ => Err(invalid("invalid_client", "the client secret is missing or wrong").into()),
        }
    }

    async fn known(&self, client_id: &str) -> Result<Client, Denied> {
        match self.clients.find(client_id).await? {
            Some(client) if !client.disabled => Ok(client),
            Some(_) => Err(invalid("invalid_client", "this client is disabled").into()),
            None => Err(invalid("invalid_client", "there is no such client").into()),
        }
    }
}

/// What a database would refuse to compare is nobody's.
fn is_text(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}
