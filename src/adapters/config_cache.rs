//! Copies of configuration entries, so that a request does not wait for the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

use crate::core::model::config::{ConfigChange, ConfigEntry, ConfigKey, ConfigWrite, LlmRouterConfig, WriteOutcome};
use crate::core::model::fact::Fact;
use crate::ports::config::ConfigStore;
use crate::ports::journal::Journal;
use crate::ports::runtime::Clock;
use crate::ports::{Fault, FaultKind};

/// Keeps what another store answered (contract `gateway.md` §12.1).
///
/// - A copy answers for 5 s, or until a change of its entry is heard; that nothing is stored is a copy, too.
/// - Callers that miss at the same time share one look-up (GW-D18).
/// - A look-up that began before a change does not become a copy after it (GW-D19).
/// - While the store fails, the last good answer serves for up to 10 minutes (GW-D24).
/// - Whoever writes through it reads the written value next, even if the store fails meanwhile.
pub struct CachedConfig {
    inner: Arc<dyn ConfigStore>,
    clock: Arc<dyn Clock>,
    copies: Arc<Copies>,
    listener: AbortHandle,
}

/// How long a copy answers.
const FRESH: Duration = Duration::from_secs(5);
/// How long the last good answer may stand in for a failing store.
const STALE: Duration = Duration::from_mins(10);
/// Changes a listener may leave unread before it is told of a gap instead.
const UNREAD: usize = 64;

impl CachedConfig {
    /// Starts to listen for changes of `inner`; needs a tokio runtime. `journal` hears of reloads of the routing
    /// document and of each use of an expired copy.
    pub fn start(inner: Arc<dyn ConfigStore>, clock: Arc<dyn Clock>, journal: Arc<dyn Journal>) -> Self {
        let (heard, _) = broadcast::channel(UNREAD);
        let copies = Arc::new(Copies { entries: Mutex::default(), journal, heard });
        let mut changes = inner.changes();
        let listening = Arc::clone(&copies);
        #[expect(clippy::disallowed_methods, reason = "ends with the cache; it has nothing to finish at shutdown")]
        let listener = tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                listening.invalidate(&change);
            }
        });
        Self { inner, clock, copies, listener: listener.abort_handle() }
    }

    /// Asks the store, once for all that wait.
    async fn load(&self, name: &'static str, entry: &Entry) -> Result<Option<Arc<ConfigEntry>>, Fault> {
        let failures = entry.state().failures;
        let _turn = entry.turn.lock().await;
        let (generation, expired) = {
            let state = entry.state();
            if let Some(value) = state.fresh(self.clock.elapsed()) {
                return Ok(value);
            }
            if state.failures != failures {
                // The one we waited for was refused; asking again would make the queue wait once each.
                let shared = Fault::new(state.failure, "config_cache.find", "the store failed while we waited");
                return self.stand_in(&state, shared);
            }
            (state.generation, state.good.is_some() && state.valid)
        };
        match self.inner.find(name).await {
            Ok(value) => {
                let mut state = entry.state();
                if state.generation == generation {
                    state.good = Some(Copy { value: value.clone(), at: self.clock.elapsed() });
                    state.valid = true;
                }
                drop(state);
                if expired && name == LlmRouterConfig::NAME {
                    self.copies.journal.record(Fact::ConfigReloaded { source: "ttl" });
                }
                Ok(value)
            }
            Err(fault) => {
                let mut state = entry.state();
                state.failures += 1;
                state.failure = fault.kind();
                self.stand_in(&state, fault)
            }
        }
    }

    fn stand_in(&self, state: &State, fault: Fault) -> Result<Option<Arc<ConfigEntry>>, Fault> {
        match &state.good {
            Some(copy) if self.clock.elapsed().saturating_sub(copy.at) <= STALE => {
                self.copies.journal.record(Fact::ConfigStaleUse);
                Ok(copy.value.clone())
            }
            _ => Err(fault),
        }
    }
}

