//! What a Redis that goes away and comes back costs its callers.

use std::time::{Duration, Instant};

use airi_server::adapters::redis::RedisProbe;
use airi_server::adapters::redis::balance_cache::RedisBalances;
use airi_server::core::model::ledger::{Balance, Flux};
use airi_server::ports::FaultKind;
use airi_server::ports::ledger::BalanceCache;
use airi_server::ports::probe::Probe;

use super::redis_world::PrivateRedis;
use super::world::{eventually, somebody};

const BALANCE: Balance = Balance { flux: Flux::ONE, version: 1 };

/// Opens several pooled connections by calling at once.
async fn crowd(cache: &RedisBalances) -> usize {
    let user = somebody();
    let calls = (0..32).map(|_| cache.fill(&user, BALANCE));
    futures::future::join_all(calls).await.into_iter().filter(Result::is_err).count()
}

#[tokio::test]
async fn a_restart_costs_one_call_not_one_per_pooled_connection() {
    let mut server = PrivateRedis::start();
    let cache = RedisBalances { redis: server.redis() };
    assert_eq!(crowd(&cache).await, 0);
    server.restart();
    let mut failures = 0;
    for _ in 0..40 {
        failures += usize::from(cache.fill(&somebody(), BALANCE).await.is_err());
    }
    assert!(failures <= 1, "{failures} calls failed");
    assert_eq!(crowd(&cache).await, 0);
}

#[tokio::test]
async fn a_dead_redis_costs_next_to_nothing_and_is_noticed_when_it_is_back() {
    let mut server = PrivateRedis::start();
    let cache = RedisBalances { redis: server.redis() };
    let probe = RedisProbe { redis: cache.redis.clone() };
    probe.check().await.unwrap();
    server.stop();
    let user = somebody();
    let start = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(cache.find(&user).await.unwrap_err().kind(), FaultKind::Unavailable);
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(probe.check().await.is_err());
    server.restart();
    let start = Instant::now();
    eventually("healed", || async { cache.find(&user).await.is_ok() }).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    probe.check().await.unwrap();
}

#[tokio::test]
async fn a_redis_that_takes_calls_and_does_not_answer_is_left_alone_soon() {
    let server = PrivateRedis::start();
    let cache = RedisBalances { redis: server.redis() };
    let user = somebody();
    cache.fill(&user, BALANCE).await.unwrap();
    let mut raw = server.raw();
    redis::cmd("CLIENT").arg("PAUSE").arg(2_500).arg("ALL").exec(&mut raw).unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        cache.find(&user).await.unwrap_err();
    }
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
    eventually("healed", || async { cache.find(&user).await.is_ok_and(|flux| flux == Some(Flux::ONE)) }).await;
}

#[tokio::test]
async fn a_server_starts_while_redis_is_away() {
    let mut server = PrivateRedis::start();
    server.stop();
    let cache = RedisBalances { redis: server.redis() };
    let start = Instant::now();
    assert!(cache.find(&somebody()).await.is_err());
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    server.restart();
    eventually("connected", || async { cache.find(&somebody()).await.is_ok() }).await;
}
