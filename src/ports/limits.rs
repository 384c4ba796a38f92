//! How often something may be done, and how many at once.

use std::time::Duration;

use async_trait::async_trait;

use super::Fault;
use crate::core::model::limits::{Admission, Limit};

/// Counts calls in fixed windows that start with the first call.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait RateLimiter: Send + Sync {
    /// Counts one call of `key` and judges it; refused calls count too.
    async fn admit(&self, limit: &Limit, key: &str) -> Result<Admission, Fault>;
}

/// Leases on a bounded number of places.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Slots: Send + Sync {
    /// Takes one of `max` places of `pool` for `holder`, unless all are taken. A lease not released is void after
    /// `lease`, so a process that dies blocks nobody for longer.
    async fn acquire(&self, pool: &str, holder: &str, max: u32, lease: Duration) -> Result<bool, Fault>;

    /// Gives the place back; harmless when it is gone.
    async fn release(&self, pool: &str, holder: &str) -> Result<(), Fault>;

    /// How many places of the pool are taken.
    async fn taken(&self, pool: &str) -> Result<u32, Fault>;
}
