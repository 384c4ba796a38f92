//! Counting elsewhere while the first counter is away.

use std::sync::Arc;

use async_trait::async_trait;

use crate::core::model::fact::Fact;
use crate::core::model::limits::{Admission, Limit};
use crate::ports::Fault;
use crate::ports::journal::Journal;
use crate::ports::limits::RateLimiter;

/// Asks the second limiter when the first one fails (contract `gateway.md` §9, GW-D17): without the shared counter
/// each process still keeps its own limit.
pub struct FallbackLimits {
    /// The shared counter.
    pub first: Arc<dyn RateLimiter>,
    /// The counter of this process.
    pub second: Arc<dyn RateLimiter>,
    /// Hears of each failure of the first.
    pub journal: Arc<dyn Journal>,
}

#[async_trait]
impl RateLimiter for FallbackLimits {
    async fn admit(&self, limit: &Limit, key: &str) -> Result<Admission, Fault> {
        match self.first.admit(limit, key).await {
            Ok(admission) => Ok(admission),
            Err(fault) => {
                self.journal.record(Fact::Degraded { operation: "limits.admit", cause: fault.to_string() });
                self.second.admit(limit, key).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::limits::CHAT_COMPLETIONS;
    use crate::ports::FaultKind;
    use crate::ports::mocks::{MockJournal, MockRateLimiter};

    fn limiter(answer: fn(&Limit) -> Result<Admission, Fault>, calls: usize) -> Arc<dyn RateLimiter> {
        let mut limiter = MockRateLimiter::new();
        limiter.expect_admit().times(calls).returning(move |limit, _| answer(limit));
        Arc::new(limiter)
    }

    fn second(limit: &Limit) -> Result<Admission, Fault> {
        Ok(Admission::judge(limit, 2, limit.window))
    }

    #[tokio::test]
    async fn the_second_counter_is_asked_when_the_first_fails_and_the_failure_is_told() {
        let mut journal = MockJournal::new();
        journal
            .expect_record()
            .withf(|fact| matches!(fact, Fact::Degraded { operation: "limits.admit", .. }))
            .times(1)
            .return_const(());
        let failing = |_: &Limit| Err(Fault::new(FaultKind::Unavailable, "redis.limits.admit", "gone"));
        let limits =
            FallbackLimits { first: limiter(failing, 1), second: limiter(second, 1), journal: Arc::new(journal) };
        assert_eq!(limits.admit(&CHAT_COMPLETIONS, "u").await.unwrap().remaining, 58);
    }

    #[tokio::test]
    async fn the_second_counter_is_not_asked_while_the_first_answers() {
        let first = |limit: &Limit| Ok(Admission::judge(limit, 1, limit.window));
        let limits = FallbackLimits {
            first: limiter(first, 1),
            second: limiter(second, 0),
            journal: Arc::new(MockJournal::new()),
        };
        assert_eq!(limits.admit(&CHAT_COMPLETIONS, "u").await.unwrap().remaining, 59);
    }
}
