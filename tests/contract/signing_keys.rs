//! `SigningKeyRepo`.

use airi_server::core::model::oidc::keys::KeyRow;
use airi_server::core::model::secret::Secret;
use airi_server::ports::oidc::SigningKeyRepo;

use crate::accounts::at;

fn key(id: &str, seconds: i64) -> KeyRow {
    KeyRow {
        id: id.to_owned(),
        public_key: format!("public key of {id}"),
        private_key: Secret::new(format!("private key of {id}")),
        created_at: at(seconds),
        expires_at: None,
    }
}

async fn of_many_first_keys_one_is_stored(repo: &dyn SigningKeyRepo) {
    let keys: Vec<_> = (0..20).map(|n| key(&format!("k{n}"), n)).collect();
    for added in futures::future::join_all(keys.iter().map(|key| repo.add_first(key))).await {
        added.unwrap();
    }
    let stored = repo.list().await.unwrap();
    assert_eq!(stored.len(), 1);
    assert!(keys.contains(&stored[0]));
}

async fn a_rotation_ends_every_key_without_an_end_and_lists_the_newest_first(repo: &dyn SigningKeyRepo) {
    repo.add_first(&key("a", 1)).await.unwrap();
    repo.rotate(&key("b", 2), at(100)).await.unwrap();
    repo.rotate(&key("c", 3), at(200)).await.unwrap();
    let ends = |row: KeyRow, end| KeyRow { expires_at: Some(at(end)), ..row };
    assert_eq!(repo.list().await.unwrap(), [key("c", 3), ends(key("b", 2), 200), ends(key("a", 1), 100)]);
}

macro_rules! over_every_adapter {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            use airi_server::adapters::sqlite::signing_keys::SqliteSigningKeys;
            $(#[tokio::test]
            async fn $case() {
                super::$case(&SqliteSigningKeys { db: crate::support::databases::sqlite().await }).await;
            })+
        }

        #[cfg(feature = "live")]
        mod postgres {
            use airi_server::adapters::postgres::signing_keys::PgSigningKeys;
            $(#[tokio::test]
            async fn $case() {
                let database = crate::support::databases::postgres().await;
                super::$case(&PgSigningKeys { pool: database.pool.clone() }).await;
            })+
        }
    };
}

over_every_adapter! {
    of_many_first_keys_one_is_stored,
    a_rotation_ends_every_key_without_an_end_and_lists_the_newest_first,
}
