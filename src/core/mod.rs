//! Use-cases over ports. Pure: no clock, no randomness, no driver, no framework.
//!
//! A use-case may hold another that stands earlier in this line, never later:
//! config · accounts · health · ledger · limits · llm · tts · sealing · characters · providers · admin.

pub mod accounts;
pub mod admin;
pub mod characters;
pub mod config;
pub mod error;
pub mod health;
pub mod ledger;
pub mod limits;
pub mod llm;
pub mod model;
pub mod providers;
pub mod sealing;
pub mod tts;

use std::sync::Arc;

use crate::ports::Ports;
use crate::ports::journal::Journal;
use crate::ports::runtime::{Clock, IdSource};

/// Every use-case, assembled: what a door is given.
pub struct App {
    /// Typed configuration entries.
    pub config: Arc<config::Config>,
    /// Accounts and sessions.
    pub accounts: Arc<accounts::Accounts>,
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
    /// What operators may do.
    pub admin: Arc<admin::Admin>,
    /// Readiness.
    pub health: Arc<health::Health>,
    /// Where the doors record facts.
    pub journal: Arc<dyn Journal>,
    /// Ids of requests.
    pub ids: Arc<dyn IdSource>,
    /// Durations of requests.
    pub clock: Arc<dyn Clock>,
}

/// What the settings decide for the use-cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// How completions are routed.
    pub routing: llm::RoutingPolicy,
    /// What operators may write.
    pub admin: admin::Policy,
}

impl App {
    /// The hexagon, assembled.
    pub fn new(ports: Ports, policies: Policies) -> Self {
        let Ports { clock, ids, journal, tasks, vault, .. } = ports;
        let config = Arc::new(config::Config { store: ports.config.clone(), journal: journal.clone() });
        let accounts = Arc::new(accounts::Accounts {
            accounts: ports.accounts.clone(),
            sessions: ports.sessions,
            passwords: ports.passwords,
            clock: clock.clone(),
            ids: ids.clone(),
            journal: journal.clone(),
        });
        let ledger = Arc::new(ledger::Ledger {
            repo: ports.ledger,
            cache: ports.balances,
            config: config.clone(),
            ids: ids.clone(),
            journal: journal.clone(),
        });
        let limits = Arc::new(limits::Limits { limiter: ports.limits, journal: journal.clone() });
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
                tasks,
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
        Self {
            config,
            accounts,
            ledger,
            limits,
            completions,
            speech,
            characters,
            providers,
            admin,
            health,
            journal,
            ids,
            clock,
        }
    }
}
