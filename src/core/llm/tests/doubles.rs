//! A world whose upstream follows a script, whose clock moves only when told, and whose every await gives way once.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use crate::core::config::Config;
use crate::core::error::Error;
use crate::core::ledger::Ledger;
use crate::core::llm::{Completion, CompletionCall, Completions, RoutingPolicy, Settle, UsageRefusals, Walk};
use crate::core::model::config::{ConfigChange, ConfigEntry, ConfigWrite, WriteOutcome};
use crate::core::model::fact::{Fact, StreamEnd};
use crate::core::model::ids::{EntryId, RequestId, UserId};
use crate::core::model::ledger::{
    Balance, Credit, CreditOutcome, Debit, DebitOutcome, Entry, Flux, OpenOutcome, Opening, Standing, drain,
};
use crate::core::model::page::{Page, Window};
use crate::core::model::request_log::LoggedRequest;
use crate::core::model::secret::Secret;
use crate::ports::config::ConfigStore;
use crate::ports::journal::Journal;
use crate::ports::ledger::{BalanceCache, LedgerRepo};
use crate::ports::llm::{LlmUpstream, UpstreamAnswer, UpstreamCall};
use crate::ports::runtime::{Clock, IdSource, Tasks};
use crate::ports::upstream::UpstreamError;
use crate::ports::vault::{MasterKey, Opened, Unreadable, Vault};
use crate::ports::{Fault, FaultKind};

/// One scripted answer of the upstream.
pub(super) enum Step {
    Answer {
        status: u16,
        content_type: &'static str,
        chunks: Vec<Result<Bytes, UpstreamError>>,
        then_hangs: bool,
    },
    Fail(UpstreamError),
    /// Uses up its patience.
    Hang,
    /// Never answers at all.
    Silent,
}

pub(super) fn whole(body: &str) -> Step {
    let chunks = vec![Ok(Bytes::copy_from_slice(body.as_bytes()))];
    Step::Answer { status: 200, content_type: "application/json", chunks, then_hangs: false }
}

pub(super) fn events(chunks: Vec<Result<Bytes, UpstreamError>>) -> Step {
    Step::Answer { status: 200, content_type: "text/event-stream", chunks, then_hangs: false }
}

pub(super) fn text(chunk: &str) -> Result<Bytes, UpstreamError> {
    Ok(Bytes::copy_from_slice(chunk.as_bytes()))
}

pub(super) fn refusal(status: u16, body: &str) -> Step {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Step::Fail(UpstreamError::Status { status, body, retry_after: None })
}

/// Everything behind the ports.
#[derive(Default)]
pub(super) struct World {
    pub(super) now_ms: AtomicU64,
    pub(super) script: Mutex<VecDeque<Step>>,
    pub(super) calls: Mutex<Vec<UpstreamCall>>,
    pub(super) facts: Mutex<Vec<Fact>>,
    pub(super) config: Mutex<HashMap<&'static str, String>>,
    pub(super) balance: AtomicI64,
    pub(super) cached: Mutex<Option<i64>>,
    pub(super) debits: Mutex<Vec<(Debit, Flux)>>,
    pub(super) debit_faults: AtomicUsize,
    pub(super) debit_commits_then_fails: AtomicBool,
    pub(super) open_bodies: Arc<AtomicUsize>,
    jobs: Mutex<Vec<BoxFuture<'static, ()>>>,
    ids: AtomicU64,
}

