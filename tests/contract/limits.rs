//! `RateLimiter`: fixed windows that start with their first call.

use std::sync::Arc;
use std::time::Duration;

use airi_server::core::model::limits::Limit;
use airi_server::ports::limits::RateLimiter;

use super::world::{eventually, somebody};

const THREE: Limit = Limit { route: "contract", max: 3, window: Duration::from_secs(30) };

async fn calls_beyond_the_limit_are_refused(limits: Arc<dyn RateLimiter>) {
    let user = somebody();
    for left in [2, 1, 0] {
        let admission = limits.admit(&THREE, user.as_str()).await.unwrap();
        assert!(admission.admitted);
        assert_eq!(admission.remaining, left);
        assert!(admission.resets_in > Duration::ZERO && admission.resets_in <= THREE.window);
    }
    let refused = limits.admit(&THREE, user.as_str()).await.unwrap();
    assert!(!refused.admitted);
    assert_eq!(refused.remaining, 0);
}

async fn callers_and_routes_are_counted_apart(limits: Arc<dyn RateLimiter>) {
    let (user, other) = (somebody(), somebody());
    let elsewhere = Limit { route: "contract.elsewhere", ..THREE };
    for _ in 0..4 {
        limits.admit(&THREE, user.as_str()).await.unwrap();
    }
    assert!(limits.admit(&THREE, other.as_str()).await.unwrap().admitted);
    assert!(limits.admit(&elsewhere, user.as_str()).await.unwrap().admitted);
}

async fn refused_calls_do_not_prolong_the_window(limits: Arc<dyn RateLimiter>) {
    let user = somebody();
    let short = Limit { max: 1, window: Duration::from_millis(400), ..THREE };
    assert!(limits.admit(&short, user.as_str()).await.unwrap().admitted);
    assert!(!limits.admit(&short, user.as_str()).await.unwrap().admitted);
    eventually("a new window", || async { limits.admit(&short, user.as_str()).await.unwrap().admitted }).await;
    let first_of_the_new = limits.admit(&short, user.as_str()).await.unwrap();
    assert!(!first_of_the_new.admitted && first_of_the_new.resets_in <= short.window);
}

async fn a_crowd_is_admitted_exactly_up_to_the_limit(limits: Arc<dyn RateLimiter>) {
    let user = somebody();
    let ten = Limit { max: 10, ..THREE };
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (limits, user, ten) = (Arc::clone(&limits), user.clone(), ten.clone());
        crowd.spawn(async move { limits.admit(&ten, user.as_str()).await.unwrap().admitted });
    }
    assert_eq!(crowd.join_all().await.into_iter().filter(|admitted| *admitted).count(), 10);
}

macro_rules! cases {
    ($limits:expr) => {
        cases! { $limits =>
            calls_beyond_the_limit_are_refused
            callers_and_routes_are_counted_apart
            refused_calls_do_not_prolong_the_window
            a_crowd_is_admitted_exactly_up_to_the_limit
        }
    };
    ($limits:expr => $($case:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let (limits, _world) = $limits;
            super::$case(limits).await;
        }
    )+};
}

mod memory {
    use std::time::Instant;

    use airi_server::adapters::memory::limits::MemoryLimits;

    use super::*;
    use crate::world::{HandClock, RealClock};

    fn limits() -> (Arc<dyn RateLimiter>, ()) {
        (Arc::new(MemoryLimits::new(Arc::new(RealClock(Instant::now())))), ())
    }

    cases!(limits());

    #[tokio::test]
    async fn a_window_ends_to_the_millisecond() {
        let clock = Arc::new(HandClock::default());
        let limits = MemoryLimits::new(clock.clone());
        let one = Limit { max: 1, ..THREE };
        limits.admit(&one, "u").await.unwrap();
        clock.turn(Duration::from_millis(29_999));
        let refused = limits.admit(&one, "u").await.unwrap();
        assert!(!refused.admitted && refused.resets_in == Duration::from_millis(1));
        clock.turn(Duration::from_millis(1));
        let admitted = limits.admit(&one, "u").await.unwrap();
        assert!(admitted.admitted && admitted.resets_in == one.window);
    }
}

#[cfg(feature = "live")]
mod redis {
    use ::redis::Commands;
    use airi_server::adapters::redis::limits::RedisLimits;

    use super::*;
    use crate::redis_world::Namespace;

    fn limits() -> (Arc<dyn RateLimiter>, Namespace) {
        let space = Namespace::new();
        (Arc::new(RedisLimits { redis: space.redis.clone() }), space)
    }

    cases!(limits());

    #[tokio::test]
    async fn a_counter_that_lost_its_end_does_not_refuse_for_ever() {
        let (limits, space) = limits();
        let key = space.key("ratelimit:contract:u");
        let _: () = space.raw().set(&key, 99).unwrap();
        assert!(!limits.admit(&THREE, "u").await.unwrap().admitted);
        let left: i64 = space.raw().pttl(&key).unwrap();
        assert!(left > 0 && left <= 30_000);
    }
}
