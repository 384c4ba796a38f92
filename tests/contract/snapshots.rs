//! `AccountSnapshots`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use airi_server::adapters::memory::snapshots::MemorySnapshots;
use airi_server::ports::mocks::MockAccountRepo;
use airi_server::ports::oidc::AccountSnapshots;
use futures::FutureExt;

use crate::accounts::account;
use crate::world::HandClock;

fn counted() -> (MemorySnapshots, Arc<HandClock>, Arc<AtomicUsize>) {
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let mut people = MockAccountRepo::new();
    people.expect_find().returning(move |id| {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok((id.as_str() == "u1").then(|| account("u1", "a@example.com")))
    });
    let clock = Arc::new(HandClock::default());
    (MemorySnapshots::new(Arc::new(people), clock.clone()), clock, reads)
}

#[tokio::test]
async fn a_person_is_read_once_a_minute_and_again_when_forgotten() {
    let (people, clock, reads) = counted();
    let user = account("u1", "a@example.com").id;
    for _ in 0..3 {
        assert!(people.find(&user).await.unwrap().is_some());
    }
    assert_eq!(reads.load(Ordering::SeqCst), 1);
    people.forget(&user).await.unwrap();
    people.find(&user).await.unwrap();
    assert_eq!(reads.load(Ordering::SeqCst), 2);
    people.drop_copies(None);
    people.find(&user).await.unwrap();
    people.find(&user).await.unwrap();
    assert_eq!(reads.load(Ordering::SeqCst), 3);
    clock.turn(Duration::from_secs(60));
    people.find(&user).await.unwrap();
    assert_eq!(reads.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn nobody_is_not_remembered() {
    let (people, _, reads) = counted();
    let nobody = account("u2", "b@example.com").id;
    for _ in 0..2 {
        assert!(people.find(&nobody).await.unwrap().is_none());
    }
    assert_eq!(reads.load(Ordering::SeqCst), 2);
}

type Meanwhile = Box<dyn Fn() + Send + Sync>;

/// Copies of people whose first look-up reads `old@`, is still under way while the function runs, and keeps what it
/// read; every later one reads `new@`.
fn interrupted() -> (Arc<MemorySnapshots>, Arc<OnceLock<Meanwhile>>) {
    let (reads, meanwhile) = (AtomicUsize::new(0), Arc::<OnceLock<Meanwhile>>::default());
    let change = Arc::clone(&meanwhile);
    let mut people = MockAccountRepo::new();
    people.expect_find().returning(move |id| {
        if reads.fetch_add(1, Ordering::SeqCst) > 0 {
            return Ok(Some(account(id.as_str(), "new@example.com")));
        }
        change.get().unwrap()();
        Ok(Some(account(id.as_str(), "old@example.com")))
    });
    (Arc::new(MemorySnapshots::new(Arc::new(people), Arc::new(HandClock::default()))), meanwhile)
}

#[tokio::test]
async fn a_look_up_that_began_before_a_change_is_not_kept() {
    let (people, meanwhile) = interrupted();
    let user = account("u1", "old@example.com").id;
    let (changed, whose) = (Arc::clone(&people), user.clone());
    assert!(meanwhile.set(Box::new(move || changed.forget(&whose).now_or_never().unwrap().unwrap())).is_ok());
    assert_eq!(people.find(&user).await.unwrap().unwrap().email.as_str(), "old@example.com");
    assert_eq!(people.find(&user).await.unwrap().unwrap().email.as_str(), "new@example.com");
}

#[cfg(feature = "live")]
#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_that_began_before_another_process_changed_somebody_is_not_kept() {
    use airi_server::adapters::redis::bus::Bus;
    use airi_server::adapters::redis::snapshots::RedisSnapshots;
    use tokio::runtime::Handle;

    let namespace = crate::redis_world::Namespace::new();
    let bus = || Bus::start(&namespace.redis, namespace.journal.clone()).unwrap();
    let (local, meanwhile) = interrupted();
    let heard = Arc::new(AtomicUsize::new(0));
    let (dropping, counting) = (Arc::clone(&local), Arc::clone(&heard));
    let drop_copies = move |id: Option<&airi_server::core::model::ids::UserId>| {
        dropping.drop_copies(id);
        counting.fetch_add(usize::from(id.is_some()), Ordering::SeqCst);
    };
    let here = RedisSnapshots::start(local, Arc::new(drop_copies), namespace.redis.clone(), &bus()).await;
    let (elsewhere, ..) = counted();
    let there = RedisSnapshots::start(Arc::new(elsewhere), Arc::new(|_| {}), namespace.redis.clone(), &bus()).await;

    let user = account("u1", "old@example.com").id;
    let whose = user.clone();
    let change = move || {
        let changed = async {
            there.forget(&whose).await.unwrap();
            while heard.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        tokio::task::block_in_place(|| Handle::current().block_on(changed));
    };
    assert!(meanwhile.set(Box::new(change)).is_ok());
    assert_eq!(here.find(&user).await.unwrap().unwrap().email.as_str(), "old@example.com");
    assert_eq!(here.find(&user).await.unwrap().unwrap().email.as_str(), "new@example.com");
}
