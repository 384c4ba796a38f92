//! Is a dependency answering?

use async_trait::async_trait;

use super::Fault;

/// One dependency whose answer decides readiness.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Probe: Send + Sync {
    /// Asks the dependency for a sign of life. MUST answer within 2 s.
    async fn check(&self) -> Result<(), Fault>;
}
