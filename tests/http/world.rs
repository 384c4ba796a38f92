//! An app over doubles, with harmless defaults a test may change.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use airi_server::core::App;
use airi_server::core::accounts::Accounts;
use airi_server::core::admin::{Admin, Policy, Trail};
use airi_server::core::characters::Characters;
use airi_server::core::config::Config;
use airi_server::core::health::{Health, LastAnswer, Liveness};
use airi_server::core::ledger::Ledger;
use airi_server::core::limits::Limits;
use airi_server::core::llm::{Completions, RoutingPolicy, Settle, UsageRefusals, Walk};
use airi_server::core::model::accounts::{Account, Email, Session, SignedIn};
use airi_server::core::model::config::ConfigEntry;
use airi_server::core::model::fact::Fact;
use airi_server::core::model::hold::{Hold, HoldOutcome};
use airi_server::core::model::ids::{EntryId, SessionId, UserId};
use airi_server::core::model::ledger::{Balance, Debit, DebitOutcome, Entry, Flux, Standing};
use airi_server::core::model::limits::{Admission, Limit};
use airi_server::core::model::meter::MeterReading;
use airi_server::core::model::page::{Page, Window};
use airi_server::core::model::secret::Secret;
use airi_server::core::providers::Providers;
use airi_server::core::sealing::Sealing;
use airi_server::core::tts::voices::Copies;
use airi_server::core::tts::{self, Gate, InFlight, Speech};
use airi_server::http::{HttpSettings, routes};
use airi_server::ports::journal::Journal;
use airi_server::ports::ledger::UsageMeter;
use airi_server::ports::limits::RateLimiter;
use airi_server::ports::llm::{LlmUpstream, UpstreamAnswer, UpstreamCall};
use airi_server::ports::mocks::{
    MockAccountRepo, MockAuditLog, MockBalanceCache, MockCharacterRepo, MockConfigStore, MockLedgerRepo,
    MockPasswordHasher, MockProbe, MockProviderRepo, MockSessionRepo, MockSlots, MockStreamingSpeech, MockTokenCounter,
    MockTtsEngine, MockUsageMeter, MockVault,
};
use airi_server::ports::probe::Probe;
use airi_server::ports::runtime::{Clock, IdSource, Tasks};
use airi_server::ports::tts::{SpeechAttempt, SpeechFailure, SpokenAudio};
use airi_server::ports::upstream::UpstreamError;
use airi_server::ports::vault::{MasterKey, Opened};
use airi_server::ports::{Fault, FaultKind};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use poem::Response;
use poem::endpoint::BoxEndpoint;
use poem::test::TestClient;
use tokio_util::sync::CancellationToken;

/// A verified user, `u1`.
pub(crate) const USER: &str = "Bearer user";
/// A user who has not proved the address.
pub(crate) const UNVERIFIED: &str = "Bearer unverified";
/// A verified administrator.
pub(crate) const ADMIN: &str = "Bearer admin";
/// A token at whose look-up the database fails.
pub(crate) const UNLUCKY: &str = "Bearer unlucky";

/// The window and the `before` of the last listing.
pub(crate) type Listed = Arc<Mutex<Option<(Window, Option<String>)>>>;

