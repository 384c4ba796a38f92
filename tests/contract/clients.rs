//! `ClientRepo`.

use airi_server::core::model::oidc::Issuer;
use airi_server::core::model::oidc::clients::{Client, MOBILE, WEB, first_party};
use airi_server::ports::oidc::ClientRepo;

use crate::accounts::at;

pub(crate) fn ours() -> [Client; 3] {
    first_party(&Issuer::new("http://localhost:3000"))
}

async fn seeded_clients_are_found_as_they_were_meant(repo: &dyn ClientRepo) {
    for client in ours() {
        repo.seed(&client, &format!("row of {}", client.client_id), at(1)).await.unwrap();
        assert_eq!(repo.find(&client.client_id).await.unwrap(), Some(client));
    }
    assert_eq!(repo.find("nobody").await.unwrap(), None);
}

async fn seeding_again_overwrites_what_changed(repo: &dyn ClientRepo) {
    let [web, ..] = ours();
    let drifted = Client { name: Some("old".to_owned()), skip_consent: false, redirect_uris: vec![], ..web.clone() };
    repo.seed(&drifted, "row", at(1)).await.unwrap();
    assert_eq!(repo.find(WEB).await.unwrap(), Some(drifted));
    repo.seed(&web, "another row", at(2)).await.unwrap();
    assert_eq!(repo.find(WEB).await.unwrap(), Some(web));
}

async fn many_processes_seed_at_once(repo: &dyn ClientRepo) {
    let [.., mobile] = ours();
    let seeds = (0..20).map(|n| {
        let mobile = mobile.clone();
        async move { repo.seed(&mobile, &format!("row {n}"), at(n)).await }
    });
    for seeded in futures::future::join_all(seeds).await {
        seeded.unwrap();
    }
    assert_eq!(repo.find(MOBILE).await.unwrap(), Some(mobile));
}

macro_rules! over_every_adapter {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            use airi_server::adapters::sqlite::clients::SqliteClients;
            $(#[tokio::test]
            async fn $case() {
                super::$case(&SqliteClients { db: crate::support::databases::sqlite().await }).await;
            })+
        }

        #[cfg(feature = "live")]
        mod postgres {
            use airi_server::adapters::postgres::clients::PgClients;
            $(#[tokio::test]
            async fn $case() {
                let database = crate::support::databases::postgres().await;
                super::$case(&PgClients { pool: database.pool.clone() }).await;
            })+
        }
    };
}

over_every_adapter! {
    seeded_clients_are_found_as_they_were_meant,
    seeding_again_overwrites_what_changed,
    many_processes_seed_at_once,
}

const SWITCH_OFF: &str = "UPDATE oauth_client SET disabled = true";

async fn is_off_after_another_seed(repo: &dyn ClientRepo) -> bool {
    let [web, ..] = ours();
    repo.seed(&web, "row", at(2)).await.unwrap();
    let found = repo.find(WEB).await.unwrap().unwrap();
    assert_eq!(Client { disabled: false, ..found.clone() }, web);
    found.disabled
}

#[tokio::test]
async fn a_client_switched_off_in_the_embedded_database_stays_off() {
    let db = crate::support::databases::sqlite().await;
    let repo = airi_server::adapters::sqlite::clients::SqliteClients { db: db.clone() };
    assert!(!is_off_after_another_seed(&repo).await);
    sqlx::query(SWITCH_OFF).execute(&db.writer).await.unwrap();
    assert!(is_off_after_another_seed(&repo).await);
}

#[cfg(feature = "live")]
#[tokio::test]
async fn a_client_switched_off_in_postgresql_stays_off() {
    let database = crate::support::databases::postgres().await;
    let repo = airi_server::adapters::postgres::clients::PgClients { pool: database.pool.clone() };
    assert!(!is_off_after_another_seed(&repo).await);
    sqlx::query(SWITCH_OFF).execute(&database.pool).await.unwrap();
    assert!(is_off_after_another_seed(&repo).await);
}
