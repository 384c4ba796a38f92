//! Fixed windows that all processes count in.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use bb8_redis::redis::Script;

use super::Redis;
use crate::core::model::limits::{Admission, Limit};
use crate::ports::Fault;
use crate::ports::limits::RateLimiter;

/// Counters under `ratelimit:<route>:<key>` that end with their window (contract `gateway.md` §9, GW-D17).
pub struct RedisLimits {
    /// Where the counters are.
    pub redis: Redis,
}

// A counter without an end would refuse for ever, so an end is set whenever there is none, not on the first call only.
static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local count = redis.call('INCR', KEYS[1])
          local left = redis.call('PTTL', KEYS[1])
          if left < 0 then
            redis.call('PEXPIRE', KEYS[1], ARGV[1])
            left = tonumber(ARGV[1])
          end
          return {count, left}",
    )
});

#[async_trait]
impl RateLimiter for RedisLimits {
    #[tracing::instrument(name = "redis.limits.admit", skip_all, err(level = "debug"))]
    async fn admit(&self, limit: &Limit, key: &str) -> Result<Admission, Fault> {
        let window_ms = u64::try_from(limit.window.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut call = COUNT.prepare_invoke();
        call.key(self.redis.keys().rate_limit(limit.route, key)?).arg(window_ms);
        let (count, left_ms): (u64, u64) = self.redis.invoke("redis.limits.admit", &call).await?;
        Ok(Admission::judge(limit, count, Duration::from_millis(left_ms)))
    }
}
