//! `AccountSnapshots`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use airi_server::adapters::memory::snapshots::MemorySnapshots;
use airi_server::ports::mocks::MockAccountRepo;
use airi_server::ports::oidc::AccountSnapshots;

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
