//! `RedisMovedDebt`: remainders of a reference server come along (contract `audio.md` §7.3, AU-D25).

use std::sync::Arc;
use std::time::Duration;

use airi_server::adapters::redis::moved_debt::RedisMovedDebt;
use airi_server::adapters::redis::{Redis, RedisSettings};
use airi_server::adapters::runtime::RandomIds;
use airi_server::core::model::fact::Fact;
use airi_server::core::model::ids::UserId;
use airi_server::core::model::ledger::Flux;
use airi_server::core::model::meter::{MeterReading, MeteredUse, Unsettled};
use airi_server::ports::ledger::UsageMeter;
use airi_server::ports::{Fault, FaultKind};
use async_trait::async_trait;
use futures::future::join_all;
use redis::Commands;
use serde_json::Map;

use crate::books::{World, entry_id, flux, request};
use crate::redis_world::Namespace;

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(&crate::books::World::sqlite().await).await;
            })+
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(&crate::books::World::postgres().await).await;
            })+
        }
    };
}

cases!(
    a_remainder_comes_along_once,
    what_cannot_be_read_is_dropped,
    a_death_on_the_way_neither_loses_nor_doubles,
    both_servers_side_by_side_lose_no_unit,
    a_redis_that_is_away_keeps_nobody_from_speaking,
);

const DAY: Duration = Duration::from_secs(86_400);

fn used(user: &UserId, id: &str, units: i64) -> MeteredUse {
    MeteredUse {
        user: user.clone(),
        meter: "tts",
        request: request(id),
        units,
        units_per_flux: 1_000,
        debt_lifetime: DAY,
        entry: entry_id(),
        description: "tts_request",
        metadata: Map::new(),
    }
}

fn moving(namespace: &Namespace, meter: Arc<dyn UsageMeter>) -> RedisMovedDebt {
    let ids = Arc::new(RandomIds::new());
    RedisMovedDebt { redis: namespace.redis.clone(), meter, ids, journal: namespace.journal.clone() }
}

fn key(namespace: &Namespace, user: &UserId) -> String {
    namespace.key(&format!("user:{user}:flux-meter:tts:debt"))
}

async fn units(meter: &dyn UsageMeter, user: &UserId) -> i64 {
    meter.debt(user, "tts", DAY).await.unwrap().units
}

async fn a_remainder_comes_along_once(world: &World) {
    let (namespace, user) = (Namespace::new(), world.rich("u", 10).await);
    let meter = moving(&namespace, world.meter.clone());
    let mut raw = namespace.raw();
    let _: () = raw.set(key(&namespace, &user), 700).unwrap();
    assert_eq!(units(&meter, &user).await, 700);
    assert_eq!(units(&meter, &user).await, 700);
    let left: Vec<String> = raw.keys(namespace.key("*")).unwrap();
    assert!(left.is_empty(), "{left:?}");
    let _: () = raw.set(key(&namespace, &user), 200).unwrap();
    let reading = meter.settle(&used(&user, "r", 400)).await.unwrap();
    assert_eq!((reading.charged, reading.debt), (flux(1), 300));
    world.audit(&user).await;
}

async fn what_cannot_be_read_is_dropped(world: &World) {
    let (namespace, user) = (Namespace::new(), world.rich("u", 10).await);
    let meter = moving(&namespace, world.meter.clone());
    let mut raw = namespace.raw();
    for text in ["nonsense", "-5", "0", "1.5"] {
        let _: () = raw.set(key(&namespace, &user), text).unwrap();
        assert_eq!(units(&meter, &user).await, 0, "{text}");
    }
    let left: Vec<String> = raw.keys(namespace.key("*")).unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// A database that is away when a remainder is brought, or that dies right after it took one.
struct Dying {
    meter: Arc<dyn UsageMeter>,
    takes: bool,
}

#[async_trait]
impl UsageMeter for Dying {
    async fn settle(&self, used: &MeteredUse) -> Result<MeterReading, Fault> {
        if self.takes {
            self.meter.settle(used).await?;
        }
        Err(Fault::new(FaultKind::Unavailable, "test", "dead"))
    }

    async fn debt(&self, user: &UserId, meter: &'static str, lifetime: Duration) -> Result<Unsettled, Fault> {
        self.meter.debt(user, meter, lifetime).await
    }
}

async fn a_death_on_the_way_neither_loses_nor_doubles(world: &World) {
    for takes in [false, true] {
        let (namespace, user) = (Namespace::new(), world.rich(format!("u{takes}"), 10).await);
        let _: () = namespace.raw().set(key(&namespace, &user), 700).unwrap();
        let dying = moving(&namespace, Arc::new(Dying { meter: world.meter.clone(), takes }));
        dying.debt(&user, "tts", DAY).await.unwrap_err();
        let meter = moving(&namespace, world.meter.clone());
        let readings = join_all((0..8).map(|_| units(&meter, &user))).await;
        assert_eq!(readings, [700; 8], "{takes}");
        assert_eq!(world.uses(&user).await, 1);
    }
}

async fn both_servers_side_by_side_lose_no_unit(world: &World) {
    let (namespace, user) = (Namespace::new(), world.rich("u", 1_000).await);
    let meter = moving(&namespace, world.meter.clone());
    let (counter, mut raw) = (key(&namespace, &user), namespace.raw());
    let reference = tokio::task::spawn_blocking(move || {
        for _ in 0..300 {
            let _: i64 = raw.incr(&counter, 7).unwrap();
        }
    });
    join_all((0..60).map(|n| {
        let (meter, user) = (&meter, &user);
        async move { meter.settle(&used(user, &format!("r{n}"), 90)).await.unwrap() }
    }))
    .await;
    reference.await.unwrap();
    let left = units(&meter, &user).await;
    let taken = 1_000 - world.flux(&user).await.unwrap();
    assert_eq!(taken * 1_000 + left, 300 * 7 + 60 * 90);
    world.audit(&user).await;
}

async fn a_redis_that_is_away_keeps_nobody_from_speaking(world: &World) {
    let (namespace, user) = (Namespace::new(), world.rich("u", 10).await);
    let away = Redis::new(&RedisSettings::at("redis://127.0.0.1:1")).unwrap();
    let meter = RedisMovedDebt { redis: away, ..moving(&namespace, world.meter.clone()) };
    let reading = meter.settle(&used(&user, "r", 1_200)).await.unwrap();
    assert_eq!((reading.charged, reading.debt, reading.unbilled), (flux(1), 200, Flux::ZERO));
    assert_eq!(units(&meter, &user).await, 200);
    assert!(namespace.journal.count(|fact| matches!(fact, Fact::Degraded { operation: "redis.meter.take", .. })) > 0);
}
