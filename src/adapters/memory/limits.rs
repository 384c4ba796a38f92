//! Fixed windows within one process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::core::model::limits::{Admission, Limit};
use crate::ports::Fault;
use crate::ports::limits::RateLimiter;
use crate::ports::runtime::Clock;

/// Counts in a map that holds at most about twice as many windows as are open.
pub struct MemoryLimits {
    windows: Mutex<Windows>,
    clock: Arc<dyn Clock>,
}

struct Windows {
    open: HashMap<(&'static str, String), Window>,
    /// The size at which ended windows are dropped next.
    sweep_at: usize,
}

struct Window {
    count: u64,
    ends_at: Duration,
}

/// Fewer windows than this are not worth a sweep.
const SMALLEST_SWEEP: usize = 1_024;

impl MemoryLimits {
    /// No call counted yet; `clock` ends the windows.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { windows: Mutex::new(Windows { open: HashMap::new(), sweep_at: SMALLEST_SWEEP }), clock }
    }
}

#[async_trait]
impl RateLimiter for MemoryLimits {
    async fn admit(&self, limit: &Limit, key: &str) -> Result<Admission, Fault> {
        let now = self.clock.elapsed();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.sweep(now);
        let window = windows
            .open
            .entry((limit.route, key.to_owned()))
            .and_modify(|window| {
                if window.ends_at <= now {
                    *window = Window { count: 0, ends_at: now + limit.window };
                }
            })
            .or_insert_with(|| Window { count: 0, ends_at: now + limit.window });
        window.count += 1;
        Ok(Admission::judge(limit, window.count, window.ends_at.saturating_sub(now)))
    }
}

impl Windows {
    /// Looks at every window only when their number has doubled since the last look: constant cost per call.
    fn sweep(&mut self, now: Duration) {
        if self.open.len() < self.sweep_at {
            return;
        }
        self.open.retain(|_, window| now < window.ends_at);
        self.sweep_at = (self.open.len() * 2).max(SMALLEST_SWEEP);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::ports::mocks::MockClock;

    #[tokio::test]
    async fn ended_windows_do_not_pile_up() {
        let seconds = Arc::new(AtomicU64::new(0));
        let mut clock = MockClock::new();
        let read = Arc::clone(&seconds);
        clock.expect_elapsed().returning(move || Duration::from_secs(read.load(Ordering::Relaxed)));
        let limits = MemoryLimits::new(Arc::new(clock));
        let limit = Limit { route: "r", max: 1, window: Duration::from_secs(1) };
        for second in 0..50 {
            seconds.store(second, Ordering::Relaxed);
            for caller in 0..200 {
                limits.admit(&limit, &format!("{second}-{caller}")).await.unwrap();
            }
        }
        assert!(limits.windows.lock().unwrap().open.len() <= SMALLEST_SWEEP);
    }
}
