//! What `ErasureRepo` does to characters, marks and provider configurations, beside `AccountRepo`.

use airi_server::core::model::accounts::NewAccount;
use airi_server::core::model::characters::Mark;
use airi_server::core::model::erasure::Erasure;
use airi_server::core::model::ids::{ProviderId, UserId};
use airi_server::ports::accounts::AccountRepo;
use airi_server::ports::characters::CharacterRepo;
use airi_server::ports::erasure::ErasureRepo;
use airi_server::ports::providers::ProviderRepo;

use crate::accounts::{account, at};
use crate::characters::{bare, id, likes, make, seen, user, whole};
use crate::identity::Sql;
use crate::providers;

struct World {
    accounts: Box<dyn AccountRepo>,
    characters: Box<dyn CharacterRepo>,
    providers: Box<dyn ProviderRepo>,
    erasures: Box<dyn ErasureRepo>,
    sql: Sql,
}

/// From now on the last step of an erasure fails.
async fn refuse_to_forget(sql: &Sql) {
    match sql {
        Sql::Sqlite(pool) => {
            let trigger = "CREATE TRIGGER refuse BEFORE DELETE ON user BEGIN SELECT RAISE(ABORT, 'no'); END";
            sqlx::raw_sql(trigger).execute(pool).await.unwrap();
        }
        #[cfg(feature = "live")]
        Sql::Postgres(pool) => {
            let trigger = r#"
                CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
                CREATE TRIGGER refuse BEFORE DELETE ON "user" FOR EACH ROW EXECUTE FUNCTION refuse()"#;
            sqlx::raw_sql(trigger).execute(pool).await.unwrap();
        }
    }
}

fn erasure() -> Erasure {
    Erasure { user: user("gone"), address_mark: "mark".to_owned(), at: at(900_000_000) }
}

/// Somebody with a character, marks on another's, and two provider configurations, one of them deleted.
async fn somebody(world: &World) {
    let new = NewAccount { account: account("gone", "gone@example.com"), password: None };
    world.accounts.create(&new).await.unwrap();
    let characters = world.characters.as_ref();
    make(characters, &whole("mine", "gone")).await;
    make(characters, &bare("theirs", "o1")).await;
    for (name, who) in [("mine", "viewer"), ("theirs", "gone"), ("theirs", "viewer")] {
        characters.toggle(&id(name), &user(who), Mark::Like).await.unwrap();
    }
    characters.toggle(&id("theirs"), &user("gone"), Mark::Bookmark).await.unwrap();
    for (name, owner) in [("p1", "gone"), ("old", "gone"), ("p2", "u2")] {
        providers::make(world.providers.as_ref(), name, owner).await;
    }
    world.providers.delete(&ProviderId::new("old"), &user("gone"), at(0)).await.unwrap();
}

/// Keys that are still there.
const KEYS: &str = "SELECT count(*) FROM character_capabilities
    WHERE id = 'capability of mine' AND CAST(config AS text) LIKE '%v1.sealed%'";
/// The rest of such a configuration.
const RESTS: &str = "SELECT count(*) FROM character_capabilities
    WHERE id = 'capability of mine' AND CAST(config AS text) LIKE '%apiBaseUrl%'";
/// Provider rows that are not wiped.
const SECRETS: &str = "SELECT count(*) FROM user_provider_configs
    WHERE owner_id = 'gone' AND (CAST(config AS text) <> '{}' OR deleted_at IS NULL)";

async fn nothing_of_an_erased_person_is_left_but_the_marks_of_others(world: &World) {
    somebody(world).await;
    let (characters, providers) = (world.characters.as_ref(), world.providers.as_ref());
    for first in [true, false] {
        assert_eq!(world.erasures.erase(&erasure()).await.unwrap().is_some(), first);
        assert!(seen(characters, "mine").await.is_none());
        let theirs = characters.find(&id("theirs"), &user("gone")).await.unwrap().unwrap();
        assert_eq!((theirs.character.counters.likes, theirs.character.counters.bookmarks), (1, 0));
        assert_eq!((theirs.liked_at, theirs.bookmarked_at), (None, None));
        assert_eq!(characters.recount().await.unwrap(), 0);
        assert_eq!((world.sql.count(KEYS).await, world.sql.count(RESTS).await), (0, 1));
        assert_eq!(world.sql.count(SECRETS).await, 0);
        assert!(providers::listed(providers, "gone").await.is_empty());
        assert_eq!(providers::listed(providers, "u2").await, ["p2"]);
    }
    // A session that outlives its account: the stamped row counted nothing, so the like is new.
    assert_eq!(characters.toggle(&id("theirs"), &user("gone"), Mark::Like).await.unwrap(), Some(true));
    assert_eq!(likes(characters, "theirs").await, 2);
}

async fn an_erasure_that_fails_changes_nothing(world: &World) {
    somebody(world).await;
    refuse_to_forget(&world.sql).await;
    assert!(world.erasures.erase(&erasure()).await.is_err());
    assert!(world.accounts.find(&UserId::new("gone")).await.unwrap().is_some());
    assert!(seen(world.characters.as_ref(), "mine").await.is_some());
    assert_eq!(likes(world.characters.as_ref(), "theirs").await, 2);
    assert_eq!((world.sql.count(KEYS).await, world.sql.count(SECRETS).await), (1, 2));
}

macro_rules! over_every_adapter {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            use airi_server::adapters::sqlite::{accounts::SqliteAccounts, erasure::SqliteErasures};
            use airi_server::adapters::sqlite::{characters::SqliteCharacters, providers::SqliteProviders};
            $(#[tokio::test]
            async fn $case() {
                let db = crate::support::databases::sqlite().await;
                super::$case(&super::World {
                    accounts: Box::new(SqliteAccounts { db: db.clone() }),
                    characters: Box::new(SqliteCharacters { db: db.clone() }),
                    providers: Box::new(SqliteProviders { db: db.clone() }),
                    erasures: Box::new(SqliteErasures { db: db.clone() }),
                    sql: super::Sql::Sqlite(db.writer.clone()),
                })
                .await;
            })+
        }

        #[cfg(feature = "live")]
        mod postgres {
            use airi_server::adapters::postgres::{accounts::PgAccounts, erasure::PgErasures};
            use airi_server::adapters::postgres::{characters::PgCharacters, providers::PgProviders};
            $(#[tokio::test]
            async fn $case() {
                let database = crate::support::databases::postgres().await;
                let pool = database.pool.clone();
                super::$case(&super::World {
                    accounts: Box::new(PgAccounts { pool: pool.clone() }),
                    characters: Box::new(PgCharacters { pool: pool.clone() }),
                    providers: Box::new(PgProviders { pool: pool.clone() }),
                    erasures: Box::new(PgErasures { pool: pool.clone() }),
                    sql: super::Sql::Postgres(pool),
                })
                .await;
            })+
        }
    };
}

over_every_adapter! {
    nothing_of_an_erased_person_is_left_but_the_marks_of_others,
    an_erasure_that_fails_changes_nothing,
}
