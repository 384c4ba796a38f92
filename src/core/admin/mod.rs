//! What operators may do: routing configuration, upstream keys, gifts of flux, payment events (contract `admin.md`).
//!
//! Every action is announced in the audit log before it changes anything, and refused when it cannot be.

mod entries;
mod grants;
mod keys;
mod payments;
mod router;
mod router_view;
mod trail;

use std::sync::Arc;
use std::time::Duration;

pub use grants::{Failed, GrantAnswer, GrantResult, GrantSummary, Granted, Skipped};
pub use keys::Reencryption;
pub use router::{AppliedSlice, RouterChange};
pub use router_view::RouterView;
pub use trail::Trail;

use super::error::{Code, Error};
use super::ledger::Ledger;
use super::limits::Limits;
use super::llm::SANDBOX_MODEL;
use super::model::admin::{AddressPolicy, Issue, Unusable};
use super::model::audit::Actor;
use super::model::limits::Limit;
use crate::ports::accounts::AccountRepo;
use crate::ports::config::ConfigStore;
use crate::ports::vault::Vault;

/// The operator's use-cases.
pub struct Admin {
    /// Where the routing configuration lives. Read past its copies, since changes are computed from it.
    pub store: Arc<dyn ConfigStore>,
    /// Seals upstream keys.
    pub vault: Arc<dyn Vault>,
    /// Who has which address.
    pub accounts: Arc<dyn AccountRepo>,
    /// Gives flux.
    pub ledger: Arc<Ledger>,
    /// Remembers who did what.
    pub trail: Trail,
    /// What the settings admit.
    pub policy: Policy,
}

/// What the settings admit in operators' documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Where upstreams may live.
    pub addresses: AddressPolicy,
    /// Whether [`SANDBOX_MODEL`] and [`SANDBOX_VOICE`] exist.
    pub sandbox: bool,
}

/// The speech model of the sandbox.
pub const SANDBOX_VOICE: &str = "sandbox-voice";

/// A caller who is turned away again and again makes one audit row a minute (contract `admin.md` §5).
const REFUSALS: Limit = Limit { route: "admin.refusals", max: 1, window: Duration::from_secs(60) };

impl Admin {
    /// Remembers that a signed-in caller is no administrator. Without a limiter there is no row: whoever knocks must
    /// not be able to fill the log.
    pub async fn turned_away(&self, actor: &Actor, limits: &Limits) {
        if limits.limiter.admit(&REFUSALS, actor.user.as_str()).await.is_ok_and(|admission| admission.admitted) {
            self.trail.forbidden(actor).await;
        }
    }
}

impl From<Unusable> for Error {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::NotJson => Self::new(Code::InvalidBody),
            Unusable::Refused(why) => Self::new(Code::InvalidBody).saying(why),
            Unusable::Issues(issues) => invalid(&issues),
        }
    }
}

fn invalid(issues: &[Issue]) -> Error {
    let details = issues.iter().map(Issue::to_json).collect();
    Error::new(Code::InvalidBody).saying("Invalid request body").with_details(serde_json::Value::Array(details))
}

#[cfg(test)]
mod tests;
