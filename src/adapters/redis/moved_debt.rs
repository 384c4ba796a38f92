//! Unsettled units that the reference keeps in Redis, moved into the database before every use.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bb8_redis::redis::Script;
use serde_json::Map;

use super::Redis;
use crate::core::model::fact::Fact;
use crate::core::model::ids::{EntryId, RequestId, UserId};
use crate::core::model::meter::{MeterReading, MeteredUse, Unsettled};
use crate::ports::Fault;
use crate::ports::journal::Journal;
use crate::ports::ledger::UsageMeter;
use crate::ports::runtime::IdSource;

/// A meter whose users may have remainders with a reference server (contract `audio.md` §7.3, AU-D25): an installation
/// that moves keeps them, and both servers may run side by side.
///
/// # Why no unit is lost or counted twice
///
/// A remainder is first renamed, together with an id, under a name only we know; then the database takes it as a use
/// with that id, once; then the name goes. Who dies in between leaves the name, and the next use goes on from there.
///
/// While Redis is away remainders wait and the meter works on.
pub struct RedisMovedDebt {
    /// Where the remainders are.
    pub redis: Redis,
    /// Where they go.
    pub meter: Arc<dyn UsageMeter>,
    /// Names what is moved.
    pub ids: Arc<dyn IdSource>,
    /// Hears when Redis is away.
    pub journal: Arc<dyn Journal>,
}

/// KEYS: remainder, what is on its way. ARGV: id, life of what is on its way in ms. Answers `<id>:<units>`.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local moving = redis.call('GET', KEYS[2])
          if moving then return moving end
          local units = redis.call('GET', KEYS[1])
          if not units then return false end
          redis.call('DEL', KEYS[1])
          local taken = ARGV[1] .. ':' .. units
          redis.call('SET', KEYS[2], taken, 'PX', ARGV[2])
          return taken",
    )
});

/// KEYS: what is on its way. ARGV: what was seen there.
static ARRIVED: LazyLock<Script> =
    LazyLock::new(|| Script::new(r"if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"));

/// A price at which nothing settles: units that are moved are only added.
const NEVER: i64 = i64::MAX;

impl RedisMovedDebt {
    /// Moves the remainder, if there is one.
    async fn move_in(&self, user: &UserId, meter: &'static str, lifetime: Duration) -> Result<(), Fault> {
        match self.take(user, meter, lifetime).await {
            Ok(Some(taken)) => self.bring(user, meter, lifetime, &taken).await,
            Ok(None) => Ok(()),
            Err(fault) => {
                self.journal.record(Fact::Degraded { operation: "redis.meter.take", cause: fault.to_string() });
                Ok(())
            }
        }
    }

    async fn take(&self, user: &UserId, meter: &str, lifetime: Duration) -> Result<Option<String>, Fault> {
        let keys = self.redis.keys();
        let mut call = TAKE.prepare_invoke();
        call.key(keys.meter_debt(user, meter)?).key(keys.meter_debt_moving(user, meter)?);
        call.arg(self.ids.id()).arg(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX >> 12).max(1));
        self.redis.invoke("redis.meter.take", &call).await
    }

    async fn bring(&self, user: &UserId, meter: &'static str, lifetime: Duration, taken: &str) -> Result<(), Fault> {
        let (id, units) = taken.split_once(':').unwrap_or((taken, ""));
        match units.parse() {
            Ok(units) => {
                let moved = MeteredUse {
                    user: user.clone(),
                    meter,
                    request: RequestId::new(format!("moved:{id}")),
                    units,
                    units_per_flux: NEVER,
                    debt_lifetime: lifetime,
                    entry: EntryId::new(id),
                    description: "moved",
                    metadata: Map::new(),
                };
                self.meter.settle(&moved).await?;
            }
            Err(_) => {
                let cause = "a remainder that is no whole number was dropped".to_owned();
                self.journal.record(Fact::Degraded { operation: "redis.meter.take", cause });
            }
        }
        let mut call = ARRIVED.prepare_invoke();
        call.key(self.redis.keys().meter_debt_moving(user, meter)?).arg(taken);
        // Left behind it is brought again, which adds nothing.
        if let Err(fault) = self.redis.invoke::<()>("redis.meter.arrived", &call).await {
            self.journal.record(Fact::Degraded { operation: "redis.meter.arrived", cause: fault.to_string() });
        }
        Ok(())
    }
}

#[async_trait]
impl UsageMeter for RedisMovedDebt {
    async fn settle(&self, used: &MeteredUse) -> Result<MeterReading, Fault> {
        self.move_in(&used.user, used.meter, used.debt_lifetime).await?;
        self.meter.settle(used).await
    }

    async fn debt(&self, user: &UserId, meter: &'static str, debt_lifetime: Duration) -> Result<Unsettled, Fault> {
        self.move_in(user, meter, debt_lifetime).await?;
        self.meter.debt(user, meter, debt_lifetime).await
    }
}
