//! `Slots`: leases on a bounded number of places.

use std::sync::Arc;
use std::time::Duration;

use airi_server::ports::limits::Slots;

use super::world::{eventually, somebody};

const LEASE: Duration = Duration::from_secs(30);

async fn no_more_places_are_taken_than_there_are(slots: Arc<dyn Slots>) {
    let pool = somebody();
    let pool = pool.as_str();
    assert_eq!(slots.taken(pool).await.unwrap(), 0);
    assert!(slots.acquire(pool, "a", 2, LEASE).await.unwrap());
    assert!(slots.acquire(pool, "b", 2, LEASE).await.unwrap());
    assert!(!slots.acquire(pool, "c", 2, LEASE).await.unwrap());
    assert_eq!(slots.taken(pool).await.unwrap(), 2);
    assert!(slots.acquire(somebody().as_str(), "c", 2, LEASE).await.unwrap(), "another pool");
}

async fn a_released_place_is_free_and_releasing_again_is_harmless(slots: Arc<dyn Slots>) {
    let pool = somebody();
    let pool = pool.as_str();
    assert!(slots.acquire(pool, "a", 1, LEASE).await.unwrap());
    slots.release(pool, "nobody").await.unwrap();
    assert!(!slots.acquire(pool, "b", 1, LEASE).await.unwrap());
    slots.release(pool, "a").await.unwrap();
    slots.release(pool, "a").await.unwrap();
    assert_eq!(slots.taken(pool).await.unwrap(), 0);
    assert!(slots.acquire(pool, "b", 1, LEASE).await.unwrap());
}

async fn a_holder_who_asks_again_keeps_one_place(slots: Arc<dyn Slots>) {
    let pool = somebody();
    let pool = pool.as_str();
    assert!(slots.acquire(pool, "a", 1, LEASE).await.unwrap());
    assert!(slots.acquire(pool, "a", 1, LEASE).await.unwrap());
    assert_eq!(slots.taken(pool).await.unwrap(), 1);
}

async fn a_lease_not_released_ends_by_itself(slots: Arc<dyn Slots>) {
    let pool = somebody();
    let pool = pool.as_str();
    assert!(slots.acquire(pool, "died", 2, Duration::from_millis(300)).await.unwrap());
    assert!(slots.acquire(pool, "lives", 2, LEASE).await.unwrap());
    assert!(!slots.acquire(pool, "next", 2, LEASE).await.unwrap());
    eventually("a free place", || async { slots.acquire(pool, "next", 2, LEASE).await.unwrap() }).await;
    assert_eq!(slots.taken(pool).await.unwrap(), 2);
}

async fn a_crowd_gets_exactly_the_places_there_are(slots: Arc<dyn Slots>) {
    let pool = somebody();
    let mut crowd = tokio::task::JoinSet::new();
    for holder in 0..50 {
        let (slots, pool) = (Arc::clone(&slots), pool.clone());
        crowd.spawn(async move { slots.acquire(pool.as_str(), &holder.to_string(), 5, LEASE).await.unwrap() });
    }
    assert_eq!(crowd.join_all().await.into_iter().filter(|taken| *taken).count(), 5);
    assert_eq!(slots.taken(pool.as_str()).await.unwrap(), 5);
}

macro_rules! cases {
    ($slots:expr) => {
        cases! { $slots =>
            no_more_places_are_taken_than_there_are
            a_released_place_is_free_and_releasing_again_is_harmless
            a_holder_who_asks_again_keeps_one_place
            a_lease_not_released_ends_by_itself
            a_crowd_gets_exactly_the_places_there_are
        }
    };
    ($slots:expr => $($case:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let (slots, _world) = $slots;
            super::$case(slots).await;
        }
    )+};
}

mod memory {
    use std::time::Instant;

    use airi_server::adapters::memory::slots::MemorySlots;

    use super::*;
    use crate::world::RealClock;

    fn slots() -> (Arc<dyn Slots>, ()) {
        (Arc::new(MemorySlots::new(Arc::new(RealClock(Instant::now())))), ())
    }

    cases!(slots());
}

#[cfg(feature = "live")]
mod redis {
    use airi_server::adapters::redis::slots::RedisSlots;

    use super::*;
    use crate::redis_world::Namespace;

    fn slots() -> (Arc<dyn Slots>, Namespace) {
        let space = Namespace::new();
        (Arc::new(RedisSlots { redis: space.redis.clone() }), space)
    }

    cases!(slots());
}
