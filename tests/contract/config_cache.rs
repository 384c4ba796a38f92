//! `CachedConfig`: copies that are fresh, shared and never put back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use airi_server::adapters::config_cache::CachedConfig;
use airi_server::core::model::config::{ConfigChange, ConfigEntry, ConfigWrite, WriteOutcome};
use airi_server::core::model::fact::Fact;
use airi_server::ports::config::ConfigStore;
use airi_server::ports::{Fault, FaultKind};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::{Semaphore, broadcast};

use super::world::{HandClock, Notebook, eventually, soon};

const ROUTER: &str = "LLM_ROUTER_CONFIG";

/// A store whose answers can be held up, changed and refused.
struct Store {
    json: Mutex<Option<String>>,
    failing: AtomicBool,
    looked_up: AtomicUsize,
    /// A look-up reads its answer, then waits here.
    gate: Semaphore,
    changes: broadcast::Sender<ConfigChange>,
}

#[async_trait]
impl ConfigStore for Store {
    async fn find(&self, _name: &'static str) -> Result<Option<Arc<ConfigEntry>>, Fault> {
        self.looked_up.fetch_add(1, Ordering::SeqCst);
        let answer = self.json.lock().unwrap().clone();
        let failing = self.failing.load(Ordering::SeqCst);
        drop(self.gate.acquire().await.unwrap());
        if failing {
            return Err(Fault::new(FaultKind::Timeout, "store.find", "down"));
        }
        Ok(answer.map(|json| Arc::new(ConfigEntry::new(json))))
    }

    async fn version(&self) -> Result<i64, Fault> {
        Ok(7)
    }

    async fn write(&self, write: &ConfigWrite) -> Result<WriteOutcome, Fault> {
        self.json.lock().unwrap().clone_from(&write.entries[0].1);
        Ok(WriteOutcome::Written(8))
    }

    fn changes(&self) -> BoxStream<'static, ConfigChange> {
        stream::unfold(self.changes.subscribe(), |mut changes| async { Some((changes.recv().await.ok()?, changes)) })
            .boxed()
    }
}

struct World {
    store: Arc<Store>,
    clock: Arc<HandClock>,
    journal: Arc<Notebook>,
    cache: Arc<CachedConfig>,
}

impl World {
    fn new(json: Option<&str>) -> Self {
        let store = Arc::new(Store {
            json: Mutex::new(json.map(str::to_owned)),
            failing: AtomicBool::new(false),
            looked_up: AtomicUsize::new(0),
            gate: Semaphore::new(1),
            changes: broadcast::channel(16).0,
        });
        let (clock, journal) = (Arc::new(HandClock::default()), Arc::new(Notebook::default()));
        let cache = Arc::new(CachedConfig::start(store.clone(), clock.clone(), journal.clone()));
        Self { store, clock, journal, cache }
    }

    async fn read(&self) -> Result<Option<String>, Fault> {
        Ok(self.cache.find(ROUTER).await?.map(|entry| entry.json().to_owned()))
    }

    async fn value(&self) -> String {
        self.read().await.unwrap().unwrap()
    }

    fn set(&self, json: &str) {
        *self.store.json.lock().unwrap() = Some(json.to_owned());
    }

    fn looked_up(&self) -> usize {
        self.store.looked_up.load(Ordering::SeqCst)
    }

    fn reloads(&self, by: &str) -> usize {
        self.journal.count(|fact| matches!(fact, Fact::ConfigReloaded { source } if *source == by))
    }

    fn stale_uses(&self) -> usize {
        self.journal.count(|fact| matches!(fact, Fact::ConfigStaleUse))
    }

    /// Announces a change and waits until it has been heard.
    async fn announce(&self, change: ConfigChange) {
        let mut heard = self.cache.changes();
        self.store.changes.send(change.clone()).unwrap();
        assert_eq!(soon("the change", heard.next()).await, Some(change));
    }
}

#[tokio::test]
async fn a_copy_answers_for_five_seconds() {
    let world = World::new(Some("1"));
    assert_eq!(world.value().await, "1");
    world.set("2");
    world.clock.turn(Duration::from_millis(4_999));
    assert_eq!(world.value().await, "1");
    assert_eq!(world.reloads("ttl"), 0);
    world.clock.turn(Duration::from_millis(1));
    assert_eq!(world.value().await, "2");
    assert_eq!((world.looked_up(), world.reloads("ttl")), (2, 1));
}

#[tokio::test]
async fn that_nothing_is_stored_is_remembered_too() {
    let world = World::new(None);
    assert_eq!(world.read().await.unwrap(), None);
    assert_eq!(world.read().await.unwrap(), None);
    assert_eq!(world.looked_up(), 1);
}

