//! Worlds for tests: SQLite in memory, the rest in process, every part to be replaced by a double.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Storage, egress, embedded, post};
use crate::adapters::announced_accounts::AnnouncedAccounts;
use crate::adapters::crypto::{EnvelopeVault, ScryptPasswords, generate_master_key};
use crate::adapters::frozen::FrozenClock;
use crate::adapters::llm::{HttpUpstream, UpstreamSettings};
use crate::adapters::mail::ToldMailer;
use crate::adapters::memory::snapshots::MemorySnapshots;
use crate::adapters::runtime::{RandomIds, TrackedTasks};
use crate::adapters::sandbox::SandboxUpstream;
use crate::adapters::sandbox_voice::SandboxVoice;
use crate::adapters::signatures::HmacSignatures;
use crate::adapters::social::{HttpSocial, SocialSettings};
use crate::adapters::sqlite;
use crate::adapters::tiktoken::Tiktoken;
use crate::adapters::tokens::KeyRing;
use crate::adapters::tts::{Engines, UnspeechUpstream};
use crate::core::Policies;
use crate::core::llm::RoutingPolicy;
use crate::core::model::fact::Fact;
use crate::core::model::secret::Secret;
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
    let Storage {
        accounts,
        sessions,
        verifications,
        erasures,
        social,
        clients,
        grants,
        signing_keys,
        ledger,
        meter,
        billing,
        config,
        audit,
        idempotency,
        characters,
        chats,
        providers,
        probe,
        ..
    } = embedded::of(sqlite::in_memory().await?);
    let clock: Arc<dyn Clock> = Arc::new(FrozenClock::at(START));
    let people = Arc::new(MemorySnapshots::new(accounts.clone(), clock.clone()));
    let coordination = embedded::coordination(&clock, people);
    let ids: Arc<dyn IdSource> = Arc::new(RandomIds::new());
    let vault = EnvelopeVault::new(&generate_master_key(), None)
        .map_err(|error| Fault::new(crate::ports::FaultKind::Corrupt, "testing.vault", error))?;
    let post = post::kept();
    let insecure = UpstreamSettings { allow_insecure: true, ..UpstreamSettings::default() };
    let upstream = Arc::new(HttpUpstream::new(&insecure)?);
    let egress = egress(&upstream)?;
    let voice = Arc::new(Engines { egress: egress.clone(), ids: ids.clone() });
    let accounts =
        Arc::new(AnnouncedAccounts { inner: accounts, people: coordination.people.clone(), journal: Arc::new(Silent) });
    Ok(Ports {
        accounts,
        sessions,
        passwords: Arc::new(ScryptPasswords::new(1)),
        verifications,
        signatures: Arc::new(HmacSignatures::new(Secret::new("a secret for tests"))),
        mailer: Arc::new(ToldMailer { inner: post.mailer, clock: clock.clone(), journal: Arc::new(Silent) }),
        outbox: post.outbox,
        social: Arc::new(HttpSocial::new(SocialSettings::default())?),
        social_identities: social,
        erasures,
        clients,
        grants,
        tokens: Arc::new(KeyRing::new(signing_keys, clock.clone(), ids.clone(), generate_master_key())),
        people: coordination.people,
        ledger,
        balances: coordination.balances,
        meter,
        payments: None,
        payment_signatures: None,
        billing,
        prices: coordination.prices,
        config,
        chats,
        broadcaster: coordination.broadcaster,
        limits: coordination.limits,
        slots: coordination.slots,
        llm: Arc::new(SandboxUpstream { inner: upstream, clock: clock.clone() }),
        counter: Arc::new(Tiktoken::new()),
        tts: Arc::new(SandboxVoice { inner: voice }),
        speech: Arc::new(UnspeechUpstream { egress }),
        vault: Arc::new(vault),
        audit,
        idempotency,
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
        origin: "http://localhost:3000".to_owned(),
        oidc: crate::core::oidc::Policy::default(),
        billing: crate::core::billing::Policy::default(),
    }
}
