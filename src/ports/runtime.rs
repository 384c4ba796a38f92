//! What a process has and a function has not: time, fresh names, and work that outlives a request.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;

/// The time.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
pub trait Clock: Send + Sync {
    /// The wall clock, UTC.
    fn now(&self) -> DateTime<Utc>;
    /// Time since some fixed instant of this process; never goes back. For measuring.
    fn elapsed(&self) -> Duration;
    /// Resolves when that much time has passed. A clock that stands still lets nobody wait for it.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// Fresh, unguessable names.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
pub trait IdSource: Send + Sync {
    /// 21 characters of `0-9A-Z_a-z-` (126 bits), the id of our own tables and of requests.
    fn id(&self) -> String;
    /// 32 characters of `A-Za-z0-9`, the id and token form of the identity tables.
    fn token(&self) -> String;
}

/// Work that must finish although nobody waits for it.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
pub trait Tasks: Send + Sync {
    /// Starts a job. The live adapter tracks it and shutdown waits for it; the frozen one keeps it for the test.
    fn spawn(&self, name: &'static str, job: BoxFuture<'static, ()>);
}
