//! An app over doubles, with harmless defaults a test may change.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use airi_server::core::App;
use airi_server::core::accounts::{Accounts, Letters, Process, SignIn, Social};
use airi_server::core::admin::{Admin, Policy, Trail};
use airi_server::core::billing::Billing;
use airi_server::core::characters::Characters;
use airi_server::core::chats::{Chats, Teller};
use airi_server::core::config::Config;
use airi_server::core::deletion::Deletion;
use airi_server::core::health::{Health, LastAnswer, Liveness};
use airi_server::core::ledger::Ledger;
use airi_server::core::limits::Limits;
use airi_server::core::llm::{Completions, RoutingPolicy, Settle, UsageRefusals, Walk};
use airi_server::core::model::accounts::{Account, Email, Session, SignedIn};
use airi_server::core::model::billing::mirror::Saved;
use airi_server::core::model::billing::{OpenedCheckout, Price};
use airi_server::core::model::config::ConfigEntry;
use airi_server::core::model::fact::Fact;
use airi_server::core::model::hold::{Hold, HoldOutcome};
use airi_server::core::model::ids::{EntryId, SessionId, UserId};
use airi_server::core::model::ledger::{Balance, Debit, DebitOutcome, Entry, Flux, Standing};
use airi_server::core::model::limits::{Admission, Limit};
use airi_server::core::model::meter::{MeterReading, Unsettled};
use airi_server::core::model::oidc::Issuer;
use airi_server::core::model::page::{Page, Window};
use airi_server::core::model::secret::Secret;
use airi_server::core::oidc::Oidc;
use airi_server::core::providers::Providers;
use airi_server::core::sealing::Sealing;
use airi_server::core::tts::voices::Copies;
use airi_server::core::tts::{self, Gate, InFlight, Speech};
use airi_server::http::{HttpSettings, routes};
use airi_server::ports::billing::{PaymentError, PaymentGateway, PaymentSignatures};
use airi_server::ports::journal::Journal;
use airi_server::ports::ledger::UsageMeter;
use airi_server::ports::limits::RateLimiter;
use airi_server::ports::llm::{LlmUpstream, UpstreamAnswer, UpstreamCall};
use airi_server::ports::mocks::{
    MockAccountRepo, MockAccountSnapshots, MockAuditLog, MockBalanceCache, MockBillingRepo, MockBroadcaster,
    MockCharacterRepo, MockChatRepo, MockClientRepo, MockConfigStore, MockErasureRepo, MockGrantRepo,
    MockIdempotencyRepo, MockLedgerRepo, MockMailer, MockPasswordHasher, MockPaymentGateway, MockPaymentSignatures,
    MockPriceCache, MockProbe, MockProviderRepo, MockSessionRepo, MockSignatures, MockSlots, MockSocialLogin,
    MockSocialRepo, MockStreamingSpeech, MockTokenCounter, MockTokenSigner, MockTtsEngine, MockUsageMeter, MockVault,
    MockVerificationRepo,
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
    /// The payment provider, when there is one.
    pub(crate) payments: Option<Arc<dyn PaymentGateway>>,
    /// Its hand.
    pub(crate) payment_signatures: Option<Arc<dyn PaymentSignatures>>,
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
            payments: None,
            payment_signatures: None,
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
        let shop = Arc::new(Config { store: Arc::new(on_sale()), journal: journal.clone() });
        let accounts = Accounts {
            accounts: Arc::new(MockAccountRepo::new()),
            sessions: Arc::new(sessions()),
            passwords: Arc::new(MockPasswordHasher::new()),
            clock: clock.clone(),
            ids: ids.clone(),
            journal: journal.clone(),
        };
        let accounts = Arc::new(accounts);
        let limits = Arc::new(Limits { limiter: Arc::new(OneWindow::default()), journal: journal.clone() });
        let letters = Letters {
            mailer: Arc::new(MockMailer::new()),
            signatures: Arc::new(MockSignatures::new()),
            limits: limits.clone(),
            tasks: Arc::new(AtOnce),
            process: Process { clock: clock.clone(), journal: journal.clone() },
            origin: self.settings.api_server_url.clone(),
        };
        let sign_in = Arc::new(SignIn {
            accounts: accounts.clone(),
            verifications: Arc::new(MockVerificationRepo::new()),
            erasures: Arc::new(MockErasureRepo::new()),
            letters: Arc::new(letters),
            limits: limits.clone(),
        });
        let chats = Arc::new(chats(&journal, &clock, &ids));
        let deletion = Arc::new(Deletion {
            chats: chats.clone(),
            sign_in: sign_in.clone(),
            erasures: Arc::new(MockErasureRepo::new()),
            balances: Arc::new(MockBalanceCache::new()),
            people: Arc::new(MockAccountSnapshots::new()),
            before: Vec::new(),
        });
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
            keys: Arc::new(MockIdempotencyRepo::new()),
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
        let mut tokens = MockTokenSigner::new();
        tokens.expect_verify().returning(|_, _| Ok(None));
        let oidc = Oidc {
            clients: Arc::new(MockClientRepo::new()),
            grants: Arc::new(MockGrantRepo::new()),
            tokens: Arc::new(tokens),
            accounts: Arc::new(MockAccountRepo::new()),
            people: Arc::new(MockAccountSnapshots::new()),
            sessions: accounts.sessions.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            issuer: Issuer::new("http://localhost:3000"),
            policy: airi_server::core::oidc::Policy::default(),
        };
        let billing = Billing {
            gateway: self.payments,
            signatures: self.payment_signatures,
            repo: Arc::new(no_purchases()),
            prices: Arc::new(priced()),
            accounts: Arc::new(MockAccountRepo::new()),
            ledger: ledger.clone(),
            config: shop,
            clock: clock.clone(),
            ids: ids.clone(),
            journal: journal.clone(),
            policy: airi_server::core::billing::Policy::default(),
            last_good: futures::lock::Mutex::new(None),
        };
        Arc::new(App {
            config,
            accounts,
            sign_in: sign_in.clone(),
            social: Arc::new(Social {
                sign_in,
                providers: Arc::new(MockSocialLogin::new()),
                repo: Arc::new(MockSocialRepo::new()),
            }),
            deletion,
            outbox: None,
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
            billing: Arc::new(billing),
            chats,
            admin: Arc::new(admin),
            health: Arc::new(Health { probes: self.probes }),
            oidc: Arc::new(oidc),
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

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
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
    meter.expect_debt().returning(|_, _, _| Ok(Unsettled::default()));
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

/// A shop that sells one product.
fn on_sale() -> MockConfigStore {
    let mut store = MockConfigStore::new();
    store.expect_find().returning(|name| {
        let product = name == "STRIPE_FLUX_PRODUCT_ID";
        Ok(product.then(|| Arc::new(ConfigEntry::new(r#""prod""#))))
    });
    store
}

fn price(id: &str, flux: Option<&str>) -> Price {
    Price {
        id: id.to_owned(),
        unit_amount: Some(300),
        currency: "usd".to_owned(),
        product: "prod".to_owned(),
        active: true,
        metadata: flux.map(|flux| ("fluxAmount".to_owned(), flux.to_owned())).into_iter().collect(),
        currency_options: [("usd".to_owned(), Some(300)), ("jpy".to_owned(), Some(450))].into_iter().collect(),
        interval: None,
    }
}

fn priced() -> MockPriceCache {
    let mut cache = MockPriceCache::new();
    cache.expect_find().returning(|_| Ok(Some(vec![price("p1", Some("500")), price("p2", None)])));
    cache
}

fn no_purchases() -> MockBillingRepo {
    let mut repo = MockBillingRepo::new();
    repo.expect_customer_of_user().returning(|_| Ok(None));
    repo.expect_orders().returning(|_, _| Ok(Vec::new()));
    repo.expect_invoices().returning(|_, _| Ok(Vec::new()));
    repo.expect_save_checkout().returning(|_, _, _| Ok(Saved::Written));
    repo
}

/// A provider that opens one session, and knows no other price.
pub(crate) fn provider() -> Arc<dyn PaymentGateway> {
    let mut gateway = MockPaymentGateway::new();
    gateway.expect_price().returning(|_| Err(PaymentError::Missing));
    gateway.expect_open_checkout().returning(|order| {
        if order.currency.as_deref() == Some("jpy") {
            return Err(PaymentError::Failed(unavailable()));
        }
        Ok(OpenedCheckout {
            id: "cs".to_owned(),
            url: order.success_url.clone(),
            mode: "payment".to_owned(),
            status: None,
            payment_status: None,
            amount_total: None,
            currency: None,
            expires_at: None,
        })
    });
    Arc::new(gateway)
}

/// Believes nobody.
pub(crate) fn distrust() -> Arc<dyn PaymentSignatures> {
    let mut signatures = MockPaymentSignatures::new();
    signatures.expect_vouches().returning(|_, _, _| false);
    Arc::new(signatures)
}

fn chats(journal: &Arc<dyn Journal>, clock: &Arc<dyn Clock>, ids: &Arc<dyn IdSource>) -> Chats {
    Chats {
        repo: Arc::new(MockChatRepo::new()),
        teller: Teller::new(Arc::new(MockBroadcaster::new()), journal.clone()),
        tasks: Arc::new(AtOnce),
        ids: ids.clone(),
        clock: clock.clone(),
    }
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
