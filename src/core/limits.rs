//! Who may do what how often.

use std::sync::Arc;

use super::model::fact::Fact;
use super::model::ids::UserId;
use super::model::limits::{Admission, Limit};
use crate::ports::journal::Journal;
use crate::ports::limits::RateLimiter;

/// Counts calls per user.
pub struct Limits {
    /// Where the counters live.
    pub limiter: Arc<dyn RateLimiter>,
    /// Hears about refusals and outages.
    pub journal: Arc<dyn Journal>,
}

impl Limits {
    /// Counts one call of a user. A limiter that cannot be reached admits: availability wins, money is guarded
    /// elsewhere.
    pub async fn admit(&self, limit: &Limit, user: &UserId) -> Admission {
        self.admit_key(limit, "user", user.as_str()).await
    }

    /// Counts one call of whatever `key` names; `key_type` labels the metric.
    pub async fn admit_key(&self, limit: &Limit, key_type: &'static str, key: &str) -> Admission {
        let admission = match self.limiter.admit(limit, key).await {
            Ok(admission) => admission,
            Err(fault) => {
                self.journal.record(Fact::Degraded { operation: "limits.admit", cause: fault.to_string() });
                return Admission::judge(limit, 1, limit.window);
            }
        };
        if !admission.admitted {
            self.journal.record(Fact::RateLimited { route: limit.route, key_type, limit: limit.max });
        }
        admission
    }

    /// The same for what is skipped rather than refused: nobody is told and nothing is recorded.
    pub async fn admit_silently(&self, limit: &Limit, key: &str) -> bool {
        match self.limiter.admit(limit, key).await {
            Ok(admission) => admission.admitted,
            Err(fault) => {
                self.journal.record(Fact::Degraded { operation: "limits.admit", cause: fault.to_string() });
                true
            }
        }
    }
}
