//! Doubles of the process for tests: a clock you turn, names you can predict, work you run by hand.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;

use crate::ports::runtime::{Clock, IdSource, Tasks};

/// A clock that stands still until it is turned.
#[derive(Debug)]
pub struct FrozenClock {
    start: DateTime<Utc>,
    passed_ms: AtomicU64,
}

impl FrozenClock {
    /// Stands at `start`.
    pub fn at(start: DateTime<Utc>) -> Self {
        Self { start, passed_ms: AtomicU64::new(0) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.passed_ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for FrozenClock {
    fn now(&self) -> DateTime<Utc> {
        let passed = i64::try_from(self.passed_ms.load(Ordering::SeqCst)).unwrap_or(i64::MAX);
        self.start + TimeDelta::milliseconds(passed)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.passed_ms.load(Ordering::SeqCst))
    }

    fn sleep(&self, _time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Names that count up, in the right length and alphabet.
#[derive(Debug, Default)]
pub struct CountingIds {
    next: AtomicU64,
}

impl IdSource for CountingIds {
    fn id(&self) -> String {
        format!("id{:019}", self.next.fetch_add(1, Ordering::SeqCst))
    }

    fn token(&self) -> String {
        format!("tk{:030}", self.next.fetch_add(1, Ordering::SeqCst))
    }
}

/// Work that waits until the test runs it.
#[derive(Default)]
pub struct HeldTasks {
    jobs: Mutex<Vec<BoxFuture<'static, ()>>>,
}

impl HeldTasks {
    /// How many jobs wait.
    pub fn waiting(&self) -> usize {
        self.jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }

    /// Runs every waiting job, and those they start, to its end.
    pub async fn run(&self) {
        loop {
            let jobs = std::mem::take(&mut *self.jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
            if jobs.is_empty() {
                return;
            }
            for job in jobs {
                job.await;
            }
        }
    }
}

impl Tasks for HeldTasks {
    fn spawn(&self, _name: &'static str, job: BoxFuture<'static, ()>) {
        self.jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(job);
    }
}
