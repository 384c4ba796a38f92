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
pub mod billing;
pub mod characters;
pub mod chats;
pub mod config;
pub mod erasure;
pub mod fault;
pub mod idempotency;
pub mod journal;
pub mod ledger;
pub mod limits;
pub mod llm;
pub mod mailer;
pub mod oidc;
pub mod probe;
pub mod providers;
pub mod runtime;
pub mod signatures;
pub mod social;
pub mod tts;
pub mod upstream;
pub mod vault;
pub mod verification;

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
    /// One-time secrets that were mailed.
    pub verifications: Arc<dyn verification::VerificationRepo>,
    /// Signs cookies and links.
    pub signatures: Arc<dyn signatures::Signatures>,
    /// Letters to people.
    pub mailer: Arc<dyn mailer::Mailer>,
    /// What the mailer kept instead of sending it, when it is of that kind.
    pub outbox: Option<Arc<dyn mailer::Outbox>>,
    /// Providers people have accounts with.
    pub social: Arc<dyn social::SocialLogin>,
    /// Identities of those providers.
    pub social_identities: Arc<dyn social::SocialRepo>,
    /// The end of an account.
    pub erasures: Arc<dyn erasure::ErasureRepo>,
    /// OAuth clients.
    pub clients: Arc<dyn oidc::ClientRepo>,
    /// Codes and tokens.
    pub grants: Arc<dyn oidc::GrantRepo>,
    /// Signatures of tokens.
    pub tokens: Arc<dyn oidc::TokenSigner>,
    /// Copies of people.
    pub people: Arc<dyn oidc::AccountSnapshots>,
    /// Balances and entries.
    pub ledger: Arc<dyn ledger::LedgerRepo>,
    /// Copies of balances.
    pub balances: Arc<dyn ledger::BalanceCache>,
    /// Sub-flux units.
    pub meter: Arc<dyn ledger::UsageMeter>,
    /// The payment provider; absent while none is configured.
    pub payments: Option<Arc<dyn billing::PaymentGateway>>,
    /// The payment provider's hand; absent while none is configured.
    pub payment_signatures: Option<Arc<dyn billing::PaymentSignatures>>,
    /// Payments and our copies of the provider's objects.
    pub billing: Arc<dyn billing::BillingRepo>,
    /// Copies of prices on sale.
    pub prices: Arc<dyn billing::PriceCache>,
    /// Configuration entries.
    pub config: Arc<dyn config::ConfigStore>,
    /// Conversations.
    pub chats: Arc<dyn chats::ChatRepo>,
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
    /// Calls named by their callers.
    pub idempotency: Arc<dyn idempotency::IdempotencyRepo>,
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
    pub use super::billing::{MockBillingRepo, MockPaymentGateway, MockPaymentSignatures, MockPriceCache};
    pub use super::characters::MockCharacterRepo;
    pub use super::chats::{MockBroadcaster, MockChatRepo};
    pub use super::config::MockConfigStore;
    pub use super::erasure::MockErasureRepo;
    pub use super::idempotency::MockIdempotencyRepo;
    pub use super::journal::MockJournal;
    pub use super::ledger::{MockBalanceCache, MockLedgerRepo, MockUsageMeter};
    pub use super::limits::{MockRateLimiter, MockSlots};
    pub use super::llm::{MockLlmUpstream, MockTokenCounter};
    pub use super::mailer::{MockMailer, MockOutbox};
    pub use super::oidc::{
        MockAccountSnapshots, MockClientRepo, MockGrantRepo, MockPasswordHasher, MockSigningKeyRepo, MockTokenSigner,
    };
    pub use super::probe::MockProbe;
    pub use super::providers::MockProviderRepo;
    pub use super::runtime::{MockClock, MockIdSource, MockTasks};
    pub use super::signatures::MockSignatures;
    pub use super::social::{MockSocialLogin, MockSocialRepo};
    pub use super::tts::{MockStreamingSpeech, MockTtsEngine};
    pub use super::vault::MockVault;
    pub use super::verification::MockVerificationRepo;
}
