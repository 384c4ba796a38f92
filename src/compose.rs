//! The composition root: settings in, a working world out. The only place that names adapters.

mod embedded;
mod external;
mod post;
mod secrets;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use thiserror::Error;

use crate::adapters::announced_accounts::AnnouncedAccounts;
use crate::adapters::config_cache::CachedConfig;
use crate::adapters::crypto::{self, EnvelopeVault, ScryptPasswords};
use crate::adapters::journal::{FanOut, InsertRows, RequestLogSink};
use crate::adapters::llm::HttpUpstream;
use crate::adapters::mail::ToldMailer;
use crate::adapters::memory::session_cache::CachedSessions;
use crate::adapters::memory::snapshots::MemorySnapshots;
use crate::adapters::runtime::{RandomIds, SystemClock, TrackedTasks};
use crate::adapters::sandbox::SandboxUpstream;
use crate::adapters::sandbox_voice::SandboxVoice;
use crate::adapters::signatures::HmacSignatures;
use crate::adapters::social::HttpSocial;
use crate::adapters::stripe::signatures::StripeSignatures;
use crate::adapters::stripe::{StripeGateway, StripeSettings};
use crate::adapters::telemetry::{InvalidTelemetry, Telemetry};
use crate::adapters::tiktoken::Tiktoken;
use crate::adapters::tokens::KeyRing;
use crate::adapters::tts::{Bounded, Egress, Engines, UnspeechUpstream};
use crate::adapters::{postgres, sqlite};
use crate::core::App;
use crate::core::admin::Policy;
use crate::core::billing;
use crate::core::llm::{OnUnreadableKey, RoutingPolicy};
use crate::core::model::admin::AddressPolicy;
use crate::core::model::ids::InstanceId;
use crate::core::model::secret::Secret;
use crate::ports::accounts::{AccountRepo, SessionRepo};
use crate::ports::audit::AuditLog;
use crate::ports::billing::{BillingRepo, PaymentGateway, PaymentSignatures, PriceCache};
use crate::ports::characters::CharacterRepo;
use crate::ports::chats::{Broadcaster, ChatRepo};
use crate::ports::config::ConfigStore;
use crate::ports::erasure::ErasureRepo;
use crate::ports::idempotency::IdempotencyRepo;
use crate::ports::journal::Journal;
use crate::ports::ledger::{BalanceCache, LedgerRepo, UsageMeter};
use crate::ports::limits::{RateLimiter, Slots};
use crate::ports::oidc::{AccountSnapshots, ClientRepo, GrantRepo, SigningKeyRepo};
use crate::ports::probe::Probe;
use crate::ports::providers::ProviderRepo;
use crate::ports::runtime::{Clock, IdSource, Tasks};
use crate::ports::social::SocialRepo;
use crate::ports::verification::VerificationRepo;
use crate::ports::{Fault, Ports};
use crate::settings::Settings;

pub use crate::adapters::telemetry::LogOutput;
pub use embedded::{Hold, backup};

