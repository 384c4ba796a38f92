//! `IdempotencyRepo` over both databases.

use airi_server::core::model::idempotency::{CallKey, Claim, Claimed};
use airi_server::core::model::ids::{RequestId, UserId};
use airi_server::ports::idempotency::IdempotencyRepo;
use bytes::Bytes;
use chrono::TimeDelta;

use crate::accounts::at;

fn key() -> CallKey {
    CallKey::parse("k").unwrap()
}

fn claim(request: &str, body: &'static str) -> Claim {
    Claim {
        user: UserId::new("u"),
        key: key(),
        body: Bytes::from_static(body.as_bytes()),
        request: RequestId::new(request),
        at: at(0),
    }
}

fn mine(request: &str) -> Claimed {
    Claimed::Mine(RequestId::new(request))
}

async fn an_answered_call_is_heard_again_for_a_day(repo: &dyn IdempotencyRepo) {
    assert_eq!(repo.claim(&claim("r1", "{}")).await.unwrap(), mine("r1"));
    assert_eq!(repo.claim(&claim("r2", "{}")).await.unwrap(), Claimed::Running);
    assert_eq!(repo.claim(&claim("r2", "{ }")).await.unwrap(), Claimed::Mismatch);
    repo.finish(&claim("r1", "{}"), Some(Bytes::from_static(b"{\"a\":1}"))).await.unwrap();
    let body = Bytes::from_static(b"{\"a\":1}");
    let heard = Claimed::Answered { request: RequestId::new("r1"), body };
    assert_eq!(repo.claim(&claim("r2", "{}")).await.unwrap(), heard);
    assert_eq!(repo.claim(&claim("r2", "{ }")).await.unwrap(), Claimed::Mismatch);
    // What was answered cannot be given up.
    repo.give_up(&claim("r1", "{}")).await.unwrap();
    assert_eq!(repo.claim(&claim("r2", "{}")).await.unwrap(), heard);
    let stranger = Claim { user: UserId::new("other"), ..claim("r3", "{ }") };
    assert_eq!(repo.claim(&stranger).await.unwrap(), mine("r3"));
    let late = Claim { at: at(0) + TimeDelta::hours(24), ..claim("r4", "{ }") };
    assert_eq!(repo.claim(&late).await.unwrap(), mine("r4"));
}

async fn a_call_that_was_given_up_or_left_behind_goes_on_under_its_first_name(repo: &dyn IdempotencyRepo) {
    assert_eq!(repo.claim(&claim("r1", "{}")).await.unwrap(), mine("r1"));
    repo.give_up(&claim("r1", "{}")).await.unwrap();
    assert_eq!(repo.claim(&claim("r2", "{}")).await.unwrap(), mine("r1"));
    assert_eq!(repo.claim(&claim("r3", "{}")).await.unwrap(), Claimed::Running);
    let later = Claim { at: at(0) + TimeDelta::minutes(20), ..claim("r4", "{}") };
    assert_eq!(repo.claim(&later).await.unwrap(), mine("r1"));
    // The first attempt outlived its claim: it neither answers for the second nor gives it up.
    repo.finish(&claim("r1", "{}"), None).await.unwrap();
    repo.give_up(&claim("r1", "{}")).await.unwrap();
    let meanwhile = Claim { at: at(0) + TimeDelta::minutes(21), ..claim("r5", "{}") };
    assert_eq!(repo.claim(&meanwhile).await.unwrap(), Claimed::Running);
    repo.finish(&later, None).await.unwrap();
    assert_eq!(repo.claim(&claim("r5", "{}")).await.unwrap(), Claimed::NotKept);
}

async fn of_fifty_that_begin_a_call_at_once_one_makes_it(repo: &dyn IdempotencyRepo) {
    let claims: Vec<Claim> = (0..50).map(|n| claim(&format!("r{n}"), "{}")).collect();
    let outcomes = futures::future::join_all(claims.iter().map(|claim| repo.claim(claim))).await;
    let made = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Claimed::Mine(_)))).count();
    let running = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Claimed::Running))).count();
    assert_eq!((made, running), (1, 49));
}

macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test]
                async fn $case() {
                    let db = crate::support::databases::sqlite().await;
                    super::$case(&airi_server::adapters::sqlite::idempotency::SqliteIdempotency { db }).await;
                }
            )+
        }

        #[cfg(feature = "live")]
        mod postgres {
            $(
                #[tokio::test]
                async fn $case() {
                    let database = crate::support::databases::postgres().await;
                    let pool = database.pool.clone();
                    super::$case(&airi_server::adapters::postgres::idempotency::PgIdempotency { pool }).await;
                }
            )+
        }
    };
}

cases! {
    an_answered_call_is_heard_again_for_a_day,
    a_call_that_was_given_up_or_left_behind_goes_on_under_its_first_name,
    of_fifty_that_begin_a_call_at_once_one_makes_it,
}
