//! Pooled connections that are thrown away when they fail, and a breaker that makes a dead Redis cheap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bb8_redis::RedisConnectionManager;
use bb8_redis::bb8::{self, ManageConnection, PooledConnection, RunError};
use bb8_redis::redis::aio::{ConnectionLike, MultiplexedConnection};
use bb8_redis::redis::{Cmd, ConnectionInfo, Pipeline, RedisError, RedisFuture, RedisResult, Value};
use tokio::sync::Notify;

use super::fault;
use crate::ports::{Fault, FaultKind};

const CONNECTIONS: u32 = 16;
/// Opening a connection and greeting the server.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Waiting for a free connection.
const WAIT_LIMIT: Duration = Duration::from_millis(250);
/// How long calls are refused after a failure before one of them may try again.
const REST: Duration = Duration::from_secs(1);

/// A bounded set of connections to one Redis.
pub(super) struct Pool {
    links: bb8::Pool<Links>,
    health: Arc<Health>,
}

impl Pool {
    pub(super) fn new(info: ConnectionInfo) -> Result<Self, RedisError> {
        let health = Arc::new(Health::new());
        let links = Links { inner: RedisConnectionManager::new(info)?, health: Arc::clone(&health) };
        // No PING at check-out: it would double the round trips. A link that fails says so itself (`has_broken`).
        let links = bb8::Pool::builder()
            .max_size(CONNECTIONS)
            .connection_timeout(WAIT_LIMIT)
            .retry_connection(false)
            .test_on_check_out(false)
            .build_unchecked(links);
        Ok(Self { links, health })
    }

    /// A connection that has not failed since it was opened.
    pub(super) async fn link(&self, operation: &'static str) -> Result<PooledConnection<'_, Links>, Fault> {
        if !self.health.may_try() {
            return Err(resting(operation));
        }
        loop {
            // Registered before the wait begins, so that a failure to connect in between is not slept through.
            let tripped = self.health.tripped.notified();
            let link = tokio::select! {
                link = self.links.get() => link,
                () = tripped => return Err(resting(operation)),
            };
            let mut link = match link {
                Ok(link) => link,
                Err(RunError::User(error)) => return Err(fault(operation, error)),
                Err(RunError::TimedOut) => {
                    // With connections open the pool is merely busy; without any, Redis does not let us in.
                    if self.links.state().connections == 0 {
                        self.health.trip();
                    }
                    return Err(Fault::new(FaultKind::Timeout, operation, "no connection became free in time"));
                }
            };
            if link.generation == self.health.generation.load(Ordering::Acquire) {
                return Ok(link);
            }
            link.broken = true;
        }
    }
}

fn resting(operation: &'static str) -> Fault {
    Fault::new(FaultKind::Unavailable, operation, "redis failed a moment ago")
}

/// Opens links and knows which ones are worth keeping.
pub(super) struct Links {
    inner: RedisConnectionManager,
    health: Arc<Health>,
}

impl ManageConnection for Links {
    type Connection = Link;
    type Error = RedisError;

    async fn connect(&self) -> Result<Link, RedisError> {
        // Read first: a failure that happens while we connect condemns this link, too.
        let generation = self.health.generation.load(Ordering::Acquire);
        let opened = match tokio::time::timeout(CONNECT_LIMIT, self.inner.connect()).await {
            Ok(opened) => opened,
            Err(_late) => Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))),
        };
        match opened {
            Ok(inner) => {
                self.health.heal();
                Ok(Link { inner, broken: false, generation, health: Arc::clone(&self.health) })
            }
            Err(error) => {
                self.health.trip();
                Err(error)
            }
        }
    }

    async fn is_valid(&self, link: &mut Link) -> Result<(), RedisError> {
        self.inner.is_valid(&mut link.inner).await
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.broken
    }
}

/// One connection; broken after the first failure of its transport.
pub(super) struct Link {
    inner: MultiplexedConnection,
    broken: bool,
    generation: u64,
    health: Arc<Health>,
}

impl Link {
    fn note<T>(&mut self, answer: &RedisResult<T>) {
        let Err(error) = answer else { return self.health.heal() };
        if !error.is_io_error() && !error.is_unrecoverable_error() {
            return self.health.heal();
        }
        self.broken = true;
        // Whatever broke this link broke the idle ones opened before it: none may fail a second call.
        let _ = self.health.generation.compare_exchange(
            self.generation,
            self.generation + 1,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        // A server that takes connections and does not answer costs its time-out each time; one that hung up may
        // be back already.
        if error.is_timeout() {
            self.health.trip();
        }
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let answer = self.inner.req_packed_command(cmd).await;
            self.note(&answer);
            answer
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let answer = self.inner.req_packed_commands(pipeline, offset, count).await;
            self.note(&answer);
            answer
        })
    }

    fn get_db(&self) -> i64 {
        self.inner.get_db()
    }
}

/// Whether Redis is worth asking. While it is not, one call per [`REST`] finds out.
struct Health {
    born: Instant,
    failing: AtomicBool,
    /// Milliseconds since `born` before which nobody tries.
    rest_until_ms: AtomicU64,
    /// Grows when a connection fails; older links are not used again.
    generation: AtomicU64,
    tripped: Notify,
}

impl Health {
    fn new() -> Self {
        Self {
            born: Instant::now(),
            failing: AtomicBool::new(false),
            rest_until_ms: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            tripped: Notify::new(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn may_try(&self) -> bool {
        if !self.failing.load(Ordering::Acquire) {
            return true;
        }
        let until = self.rest_until_ms.load(Ordering::Acquire);
        let now = self.now_ms();
        // The one that moves the end of the rest is the one that tries.
        now >= until
            && self.rest_until_ms.compare_exchange(until, now + rest_ms(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn trip(&self) {
        self.rest_until_ms.store(self.now_ms() + rest_ms(), Ordering::Release);
        self.failing.store(true, Ordering::Release);
        self.tripped.notify_waiters();
    }

    fn heal(&self) {
        self.failing.store(false, Ordering::Release);
    }
}

fn rest_ms() -> u64 {
    u64::try_from(REST.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_redis_fails_one_call_per_rest_may_try() {
        let health = Health::new();
        assert!(health.may_try() && health.may_try());
        health.trip();
        assert!(!health.may_try());
        health.rest_until_ms.store(0, Ordering::Release);
        assert!(health.may_try());
        assert!(!health.may_try());
        health.heal();
        assert!(health.may_try() && health.may_try());
    }
}
