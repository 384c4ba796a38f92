//! Clocks, journals and patience for cases that need no service.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use airi_server::core::model::fact::Fact;
use airi_server::core::model::ids::UserId;
use airi_server::ports::journal::Journal;
use airi_server::ports::runtime::Clock;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;

/// A user nobody else talks about, in this run or another.
pub(crate) fn somebody() -> UserId {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    UserId::new(format!("u{}-{nanos}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// Time as it passes.
pub(crate) struct RealClock(pub(crate) Instant);

impl Clock for RealClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + self.elapsed()
    }
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// Time that passes when told to.
#[derive(Default)]
pub(crate) struct HandClock(AtomicU64);

impl HandClock {
    pub(crate) fn turn(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + self.elapsed()
    }
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Keeps what it is told.
#[derive(Default)]
pub(crate) struct Notebook(Mutex<Vec<Fact>>);

impl Notebook {
    pub(crate) fn count(&self, which: impl Fn(&Fact) -> bool) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|fact| which(fact)).count()
    }
}

impl Journal for Notebook {
    fn record(&self, fact: Fact) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fact);
    }
}

/// Asks again until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, ask: impl Fn() -> F) {
    let start = Instant::now();
    while !ask().await {
        assert!(start.elapsed() < Duration::from_secs(20), "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The answer, unless it takes for ever.
pub(crate) async fn soon<T>(what: &str, answer: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), answer).await {
        Ok(answer) => answer,
        Err(_) => panic!("never happened: {what}"),
    }
}
