//! `AccountRepo`.

use airi_server::core::model::accounts::{Account, Creation, Email, NewAccount, PasswordIdentity};
use airi_server::core::model::ids::{IdentityId, UserId};
use airi_server::core::model::secret::Secret;
use airi_server::ports::accounts::AccountRepo;
use chrono::{DateTime, Utc};

/// Microseconds since 1970; the millisecond part is not zero, so a cut would show.
pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_790_000_000_123_456 + seconds * 1_000_000).unwrap()
}

pub(crate) fn account(id: &str, email: &str) -> Account {
    Account {
        id: UserId::new(id),
        name: format!("name of {id}"),
        email: Email::stored(email),
        email_verified: true,
        image: Some("https://example.com/a.png".to_owned()),
        created_at: at(0),
        updated_at: at(1),
    }
}

pub(crate) fn without_password(account: Account) -> NewAccount {
    NewAccount { account, password: None }
}

fn with_password(account: Account, identity: &str) -> NewAccount {
    let hash = Secret::new("00ff:aa55");
    NewAccount { account, password: Some(PasswordIdentity { id: IdentityId::new(identity), hash }) }
}

async fn a_created_account_is_found_by_id_and_by_address(repo: &dyn AccountRepo) {
    let bare = Account { image: None, email_verified: false, name: String::new(), ..account("u2", "b@example.com") };
    for new in [with_password(account("u1", "a@example.com"), "i1"), without_password(bare)] {
        assert_eq!(repo.create(&new).await.unwrap(), Creation::Created);
        assert_eq!(repo.find(&new.account.id).await.unwrap().as_ref(), Some(&new.account));
        assert_eq!(repo.find_by_email(&new.account.email).await.unwrap().as_ref(), Some(&new.account));
    }
}

async fn nobody_is_found_where_nobody_is(repo: &dyn AccountRepo) {
    assert_eq!(repo.find(&UserId::new("u1")).await.unwrap(), None);
    assert_eq!(repo.find_by_email(&Email::stored("a@example.com")).await.unwrap(), None);
}

async fn a_taken_address_is_refused_whatever_its_case_and_nothing_is_written(repo: &dyn AccountRepo) {
    repo.create(&without_password(account("u1", "Alice@Example.com"))).await.unwrap();
    for (id, email) in [("u2", "Alice@Example.com"), ("u3", "alice@example.com")] {
        let refused = with_password(account(id, email), id);
        assert_eq!(repo.create(&refused).await.unwrap(), Creation::AddressTaken, "{id}");
        assert_eq!(repo.find(&refused.account.id).await.unwrap(), None, "{id}");
    }
}

async fn an_address_is_compared_without_case(repo: &dyn AccountRepo) {
    let stored = account("u1", "Alice@Example.com");
    repo.create(&without_password(stored.clone())).await.unwrap();
    let asked = Email::parse("ALICE@example.COM").unwrap();
    assert_eq!(repo.find_by_email(&asked).await.unwrap(), Some(stored));
}

async fn an_account_whose_identity_cannot_be_stored_is_not_stored_either(repo: &dyn AccountRepo) {
    repo.create(&with_password(account("u1", "a@example.com"), "i1")).await.unwrap();
    repo.create(&with_password(account("u2", "b@example.com"), "i1")).await.unwrap_err();
    assert_eq!(repo.find(&UserId::new("u2")).await.unwrap(), None);
    assert_eq!(repo.create(&without_password(account("u2", "b@example.com"))).await.unwrap(), Creation::Created);
}

async fn of_many_sign_ups_with_one_address_one_succeeds(repo: &dyn AccountRepo) {
    let wishes: Vec<_> =
        (0..20).map(|n| with_password(account(&format!("u{n}"), "a@example.com"), &format!("i{n}"))).collect();
    let outcomes = futures::future::join_all(wishes.iter().map(|wish| repo.create(wish))).await;
    let created = outcomes.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == Creation::Created).count();
    assert_eq!(created, 1);
}

macro_rules! over_every_adapter {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            use airi_server::adapters::sqlite::accounts::SqliteAccounts;
            $(#[tokio::test]
            async fn $case() {
                super::$case(&SqliteAccounts { db: crate::support::databases::sqlite().await }).await;
            })+
        }

        #[cfg(feature = "live")]
        mod postgres {
            use airi_server::adapters::postgres::accounts::PgAccounts;
            $(#[tokio::test]
            async fn $case() {
                let database = crate::support::databases::postgres().await;
                super::$case(&PgAccounts { pool: database.pool.clone() }).await;
            })+
        }
    };
}

over_every_adapter! {
    a_created_account_is_found_by_id_and_by_address,
    nobody_is_found_where_nobody_is,
    a_taken_address_is_refused_whatever_its_case_and_nothing_is_written,
    an_address_is_compared_without_case,
    an_account_whose_identity_cannot_be_stored_is_not_stored_either,
    of_many_sign_ups_with_one_address_one_succeeds,
}

#[tokio::test]
async fn accounts_survive_a_restart_of_the_embedded_database() {
    use airi_server::adapters::sqlite::{self, accounts::SqliteAccounts};
    let directory = tempfile::tempdir().unwrap();
    let db = sqlite::open(directory.path()).await.unwrap();
    let repo = SqliteAccounts { db: db.clone() };
    of_many_sign_ups_with_one_address_one_succeeds(&repo).await;
    repo.create(&without_password(account("kept", "kept@example.com"))).await.unwrap();
    db.close().await;
    drop((db, repo));
    let repo = SqliteAccounts { db: sqlite::open(directory.path()).await.unwrap() };
    assert!(repo.find(&UserId::new("kept")).await.unwrap().is_some());
}