/// Why no world could be made.
#[derive(Debug, Error)]
pub enum StartError {
    /// A dependency is out of reach or unusable.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The embedded database cannot be opened.
    #[error(transparent)]
    Data(#[from] sqlite::OpenError),
    /// The schema cannot be brought up to date.
    #[error(transparent)]
    Schema(#[from] postgres::migrate::MigrateError),
    /// The generated secrets cannot be kept.
    #[error("{0}")]
    Secrets(String),
    /// The master keys cannot be used.
    #[error("LLM_ROUTER_MASTER_KEY: {0}")]
    MasterKey(#[from] crypto::InvalidMasterKey),
    /// Letters cannot be sent as configured.
    #[error("SMTP_URL: {0}")]
    Mail(#[from] crate::adapters::mail::UnusableSmtp),
    /// Telemetry cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] InvalidTelemetry),
}

/// A working application and what has to be closed after it.
pub struct World {
    /// The use-cases.
    pub app: Arc<App>,
    telemetry: Option<Arc<Telemetry>>,
    tasks: Arc<TrackedTasks>,
    rows: Arc<RequestLogSink>,
    close_database: Close,
}

/// Closes a database's connections.
type Close = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send + Sync>;

/// What a database adapter set provides.
struct Storage {
    accounts: Arc<dyn AccountRepo>,
    sessions: Arc<dyn SessionRepo>,
    verifications: Arc<dyn VerificationRepo>,
    erasures: Arc<dyn ErasureRepo>,
    social: Arc<dyn SocialRepo>,
    clients: Arc<dyn ClientRepo>,
    grants: Arc<dyn GrantRepo>,
    signing_keys: Arc<dyn SigningKeyRepo>,
    ledger: Arc<dyn LedgerRepo>,
    meter: Arc<dyn UsageMeter>,
    billing: Arc<dyn BillingRepo>,
    config: Arc<dyn ConfigStore>,
    audit: Arc<dyn AuditLog>,
    idempotency: Arc<dyn IdempotencyRepo>,
    characters: Arc<dyn CharacterRepo>,
    providers: Arc<dyn ProviderRepo>,
    chats: Arc<dyn ChatRepo>,
    probe: Arc<dyn Probe>,
    insert_rows: InsertRows,
    close_database: Close,
}

/// What a process shares with its siblings, or only with itself.
struct Coordination {
    balances: Arc<dyn BalanceCache>,
    prices: Arc<dyn PriceCache>,
    limits: Arc<dyn RateLimiter>,
    slots: Arc<dyn Slots>,
    broadcaster: Arc<dyn Broadcaster>,
    people: Arc<dyn AccountSnapshots>,
    /// The meter of the database behind what is kept here, if anything is.
    meter: Option<Arc<dyn UsageMeter>>,
    /// Where configuration entries live, when not in the database.
    config: Option<Arc<dyn ConfigStore>>,
    probe: Option<Arc<dyn Probe>>,
}

impl World {
    /// Connects everything the settings name. `hold` says whether this process serves from the data directory or
    /// only visits it; `output` where log lines go.
    pub async fn open(settings: &Settings, hold: Hold, output: LogOutput) -> Result<Self, StartError> {
        let telemetry = Arc::new(Telemetry::new(&settings.telemetry)?);
        telemetry.install(output)?;
        let world = Self::assemble(settings, hold, Arc::new(telemetry.journal())).await?;
        Ok(Self { telemetry: Some(telemetry), ..world })
    }

    async fn assemble(settings: &Settings, hold: Hold, told: Arc<dyn Journal>) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let ids: Arc<dyn IdSource> = Arc::new(RandomIds::new());
        let tasks = Arc::new(TrackedTasks::default());
        let storage = match &settings.postgres {
            Some(postgres) => external::storage(postgres).await?,
            None => embedded::storage(&settings.data_dir, hold).await?,
        };
        let rows = RequestLogSink::new(storage.insert_rows, tasks.clone());
        let journal: Arc<dyn Journal> = Arc::new(FanOut { sinks: vec![told, rows.clone()] });
        let people = Arc::new(MemorySnapshots::new(storage.accounts.clone(), clock.clone()));
        let coordination = match &settings.redis {
            Some(redis) => {
                let instance = InstanceId::new(settings.instance_id.as_ref().map_or_else(
                    || ids.id(),
                    // Two processes with one configured name would silence each other.
                    |name| format!("{name}-{}", ids.id()),
                ));
                let behind = external::Behind { people, meter: storage.meter.clone() };
                external::coordination(redis, instance, &clock, &journal, &ids, behind).await?
            }
            None => embedded::coordination(&clock, people),
        };
        let secrets = secrets::of(settings)?;
        let post = post::of(settings)?;
        let store = coordination.config.unwrap_or(storage.config);
        let upstream = Arc::new(HttpUpstream::new(&settings.llm.upstream)?);
        let egress = egress(&upstream)?;
        let voice = Arc::new(Engines { egress: egress.clone(), ids: ids.clone() });
        let ports = Ports {
            accounts: Arc::new(AnnouncedAccounts {
                inner: storage.accounts,
                people: coordination.people.clone(),
                journal: journal.clone(),
            }),
            sessions: Arc::new(CachedSessions::new(storage.sessions, clock.clone())),
            passwords: Arc::new(ScryptPasswords::new(PASSWORDS_AT_ONCE)),
            verifications: storage.verifications,
            signatures: Arc::new(HmacSignatures::new(secrets.auth_secret.clone())),
            mailer: Arc::new(ToldMailer { inner: post.mailer, clock: clock.clone(), journal: journal.clone() }),
            outbox: post.outbox,
            social: Arc::new(HttpSocial::new(settings.social.clone())?),
            social_identities: storage.social,
            erasures: storage.erasures,
            clients: storage.clients,
            grants: storage.grants,
            tokens: Arc::new(KeyRing::new(storage.signing_keys, clock.clone(), ids.clone(), secrets.auth_secret)),
            people: coordination.people,
            ledger: storage.ledger,
            balances: coordination.balances,
            meter: coordination.meter.unwrap_or(storage.meter),
            payments: payments(settings)?,
            payment_signatures: payment_signatures(settings),
            billing: storage.billing,
            prices: coordination.prices,
            config: Arc::new(CachedConfig::start(store, clock.clone(), journal.clone())),
            chats: storage.chats,
            broadcaster: coordination.broadcaster,
            limits: coordination.limits,
            slots: coordination.slots,
            llm: Arc::new(SandboxUpstream { inner: upstream, clock: clock.clone() }),
            counter: Arc::new(Tiktoken::new()),
            tts: Arc::new(SandboxVoice { inner: voice }),
            speech: Arc::new(UnspeechUpstream { egress }),
            vault: Arc::new(EnvelopeVault::new(&secrets.master_key, settings.llm.master_key_previous.as_ref())?),
            audit: storage.audit,
            idempotency: storage.idempotency,
            characters: storage.characters,
            providers: storage.providers,
            journal,
            storage: storage.probe,
            probes: coordination.probe.map(|probe| ("redis", probe)).into_iter().collect(),
            clock,
            ids,
            tasks: tasks.clone() as Arc<dyn Tasks>,
        };
        let app = App::new(ports, policies(settings));
        Ok(Self { app: Arc::new(app), telemetry: None, tasks, rows, close_database: storage.close_database })
    }

    /// The metrics page, when telemetry is on.
    pub fn metrics(&self) -> Option<impl Fn() -> String + Send + Sync + Clone + 'static> {
        let telemetry = self.telemetry.clone()?;
        Some(move || telemetry.render_prometheus())
    }

    /// Ends the world: work that is owed is finished, rows and telemetry are flushed, connections close last.
    pub async fn close(self, grace: Duration) {
        if !self.tasks.drain(grace).await {
            tracing::error!(grace_ms = grace.as_millis(), "work was still running when the grace period ended");
        }
        drop(tokio::time::timeout(FLUSH_LIMIT, self.rows.flush()).await);
        drop(tokio::time::timeout(FLUSH_LIMIT, (self.close_database)()).await);
        if let Some(telemetry) = self.telemetry {
            telemetry.shutdown().await;
        }
    }
}

/// The way out speech shares with chat: one client, one judgement of addresses.
fn egress(upstream: &HttpUpstream) -> Result<Egress, Fault> {
    let tls = crate::adapters::llm::tls()
        .map_err(|error| Fault::new(crate::ports::FaultKind::Unavailable, "speech.tls", error))?;
    let (connect, tls) = (upstream.connect(), Arc::new(tls));
    let bounded = Bounded::new(connect.clone(), tls.clone());
    Ok(Egress { client: upstream.client(), bounded, admit: upstream.admit(), connect, tls })
}

/// Password hashing takes 16 MiB and a tenth of a second of a core each.
const PASSWORDS_AT_ONCE: usize = 2;
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

fn policies(settings: &Settings) -> crate::core::Policies {
    let on_unreadable_key =
        if settings.llm.skip_unreadable_keys { OnUnreadableKey::Skip } else { OnUnreadableKey::FailClosed };
    crate::core::Policies {
        routing: RoutingPolicy { on_unreadable_key, sandbox: settings.llm.sandbox },
        admin: Policy {
            addresses: AddressPolicy { allow_insecure: settings.llm.upstream.allow_insecure },
            sandbox: settings.llm.sandbox,
        },
        origin: settings.http.api_server_url.clone(),
        oidc: crate::core::oidc::Policy {
            refresh_grace: chrono::Duration::seconds(i64::from(settings.refresh_grace_seconds)),
        },
        billing: billing::Policy { livemode: settings.stripe.as_ref().and_then(StripeSettings::livemode) },
    }
}

fn payments(settings: &Settings) -> Result<Option<Arc<dyn PaymentGateway>>, Fault> {
    let Some(stripe) = &settings.stripe else { return Ok(None) };
    Ok(Some(Arc::new(StripeGateway::new(stripe)?)))
}

fn payment_signatures(settings: &Settings) -> Option<Arc<dyn PaymentSignatures>> {
    let secrets = settings.stripe_webhook_secrets.clone();
    (!secrets.is_empty()).then(|| Arc::new(StripeSignatures { secrets }) as Arc<dyn PaymentSignatures>)
}

/// A fresh master key, base64 of 32 random bytes.
pub fn generate_master_key() -> Secret {
    crypto::generate_master_key()
}

/// Brings the schema up to date and says what was applied and what to look at.
pub async fn migrate(settings: &Settings) -> Result<(Vec<&'static str>, Vec<String>), StartError> {
    match &settings.postgres {
        Some(postgres) => {
            let done = postgres::migrate::migrate(postgres).await?;
            Ok((done.applied, done.warnings))
        }
        None => Ok((embedded::migrate(&settings.data_dir).await?, Vec::new())),
    }
}

/// A world on an in-memory database with everything in process, for tests and for printing what needs no world.
#[cfg(any(test, feature = "mocks"))]
pub mod testing;

/// Whether `directory` holds data of an earlier start.
pub fn is_first_run(directory: &Path) -> bool {
    !directory.join(sqlite::DATABASE_FILE).exists()
}
