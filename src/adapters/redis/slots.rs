//! Places that all processes share.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use bb8_redis::redis::{Script, cmd};

use super::Redis;
use crate::ports::Fault;
use crate::ports::limits::Slots;

/// Leases in sorted sets: holder by end. Redis' own clock ends them, so the clocks of the processes do not matter.
pub struct RedisSlots {
    /// Where the leases are.
    pub redis: Redis,
}

/// Drops what has ended, then takes or renews; the set lives as long as its longest lease.
static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local time = redis.call('TIME')
          local now = time[1] * 1000 + math.floor(time[2] / 1000)
          redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
          if not redis.call('ZSCORE', KEYS[1], ARGV[1])
            and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
          redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
          local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
          redis.call('PEXPIREAT', KEYS[1], string.format('%d', last[2]))
          return 1",
    )
});

static TAKEN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local time = redis.call('TIME')
          local now = time[1] * 1000 + math.floor(time[2] / 1000)
          return redis.call('ZCOUNT', KEYS[1], '(' .. string.format('%d', now), '+inf')",
    )
});

#[async_trait]
impl Slots for RedisSlots {
    #[tracing::instrument(name = "redis.slots.acquire", skip_all, err(level = "debug"))]
    async fn acquire(&self, pool: &str, holder: &str, max: u32, lease: Duration) -> Result<bool, Fault> {
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut call = ACQUIRE.prepare_invoke();
        call.key(self.redis.keys().slots(pool)?).arg(holder).arg(max).arg(lease_ms);
        self.redis.invoke("redis.slots.acquire", &call).await
    }

    #[tracing::instrument(name = "redis.slots.release", skip_all, err(level = "debug"))]
    async fn release(&self, pool: &str, holder: &str) -> Result<(), Fault> {
        let mut remove = cmd("ZREM");
        remove.arg(self.redis.keys().slots(pool)?).arg(holder);
        self.redis.query("redis.slots.release", &remove).await
    }

    #[tracing::instrument(name = "redis.slots.taken", skip_all, err(level = "debug"))]
    async fn taken(&self, pool: &str) -> Result<u32, Fault> {
        let mut call = TAKEN.prepare_invoke();
        call.key(self.redis.keys().slots(pool)?);
        self.redis.invoke("redis.slots.taken", &call).await
    }
}
