//! `BalanceCache`: copies that are never older than what is known.

use std::sync::{Arc, Mutex};

use airi_server::core::model::ids::UserId;
use airi_server::core::model::ledger::{Balance, Flux};
use airi_server::ports::ledger::BalanceCache;

use super::world::somebody;

fn balance(flux: i64, version: i64) -> Balance {
    Balance { flux: Flux::saturating(flux), version }
}

async fn what_is_not_there_is_a_miss(cache: Arc<dyn BalanceCache>) {
    assert_eq!(cache.find(&somebody()).await.unwrap(), None);
    cache.forget(&somebody()).await.unwrap();
}

async fn what_a_reader_filled_in_is_found(cache: Arc<dyn BalanceCache>) {
    let user = somebody();
    cache.fill(&user, balance(7, 3)).await.unwrap();
    assert_eq!(cache.find(&user).await.unwrap(), Flux::new(7));
}

async fn a_reader_does_not_replace_a_copy(cache: Arc<dyn BalanceCache>) {
    let user = somebody();
    cache.offer(&user, balance(7, 3)).await.unwrap();
    cache.fill(&user, balance(8, 4)).await.unwrap();
    cache.fill(&user, balance(9, 2)).await.unwrap();
    assert_eq!(cache.find(&user).await.unwrap(), Flux::new(7));
}

async fn a_newer_offer_replaces_and_an_older_one_does_not(cache: Arc<dyn BalanceCache>) {
    let user = somebody();
    cache.offer(&user, balance(7, 9)).await.unwrap();
    cache.offer(&user, balance(8, 10)).await.unwrap();
    cache.offer(&user, balance(9, 9)).await.unwrap();
    cache.offer(&user, balance(1, 2)).await.unwrap();
    assert_eq!(cache.find(&user).await.unwrap(), Flux::new(8));
}

async fn an_offer_older_than_a_readers_copy_is_refused(cache: Arc<dyn BalanceCache>) {
    let user = somebody();
    cache.fill(&user, balance(7, 3)).await.unwrap();
    cache.offer(&user, balance(9, 2)).await.unwrap();
    assert_eq!(cache.find(&user).await.unwrap(), Flux::new(7));
}

async fn what_was_forgotten_is_not_brought_back_by_a_late_reader(cache: Arc<dyn BalanceCache>) {
    let user = somebody();
    cache.offer(&user, balance(7, 3)).await.unwrap();
    cache.forget(&user).await.unwrap();
    assert_eq!(cache.find(&user).await.unwrap(), None);
    cache.fill(&user, balance(9, 2)).await.unwrap();
    assert_eq!(cache.find(&user).await.unwrap(), None);
    cache.fill(&user, balance(7, 3)).await.unwrap();
    assert_eq!(cache.find(&user).await.unwrap(), Flux::new(7));
}

type Row = Arc<Mutex<Balance>>;

async fn charge(cache: Arc<dyn BalanceCache>, user: UserId, row: Row) {
    let committed = {
        let mut row = row.lock().unwrap();
        *row = balance(row.flux.get() - 3, row.version + 1);
        *row
    };
    tokio::task::yield_now().await;
    cache.offer(&user, committed).await.unwrap();
}

async fn read(cache: Arc<dyn BalanceCache>, user: UserId, row: Row) {
    if cache.find(&user).await.unwrap().is_none() {
        let loaded = *row.lock().unwrap();
        tokio::task::yield_now().await;
        cache.fill(&user, loaded).await.unwrap();
    }
}

/// Two charges, two readers and sometimes a refusal per round; the cache may be empty afterwards, never wrong.
async fn charges_and_reads_in_a_tight_race_leave_the_truth(cache: Arc<dyn BalanceCache>) {
    let user = somebody();
    let row = Arc::new(Mutex::new(balance(1_000_000, 1)));
    for round in 0..1_000 {
        let mut racers = tokio::task::JoinSet::new();
        for _ in 0..2 {
            racers.spawn(charge(Arc::clone(&cache), user.clone(), Arc::clone(&row)));
            racers.spawn(read(Arc::clone(&cache), user.clone(), Arc::clone(&row)));
        }
        if round % 3 == 0 {
            cache.forget(&user).await.unwrap();
        }
        racers.join_all().await;
        let truth = row.lock().unwrap().flux;
        let copy = cache.find(&user).await.unwrap();
        assert!(copy.is_none_or(|copy| copy == truth), "round {round}: {copy:?} instead of {truth:?}");
    }
}

macro_rules! cases {
    ($cache:expr) => {
        cases! { $cache =>
            what_is_not_there_is_a_miss
            what_a_reader_filled_in_is_found
            a_reader_does_not_replace_a_copy
            a_newer_offer_replaces_and_an_older_one_does_not
            an_offer_older_than_a_readers_copy_is_refused
            what_was_forgotten_is_not_brought_back_by_a_late_reader
            charges_and_reads_in_a_tight_race_leave_the_truth
        }
    };
    ($cache:expr => $($case:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let (cache, _world) = $cache;
            super::$case(cache).await;
        }
    )+};
}