/// Pending once, so that a future can be dropped here.
async fn give_way() {
    let mut given = false;
    poll_fn(|_| if std::mem::replace(&mut given, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl World {
    /// A rich caller and one model `m`, with these upstreams.
    pub(super) fn with_upstreams(upstreams: &Value) -> Arc<Self> {
        let tree = json!({"llm": {"models": {"m": {"upstreams": upstreams}}}, "tts": {"models": {}}});
        let world = Self::empty();
        world.set("LLM_ROUTER_CONFIG", &tree.to_string());
        world
    }

    /// One upstream `a` with one key `k1`.
    pub(super) fn simple(script: Vec<Step>) -> Arc<Self> {
        let world = Self::with_upstreams(&json!([{"baseURL": "https://a/v1", "keys": [key("k1")]}]));
        world.play(script);
        world
    }

    pub(super) fn empty() -> Arc<Self> {
        let world = Self::default();
        world.balance.store(1_000, Ordering::SeqCst);
        Arc::new(world)
    }

    pub(super) fn set(&self, name: &'static str, json: &str) {
        self.config.lock().unwrap().insert(name, json.to_owned());
    }

    pub(super) fn play(&self, script: Vec<Step>) {
        *self.script.lock().unwrap() = script.into();
    }

    pub(super) fn completions(self: &Arc<Self>, policy: RoutingPolicy) -> Completions {
        let config = Arc::new(Config { store: self.clone(), journal: self.clone() });
        let ledger = Arc::new(Ledger {
            repo: self.clone(),
            cache: self.clone(),
            config: config.clone(),
            ids: self.clone(),
            journal: self.clone(),
        });
        let walk = Walk {
            upstream: self.clone(),
            vault: self.clone(),
            journal: self.clone(),
            clock: self.clone(),
            policy,
            usage_refusals: UsageRefusals::default(),
        };
        let settle = Settle {
            ledger: ledger.clone(),
            tasks: self.clone(),
            journal: self.clone(),
            clock: self.clone(),
            ids: self.clone(),
        };
        Completions { config, ledger, walk, settle, clock: self.clone() }
    }

    /// Sends one call and waits for its head.
    pub(super) fn complete(self: &Arc<Self>, body: &str) -> Result<Completion, Error> {
        let completions = self.completions(RoutingPolicy::default());
        self.drive(completions.complete(call("r1", body)), usize::MAX).unwrap()
    }

    /// Sends one streamed call and reads all of it: the bytes, and whether it ended abnormally.
    pub(super) fn stream(self: &Arc<Self>, body: &str) -> (String, bool) {
        let Ok(Completion::Stream { body, .. }) = self.complete(body) else { panic!("not a stream") };
        let items: Vec<_> = self.drive(body.collect(), usize::MAX).unwrap();
        self.run_jobs();
        let abnormal = matches!(items.last(), Some(Err(_)));
        let bytes: Vec<u8> = items.into_iter().flatten().flatten().collect();
        (String::from_utf8(bytes).unwrap(), abnormal)
    }

    /// Polls a future, and the jobs beside it, at most `polls` times.
    pub(super) fn drive<F: Future>(&self, future: F, polls: usize) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..polls.min(100_000) {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return Some(output);
            }
            self.poll_jobs();
        }
        None
    }

    /// Runs every job to its end.
    pub(super) fn run_jobs(&self) {
        for _ in 0..10_000 {
            if !self.poll_jobs() {
                return;
            }
        }
        panic!("a job never ends");
    }

    fn poll_jobs(&self) -> bool {
        let mut jobs = std::mem::take(&mut *self.jobs.lock().unwrap());
        let mut cx = Context::from_waker(Waker::noop());
        jobs.retain_mut(|job| job.as_mut().poll(&mut cx).is_pending());
        let mut left = self.jobs.lock().unwrap();
        left.extend(jobs);
        !left.is_empty()
    }

    pub(super) fn facts(&self) -> Vec<Fact> {
        self.facts.lock().unwrap().clone()
    }

    /// The one row there must be.
    pub(super) fn row(&self) -> (LoggedRequest, Option<StreamEnd>) {
        let rows = self.rows();
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows[0].clone()
    }

    pub(super) fn rows(&self) -> Vec<(LoggedRequest, Option<StreamEnd>)> {
        let facts = self.facts().into_iter();
        facts
            .filter_map(|fact| match fact {
                Fact::GenerationEnded { row, ended } => Some((row, ended)),
                _ => None,
            })
            .collect()
    }

    pub(super) fn unbilled(&self) -> Vec<(i64, &'static str, &'static str)> {
        let facts = self.facts().into_iter();
        facts
            .filter_map(|fact| match fact {
                Fact::Unbilled { amount, reason, stage, .. } => Some((amount.get(), reason, stage)),
                _ => None,
            })
            .collect()
    }

    /// `[host, key]` of every call, as the scenarios write them.
    pub(super) fn called(&self) -> Vec<(String, String)> {
        let calls = self.calls.lock().unwrap();
        let host = |url: &str| url::Url::parse(url).unwrap().host_str().unwrap().to_owned();
        let key = |call: &UpstreamCall| call.authorization.expose().trim_start_matches("Bearer secret-").to_owned();
        calls.iter().map(|call| (host(&call.url), key(call))).collect()
    }

    pub(super) fn sent(&self, position: usize) -> Value {
        serde_json::from_slice(&self.calls.lock().unwrap()[position].body).unwrap()
    }
}

pub(super) fn call(request: &str, body: &str) -> CompletionCall {
    CompletionCall {
        user: UserId::new("u1"),
        request: RequestId::new(request),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

/// A key slot whose plaintext is `secret-<id>`.
pub(super) fn key(id: &str) -> Value {
    let ciphertext = if id == "bad" { "tampered".to_owned() } else { format!("secret-{id}") };
    json!({"id": id, "ciphertext": ciphertext})
}

#[async_trait]
impl LlmUpstream for World {
    async fn send(&self, call: &UpstreamCall) -> Result<UpstreamAnswer, UpstreamError> {
        self.calls.lock().unwrap().push(call.clone());
        give_way().await;
        let step = self.script.lock().unwrap().pop_front().expect("the script has no more answers");
        match step {
            Step::Fail(error) => Err(error),
            Step::Hang => {
                let waited = call.patience.head.min(call.patience.first_byte);
                self.now_ms.fetch_add(waited.as_millis() as u64, Ordering::SeqCst);
                Err(UpstreamError::Timeout)
            }
            Step::Silent => std::future::pending().await,
            Step::Answer { status, content_type, chunks, then_hangs } => {
                self.open_bodies.fetch_add(1, Ordering::SeqCst);
                let guard = OpenBody(self.open_bodies.clone());
                let chunks = stream::iter(chunks).then(move |chunk| {
                    let _open = &guard;
                    async move {
                        give_way().await;
                        chunk
                    }
                });
                let body = if then_hangs { chunks.chain(stream::pending()).boxed() } else { chunks.boxed() };
                Ok(UpstreamAnswer { status, content_type: Some(content_type.to_owned()), body })
            }
        }
    }
}

struct OpenBody(Arc<AtomicUsize>);

impl Drop for OpenBody {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Vault for World {
    fn seal(&self, _: &Secret, _: &str, _: &str) -> Result<String, Unreadable> {
        Err(Unreadable::Refused)
    }
    fn open(&self, token: &str, model: &str, _: &str) -> Result<Opened, Unreadable> {
        assert_eq!(model, "m", "keys are bound to the logical model");
        let plaintext = token.strip_prefix("literal:").unwrap_or(token);
        if token == "tampered" {
            return Err(Unreadable::Refused);
        }
        Ok(Opened { plaintext: Secret::new(plaintext), with: MasterKey::Current })
    }
    fn fingerprint(&self, _: &str) -> String {
        "00000000".to_owned()
    }
}

impl Journal for World {
    fn record(&self, fact: Fact) {
        self.facts.lock().unwrap().push(fact);
    }
}

impl Tasks for World {
    fn spawn(&self, _: &'static str, job: BoxFuture<'static, ()>) {
        self.jobs.lock().unwrap().push(job);
    }
}

impl Clock for World {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::SeqCst))
    }
}

impl IdSource for World {
    fn id(&self) -> String {
        format!("id{}", self.ids.fetch_add(1, Ordering::SeqCst))
    }
    fn token(&self) -> String {
        self.id()
    }
}

#[async_trait]
impl ConfigStore for World {
    async fn find(&self, name: &'static str) -> Result<Option<Arc<ConfigEntry>>, Fault> {
        give_way().await;
        Ok(self.config.lock().unwrap().get(name).map(|json| Arc::new(ConfigEntry::new(json.clone()))))
    }
    async fn version(&self) -> Result<i64, Fault> {
        Ok(0)
    }
    async fn write(&self, _: &ConfigWrite) -> Result<WriteOutcome, Fault> {
        Err(unused())
    }
    fn changes(&self) -> BoxStream<'static, ConfigChange> {
        stream::pending().boxed()
    }
}

