//! `ProviderRepo`.

use airi_server::core::model::ids::{ProviderId, UserId};
use airi_server::core::model::ownership::OwnerOnly;
use airi_server::core::model::providers::{NewProvider, Provider, ProviderChange, ProviderConfig, ProviderStored};
use airi_server::core::model::sealed::SealedRow;
use airi_server::ports::providers::ProviderRepo;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::accounts::at;

fn user(name: &str) -> UserId {
    UserId::new(name)
}

fn id(name: &str) -> ProviderId {
    ProviderId::new(name)
}

fn config(value: &Value) -> ProviderConfig {
    ProviderConfig(value.as_object().unwrap().clone())
}

fn new(name: &str, owner: &str) -> NewProvider {
    NewProvider {
        id: id(name),
        owner: user(owner),
        definition: "openai".to_owned(),
        name: format!("name of {name}"),
        config: config(&json!({ "apiKey": "v1.sealed", "n": 1.5, "o": { "a": [null, true] } })),
        validated: true,
        validation_bypassed: false,
    }
}

pub(crate) async fn make(repo: &dyn ProviderRepo, name: &str, owner: &str) -> Provider {
    match repo.create(&new(name, owner), 200).await.unwrap() {
        ProviderStored::Stored(provider) => *provider,
        refused => panic!("{name}: {refused:?}"),
    }
}

pub(crate) async fn listed(repo: &dyn ProviderRepo, owner: &str) -> Vec<String> {
    repo.list(&user(owner)).await.unwrap().iter().map(|provider| provider.id.to_string()).collect()
}

async fn a_row_is_found_as_it_was_stored_by_its_owner_alone(repo: &dyn ProviderRepo) {
    let (stored, wanted) = (make(repo, "p1", "u1").await, new("p1", "u1"));
    assert_eq!((&stored.id, stored.owner.as_ref()), (&wanted.id, Some(&wanted.owner)));
    assert_eq!((&stored.definition, &stored.name), (&wanted.definition, &wanted.name));
    assert_eq!((stored.validated, stored.validation_bypassed), (true, false));
    assert_eq!((&stored.config, stored.created_at), (&wanted.config, stored.updated_at));
    assert_eq!(repo.find(&id("p1"), &user("u1")).await.unwrap(), Some(stored.clone()));
    assert_eq!(repo.list(&user("u1")).await.unwrap()[0], stored);
    assert_eq!(repo.find(&id("p1"), &user("u2")).await.unwrap(), None);
    assert_eq!(repo.find(&id("p2"), &user("u1")).await.unwrap(), None);
}

async fn the_systems_rows_come_last_and_without_their_configuration(repo: &dyn ProviderRepo) {
    for name in ["z", "y"] {
        make(repo, name, "u1").await;
        // Embedded times are whole milliseconds.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    make(repo, "x", "u2").await;
    assert_eq!(listed(repo, "u1").await, ["z", "y", "s1", "s2"]);
    assert_eq!(listed(repo, "u3").await, ["s1", "s2"]);
    let system = repo.find(&id("s1"), &user("u1")).await.unwrap().unwrap();
    assert_eq!((system.owner.as_ref(), system.config), (None, ProviderConfig::default()));
    assert_eq!(repo.list(&user("u3")).await.unwrap()[0].config, ProviderConfig::default());
    assert_eq!(repo.find(&id("s3"), &user("u1")).await.unwrap(), None);
}

async fn an_id_is_taken_by_any_row_dead_or_alive(repo: &dyn ProviderRepo) {
    make(repo, "p1", "u1").await;
    make(repo, "p2", "u1").await;
    repo.delete(&id("p2"), &user("u1"), at(0)).await.unwrap();
    for taken in ["p1", "p2", "s1", "s3"] {
        assert_eq!(repo.create(&new(taken, "u2"), 200).await.unwrap(), ProviderStored::Taken, "{taken}");
    }
    assert_eq!(listed(repo, "u2").await, ["s1", "s2"]);
}

async fn a_full_user_stores_no_more_however_many_ask_at_once(repo: &dyn ProviderRepo) {
    make(repo, "deleted", "u1").await;
    repo.delete(&id("deleted"), &user("u1"), at(0)).await.unwrap();
    let wishes: Vec<_> = (0..10).map(|n| new(&format!("p{n}"), "u1")).collect();
    let outcomes = join_all(wishes.iter().map(|wish| repo.create(wish, 3))).await;
    let full = outcomes.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == ProviderStored::Full).count();
    assert_eq!((full, listed(repo, "u1").await.len()), (7, 3 + 2));
}

