//! What is published on Redis, heard on one connection for the whole process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisResult, Value, cmd};
use tokio::sync::{mpsc, watch};

use super::Redis;
use crate::core::model::fact::Fact;
use crate::ports::Fault;
use crate::ports::journal::Journal;

/// What a listener is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// Somebody published this.
    Message(&'a [u8]),
    /// The connection was away; messages may have been missed.
    Gap,
}

/// Called for every delivery, in order. MUST NOT block: all channels wait for it.
pub type Sink = Arc<dyn Fn(Delivery<'_>) + Send + Sync>;

/// The subscriber connection; clones share it. It closes when the last clone and subscription are gone.
#[derive(Clone)]
pub struct Bus {
    registry: Arc<Registry>,
    changed: mpsc::UnboundedSender<String>,
}

impl Bus {
    /// Starts to connect, for as long as it takes; needs a tokio runtime. `journal` hears `connected` after each
    /// connection whose channels are subscribed, `reconnecting` when it is lost, `error` for each failed attempt.
    pub fn start(redis: &Redis, journal: Arc<dyn Journal>) -> Result<Self, Fault> {
        let client = redis.push_client()?;
        let (changed, changes) = mpsc::unbounded_channel();
        let registry = Arc::new(Registry::default());
        let subscriber = Subscriber { client, registry: Arc::clone(&registry), changes, journal };
        #[expect(clippy::disallowed_methods, reason = "ends with the bus; nothing is lost when shutdown cuts it off")]
        tokio::spawn(subscriber.run());
        Ok(Self { registry, changed })
    }

    /// Calls `sink` for what arrives on `channel` until the subscription is dropped. Wait for
    /// [`Subscription::confirmed`] before relying on it.
    pub fn listen(&self, channel: String, sink: Sink) -> Subscription {
        let id = self.registry.next_id.fetch_add(1, Ordering::Relaxed);
        let mut topics = self.registry.topics();
        let topic = topics.entry(channel.clone()).or_insert_with(Topic::new);
        topic.sinks.push((id, sink));
        let confirmed = topic.confirmed.subscribe();
        // Sent under the lock, so that the subscriber hears of changes in the order they were made.
        let _ = self.changed.send(channel.clone());
        drop(topics);
        Subscription { bus: self.clone(), channel, id, confirmed }
    }
}

/// One listener's place on a channel; the channel is left when its last listener goes.
pub struct Subscription {
    bus: Bus,
    channel: String,
    id: u64,
    confirmed: watch::Receiver<bool>,
}

/// How long a new listener waits for Redis to confirm its channel.
const CONFIRM_LIMIT: Duration = Duration::from_millis(500);

impl Subscription {
    /// Returns once nothing published from now on is missed. While Redis is away it returns, too, and the
    /// listener gets a [`Delivery::Gap`] when the channel is there.
    pub async fn confirmed(&self) {
        let mut confirmed = self.confirmed.clone();
        if !self.bus.registry.down.load(Ordering::Acquire)
            && tokio::time::timeout(CONFIRM_LIMIT, confirmed.wait_for(|confirmed| *confirmed)).await.is_ok()
        {
            return;
        }
        if let Some(topic) = self.bus.registry.topics().get_mut(&self.channel) {
            topic.missed |= !*topic.confirmed.borrow();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut topics = self.bus.registry.topics();
        let Some(topic) = topics.get_mut(&self.channel) else { return };
        topic.sinks.retain(|(id, _)| *id != self.id);
        if topic.sinks.is_empty() {
            topics.remove(&self.channel);
            let _ = self.bus.changed.send(std::mem::take(&mut self.channel));
        }
    }
}

/// Who listens to what.
#[derive(Default)]
struct Registry {
    topics: Mutex<HashMap<String, Topic>>,
    next_id: AtomicU64,
    /// The last attempt to connect failed: waiting for a confirmation is idle.
    down: AtomicBool,
}

struct Topic {
    sinks: Vec<(u64, Sink)>,
    /// Whether the current connection is subscribed.
    confirmed: watch::Sender<bool>,
    /// Whether a listener may have missed something before that.
    missed: bool,
}

impl Topic {
    fn new() -> Self {
        Self { sinks: Vec::new(), confirmed: watch::Sender::new(false), missed: false }
    }

    fn sinks(&self) -> Vec<Sink> {
        self.sinks.iter().map(|(_, sink)| Arc::clone(sink)).collect()
    }
}

impl Registry {
    fn topics(&self) -> MutexGuard<'_, HashMap<String, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unconfirmed(&self) -> Vec<String> {
        self.topics().iter().filter(|(_, topic)| !*topic.confirmed.borrow()).map(|(name, _)| name.clone()).collect()
    }

    fn confirm(&self, channels: &[String]) {
        let mut gaps = Vec::new();
        let mut topics = self.topics();
        for channel in channels {
            let Some(topic) = topics.get_mut(channel) else { continue };
            topic.confirmed.send_replace(true);
            if std::mem::take(&mut topic.missed) {
                gaps.extend(topic.sinks());
            }
        }
        drop(topics);
        gaps.iter().for_each(|sink| sink(Delivery::Gap));
    }

    fn lost(&self) {
        for topic in self.topics().values_mut() {
            topic.missed |= topic.confirmed.send_replace(false);
        }
    }

    fn deliver(&self, push: &PushInfo) {
        let [channel, message] = push.data.as_slice() else { return };
        let (Some(channel), Some(message)) = (bytes(channel), bytes(message)) else { return };
        let Ok(channel) = std::str::from_utf8(channel) else { return };
        let sinks = self.topics().get(channel).map(Topic::sinks).unwrap_or_default();
        sinks.iter().for_each(|sink| sink(Delivery::Message(message)));
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// The task that owns the connection and keeps its channels equal to the registry's.
struct Subscriber {
    client: Client,
    registry: Arc<Registry>,
    changes: mpsc::UnboundedReceiver<String>,
    journal: Arc<dyn Journal>,
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// How often the connection is asked for a sign of life: a peer that vanished without a word is noticed this way.
const PULSE: Duration = Duration::from_secs(10);
/// Changes looked at together, so that a crowd of new listeners costs one round trip.
const BATCH: usize = 256;

/// Why a connection is no longer served.
enum End {
    /// It failed.
    Lost,
    /// Nobody can ask for anything any more.
    Abandoned,
}

impl Subscriber {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Ok((connection, pushes)) = self.connect().await else {
                self.registry.down.store(true, Ordering::Release);
                self.journal.record(Fact::SubscriberState { state: "error" });
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                if self.abandoned() {
                    return;
                }
                continue;
            };
            pause = FIRST_PAUSE;
            self.registry.down.store(false, Ordering::Release);
            self.journal.record(Fact::SubscriberState { state: "connected" });
            let end = self.serve(connection, pushes).await;
            self.registry.lost();
            if matches!(end, End::Abandoned) {
                return;
            }
            self.journal.record(Fact::SubscriberState { state: "reconnecting" });
        }
    }

    async fn connect(&self) -> RedisResult<(MultiplexedConnection, mpsc::UnboundedReceiver<PushInfo>)> {
        let (push, pushes) = mpsc::unbounded_channel();
        let config = AsyncConnectionConfig::new()
            .set_push_sender(push)
            .set_connection_timeout(Some(ANSWER_LIMIT))
            .set_response_timeout(Some(ANSWER_LIMIT));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        self.subscribe(&mut connection, self.registry.unconfirmed()).await?;
        Ok((connection, pushes))
    }

    async fn serve(
        &mut self,
        mut connection: MultiplexedConnection,
        mut pushes: mpsc::UnboundedReceiver<PushInfo>,
    ) -> End {
        let mut pulse = tokio::time::interval(PULSE);
        let mut changed = Vec::with_capacity(BATCH);
        loop {
            let alive = tokio::select! {
                push = pushes.recv() => match push {
                    Some(push) if push.kind == PushKind::Message => { self.registry.deliver(&push); Ok(()) }
                    Some(push) if push.kind != PushKind::Disconnection => Ok(()),
                    _ => return End::Lost,
                },
                count = self.changes.recv_many(&mut changed, BATCH) => {
                    if count == 0 {
                        return End::Abandoned;
                    }
                    self.follow(&mut connection, &mut changed).await
                }
                _ = pulse.tick() => cmd("PING").exec_async(&mut connection).await,
            };
            if alive.is_err() {
                return End::Lost;
            }
        }
    }

    /// Looks up what became of the changed channels rather than replaying the changes: a channel that was left
    /// and joined again in between needs nothing.
    async fn follow(&self, connection: &mut MultiplexedConnection, changed: &mut Vec<String>) -> RedisResult<()> {
        changed.sort_unstable();
        changed.dedup();
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        {
            let topics = self.registry.topics();
            for channel in changed.drain(..) {
                match topics.get(&channel) {
                    None => left.push(channel),
                    Some(topic) if !*topic.confirmed.borrow() => joined.push(channel),
                    Some(_) => {}
                }
            }
        }
        if !left.is_empty() {
            connection.unsubscribe(&left).await?;
        }
        self.subscribe(connection, joined).await
    }

    async fn subscribe(&self, connection: &mut MultiplexedConnection, channels: Vec<String>) -> RedisResult<()> {
        if channels.is_empty() {
            return Ok(());
        }
        connection.subscribe(&channels).await?;
        self.registry.confirm(&channels);
        Ok(())
    }

    /// Forgets the changes of an outage, since a new connection subscribes to everything anyway, and says whether
    /// anybody is left.
    fn abandoned(&mut self) -> bool {
        loop {
            match self.changes.try_recv() {
                Ok(_) => {}
                Err(mpsc::error::TryRecvError::Empty) => return false,
                Err(mpsc::error::TryRecvError::Disconnected) => return true,
            }
        }
    }
}