fn unused() -> Fault {
    Fault::new(FaultKind::Corrupt, "double", "not part of this world")
}

#[async_trait]
impl LedgerRepo for World {
    async fn find(&self, _: &UserId) -> Result<Standing, Fault> {
        Err(unused())
    }
    async fn open(&self, _: &UserId, _: &Opening) -> Result<OpenOutcome, Fault> {
        give_way().await;
        let flux = Flux::saturating(self.balance.load(Ordering::SeqCst));
        Ok(OpenOutcome::Found(Balance { flux, version: 1 }))
    }
    async fn debit(&self, debit: &Debit) -> Result<DebitOutcome, Fault> {
        give_way().await;
        let fails =
            self.debit_faults.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let commits = self.debit_commits_then_fails.load(Ordering::SeqCst);
        if fails && !commits {
            return Err(Fault::new(FaultKind::Unavailable, "debit", "gone"));
        }
        let mut debits = self.debits.lock().unwrap();
        if let Some((_, charged)) = debits.iter().find(|(done, _)| done.request == debit.request) {
            return Ok(DebitOutcome::Replayed { charged: *charged, after: Flux::ZERO });
        }
        let balance = Flux::saturating(self.balance.load(Ordering::SeqCst));
        let Some(drained) = drain(balance, debit.amount) else { return Ok(DebitOutcome::Refused) };
        self.balance.store(drained.left.get(), Ordering::SeqCst);
        debits.push((debit.clone(), drained.charged));
        if fails {
            return Err(Fault::new(FaultKind::Unavailable, "debit", "the commit was not heard"));
        }
        Ok(DebitOutcome::Charged { charged: drained.charged, balance: Balance { flux: drained.left, version: 2 } })
    }
    async fn credit(&self, _: &Credit) -> Result<CreditOutcome, Fault> {
        Err(unused())
    }
    async fn find_entry(&self, _: &UserId, _: &RequestId) -> Result<Option<Entry>, Fault> {
        Err(unused())
    }
    async fn list<'a>(&self, _: &UserId, _: Window, _: Option<&'a EntryId>) -> Result<Page<Entry>, Fault> {
        Err(unused())
    }
    async fn capacity(&self, _: &UserId) -> Result<Flux, Fault> {
        Err(unused())
    }
}

#[async_trait]
impl BalanceCache for World {
    async fn find(&self, _: &UserId) -> Result<Option<Flux>, Fault> {
        give_way().await;
        Ok(self.cached.lock().unwrap().map(Flux::saturating))
    }
    async fn fill(&self, _: &UserId, _: Balance) -> Result<(), Fault> {
        Ok(())
    }
    async fn offer(&self, _: &UserId, _: Balance) -> Result<(), Fault> {
        Ok(())
    }
    async fn forget(&self, _: &UserId) -> Result<(), Fault> {
        Ok(())
    }
}
