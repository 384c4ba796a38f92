//! `ConfigStore`.

use airi_server::core::model::config::{ConfigChange, ConfigWrite, WriteOutcome};
use airi_server::ports::config::ConfigStore;
use futures::{FutureExt, StreamExt};

fn write(entries: &[(&'static str, Option<&str>)]) -> ConfigWrite {
    ConfigWrite {
        entries: entries.iter().map(|(name, value)| (*name, value.map(str::to_owned))).collect(),
        expected_version: None,
    }
}

async fn stored(store: &dyn ConfigStore, name: &'static str) -> Option<String> {
    store.find(name).await.unwrap().map(|entry| entry.json().to_owned())
}

async fn a_store_nobody_has_written_is_empty_at_version_zero(store: &dyn ConfigStore) {
    assert_eq!(store.version().await.unwrap(), 0);
    assert_eq!(stored(store, "FLUX_PER_REQUEST").await, None);
}

async fn a_write_stores_replaces_and_removes_as_one(store: &dyn ConfigStore) {
    let first = write(&[("FLUX_PER_REQUEST", Some("5")), ("DEFAULT_CHAT_MODEL", Some("\"a\""))]);
    assert_eq!(store.write(&first).await.unwrap(), WriteOutcome::Written(1));
    let second =
        write(&[("FLUX_PER_REQUEST", None), ("DEFAULT_CHAT_MODEL", Some("\"b\"")), ("INITIAL_USER_FLUX", None)]);
    assert_eq!(store.write(&second).await.unwrap(), WriteOutcome::Written(2));
    assert_eq!(stored(store, "FLUX_PER_REQUEST").await, None);
    assert_eq!(stored(store, "DEFAULT_CHAT_MODEL").await.as_deref(), Some("\"b\""));
    let fresh = store.find_fresh("DEFAULT_CHAT_MODEL").await.unwrap().map(|entry| entry.json().to_owned());
    assert_eq!(fresh.as_deref(), Some("\"b\""));
    assert_eq!(store.version().await.unwrap(), 2);
}

async fn a_write_that_expects_another_version_changes_and_tells_nothing(store: &dyn ConfigStore) {
    let mut changes = store.changes();
    store.write(&write(&[("FLUX_PER_REQUEST", Some("5"))])).await.unwrap();
    assert_eq!(changes.next().await, Some(ConfigChange::Entry("FLUX_PER_REQUEST".to_owned())));
    for expected in [0, 2] {
        let stale = ConfigWrite { expected_version: Some(expected), ..write(&[("FLUX_PER_REQUEST", Some("6"))]) };
        assert_eq!(store.write(&stale).await.unwrap(), WriteOutcome::Stale(1));
    }
    assert_eq!(stored(store, "FLUX_PER_REQUEST").await.as_deref(), Some("5"));
    assert_eq!(store.version().await.unwrap(), 1);
    let fresh = ConfigWrite { expected_version: Some(1), ..write(&[("INITIAL_USER_FLUX", Some("6"))]) };
    assert_eq!(store.write(&fresh).await.unwrap(), WriteOutcome::Written(2));
    assert_eq!(changes.next().await, Some(ConfigChange::Entry("INITIAL_USER_FLUX".to_owned())));
}

async fn of_many_writers_that_saw_one_version_one_succeeds(store: &dyn ConfigStore) {
    let wish = ConfigWrite { expected_version: Some(0), ..write(&[("FLUX_PER_REQUEST", Some("5"))]) };
    let outcomes = futures::future::join_all((0..30).map(|_| store.write(&wish))).await;
    let written = outcomes.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == WriteOutcome::Written(1)).count();
    assert_eq!((written, store.version().await.unwrap()), (1, 1));
}

async fn every_listener_hears_every_entry_after_it_can_be_read(store: &dyn ConfigStore) {
    let mut listeners = [store.changes(), store.changes()];
    store.write(&write(&[("FLUX_PER_REQUEST", Some("5")), ("INITIAL_USER_FLUX", Some("9"))])).await.unwrap();
    for listener in &mut listeners {
        for name in ["FLUX_PER_REQUEST", "INITIAL_USER_FLUX"] {
            assert_eq!(listener.next().await, Some(ConfigChange::Entry(name.to_owned())));
            assert!(stored(store, "FLUX_PER_REQUEST").await.is_some());
        }
        assert_eq!(listener.next().now_or_never(), None);
    }
}

async fn a_listener_that_lags_is_told_to_forget_everything(store: &dyn ConfigStore) {
    let mut changes = store.changes();
    for _ in 0..100 {
        store.write(&write(&[("FLUX_PER_REQUEST", Some("5"))])).await.unwrap();
    }
    assert_eq!(changes.next().await, Some(ConfigChange::Gap));
    assert_eq!(changes.next().await, Some(ConfigChange::Entry("FLUX_PER_REQUEST".to_owned())));
}

macro_rules! over_every_adapter {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            use airi_server::adapters::sqlite::config::{SqliteConfig, listeners};
            $(#[tokio::test]
            async fn $case() {
                let db = crate::support::databases::sqlite().await;
                super::$case(&SqliteConfig { db, listeners: listeners() }).await;
            })+
        }

        #[cfg(feature = "live")]
        mod postgres {
            use airi_server::adapters::postgres::config::{PgConfig, listeners};
            $(#[tokio::test]
            async fn $case() {
                let database = crate::support::databases::postgres().await;
                super::$case(&PgConfig { pool: database.pool.clone(), listeners: listeners() }).await;
            })+
        }

        #[cfg(feature = "live")]
        mod redis {
            $(#[tokio::test]
            async fn $case() {
                let (store, _space) = crate::redis_config::store().await;
                super::$case(&*store).await;
            })+
        }
    };
}

over_every_adapter! {
    a_store_nobody_has_written_is_empty_at_version_zero,
    a_write_stores_replaces_and_removes_as_one,
    a_write_that_expects_another_version_changes_and_tells_nothing,
    of_many_writers_that_saw_one_version_one_succeeds,
    every_listener_hears_every_entry_after_it_can_be_read,
    a_listener_that_lags_is_told_to_forget_everything,
}

#[tokio::test]
async fn replaced_values_are_kept_with_the_version_that_replaced_them() {
    use airi_server::adapters::sqlite::config::{SqliteConfig, listeners};
    let db = crate::support::databases::sqlite().await;
    let store = SqliteConfig { db: db.clone(), listeners: listeners() };
    for value in [Some("5"), Some("6"), None] {
        store.write(&write(&[("FLUX_PER_REQUEST", value)])).await.unwrap();
    }
    let history: Vec<(i64, Option<String>)> =
        sqlx::query_as("SELECT version, previous_value FROM airi_config_history ORDER BY version")
            .fetch_all(&db.readers)
            .await
            .unwrap();
    assert_eq!(history, [(1, None), (2, Some("5".to_owned())), (3, Some("6".to_owned()))]);
}
