//! `SessionRepo`.

use airi_server::core::model::accounts::Session;
use airi_server::core::model::identity::Closing;
use airi_server::core::model::ids::{SessionId, UserId};
use airi_server::core::model::secret::Secret;
use airi_server::ports::accounts::{AccountRepo, SessionRepo};
use chrono::{DateTime, Utc};

use crate::accounts::{account, at, without_password};

fn session(id: &str, opened: DateTime<Utc>) -> Session {
    Session {
        id: SessionId::new(id),
        token: Secret::new(format!("token of {id}")),
        user: UserId::new("u1"),
        expires_at: opened + chrono::Duration::days(7),
        created_at: opened,
        updated_at: opened,
        ip_address: Some("192.0.2.1".to_owned()),
        user_agent: None,
    }
}

async fn with_a_person(accounts: &dyn AccountRepo) {
    accounts.create(&without_password(account("u1", "a@example.com"))).await.unwrap();
}

async fn a_session_is_found_by_its_token_with_its_owner_expired_or_not(
    people: &dyn AccountRepo,
    repo: &dyn SessionRepo,
) {
    with_a_person(people).await;
    for opened in [session("s1", at(100)), session("s2", DateTime::UNIX_EPOCH)] {
        repo.open(&opened).await.unwrap();
        let found = repo.find_by_token(opened.token.expose()).await.unwrap().unwrap();
        assert_eq!(format!("{:?}", found.session), format!("{opened:?}"));
        assert_eq!(found.session.token, opened.token);
        assert_eq!(Some(found.account), people.find(&opened.user).await.unwrap());
    }
    assert!(repo.find_by_token("token of s3").await.unwrap().is_none());
    assert!(repo.find_by_token("TOKEN OF S1").await.unwrap().is_none());
}

async fn opening_a_session_stamps_its_owner_and_never_moves_the_stamp_back(
    people: &dyn AccountRepo,
    repo: &dyn SessionRepo,
) {
    with_a_person(people).await;
    repo.open(&session("s1", at(100))).await.unwrap();
    assert_eq!(people.find(&UserId::new("u1")).await.unwrap().unwrap().updated_at, at(100));
    repo.open(&session("s2", at(50))).await.unwrap();
    assert_eq!(people.find(&UserId::new("u1")).await.unwrap().unwrap().updated_at, at(100));
}

async fn a_session_that_cannot_be_stored_leaves_its_owner_alone(people: &dyn AccountRepo, repo: &dyn SessionRepo) {
    with_a_person(people).await;
    repo.open(&session("s1", at(100))).await.unwrap();
    let same_token = Session { token: session("s1", at(0)).token, ..session("s2", at(200)) };
    repo.open(&same_token).await.unwrap_err();
    assert_eq!(people.find(&UserId::new("u1")).await.unwrap().unwrap().updated_at, at(100));
    let orphan = Session { user: UserId::new("nobody"), ..session("s3", at(200)) };
    repo.open(&orphan).await.unwrap_err();
    assert!(repo.find_by_token(orphan.token.expose()).await.unwrap().is_none());
}

async fn an_extended_session_ends_later_and_only_that_one(people: &dyn AccountRepo, repo: &dyn SessionRepo) {
    with_a_person(people).await;
    let (extended, other) = (session("s1", at(100)), session("s2", at(100)));
    repo.open(&extended).await.unwrap();
    repo.open(&other).await.unwrap();
    repo.extend(&extended.id, at(900_000), at(200)).await.unwrap();
    repo.extend(&SessionId::new("gone"), at(900_000), at(200)).await.unwrap();
    let found = repo.find_by_token(extended.token.expose()).await.unwrap().unwrap().session;
    assert_eq!((found.expires_at, found.updated_at, found.created_at), (at(900_000), at(200), at(100)));
    let found = repo.find_by_token(other.token.expose()).await.unwrap().unwrap().session;
    assert_eq!((found.expires_at, found.updated_at), (other.expires_at, other.updated_at));
}