impl Drop for CachedConfig {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

#[async_trait]
impl ConfigStore for CachedConfig {
    async fn find(&self, name: &'static str) -> Result<Option<Arc<ConfigEntry>>, Fault> {
        let entry = self.copies.entry(name);
        if let Some(value) = entry.state().fresh(self.clock.elapsed()) {
            return Ok(value);
        }
        self.load(name, &entry).await
    }

    async fn version(&self) -> Result<i64, Fault> {
        self.inner.version().await
    }

    async fn write(&self, write: &ConfigWrite) -> Result<WriteOutcome, Fault> {
        // Held across the call: a write that fails or is abandoned half-way may have been stored all the same.
        let _spent = Spent { copies: &self.copies, write };
        let outcome = self.inner.write(write).await?;
        if let WriteOutcome::Written(_) = outcome {
            for (name, json) in &write.entries {
                let value = json.as_deref().map(|json| Arc::new(ConfigEntry::new(json)));
                let at = self.clock.elapsed();
                // Not a valid copy, since somebody else may have written since, but good enough to stand in.
                self.copies.entry(name).state().good = Some(Copy { value, at });
            }
        }
        Ok(outcome)
    }

    /// Heard after the copies are gone, so that whoever reads on hearing reads the new value.
    fn changes(&self) -> BoxStream<'static, ConfigChange> {
        stream::unfold(self.copies.heard.subscribe(), |mut heard| async {
            match heard.recv().await {
                Ok(change) => Some((change, heard)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((ConfigChange::Gap, heard)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .boxed()
    }
}

/// Ends the copies of written entries when dropped.
struct Spent<'a> {
    copies: &'a Copies,
    write: &'a ConfigWrite,
}

impl Drop for Spent<'_> {
    fn drop(&mut self) {
        for (name, _) in &self.write.entries {
            self.copies.entry(name).state().invalidate();
        }
    }
}

struct Copies {
    entries: Mutex<HashMap<&'static str, Arc<Entry>>>,
    journal: Arc<dyn Journal>,
    heard: broadcast::Sender<ConfigChange>,
}

impl Copies {
    fn entry(&self, name: &'static str) -> Arc<Entry> {
        Arc::clone(self.entries().entry(name).or_default())
    }

    fn invalidate(&self, change: &ConfigChange) {
        let affected: Vec<_> = match change {
            ConfigChange::Entry(name) => self.entries().get(name.as_str()).cloned().into_iter().collect(),
            ConfigChange::Gap => self.entries().values().cloned().collect(),
        };
        affected.iter().for_each(|entry| entry.state().invalidate());
        let router = match change {
            ConfigChange::Entry(name) => name == LlmRouterConfig::NAME,
            ConfigChange::Gap => true,
        };
        if router {
            self.journal.record(Fact::ConfigReloaded { source: "pubsub" });
        }
        // Fails when nobody listens.
        let _ = self.heard.send(change.clone());
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<&'static str, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Entry {
    state: Mutex<State>,
    /// Held by the one that asks the store.
    turn: tokio::sync::Mutex<()>,
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct State {
    /// The last good answer.
    good: Option<Copy>,
    /// Whether no change has been heard since that answer was asked for.
    valid: bool,
    /// Grows with every change heard.
    generation: u64,
    /// Grows with every failed look-up.
    failures: u64,
    failure: FaultKind,
}

struct Copy {
    value: Option<Arc<ConfigEntry>>,
    at: Duration,
}

impl Default for State {
    fn default() -> Self {
        Self { good: None, valid: false, generation: 0, failures: 0, failure: FaultKind::Unavailable }
    }
}

impl State {
    fn fresh(&self, now: Duration) -> Option<Option<Arc<ConfigEntry>>> {
        let copy = self.good.as_ref().filter(|copy| self.valid && now.saturating_sub(copy.at) < FRESH)?;
        Some(copy.value.clone())
    }

    fn invalidate(&mut self) {
        self.valid = false;
        self.generation += 1;
    }
}