/// What a test may change before the world begins.
pub(crate) struct World {
    pub(crate) settings: HttpSettings,
    pub(crate) balance: i64,
    pub(crate) entries: Vec<Entry>,
    pub(crate) probes: Vec<(&'static str, Arc<dyn Probe>)>,
    pub(crate) leaving: CancellationToken,
    /// Whether the model `sandbox` exists; `auto` means it.
    pub(crate) sandbox: bool,
    /// What the one upstream answers.
    pub(crate) upstream: Script,
    /// Stored configuration entries: name and JSON text.
    pub(crate) stored: Vec<(&'static str, String)>,
    /// What every attempt to speak comes to.
    pub(crate) voice: Voice,
    pub(crate) facts: Facts,
    /// The window and the `before` of the last listing.
    pub(crate) listed: Listed,
}

impl Default for World {
    fn default() -> Self {
        let settings = HttpSettings { admin_emails: "admin@example.com".to_owned(), ..HttpSettings::default() };
        Self {
            settings,
            balance: 1_000,
            entries: Vec::new(),
            probes: vec![("db", Arc::new(Answering)), ("redis", Arc::new(Answering))],
            leaving: CancellationToken::new(),
            sandbox: true,
            upstream: whole(r#"{"id":"x",  "choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#),
            stored: Vec::new(),
            voice: Arc::new(|_| Err(SpeechFailure::NoAudio("nothing is scripted".to_owned()))),
            facts: Facts::default(),
            listed: Arc::default(),
        }
    }
}

/// Answers every attempt.
pub(crate) type Script = Arc<dyn Fn() -> UpstreamAnswer + Send + Sync>;

/// Speaks, or does not.
pub(crate) type Voice = Arc<dyn Fn(&SpeechAttempt) -> Result<SpokenAudio, SpeechFailure> + Send + Sync>;

/// A voice that says these pieces of audio, the last of which may be a failure.
pub(crate) fn saying(pieces: &'static [Result<&'static str, ()>]) -> Voice {
    Arc::new(move |_| {
        let pieces = pieces.iter().map(|piece| match piece {
            Ok(text) => Ok(Bytes::from_static(text.as_bytes())),
            Err(()) => Err(UpstreamError::Transport("reset".to_owned())),
        });
        let body = stream::iter(pieces.collect::<Vec<_>>()).boxed();
        Ok(SpokenAudio { content_type: "audio/mpeg".to_owned(), body })
    })
}

/// An upstream that answers one JSON text.
pub(crate) fn whole(json: &'static str) -> Script {
    Arc::new(move || UpstreamAnswer {
        status: 200,
        content_type: Some("application/json".to_owned()),
        body: stream::iter([Ok(Bytes::from_static(json.as_bytes()))]).boxed(),
    })
}

/// An upstream that answers these pieces of an event stream, the last of which may be a failure.
pub(crate) fn pieces(pieces: &'static [Result<&'static str, ()>]) -> Script {
    Arc::new(move || {
        let pieces = pieces.iter().map(|piece| match piece {
            Ok(text) => Ok(Bytes::from_static(text.as_bytes())),
            Err(()) => Err(UpstreamError::Transport("reset".to_owned())),
        });
        UpstreamAnswer {
            status: 200,
            content_type: Some("text/event-stream".to_owned()),
            body: stream::iter(pieces.collect::<Vec<_>>()).boxed(),
        }
    })
}

struct Scripted(Script);

#[async_trait]
impl LlmUpstream for Scripted {
    async fn send(&self, _call: &UpstreamCall) -> Result<UpstreamAnswer, UpstreamError> {
        Ok((self.0)())
    }
}

/// Settles while nobody looks.
struct AtOnce;

impl Tasks for AtOnce {
    fn spawn(&self, _name: &'static str, job: BoxFuture<'static, ()>) {
        tokio::task::spawn(job);
    }
}

/// Calls the routes without a socket.
pub(crate) type Client = TestClient<BoxEndpoint<'static, Response>>;

impl World {
    pub(crate) fn client(self) -> Client {
        let (settings, leaving) = (self.settings.clone(), self.leaving.clone());
        TestClient::new(routes(self.app(), &settings, leaving))
    }