mod memory {
    use std::time::Duration;

    use airi_server::adapters::memory::balance_cache::MemoryBalances;

    use super::*;
    use crate::world::HandClock;

    fn cache() -> (Arc<dyn BalanceCache>, Arc<HandClock>) {
        let clock = Arc::new(HandClock::default());
        (Arc::new(MemoryBalances::new(clock.clone())), clock)
    }

    cases!(cache());

    #[tokio::test]
    async fn a_copy_ends_after_a_minute_and_its_version_does_not() {
        let (cache, clock) = cache();
        let user = somebody();
        cache.fill(&user, balance(7, 3)).await.unwrap();
        clock.turn(Duration::from_millis(59_999));
        assert_eq!(cache.find(&user).await.unwrap(), Flux::new(7));
        clock.turn(Duration::from_millis(1));
        assert_eq!(cache.find(&user).await.unwrap(), None);
        cache.offer(&user, balance(9, 2)).await.unwrap();
        assert_eq!(cache.find(&user).await.unwrap(), None);
    }
}

#[cfg(feature = "live")]
mod redis {
    use ::redis::{Commands, Connection};
    use airi_server::adapters::redis::balance_cache::RedisBalances;
    use airi_server::ports::FaultKind;

    use super::*;
    use crate::redis_world::Namespace;

    fn cache() -> (Arc<dyn BalanceCache>, Namespace) {
        let space = Namespace::new();
        (Arc::new(RedisBalances { redis: space.redis.clone() }), space)
    }

    cases!(cache());

    fn key(space: &Namespace, user: &UserId) -> String {
        space.key(&format!("user:{user}:flux"))
    }

    fn lives_at_most_a_minute(raw: &mut Connection, key: &str) {
        let left: i64 = raw.pttl(key).unwrap();
        assert!(left > 0 && left <= 60_000, "{left} ms");
    }

    #[tokio::test]
    async fn the_copy_is_text_the_reference_reads_and_lives_a_minute() {
        let (cache, space) = cache();
        let mut raw = space.raw();
        for (user, offered) in [(somebody(), true), (somebody(), false)] {
            match offered {
                true => cache.offer(&user, balance(41, 2)).await.unwrap(),
                false => cache.fill(&user, balance(41, 2)).await.unwrap(),
            }
            let text: String = raw.get(key(&space, &user)).unwrap();
            assert_eq!(text, "41");
            lives_at_most_a_minute(&mut raw, &key(&space, &user));
        }
    }

    #[tokio::test]
    async fn unreadable_copies_are_misses_that_a_reader_and_a_writer_replace() {
        let (cache, space) = cache();
        let mut raw = space.raw();
        for text in ["12.7", "abc", "", "-3", "null", "9007199254740993", "1e3"] {
            let user = somebody();
            let _: () = raw.set(key(&space, &user), text).unwrap();
            assert_eq!(cache.find(&user).await.unwrap(), None, "{text}");
            cache.fill(&user, balance(7, 3)).await.unwrap();
            assert_eq!(cache.find(&user).await.unwrap(), Flux::new(7), "{text}");
            let _: () = raw.set(key(&space, &user), text).unwrap();
            cache.offer(&user, balance(7, 3)).await.unwrap();
            assert_eq!(cache.find(&user).await.unwrap(), Flux::new(7), "{text}");
        }
        let user = somebody();
        let _: () = raw.hset(key(&space, &user), "a", "b").unwrap();
        assert_eq!(cache.find(&user).await.unwrap(), None);
        cache.fill(&user, balance(7, 3)).await.unwrap();
        assert_eq!(cache.find(&user).await.unwrap(), Flux::new(7));
    }

    #[tokio::test]
    async fn a_copy_of_the_reference_is_believed_for_a_minute_and_replaced_by_our_next_charge() {
        let (cache, space) = cache();
        let mut raw = space.raw();
        let user = somebody();
        cache.offer(&user, balance(50, 5)).await.unwrap();
        let _: () = raw.set(key(&space, &user), "44").unwrap();
        assert_eq!(cache.find(&user).await.unwrap(), Flux::new(44));
        lives_at_most_a_minute(&mut raw, &key(&space, &user));
        cache.offer(&user, balance(50, 5)).await.unwrap();
        assert_eq!(cache.find(&user).await.unwrap(), Flux::new(44), "the offer of a version already known");
        cache.offer(&user, balance(40, 6)).await.unwrap();
        assert_eq!(cache.find(&user).await.unwrap(), Flux::new(40));
    }

    #[tokio::test]
    async fn a_user_without_a_name_has_no_key() {
        let (cache, _space) = cache();
        assert_eq!(cache.find(&UserId::new(" ")).await.unwrap_err().kind(), FaultKind::Corrupt);
    }
}
