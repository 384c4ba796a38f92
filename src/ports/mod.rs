//! What the core needs from the world, one trait per need.
//!
//! # How to write a port
//!
//! - Object-safe: `&self`, plain data, `Send + Sync`, held as `Arc<dyn …>`.
//! - One method is one transaction, named after what the business did. Steps that must succeed together belong
//!   to one method; steps of different ports must each be safe to repeat.
//! - Expected outcomes are values. [`Fault`] is every other failure of the infrastructure.
//! - The documentation says what an implementer MUST keep; the contract suite in `tests/contract` proves it for
//!   every adapter.
//! - A double comes with it: `#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]` above `#[async_trait]`.

pub mod accounts;
pub mod audit;
pub mod characters;
pub mod chats;
pub mod config;
pub mod fault;
pub mod journal;
pub mod ledger;
pub mod limits;
pub mod llm;
pub mod oidc;
pub mod probe;
pub mod providers;
pub mod runtime;
pub mod tts;
pub mod upstream;
pub mod vault;

use std::sync::Arc;

pub use fault::{Fault, FaultKind};

/// Every need of the core, to be swapped one by one: `Ports { ledger: my_double, ..testing::ports() }`.
#[derive(Clone)]
pub struct Ports {
    /// People.
    pub accounts: Arc<dyn accounts::AccountRepo>,
    /// Signed-in devices.
    pub sessions: Arc<dyn accounts::SessionRepo>,
    /// Password hashing.
    pub passwords: Arc<dyn oidc::PasswordHasher>,
    /// Balances and entries.
    pub ledger: Arc<dyn ledger::LedgerRepo>,
    /// Copies of balances.
    pub balances: Arc<dyn ledger::BalanceCache>,
    /// Sub-flux units.
    pub meter: Arc<dyn ledger::UsageMeter>,
    /// Configuration entries.
    pub config: Arc<dyn config::ConfigStore>,
    /// Chat events between processes.
    pub broadcaster: Arc<dyn chats::Broadcaster>,
    /// How often something may be done.
    pub limits: Arc<dyn limits::RateLimiter>,
    /// How many of something may run at once.
    pub slots: Arc<dyn limits::Slots>,
    /// OpenAI-compatible upstreams.
    pub llm: Arc<dyn llm::LlmUpstream>,
    /// Tokens nobody else counted.
    pub counter: Arc<dyn llm::TokenCounter>,
    /// Speech engines.
    pub tts: Arc<dyn tts::TtsEngine>,
    /// The streaming speech upstream.
    pub speech: Arc<dyn tts::StreamingSpeech>,
    /// Sealed upstream keys.
    pub vault: Arc<dyn vault::Vault>,
    /// Who did what as an operator.
    pub audit: Arc<dyn audit::AuditLog>,
    /// Characters and what belongs to them.
    pub characters: Arc<dyn characters::CharacterRepo>,
    /// Provider configurations.
    pub providers: Arc<dyn providers::ProviderRepo>,
    /// Where facts go.
    pub journal: Arc<dyn journal::Journal>,
    /// Whether the database answers: nothing can be accounted for without it.
    pub storage: Arc<dyn probe::Probe>,
    /// What else must answer for the process to be ready, by name.
    pub probes: Vec<(&'static str, Arc<dyn probe::Probe>)>,
    /// The time.
    pub clock: Arc<dyn runtime::Clock>,
    /// Fresh identifiers and tokens.
    pub ids: Arc<dyn runtime::IdSource>,
    /// Work that outlives a request.
    pub tasks: Arc<dyn runtime::Tasks>,
}

/// Generated doubles of every port (`mockall`).
#[cfg(any(test, feature = "mocks"))]
pub mod mocks {
    pub use super::accounts::{MockAccountRepo, MockSessionRepo};
    pub use super::audit::MockAuditLog;
    pub use super::characters::MockCharacterRepo;
    pub use super::chats::MockBroadcaster;
    pub use super::config::MockConfigStore;
    pub use super::journal::MockJournal;
    pub use super::ledger::{MockBalanceCache, MockLedgerRepo, MockUsageMeter};
    pub use super::limits::{MockRateLimiter, MockSlots};
    pub use super::llm::{MockLlmUpstream, MockTokenCounter};
    pub use super::oidc::MockPasswordHasher;
    pub use super::probe::MockProbe;
    pub use super::providers::MockProviderRepo;
    pub use super::runtime::{MockClock, MockIdSource, MockTasks};
    pub use super::tts::{MockStreamingSpeech, MockTtsEngine};
    pub use super::vault::MockVault;
}
