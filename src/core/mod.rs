//! Use-cases over ports. Pure: no clock, no randomness, no driver, no framework.
//!
//! A use-case may hold another that stands earlier in this line, never later:
//! config · limits · accounts · oidc · health · ledger · llm · billing · tts · chats · sealing · characters · providers ·
//! admin · deletion.

pub mod accounts;
pub mod admin;
pub mod billing;
pub mod characters;
pub mod chats;
pub mod config;
pub mod deletion;
pub mod error;
pub mod health;
pub mod ledger;
pub mod limits;
pub mod llm;
pub mod model;
pub mod oidc;
pub mod providers;
pub mod sealing;
pub mod tts;

use std::sync::Arc;

use crate::ports::Ports;
use crate::ports::journal::Journal;
use crate::ports::mailer::Outbox;
use crate::ports::runtime::{Clock, IdSource};

/// Every use-case, assembled: what a door is given.
pub struct App {
    /// Typed configuration entries.
    pub config: Arc<config::Config>,
    /// Accounts and sessions.
    pub accounts: Arc<accounts::Accounts>,
    /// The ways in.
    pub sign_in: Arc<accounts::SignIn>,
    /// Accounts elsewhere.
    pub social: Arc<accounts::Social>,
    /// The end of accounts.
    pub deletion: Arc<deletion::Deletion>,
    /// Letters that were kept instead of sent; absent where letters are sent.
    pub outbox: Option<Arc<dyn Outbox>>,
    /// Balances and entries.
    pub ledger: Arc<ledger::Ledger>,
    /// Call limits.
    pub limits: Arc<limits::Limits>,
    /// Chat completions.
    pub completions: Arc<llm::Completions>,
    /// Speech.
    pub speech: Arc<tts::Speech>,
    /// Characters.
    pub characters: Arc<characters::Characters>,
    /// Provider configurations.
    pub providers: Arc<providers::Providers>,
    /// The shop.
    pub billing: Arc<billing::Billing>,
    /// Conversations.
    pub chats: Arc<chats::Chats>,
    /// What operators may do.
    pub admin: Arc<admin::Admin>,
    /// Readiness.
    pub health: Arc<health::Health>,
    /// Tokens for programs.
    pub oidc: Arc<oidc::Oidc>,
    /// Where the doors record facts.
    pub journal: Arc<dyn Journal>,
    /// Ids of requests.
    pub ids: Arc<dyn IdSource>,
    /// Durations of requests.
    pub clock: Arc<dyn Clock>,
}

/// What the settings decide for the use-cases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// How completions are routed.
    pub routing: llm::RoutingPolicy,
    /// What operators may write.
    pub admin: admin::Policy,
    /// Our public origin, without a trailing slash: mailed links begin with it.
    pub origin: String,
    /// How refresh tokens are judged.
    pub oidc: oidc::Policy,
    /// What is sold and how.
    pub billing: billing::Policy,
}