    pub(crate) fn app(self) -> Arc<App> {
        let journal: Arc<dyn Journal> = Arc::new(self.facts.clone());
        let clock: Arc<dyn Clock> = Arc::new(WallClock(Instant::now()));
        let ids: Arc<dyn IdSource> = Arc::new(Counting::default());
        let mut store = MockConfigStore::new();
        let stored: HashMap<_, _> =
            self.stored.into_iter().map(|(name, json)| (name, Arc::new(ConfigEntry::new(json)))).collect();
        store.expect_find().returning(move |name| Ok(stored.get(name).cloned()));
        let config = Arc::new(Config { store: Arc::new(store), journal: journal.clone() });
        let accounts = Accounts {
            accounts: Arc::new(MockAccountRepo::new()),
            sessions: Arc::new(sessions()),
            passwords: Arc::new(MockPasswordHasher::new()),
            clock: clock.clone(),
            ids: ids.clone(),
            journal: journal.clone(),
        };
        let ledger = Arc::new(Ledger {
            repo: Arc::new(ledger(self.balance, self.entries, self.listed)),
            cache: Arc::new(cold_cache()),
            config: config.clone(),
            ids: ids.clone(),
            journal: journal.clone(),
        });
        let completions = Completions {
            config: config.clone(),
            ledger: ledger.clone(),
            walk: Walk {
                upstream: Arc::new(Scripted(self.upstream)),
                vault: Arc::new(MockVault::new()),
                journal: journal.clone(),
                clock: clock.clone(),
                policy: RoutingPolicy { sandbox: self.sandbox, ..RoutingPolicy::default() },
                usage_refusals: UsageRefusals::default(),
            },
            settle: Settle {
                ledger: ledger.clone(),
                tasks: Arc::new(AtOnce),
                journal: journal.clone(),
                clock: clock.clone(),
                ids: ids.clone(),
            },
            storage: Liveness { probe: Arc::new(answering()), clock: clock.clone(), last: LastAnswer::default() },
            counter: Arc::new(counter()),
            clock: clock.clone(),
        };
        let limits = Arc::new(Limits { limiter: Arc::new(OneWindow::default()), journal: journal.clone() });
        let voice = self.voice;
        let mut engine = MockTtsEngine::new();
        engine.expect_speak().returning(move |attempt| voice(attempt));
        let meter: Arc<dyn UsageMeter> = Arc::new(meter());
        let routing = RoutingPolicy { sandbox: self.sandbox, ..RoutingPolicy::default() };
        let speech = Speech {
            config: config.clone(),
            gate: Gate {
                config: config.clone(),
                ledger: ledger.clone(),
                meter: meter.clone(),
                journal: journal.clone(),
                in_flight: InFlight::default(),
                sandbox: self.sandbox,
            },
            walk: tts::Walk {
                engine: Arc::new(engine),
                vault: Arc::new(open_vault()),
                journal: journal.clone(),
                clock: clock.clone(),
                policy: routing,
            },
            settle: tts::Settle {
                ledger: ledger.clone(),
                meter,
                tasks: Arc::new(AtOnce),
                journal: journal.clone(),
                clock: clock.clone(),
                ids: ids.clone(),
            },
            limits: limits.clone(),
            slots: Arc::new(MockSlots::new()),
            streaming: Arc::new(MockStreamingSpeech::new()),
            copies: Copies::default(),
            clock: clock.clone(),
        };
        let trail =
            Trail { log: Arc::new(patient_log()), journal: journal.clone(), clock: clock.clone(), ids: ids.clone() };
        let admin = Admin {
            store: Arc::new(MockConfigStore::new()),
            vault: Arc::new(MockVault::new()),
            accounts: Arc::new(MockAccountRepo::new()),
            ledger: ledger.clone(),
            trail,
            policy: Policy::default(),
        };
        Arc::new(App {
            config,
            accounts: Arc::new(accounts),
            ledger,
            limits,
            completions: Arc::new(completions),
            speech: Arc::new(speech),
            characters: Arc::new(Characters {
                repo: Arc::new(MockCharacterRepo::new()),
                sealing: Sealing { vault: Arc::new(MockVault::new()) },
                clock: clock.clone(),
                ids: ids.clone(),
                journal: journal.clone(),
            }),
            providers: Arc::new(Providers {
                repo: Arc::new(MockProviderRepo::new()),
                sealing: Sealing { vault: Arc::new(MockVault::new()) },
                clock: clock.clone(),
                ids: ids.clone(),
            }),
            admin: Arc::new(admin),
            health: Arc::new(Health { probes: self.probes }),
            journal,
            ids,
            clock,
        })
    }
}

/// Everything recorded so far.
#[derive(Clone, Default)]
pub(crate) struct Facts(Arc<Mutex<Vec<Fact>>>);

impl Facts {
    pub(crate) fn all(&self) -> Vec<Fact> {
        self.0.lock().unwrap().clone()
    }

