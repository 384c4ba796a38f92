//! What machines ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use airi_server::ports::Fault;
use airi_server::ports::probe::Probe;
use async_trait::async_trait;

use crate::world::{Answering, Frozen, Refusing, World};

async fn ready(world: World) -> (u16, String) {
    let answer = world.client().get("/readyz").send().await.0;
    (answer.status().as_u16(), answer.into_body().into_string().await.unwrap())
}

#[tokio::test]
async fn ready_names_every_dependency() {
    let (status, body) = ready(World::default()).await;
    assert_eq!((status, body.as_str()), (200, r#"{"status":"ready","checks":{"db":"ok","redis":"ok"}}"#));
}

#[tokio::test]
async fn a_missing_dependency_is_named() {
    let world = World { probes: vec![("db", Arc::new(Answering)), ("redis", Arc::new(Refusing))], ..World::default() };
    let (status, body) = ready(world).await;
    assert_eq!((status, body.as_str()), (503, r#"{"status":"not_ready","checks":{"db":"ok","redis":"fail"}}"#));
}

#[tokio::test]
async fn a_frozen_dependency_is_given_two_seconds() {
    let world = World { probes: vec![("db", Arc::new(Frozen)), ("redis", Arc::new(Answering))], ..World::default() };
    let begun = Instant::now();
    let (status, body) = ready(world).await;
    assert_eq!((status, body.as_str()), (503, r#"{"status":"not_ready","checks":{"db":"fail","redis":"ok"}}"#));
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_leaving_process_is_not_ready_and_still_lives() {
    let world = World::default();
    let leaving = world.leaving.clone();
    let client = world.client();
    client.get("/readyz").send().await.assert_status_is_ok();
    leaving.cancel();
    let answer = client.get("/readyz").send().await;
    answer.assert_status(poem::http::StatusCode::SERVICE_UNAVAILABLE);
    answer.assert_text(r#"{"status":"not_ready","checks":{"db":"ok","redis":"ok"}}"#).await;
    client.get("/livez").send().await.assert_text(r#"{"status":"live"}"#).await;
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_look() {
    struct Counting(Arc<AtomicU32>);
    #[async_trait]
    impl Probe for Counting {
        async fn check(&self) -> Result<(), Fault> {
            self.0.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(())
        }
    }
    let looks = Arc::new(AtomicU32::new(0));
    let client = World { probes: vec![("db", Arc::new(Counting(looks.clone())))], ..World::default() }.client();
    futures::future::join_all((0..20).map(|_| client.get("/readyz").send())).await;
    assert_eq!(looks.load(Ordering::Relaxed), 1);
}