impl App {
    /// The hexagon, assembled.
    pub fn new(ports: Ports, policies: Policies) -> Self {
        let Ports { clock, ids, journal, tasks, vault, balances, .. } = ports;
        let config = Arc::new(config::Config { store: ports.config.clone(), journal: journal.clone() });
        let accounts = Arc::new(accounts::Accounts {
            accounts: ports.accounts.clone(),
            sessions: ports.sessions,
            passwords: ports.passwords,
            clock: clock.clone(),
            ids: ids.clone(),
            journal: journal.clone(),
        });
        let limits = Arc::new(limits::Limits { limiter: ports.limits, journal: journal.clone() });
        let letters = Arc::new(accounts::Letters {
            mailer: ports.mailer,
            signatures: ports.signatures,
            limits: limits.clone(),
            tasks: tasks.clone(),
            process: accounts::Process { clock: clock.clone(), journal: journal.clone() },
            origin: policies.origin.clone(),
        });
        let sign_in = Arc::new(accounts::SignIn {
            accounts: accounts.clone(),
            verifications: ports.verifications,
            erasures: ports.erasures.clone(),
            letters,
            limits: limits.clone(),
        });
        let social = Arc::new(accounts::Social {
            sign_in: sign_in.clone(),
            providers: ports.social,
            repo: ports.social_identities,
        });
        let oidc = Arc::new(oidc::Oidc {
            clients: ports.clients,
            grants: ports.grants,
            tokens: ports.tokens,
            accounts: ports.accounts.clone(),
            people: ports.people.clone(),
            sessions: accounts.sessions.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            issuer: model::oidc::Issuer::new(policies.origin),
            policy: policies.oidc,
        });
        let ledger = Arc::new(ledger::Ledger {
            repo: ports.ledger,
            cache: balances.clone(),
            config: config.clone(),
            ids: ids.clone(),
            journal: journal.clone(),
        });
        let completions = Arc::new(llm::Completions {
            config: config.clone(),
            ledger: ledger.clone(),
            walk: llm::Walk {
                upstream: ports.llm,
                vault: vault.clone(),
                journal: journal.clone(),
                clock: clock.clone(),
                policy: policies.routing,
                usage_refusals: llm::UsageRefusals::default(),
            },
            settle: llm::Settle {
                ledger: ledger.clone(),
                tasks: tasks.clone(),
                journal: journal.clone(),
                clock: clock.clone(),
                ids: ids.clone(),
            },
            storage: health::Liveness {
                probe: ports.storage.clone(),
                clock: clock.clone(),
                last: health::LastAnswer::default(),
            },
            keys: ports.idempotency,
            counter: ports.counter,
            clock: clock.clone(),
        });
        let speech = Arc::new(tts::Speech {
            config: config.clone(),
            gate: tts::Gate {
                config: config.clone(),
                ledger: ledger.clone(),
                meter: ports.meter.clone(),
                journal: journal.clone(),
                in_flight: tts::InFlight::default(),
                sandbox: policies.routing.sandbox,
            },
            walk: tts::Walk {
                engine: ports.tts,
                vault: vault.clone(),
                journal: journal.clone(),
                clock: clock.clone(),
                policy: policies.routing,
            },
            settle: tts::Settle {
                ledger: ledger.clone(),
                meter: ports.meter,
                tasks: tasks.clone(),
                journal: journal.clone(),
                clock: clock.clone(),
                ids: ids.clone(),
            },
            limits: limits.clone(),
            slots: ports.slots,
            streaming: ports.speech,
            copies: tts::voices::Copies::default(),
            clock: clock.clone(),
        });
        let characters = Arc::new(characters::Characters {
            repo: ports.characters,
            sealing: sealing::Sealing { vault: vault.clone() },
            clock: clock.clone(),
            ids: ids.clone(),
            journal: journal.clone(),
        });
        let providers = Arc::new(providers::Providers {
            repo: ports.providers,
            sealing: sealing::Sealing { vault: vault.clone() },
            clock: clock.clone(),
            ids: ids.clone(),
        });
        let billing = Arc::new(billing::Billing {
            gateway: ports.payments,
            signatures: ports.payment_signatures,
            repo: ports.billing,
            prices: ports.prices,
            accounts: ports.accounts.clone(),
            ledger: ledger.clone(),
            config: config.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            journal: journal.clone(),
            policy: policies.billing,
            last_good: futures::lock::Mutex::new(None),
        });
        let chats = Arc::new(chats::Chats {
            repo: ports.chats,
            teller: chats::Teller::new(ports.broadcaster, journal.clone()),
            tasks,
            ids: ids.clone(),
            clock: clock.clone(),
        });
        let admin = Arc::new(admin::Admin {
            store: ports.config,
            vault,
            accounts: ports.accounts,
            ledger: ledger.clone(),
            trail: admin::Trail { log: ports.audit, journal: journal.clone(), clock: clock.clone(), ids: ids.clone() },
            policy: policies.admin,
        });
        let mut probes = vec![("db", ports.storage)];
        probes.extend(ports.probes);
        let health = Arc::new(health::Health { probes });
        let deletion = Arc::new(deletion::Deletion {
            sign_in: sign_in.clone(),
            erasures: ports.erasures,
            balances: balances.clone(),
            people: ports.people,
            chats: chats.clone(),
            before: vec![billing.clone()],
        });
        Self {
            config,
            accounts,
            sign_in,
            social,
            deletion,
            outbox: ports.outbox,
            ledger,
            limits,
            completions,
            billing,
            speech,
            chats,
            characters,
            providers,
            admin,
            health,
            oidc,
            journal,
            ids,
            clock,
        }
    }
}
