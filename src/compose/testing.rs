//! Worlds for tests: SQLite in memory, the rest in process, every part to be replaced by a double.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Storage, egress, embedded};
use crate::adapters::crypto::{EnvelopeVault, ScryptPasswords, generate_master_key};
use crate::adapters::frozen::FrozenClock;
use crate::adapters::llm::{HttpUpstream, UpstreamSettings};
use crate::adapters::runtime::{RandomIds, TrackedTasks};
use crate::adapters::sandbox::SandboxUpstream;
use crate::adapters::sandbox_voice::SandboxVoice;
use crate::adapters::sqlite;
use crate::adapters::tiktoken::Tiktoken;
use crate::adapters::tts::{Engines, UnspeechUpstream};
use crate::core::Policies;
use crate::core::llm::RoutingPolicy;
use crate::core::model::fact::Fact;
use crate::ports::journal::Journal;
use crate::ports::runtime::{Clock, IdSource};
use crate::ports::{Fault, Ports};

/// Swallows facts.
struct Silent;

impl Journal for Silent {
    fn record(&self, _: Fact) {}
}

/// The time such a world stands at until its clock is turned.
pub const START: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// A complete world on an in-memory database: `Ports { ledger: my_double, ..ports().await? }`.
pub async fn ports() -> Result<Ports, Fault> {
    let Storage { accounts, sessions, ledger, meter, config, audit, characters, providers, probe, .. } =
        embedded::of(sqlite::in_memory().await?);
    let clock: Arc<dyn Clock> = Arc::new(FrozenClock::at(START));
    let coordination = embedded::coordination(&clock);
    let vault = EnvelopeVault::new(&generate_master_key(), None)
        .map_err(|error| Fault::new(crate::ports::FaultKind::Corrupt, "testing.vault", error))?;
    let insecure = UpstreamSettings { allow_insecure: true, ..UpstreamSettings::default() };
    let upstream = Arc::new(HttpUpstream::new(&insecure)?);
    let egress = egress(&upstream)?;
    let ids: Arc<dyn IdSource> = Arc::new(RandomIds::new());
    let voice = Arc::new(Engines { egress: egress.clone(), ids: ids.clone() });
    Ok(Ports {
        accounts,
        sessions,
        passwords: Arc::new(ScryptPasswords::new(1)),
        ledger,
        balances: coordination.balances,
        meter,
        config,
        broadcaster: coordination.broadcaster,
        limits: coordination.limits,
        slots: coordination.slots,
        llm: Arc::new(SandboxUpstream { inner: upstream, clock: clock.clone() }),
        counter: Arc::new(Tiktoken::new()),
        tts: Arc::new(SandboxVoice { inner: voice }),
        speech: Arc::new(UnspeechUpstream { egress }),
        vault: Arc::new(vault),
        audit,
        characters,
        providers,
        journal: Arc::new(Silent),
        storage: probe,
        probes: Vec::new(),
        clock,
        ids,
        tasks: Arc::new(TrackedTasks::default()),
    })
}

/// What such a world admits: the sandbox, and upstreams on loopback.
pub fn policies() -> Policies {
    Policies {
        routing: RoutingPolicy { sandbox: true, ..RoutingPolicy::default() },
        admin: crate::core::admin::Policy {
            addresses: crate::core::model::admin::AddressPolicy { allow_insecure: true },
            sandbox: true,
        },
    }
}