#[tokio::test]
async fn callers_that_miss_together_share_one_look_up() {
    let world = World::new(Some("1"));
    let held = world.store.gate.acquire().await.unwrap();
    let crowd = futures::future::join_all((0..50).map(|_| world.value()));
    let open = async {
        eventually("a look-up", || async { world.looked_up() == 1 }).await;
        drop(held);
    };
    let (values, ()) = futures::join!(crowd, open);
    assert!(values.iter().all(|value| value == "1"));
    assert_eq!(world.looked_up(), 1);
}

#[tokio::test]
async fn a_change_ends_the_copy_of_its_entry_only() {
    let world = World::new(Some("1"));
    assert_eq!(world.value().await, "1");
    world.set("2");
    world.announce(ConfigChange::Entry("FLUX_PER_REQUEST".to_owned())).await;
    assert_eq!(world.value().await, "1");
    assert_eq!(world.reloads("pubsub"), 0);
    world.announce(ConfigChange::Entry(ROUTER.to_owned())).await;
    assert_eq!(world.value().await, "2");
    assert_eq!((world.reloads("pubsub"), world.reloads("ttl")), (1, 0));
}

#[tokio::test]
async fn a_gap_ends_every_copy() {
    let world = World::new(Some("1"));
    assert_eq!(world.value().await, "1");
    world.set("2");
    world.announce(ConfigChange::Gap).await;
    assert_eq!(world.value().await, "2");
}

#[tokio::test]
async fn a_look_up_that_began_before_a_change_is_not_kept_after_it() {
    let world = World::new(Some("1"));
    let held = world.store.gate.acquire().await.unwrap();
    let change = async {
        eventually("a look-up", || async { world.looked_up() == 1 }).await;
        world.set("2");
        world.announce(ConfigChange::Entry(ROUTER.to_owned())).await;
        drop(held);
    };
    let (early, ()) = futures::join!(world.value(), change);
    assert_eq!(early, "1");
    assert_eq!(world.value().await, "2");
}

#[tokio::test]
async fn while_the_store_fails_the_last_good_answer_serves_for_ten_minutes() {
    let world = World::new(Some("1"));
    assert_eq!(world.value().await, "1");
    world.store.failing.store(true, Ordering::SeqCst);
    world.announce(ConfigChange::Gap).await;
    assert_eq!(world.value().await, "1");
    world.clock.turn(Duration::from_mins(10));
    assert_eq!(world.value().await, "1");
    assert_eq!(world.stale_uses(), 2);
    world.clock.turn(Duration::from_millis(1));
    assert_eq!(world.read().await.unwrap_err().kind(), FaultKind::Timeout);
    world.store.failing.store(false, Ordering::SeqCst);
    assert_eq!(world.value().await, "1");
    assert_eq!(world.stale_uses(), 2);
}

#[tokio::test]
async fn a_failure_is_shared_by_all_that_waited_for_it_and_by_nobody_else() {
    let world = World::new(Some("1"));
    world.store.failing.store(true, Ordering::SeqCst);
    let held = world.store.gate.acquire().await.unwrap();
    let crowd = futures::future::join_all((0..50).map(|_| world.read()));
    let open = async {
        eventually("a look-up", || async { world.looked_up() == 1 }).await;
        drop(held);
    };
    let (answers, ()) = futures::join!(crowd, open);
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(world.looked_up(), 1);
    world.store.failing.store(false, Ordering::SeqCst);
    assert_eq!(world.value().await, "1");
}

#[tokio::test]
async fn the_writer_reads_what_it_wrote_even_if_the_store_fails_afterwards() {
    let world = World::new(Some("1"));
    assert_eq!(world.value().await, "1");
    let write = |json: &str| ConfigWrite { entries: vec![(ROUTER, Some(json.to_owned()))], expected_version: None };
    assert_eq!(world.cache.write(&write("2")).await.unwrap(), WriteOutcome::Written(8));
    assert_eq!(world.value().await, "2");
    world.cache.write(&write("3")).await.unwrap();
    world.store.failing.store(true, Ordering::SeqCst);
    assert_eq!(world.value().await, "3");
    assert_eq!(world.cache.version().await.unwrap(), 7);
}

#[tokio::test]
async fn an_abandoned_look_up_holds_nobody_up() {
    let world = World::new(Some("1"));
    let held = world.store.gate.acquire().await.unwrap();
    let mut abandoned = Box::pin(world.read());
    assert!(futures::poll!(&mut abandoned).is_pending());
    drop(abandoned);
    drop(held);
    assert_eq!(soon("the next look-up", world.value()).await, "1");
}
