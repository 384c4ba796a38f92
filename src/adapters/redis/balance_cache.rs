//! Copies of balances that several processes, and the reference server, read and write.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use bb8_redis::redis::{Script, cmd};

use super::Redis;
use crate::core::model::ids::UserId;
use crate::core::model::ledger::{Balance, Flux};
use crate::ports::Fault;
use crate::ports::ledger::BalanceCache;

/// Balances under `user:<id>:flux` as decimal text, the newest version seen beside them under `user:<id>:flux:v`
/// (contract `ledger.md` §2, L-1 to L-4).
///
/// # Why no copy is wrong for long
///
/// - Every copy we store ends after 60 s, a writer's too: a writer that dies between its commit and its offer, or
///   whose offer is lost, leaves the previous copy for that long at most.
/// - The version outlives its copy by a day. So a reader that loaded a balance before a charge cannot fill it in
///   after the charge's copy was dropped, and a late writer cannot replace a newer copy.
/// - The reference stores without an end and without a version. A copy without an end is therefore not ours: it is
///   believed, as the reference believes ours, but whoever finds it gives it 60 s to live. Until then it may hide a
///   newer balance; a charge re-checks the row in any case, and its offer, carrying a newer version, replaces it.
/// - An offer of the very version that is recorded leaves a readable copy alone: it is that same balance, or the
///   reference changed it since.
pub struct RedisBalances {
    /// Where the copies are.
    pub redis: Redis,
}

/// How long a copy may answer.
const COPY: Duration = Duration::from_secs(60);
/// How long a late writer can be told from a newer one.
const VERSION: Duration = Duration::from_hours(24);

static FIND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local copy = redis.pcall('GET', KEYS[1])
          if type(copy) ~= 'string' then return false end
          if redis.call('PTTL', KEYS[1]) == -1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
          return copy",
    )
});

/// KEYS: copy, version. ARGV: flux, version, copy ms, version ms, `fill` or `offer`.
static STORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local copy = redis.pcall('GET', KEYS[1])
          local readable = type(copy) == 'string' and string.match(copy, '^%d+$') ~= nil
            and tonumber(copy) <= 9007199254740992
          if readable and ARGV[5] == 'fill' then return 0 end
          local seen = redis.pcall('GET', KEYS[2])
          seen = type(seen) == 'string' and tonumber(seen) or nil
          local version = tonumber(ARGV[2])
          if seen and (seen > version or (seen == version and readable)) then return 0 end
          redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
          redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
          return 1",
    )
});

impl RedisBalances {
    async fn store(
        &self,
        operation: &'static str,
        how: &'static str,
        user: &UserId,
        balance: Balance,
    ) -> Result<(), Fault> {
        let keys = self.redis.keys();
        let mut call = STORE.prepare_invoke();
        call.key(keys.flux(user)?).key(keys.flux_version(user)?);
        call.arg(balance.flux.get()).arg(balance.version).arg(ms(COPY)).arg(ms(VERSION)).arg(how);
        self.redis.invoke(operation, &call).await
    }
}

#[async_trait]
impl BalanceCache for RedisBalances {
    #[tracing::instrument(name = "redis.balance_cache.find", skip_all, err(level = "debug"))]
    async fn find(&self, user: &UserId) -> Result<Option<Flux>, Fault> {
        let mut call = FIND.prepare_invoke();
        call.key(self.redis.keys().flux(user)?).arg(ms(COPY));
        let copy: Option<Vec<u8>> = self.redis.invoke("redis.balance_cache.find", &call).await?;
        Ok(copy.as_deref().and_then(read))
    }

    #[tracing::instrument(name = "redis.balance_cache.fill", skip_all, err(level = "debug"))]
    async fn fill(&self, user: &UserId, balance: Balance) -> Result<(), Fault> {
        self.store("redis.balance_cache.fill", "fill", user, balance).await
    }

    #[tracing::instrument(name = "redis.balance_cache.offer", skip_all, err(level = "debug"))]
    async fn offer(&self, user: &UserId, balance: Balance) -> Result<(), Fault> {
        self.store("redis.balance_cache.offer", "offer", user, balance).await
    }

    #[tracing::instrument(name = "redis.balance_cache.forget", skip_all, err(level = "debug"))]
    async fn forget(&self, user: &UserId) -> Result<(), Fault> {
        let mut del = cmd("DEL");
        // The version stays: it keeps readers that loaded earlier from filling in what was forgotten.
        del.arg(self.redis.keys().flux(user)?);
        self.redis.query("redis.balance_cache.forget", &del).await
    }
}

/// Whole numbers only: `12.7` is nobody's balance.
fn read(copy: &[u8]) -> Option<Flux> {
    if !copy.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(copy).ok()?.parse().ok().and_then(Flux::new)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_are_balances() {
        assert_eq!(read(b"12"), Flux::new(12));
        assert_eq!(read(b"0"), Some(Flux::ZERO));
        for bad in ["", "12.7", "-1", "+1", "1e3", "NaN", "9007199254740993", "99999999999999999999", " 1"] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
    }
}
