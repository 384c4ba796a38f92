//! Where facts go.

use crate::core::model::fact::Fact;

/// Takes facts for metrics, logs and rows.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
pub trait Journal: Send + Sync {
    /// Records one fact. MUST NOT block or fail: queues are bounded and count what they drop.
    fn record(&self, fact: Fact);
}