async fn an_ended_session_is_gone_and_ending_it_twice_is_harmless(people: &dyn AccountRepo, repo: &dyn SessionRepo) {
    with_a_person(people).await;
    let (ended, other) = (session("s1", at(100)), session("s2", at(100)));
    repo.open(&ended).await.unwrap();
    repo.open(&other).await.unwrap();
    let one = Closing::One(ended.id.clone());
    assert_eq!(repo.close(&ended.user, &one, at(200)).await.unwrap(), [ended.id]);
    assert_eq!(repo.close(&ended.user, &one, at(200)).await.unwrap(), []);
    assert!(repo.find_by_token(ended.token.expose()).await.unwrap().is_none());
    assert!(repo.find_by_token(other.token.expose()).await.unwrap().is_some());
}

async fn many_devices_sign_in_at_once(people: &dyn AccountRepo, repo: &dyn SessionRepo) {
    with_a_person(people).await;
    let sessions: Vec<_> = (0..50).map(|n| session(&format!("s{n}"), at(n))).collect();
    for opened in futures::future::join_all(sessions.iter().map(|session| repo.open(session))).await {
        opened.unwrap();
    }
    assert_eq!(people.find(&UserId::new("u1")).await.unwrap().unwrap().updated_at, at(49));
}

macro_rules! over_every_adapter {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            use airi_server::adapters::sqlite::{accounts::SqliteAccounts, sessions::SqliteSessions};
            $(#[tokio::test]
            async fn $case() {
                let db = crate::support::databases::sqlite().await;
                super::$case(&SqliteAccounts { db: db.clone() }, &SqliteSessions { db }).await;
            })+
        }

        #[cfg(feature = "live")]
        mod postgres {
            use airi_server::adapters::postgres::{accounts::PgAccounts, sessions::PgSessions};
            $(#[tokio::test]
            async fn $case() {
                let database = crate::support::databases::postgres().await;
                let pool = database.pool.clone();
                super::$case(&PgAccounts { pool: pool.clone() }, &PgSessions { pool }).await;
            })+
        }
    };
}

over_every_adapter! {
    a_session_is_found_by_its_token_with_its_owner_expired_or_not,
    opening_a_session_stamps_its_owner_and_never_moves_the_stamp_back,
    a_session_that_cannot_be_stored_leaves_its_owner_alone,
    an_extended_session_ends_later_and_only_that_one,
    an_ended_session_is_gone_and_ending_it_twice_is_harmless,
    many_devices_sign_in_at_once,
}

#[tokio::test]
async fn the_embedded_database_notes_when_a_person_was_last_seen() {
    use airi_server::adapters::sqlite::{accounts::SqliteAccounts, sessions::SqliteSessions};
    let db = crate::support::databases::sqlite().await;
    with_a_person(&SqliteAccounts { db: db.clone() }).await;
    SqliteSessions { db: db.clone() }.open(&session("s1", at(7))).await.unwrap();
    let seen: i64 = sqlx::query_scalar("SELECT last_seen_at FROM user").fetch_one(&db.readers).await.unwrap();
    assert_eq!(seen, at(7).timestamp_micros());
}

#[cfg(feature = "live")]
#[tokio::test]
async fn postgresql_notes_when_a_person_was_last_seen_in_utc() {
    use airi_server::adapters::postgres::{accounts::PgAccounts, sessions::PgSessions};
    let database = crate::support::databases::postgres().await;
    let pool = database.pool.clone();
    with_a_person(&PgAccounts { pool: pool.clone() }).await;
    PgSessions { pool: pool.clone() }.open(&session("s1", at(7))).await.unwrap();
    let seen: chrono::NaiveDateTime =
        sqlx::query_scalar(r#"SELECT last_seen_at FROM "user""#).fetch_one(&pool).await.unwrap();
    assert_eq!(seen, at(7).naive_utc());
    let zone: String = sqlx::query_scalar("SHOW TimeZone").fetch_one(&pool).await.unwrap();
    assert_eq!(zone, "UTC");
}
