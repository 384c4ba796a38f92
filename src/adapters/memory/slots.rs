//! Places within one process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::ports::Fault;
use crate::ports::limits::Slots;
use crate::ports::runtime::Clock;

/// Leases in a map: pool to holder to end.
pub struct MemorySlots {
    pools: Mutex<Pools>,
    clock: Arc<dyn Clock>,
}

type Pools = HashMap<String, HashMap<String, Duration>>;

impl MemorySlots {
    /// All places free; `clock` ends the leases.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { pools: Mutex::default(), clock }
    }

    /// The pools, without what has ended in the one named.
    fn current(&self, pool: &str) -> MutexGuard<'_, Pools> {
        let now = self.clock.elapsed();
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leases) = pools.get_mut(pool) {
            leases.retain(|_, end| now < *end);
            if leases.is_empty() {
                pools.remove(pool);
            }
        }
        pools
    }
}

#[async_trait]
impl Slots for MemorySlots {
    async fn acquire(&self, pool: &str, holder: &str, max: u32, lease: Duration) -> Result<bool, Fault> {
        let end = self.clock.elapsed() + lease;
        let mut pools = self.current(pool);
        let leases = pools.get(pool);
        let renews = leases.is_some_and(|leases| leases.contains_key(holder));
        if !renews && leases.map_or(0, HashMap::len) >= usize::try_from(max).unwrap_or(usize::MAX) {
            return Ok(false);
        }
        pools.entry(pool.to_owned()).or_default().insert(holder.to_owned(), end);
        Ok(true)
    }

    async fn release(&self, pool: &str, holder: &str) -> Result<(), Fault> {
        if let Some(leases) = self.current(pool).get_mut(pool) {
            leases.remove(holder);
        }
        Ok(())
    }

    async fn taken(&self, pool: &str) -> Result<u32, Fault> {
        Ok(self.current(pool).get(pool).map_or(0, |leases| u32::try_from(leases.len()).unwrap_or(u32::MAX)))
    }
}