    /// Method, route and status of every request that ended.
    pub(crate) fn ended(&self) -> Vec<(&'static str, String, u16)> {
        let ended = |fact| match fact {
            Fact::HttpEnded { method, route, status, .. } => Some((method, route, status)),
            _ => None,
        };
        self.all().into_iter().filter_map(ended).collect()
    }
}

impl Journal for Facts {
    fn record(&self, fact: Fact) {
        self.0.lock().unwrap().push(fact);
    }
}

struct WallClock(Instant);

impl Clock for WallClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[derive(Default)]
struct Counting(AtomicU64);

impl IdSource for Counting {
    fn id(&self) -> String {
        format!("id-{:018}", self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn token(&self) -> String {
        format!("token{:027}", self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Counts in a window that never ends.
#[derive(Default)]
struct OneWindow(Mutex<HashMap<String, u64>>);

#[async_trait]
impl RateLimiter for OneWindow {
    async fn admit(&self, limit: &Limit, key: &str) -> Result<Admission, Fault> {
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry(format!("{}:{key}", limit.route)).or_default();
        *count += 1;
        Ok(Admission::judge(limit, *count, Duration::from_millis(41_500)))
    }
}

/// A dependency that answers.
pub(crate) struct Answering;

#[async_trait]
impl Probe for Answering {
    async fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// A dependency that refuses.
pub(crate) struct Refusing;

#[async_trait]
impl Probe for Refusing {
    async fn check(&self) -> Result<(), Fault> {
        Err(unavailable())
    }
}

/// A dependency that never says anything.
pub(crate) struct Frozen;

#[async_trait]
impl Probe for Frozen {
    async fn check(&self) -> Result<(), Fault> {
        std::future::pending().await
    }
}

pub(crate) fn unavailable() -> Fault {
    Fault::new(FaultKind::Unavailable, "double.call", "host db.internal refused")
}

fn sessions() -> MockSessionRepo {
    let mut sessions = MockSessionRepo::new();
    sessions.expect_find_by_token().returning(|token| {
        let (id, email, verified) = match token {
            "user" => ("u1", "user@example.com", true),
            "unverified" => ("u2", "admin2@example.com", false),
            "admin" => ("u3", "Admin@Example.com", true),
            "panic" => panic!("a secret in a panic"),
            "unlucky" => return Err(unavailable()),
            _ => return Ok(None),
        };
        let at = DateTime::UNIX_EPOCH;
        let account = Account {
            id: UserId::new(id),
            name: String::new(),
            email: Email::stored(email),
            email_verified: verified,
            image: None,
            created_at: at,
            updated_at: at,
        };
        let session = Session {
            id: SessionId::new("s"),
            token: Secret::new(token),
            user: account.id.clone(),
            expires_at: at + chrono::Duration::days(7),
            created_at: at,
            updated_at: at,
            ip_address: None,
            user_agent: None,
        };
        Ok(Some(SignedIn { session, account }))
    });
    sessions
}

fn ledger(balance: i64, entries: Vec<Entry>, listed: Listed) -> MockLedgerRepo {
    let mut repo = MockLedgerRepo::new();
    let balance = Balance { flux: Flux::new(balance).unwrap(), version: 1 };
    repo.expect_find().returning(move |_| Ok(Standing::Open(balance)));
    repo.expect_debit().returning(move |debit: &Debit| Ok(DebitOutcome::Charged { charged: debit.amount, balance }));
    repo.expect_hold().returning(move |hold: &Hold| {
        let available = balance.flux;
        Ok(if hold.least > available {
            HoldOutcome::Refused { available }
        } else {
            HoldOutcome::Held { amount: hold.most.min(available), available: available.saturating_sub(hold.least) }
        })
    });
    repo.expect_capture().returning(move |debit: &Debit| Ok(DebitOutcome::Charged { charged: debit.amount, balance }));
    repo.expect_release().returning(|_, _| Ok(Flux::ZERO));
    repo.expect_capacity().returning(|_| Ok(Flux::ZERO));
    repo.expect_list().returning(move |_, window, before: Option<&EntryId>| {
        *listed.lock().unwrap() = Some((window, before.map(ToString::to_string)));
        Ok(Page::cut(entries.clone(), window.limit))
    });
    repo
}

/// A token for every four bytes.
fn counter() -> MockTokenCounter {
    let mut counter = MockTokenCounter::new();
    counter.expect_ready().returning(|| ());
    counter.expect_count().returning(|text| (text.len() as u64).div_ceil(4));
    counter
}

/// Takes one flux of every use.
fn meter() -> MockUsageMeter {
    let mut meter = MockUsageMeter::new();
    meter.expect_debt().returning(|_, _, _| Ok(0));
    meter.expect_settle().returning(|_| {
        Ok(MeterReading { charged: Flux::ONE, unbilled: Flux::ZERO, debt: 0, balance: None, replayed: false })
    });
    meter
}

fn open_vault() -> MockVault {
    let mut vault = MockVault::new();
    vault.expect_open().returning(|_, _, _| Ok(Opened { plaintext: Secret::new("k3y"), with: MasterKey::Current }));
    vault
}

fn patient_log() -> MockAuditLog {
    let mut log = MockAuditLog::new();
    log.expect_record().returning(|_| Ok(()));
    log
}

fn cold_cache() -> MockBalanceCache {
    let mut cache = MockBalanceCache::new();
    cache.expect_find().returning(|_| Ok(None));
    cache.expect_offer().returning(|_, _| Ok(()));
    cache.expect_fill().returning(|_, _| Ok(()));
    cache
}

fn answering() -> MockProbe {
    let mut probe = MockProbe::new();
    probe.expect_check().returning(|| Ok(()));
    probe
}