async fn only_the_owner_changes_a_live_row(repo: &dyn ProviderRepo) {
    let before = make(repo, "p1", "u1").await;
    let update = async |name: &str, owner: &str, change: ProviderChange| {
        repo.update(&id(name), &user(owner), &change, at(900_000_000)).await.unwrap()
    };
    let rename = || ProviderChange { name: Some("new".to_owned()), ..ProviderChange::default() };
    assert_eq!(update("p1", "u2", rename()).await, OwnerOnly::Foreign);
    assert_eq!(update("s1", "u1", rename()).await, OwnerOnly::Missing);
    assert_eq!(update("p9", "u1", rename()).await, OwnerOnly::Missing);
    let touched = Provider { updated_at: at(900_000_000), ..before };
    assert_eq!(update("p1", "u1", ProviderChange::default()).await, OwnerOnly::Done(Box::new(touched.clone())));
    let renamed = Provider { name: "new".to_owned(), ..touched };
    assert_eq!(update("p1", "u1", rename()).await, OwnerOnly::Done(Box::new(renamed.clone())));
    let replaced = config(&json!({ "a": "b" }));
    let change = ProviderChange {
        config: Some(replaced.clone()),
        validated: Some(false),
        validation_bypassed: Some(true),
        name: None,
    };
    let wanted = Provider { config: replaced, validated: false, validation_bypassed: true, ..renamed };
    assert_eq!(update("p1", "u1", change).await, OwnerOnly::Done(Box::new(wanted.clone())));
    assert_eq!(repo.find(&id("p1"), &user("u1")).await.unwrap(), Some(wanted));
}

async fn a_deleted_row_is_gone(repo: &dyn ProviderRepo) {
    make(repo, "p1", "u1").await;
    let delete = async |name: &str, owner: &str| repo.delete(&id(name), &user(owner), at(0)).await.unwrap();
    assert_eq!(delete("p1", "u2").await, OwnerOnly::Foreign);
    assert_eq!(delete("s1", "u1").await, OwnerOnly::Missing);
    assert_eq!(delete("p1", "u1").await, OwnerOnly::Done(()));
    assert_eq!(delete("p1", "u1").await, OwnerOnly::Missing);
    assert_eq!(repo.find(&id("p1"), &user("u1")).await.unwrap(), None);
    let change = ProviderChange::default();
    assert_eq!(repo.update(&id("p1"), &user("u1"), &change, at(0)).await.unwrap(), OwnerOnly::Missing);
}

async fn sealed_rows_are_listed_dead_or_alive_and_replaced_if_they_are_what_was_read(repo: &dyn ProviderRepo) {
    let before = make(repo, "p1", "u1").await;
    make(repo, "p2", "u2").await;
    repo.delete(&id("p2"), &user("u2"), at(0)).await.unwrap();
    let first = repo.list_sealed(None, 1).await.unwrap();
    let rest = repo.list_sealed(Some("p1"), 9).await.unwrap();
    let row = |name: &str, owner: &str| SealedRow {
        id: name.to_owned(),
        within: owner.to_owned(),
        config: new(name, owner).config.0,
    };
    assert_eq!((&first, rest), (&vec![row("p1", "u1")], vec![row("p2", "u2")]));
    let anew = config(&json!({ "apiKey": "v1.anew" }));
    assert!(repo.reseal(&first[0], &anew.0).await.unwrap());
    assert!(!repo.reseal(&first[0], &config(&json!({})).0).await.unwrap());
    let wanted = Provider { config: anew, ..before };
    assert_eq!(repo.find(&id("p1"), &user("u1")).await.unwrap(), Some(wanted));
}

const SYSTEM_IN_POSTGRES: &str = "INSERT INTO system_provider_configs (id, definition_id, name, config, deleted_at)
    VALUES ('s2', 'd', 'n', '{\"apiKey\":\"sk\"}', NULL), ('s1', 'd', 'n', '{\"apiKey\":\"sk\"}', NULL),
           ('s3', 'd', 'n', '{}', now())";
const SYSTEM_IN_SQLITE: &str = "INSERT INTO system_provider_configs (id, definition_id, name, config, deleted_at)
    VALUES ('s2', 'd', 'n', '{\"apiKey\":\"sk\"}', NULL), ('s1', 'd', 'n', '{\"apiKey\":\"sk\"}', NULL),
           ('s3', 'd', 'n', '{}', 0)";
macro_rules! over_every_adapter {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            use airi_server::adapters::sqlite::providers::SqliteProviders;
            $(#[tokio::test]
            async fn $case() {
                let db = crate::support::databases::sqlite().await;
                sqlx::query(super::SYSTEM_IN_SQLITE).execute(&db.writer).await.unwrap();
                super::$case(&SqliteProviders { db }).await;
            })+
        }

        #[cfg(feature = "live")]
        mod postgres {
            use airi_server::adapters::postgres::providers::PgProviders;
            $(#[tokio::test]
            async fn $case() {
                let database = crate::support::databases::postgres().await;
                sqlx::query(super::SYSTEM_IN_POSTGRES).execute(&database.pool).await.unwrap();
                super::$case(&PgProviders { pool: database.pool.clone() }).await;
            })+
        }
    };
}

over_every_adapter! {
    a_row_is_found_as_it_was_stored_by_its_owner_alone,
    the_systems_rows_come_last_and_without_their_configuration,
    an_id_is_taken_by_any_row_dead_or_alive,
    a_full_user_stores_no_more_however_many_ask_at_once,
    only_the_owner_changes_a_live_row,
    a_deleted_row_is_gone,
    sealed_rows_are_listed_dead_or_alive_and_replaced_if_they_are_what_was_read,
}
