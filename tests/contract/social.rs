//! Identities of other providers, over both stores.

use airi_server::core::model::accounts::{Account, Creation, Email};
use airi_server::core::model::ids::{IdentityId, UserId};
use airi_server::core::model::secret::Secret;
use airi_server::core::model::social::{Linking, Provider, ProviderTokens, SocialIdentity};
use airi_server::ports::accounts::AccountRepo;
use airi_server::ports::social::SocialRepo;
use chrono::{DateTime, Duration, Utc};

struct World {
    accounts: Box<dyn AccountRepo>,
    social: Box<dyn SocialRepo>,
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::seconds(second)
}

fn account(id: &str) -> Account {
    Account {
        id: UserId::new(id),
        name: "Ann".to_owned(),
        email: Email::parse(&format!("{id}@example.com")).unwrap(),
        email_verified: true,
        image: None,
        created_at: at(0),
        updated_at: at(0),
    }
}

fn identity(row: &str, account_id: &str) -> SocialIdentity {
    let tokens = ProviderTokens {
        access: Some(Secret::new("access")),
        scopes: vec!["email".to_owned(), "profile".to_owned()],
        ..ProviderTokens::default()
    };
    SocialIdentity {
        id: IdentityId::new(row),
        provider: Provider::Google,
        account_id: account_id.to_owned(),
        tokens,
        at: at(1),
    }
}

async fn a_new_person_comes_with_their_identity(world: &World) {
    let created = world.social.create_with(&account("u1"), &identity("i1", "g1")).await.unwrap();
    assert_eq!(created, Creation::Created);
    assert_eq!(world.accounts.find(&UserId::new("u1")).await.unwrap(), Some(account("u1")));
    let listed = world.accounts.list_identities(&UserId::new("u1")).await.unwrap();
    assert_eq!((listed[0].provider.as_str(), listed[0].account_id.as_str()), ("google", "g1"));
    assert_eq!(listed[0].scopes, ["email", "profile"]);
    assert_eq!(world.social.find_owner(Provider::Google, "g1").await.unwrap(), Some(UserId::new("u1")));
    assert_eq!(world.social.find_owner(Provider::GitHub, "g1").await.unwrap(), None);
}

async fn a_taken_address_or_identity_makes_nobody(world: &World) {
    world.social.create_with(&account("u1"), &identity("i1", "g1")).await.unwrap();
    let same_address = Account { id: UserId::new("u2"), ..account("u1") };
    for (person, identity) in [(same_address, identity("i2", "g2")), (account("u3"), identity("i3", "g1"))] {
        assert_eq!(world.social.create_with(&person, &identity).await.unwrap(), Creation::AddressTaken);
        assert_eq!(world.accounts.find(&person.id).await.unwrap(), None);
    }
    assert_eq!(world.social.find_owner(Provider::Google, "g2").await.unwrap(), None);
}

async fn an_identity_belongs_to_one_person(world: &World) {
    for user in ["u1", "u2"] {
        world
            .social
            .create_with(&account(user), &identity(&format!("own-{user}"), &format!("own-{user}")))
            .await
            .unwrap();
    }
    let (u1, u2) = (UserId::new("u1"), UserId::new("u2"));
    assert_eq!(world.social.link(&u1, &identity("i1", "g1")).await.unwrap(), Linking::Linked);
    assert_eq!(world.social.link(&u1, &identity("i2", "g1")).await.unwrap(), Linking::Known);
    assert_eq!(world.social.link(&u2, &identity("i3", "g1")).await.unwrap(), Linking::Foreign(u1.clone()));
    assert_eq!(world.social.link(&UserId::new("nobody"), &identity("i4", "g4")).await.unwrap(), Linking::Gone);
    assert_eq!(world.accounts.list_identities(&u1).await.unwrap().len(), 2);
    assert_eq!(world.accounts.list_identities(&u2).await.unwrap().len(), 1);
}

async fn of_many_at_once_one_person_gets_the_identity(world: &World) {
    let crowd = (0..20).map(|one| {
        let (person, identity) = (account(&format!("u{one}")), identity(&format!("i{one}"), "g1"));
        async move { world.social.create_with(&person, &identity).await.unwrap() }
    });
    let made = futures::future::join_all(crowd).await;
    assert_eq!(made.iter().filter(|done| **done == Creation::Created).count(), 1);
    let owner = world.social.find_owner(Provider::Google, "g1").await.unwrap().unwrap();
    let crowd = (0..20).map(|one| {
        let (owner, identity) = (owner.clone(), identity(&format!("j{one}"), "g2"));
        async move { world.social.link(&owner, &identity).await.unwrap() }
    });
    let linked = futures::future::join_all(crowd).await;
    assert_eq!(linked.iter().filter(|done| **done == Linking::Linked).count(), 1);
    assert_eq!(world.accounts.list_identities(&owner).await.unwrap().len(), 2);
}

macro_rules! over_every_adapter {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            use airi_server::adapters::sqlite::{accounts::SqliteAccounts, social::SqliteSocial};
            $(#[tokio::test]
            async fn $case() {
                let db = crate::support::databases::sqlite().await;
                super::$case(&super::World {
                    accounts: Box::new(SqliteAccounts { db: db.clone() }),
                    social: Box::new(SqliteSocial { db: db.clone() }),
                })
                .await;
            })+
        }

        #[cfg(feature = "live")]
        mod postgres {
            use airi_server::adapters::postgres::{accounts::PgAccounts, social::PgSocial};
            $(#[tokio::test]
            async fn $case() {
                let database = crate::support::databases::postgres().await;
                super::$case(&super::World {
                    accounts: Box::new(PgAccounts { pool: database.pool.clone() }),
                    social: Box::new(PgSocial { pool: database.pool.clone() }),
                })
                .await;
            })+
        }
    };
}

over_every_adapter! {
    a_new_person_comes_with_their_identity,
    a_taken_address_or_identity_makes_nobody,
    an_identity_belongs_to_one_person,
    of_many_at_once_one_person_gets_the_identity,
}
