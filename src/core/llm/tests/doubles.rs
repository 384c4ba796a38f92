//! A world whose upstream follows a script, whose clock moves only when told, and whose every await gives way once.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::core::config::Config;
use crate::core::error::Error;
use crate::core::health::{LastAnswer, Liveness};
use crate::core::ledger::Ledger;
use crate::core::llm::{Completion, CompletionCall, Completions, RoutingPolicy, Settle, UsageRefusals, Walk};
use crate::core::model::fact::{Fact, StreamEnd};
use crate::core::model::hold::Hold;
use crate::core::model::ids::{RequestId, UserId};
use crate::core::model::ledger::{Debit, Flux};
use crate::core::model::request_log::LoggedRequest;
use crate::ports::idempotency::MockIdempotencyRepo;
use crate::ports::llm::UpstreamCall;
use crate::ports::upstream::UpstreamError;

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
    pub(super) holds: Mutex<HashMap<RequestId, Flux>>,
    /// Every hold and extension that was granted.
    pub(super) held_ever: Mutex<Vec<Hold>>,
    pub(super) hold_faults: AtomicUsize,
    pub(super) debits: Mutex<Vec<(Debit, Flux)>>,
    pub(super) debit_faults: AtomicUsize,
    pub(super) debit_commits_then_fails: AtomicBool,
    pub(super) open_bodies: Arc<AtomicUsize>,
    pub(super) jobs: Mutex<Vec<BoxFuture<'static, ()>>>,
    pub(super) ids: AtomicU64,
}

/// Pending once, so that a future can be dropped here.
pub(super) async fn give_way() {
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
        let world = Arc::new(world);
        world.set("FLUX_ADMISSION", "\"post_debit\"");
        world
    }

    /// What an operator gets who sets nothing: the price of a call is set aside first.
    pub(super) fn holding(self: Arc<Self>) -> Arc<Self> {
        self.config.lock().unwrap().remove("FLUX_ADMISSION");
        self
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
        let storage = Liveness { probe: self.clone(), clock: self.clone(), last: LastAnswer::default() };
        Completions {
            config,
            ledger,
            walk,
            settle,
            storage,
            keys: Arc::new(MockIdempotencyRepo::new()),
            counter: self.clone(),
            clock: self.clone(),
        }
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
