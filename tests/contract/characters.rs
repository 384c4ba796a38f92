//! `CharacterRepo`.

use airi_server::core::model::characters::draft::{
    CharacterChange, Draft, DraftAvatarModel, DraftCapability, DraftCover, DraftLocale, DraftPrompt, NewCharacter,
};
use airi_server::core::model::characters::{Mark, Selection, Sheet, Stored};
use airi_server::core::model::ids::{CharacterId, UserId};
use airi_server::core::model::ownership::OwnerOnly;
use airi_server::ports::characters::CharacterRepo;
use chrono::{DateTime, Utc};
use futures::future::join_all;
use serde_json::json;

use crate::accounts::at;

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name)
}

pub(crate) fn id(name: &str) -> CharacterId {
    CharacterId::new(name)
}

pub(crate) fn bare(name: &str, owner: &str) -> NewCharacter {
    let draft = Draft {
        id: name.to_owned(),
        version: "1".to_owned(),
        cover_url: format!("cover of {name}"),
        label: format!("label of {name}"),
        price_credit: "1.5".to_owned(),
        ..Draft::default()
    };
    NewCharacter { owner: user(owner), draft }
}

pub(crate) fn whole(name: &str, owner: &str) -> NewCharacter {
    let mut new = bare(name, owner);
    let part = |part: &str| format!("{part} of {name}");
    let config = json!({ "apiKey": "v1.sealed", "apiBaseUrl": "u", "llm": { "temperature": 0.5, "model": "m" } });
    new.draft.avatar_url = Some("avatar".to_owned());
    new.draft.creator_role = Some("role".to_owned());
    new.draft.cover =
        Some(DraftCover { id: part("cover"), foreground_url: "f".to_owned(), background_url: "b".to_owned() });
    new.draft.capabilities =
        vec![DraftCapability { id: part("capability"), kind: "llm", config: config.as_object().unwrap().clone() }];
    new.draft.avatar_models = vec![DraftAvatarModel {
        id: part("model"),
        name: "n".to_owned(),
        kind: "vrm",
        description: "d".to_owned(),
        config: json!({ "vrm": { "urls": ["u"] } }),
    }];
    new.draft.locales = ["b", "a"]
        .map(|language| DraftLocale {
            id: part(language),
            language: language.to_owned(),
            name: "n".to_owned(),
            tagline: (language == "a").then(|| "t".to_owned()),
            description: "d".to_owned(),
            tags: vec!["x".to_owned(), "y, \"z\"".to_owned()],
        })
        .into();
    new.draft.prompts =
        vec![DraftPrompt { id: part("prompt"), language: "en".to_owned(), kind: "system", content: "c".to_owned() }];
    new
}

pub(crate) async fn make(repo: &dyn CharacterRepo, new: &NewCharacter) {
    assert_eq!(repo.create(new).await.unwrap(), Stored::Stored, "{}", new.draft.id);
}

pub(crate) async fn seen(repo: &dyn CharacterRepo, name: &str) -> Option<Sheet> {
    repo.find(&id(name), &user("viewer")).await.unwrap()
}

pub(crate) async fn likes(repo: &dyn CharacterRepo, name: &str) -> i32 {
    seen(repo, name).await.unwrap().character.counters.likes
}

async fn ids(repo: &dyn CharacterRepo, owner: Option<&str>, limit: u32, offset: u32) -> Vec<String> {
    let selection = Selection { owner: owner.map(user), limit, offset };
    let listed = repo.list(&selection, &user("viewer")).await.unwrap();
    listed.iter().map(|sheet| sheet.character.id.to_string()).collect()
}

fn some_time() -> DateTime<Utc> {
    at(900_000_000)
}

async fn a_character_is_found_with_all_its_parts(repo: &dyn CharacterRepo) {
    let new = whole("c1", "o1");
    make(repo, &new).await;
    make(repo, &whole("c2", "o1")).await;
    let sheet = seen(repo, "c1").await.unwrap();
    let (found, draft) = (&sheet.character, &new.draft);
    assert_eq!((found.id.as_str(), &found.version, &found.cover_url), ("c1", &draft.version, &draft.cover_url));
    assert_eq!((&found.creator, &found.owner, &found.label), (&user("o1"), &user("o1"), &draft.label));
    assert_eq!((&found.avatar_url, &found.creator_role), (&draft.avatar_url, &draft.creator_role));
    assert_eq!((found.price_credit.as_str(), found.created_at), ("1.5", found.updated_at));
    assert_eq!(found.counters, Default::default());
    assert_eq!(sheet.capabilities.len(), 1);
    assert_eq!(sheet.capabilities[0].config["apiKey"], "v1.sealed");
    assert_eq!(sheet.capabilities[0].config["llm"], json!({ "temperature": 0.5, "model": "m" }));
    let models = sheet.avatar_models.unwrap();
    assert_eq!((models.len(), &models[0].config), (1, &draft.avatar_models[0].config));
    let languages: Vec<_> = sheet.locales.iter().map(|locale| locale.language.as_str()).collect();
    assert_eq!(languages, ["a", "b"]);
    assert_eq!(sheet.locales[0].tags, draft.locales[0].tags);
    assert_eq!((&sheet.locales[0].tagline, &sheet.locales[1].tagline), (&Some("t".to_owned()), &None));
    assert_eq!(sheet.prompts.unwrap()[0].content, "c");
    assert_eq!(sheet.cover.unwrap().foreground_url, "f");
    assert_eq!((sheet.liked_at, sheet.bookmarked_at), (None, None));
    assert!(seen(repo, "c3").await.is_none());
}

async fn a_taken_id_anywhere_in_it_stores_nothing(repo: &dyn CharacterRepo) {
    make(repo, &whole("c1", "o1")).await;
    assert_eq!(repo.create(&bare("c1", "o2")).await.unwrap(), Stored::Taken);
    let mut second = whole("c2", "o1");
    second.draft.prompts[0].id = "prompt of c1".to_owned();
    assert_eq!(repo.create(&second).await.unwrap(), Stored::Taken);
    assert!(seen(repo, "c2").await.is_none());
    make(repo, &whole("c2", "o1")).await;
}

async fn lists_are_newest_first_and_cut(repo: &dyn CharacterRepo) {
    for name in ["a", "b", "c", "d"] {
        make(repo, &whole(name, if name == "c" { "o2" } else { "o1" })).await;
        // Embedded times are whole milliseconds.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    repo.toggle(&id("d"), &user("viewer"), Mark::Bookmark).await.unwrap();
    assert_eq!(ids(repo, None, 10, 0).await, ["d", "c", "b", "a"]);
    assert_eq!(ids(repo, Some("o1"), 10, 0).await, ["d", "b", "a"]);
    assert_eq!(ids(repo, Some("o1"), 1, 1).await, ["b"]);
    assert_eq!(ids(repo, Some("nobody"), 10, 0).await, Vec::<String>::new());
    repo.delete(&id("b"), &user("o1"), some_time()).await.unwrap();
    assert_eq!(ids(repo, Some("o1"), 10, 0).await, ["d", "a"]);
    let selection = Selection { owner: None, limit: 1, offset: 0 };
    let sheet = repo.list(&selection, &user("viewer")).await.unwrap().remove(0);
    assert_eq!((sheet.avatar_models.is_none(), sheet.prompts.is_none()), (true, true));
    assert_eq!((sheet.capabilities.len(), sheet.locales.len(), sheet.cover.is_some()), (1, 2, true));
    assert_eq!((sheet.liked_at.is_some(), sheet.bookmarked_at.is_some()), (false, true));
}

async fn only_the_owner_changes_a_live_character(repo: &dyn CharacterRepo) {
    make(repo, &whole("c1", "o1")).await;
    let change = CharacterChange { version: Some("2".to_owned()), ..CharacterChange::default() };
    let update = async |name: &str, owner: &str| repo.update(&id(name), &user(owner), &change, some_time()).await;
    assert_eq!(update("c1", "o2").await.unwrap(), OwnerOnly::Foreign);
    assert_eq!(update("c9", "o1").await.unwrap(), OwnerOnly::Missing);
    assert_eq!(seen(repo, "c1").await.unwrap().character.version, "1");
    assert_eq!(update("c1", "o1").await.unwrap(), OwnerOnly::Done(()));
    let changed = seen(repo, "c1").await.unwrap().character;
    assert_eq!((changed.version.as_str(), changed.label.as_str()), ("2", "label of c1"));
    assert_eq!((changed.updated_at, changed.avatar_url.as_deref()), (some_time(), Some("avatar")));
    let all = CharacterChange {
        version: Some("3".to_owned()),
        cover_url: Some("c".to_owned()),
        label: Some("l".to_owned()),
        avatar_url: Some("a".to_owned()),
        creator_role: Some("r".to_owned()),
        price_credit: Some("9".to_owned()),
    };
    repo.update(&id("c1"), &user("o1"), &all, some_time()).await.unwrap();
    let changed = seen(repo, "c1").await.unwrap().character;
    let texts = [changed.version, changed.cover_url, changed.label, changed.price_credit];
    assert_eq!(texts, ["3", "c", "l", "9"]);
    assert_eq!((changed.avatar_url.as_deref(), changed.creator_role.as_deref()), (Some("a"), Some("r")));
}

async fn a_deleted_character_is_gone_for_everybody(repo: &dyn CharacterRepo) {
    make(repo, &whole("c1", "o1")).await;
    let delete = async |owner: &str| repo.delete(&id("c1"), &user(owner), some_time()).await.unwrap();
    assert_eq!(delete("o2").await, OwnerOnly::Foreign);
    assert_eq!(delete("o1").await, OwnerOnly::Done(()));
    assert_eq!((delete("o1").await, delete("o2").await), (OwnerOnly::Missing, OwnerOnly::Missing));
    assert!(seen(repo, "c1").await.is_none());
    assert_eq!(repo.toggle(&id("c1"), &user("viewer"), Mark::Like).await.unwrap(), None);
    let change = CharacterChange::default();
    assert_eq!(repo.update(&id("c1"), &user("o1"), &change, at(0)).await.unwrap(), OwnerOnly::Missing);
    assert_eq!(repo.create(&bare("c1", "o1")).await.unwrap(), Stored::Taken);
}

async fn a_mark_is_put_on_and_taken_away_and_counted(repo: &dyn CharacterRepo) {
    make(repo, &bare("c1", "o1")).await;
    let before = seen(repo, "c1").await.unwrap().character;
    let toggle = async |who: &str, mark| repo.toggle(&id("c1"), &user(who), mark).await.unwrap();
    assert_eq!(toggle("viewer", Mark::Like).await, Some(true));
    assert_eq!(toggle("o1", Mark::Like).await, Some(true));
    assert_eq!(toggle("viewer", Mark::Bookmark).await, Some(true));
    let sheet = seen(repo, "c1").await.unwrap();
    assert_eq!((sheet.character.counters.likes, sheet.character.counters.bookmarks), (2, 1));
    assert!(sheet.liked_at.is_some() && sheet.bookmarked_at.is_some());
    assert_eq!(sheet.character.updated_at, before.updated_at);
    assert_eq!(toggle("viewer", Mark::Like).await, Some(false));
    assert_eq!(toggle("viewer", Mark::Bookmark).await, Some(false));
    let sheet = seen(repo, "c1").await.unwrap();
    assert_eq!((sheet.character.counters.likes, sheet.character.counters.bookmarks), (1, 0));
    assert!(sheet.liked_at.is_none() && sheet.bookmarked_at.is_none());
    assert_eq!(repo.toggle(&id("c9"), &user("viewer"), Mark::Like).await.unwrap(), None);
}

async fn of_many_toggles_at_once_none_fails_and_the_counter_is_the_truth(repo: &dyn CharacterRepo) {
    make(repo, &bare("c1", "o1")).await;
    let (one, viewer, other) = (id("c1"), user("viewer"), user("other"));
    let toggles = (0..20).map(|n| repo.toggle(&one, if n % 2 == 0 { &viewer } else { &other }, Mark::Like));
    for outcome in join_all(toggles).await {
        assert!(outcome.unwrap().is_some());
    }
    let live = async |who| i32::from(repo.find(&one, who).await.unwrap().unwrap().liked_at.is_some());
    assert_eq!(likes(repo, "c1").await, live(&viewer).await + live(&other).await);
    assert_eq!(repo.recount().await.unwrap(), 0);
}

async fn sealed_rows_are_listed_and_replaced_if_they_are_what_was_read(repo: &dyn CharacterRepo) {
    for name in ["c1", "c2"] {
        make(repo, &whole(name, "o1")).await;
    }
    let first = repo.list_sealed(None, 1).await.unwrap();
    let rest = repo.list_sealed(Some(&first[0].id), 9).await.unwrap();
    assert_eq!((first.len(), rest.len(), first[0].within.as_str()), (1, 1, "c1"));
    assert_eq!(first[0].config["apiKey"], "v1.sealed");
    let mut anew = first[0].config.clone();
    anew.insert("apiKey".to_owned(), json!("v1.anew"));
    assert!(repo.reseal(&first[0], &anew).await.unwrap());
    assert!(!repo.reseal(&first[0], &first[0].config).await.unwrap());
    assert_eq!(seen(repo, "c1").await.unwrap().capabilities[0].config, anew);
}

macro_rules! over_every_adapter {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            use airi_server::adapters::sqlite::characters::SqliteCharacters;
            $(#[tokio::test]
            async fn $case() {
                super::$case(&SqliteCharacters { db: crate::support::databases::sqlite().await }).await;
            })+
        }

        #[cfg(feature = "live")]
        mod postgres {
            use airi_server::adapters::postgres::characters::PgCharacters;
            $(#[tokio::test]
            async fn $case() {
                let database = crate::support::databases::postgres().await;
                super::$case(&PgCharacters { pool: database.pool.clone() }).await;
            })+
        }
    };
}

over_every_adapter! {
    a_character_is_found_with_all_its_parts,
    a_taken_id_anywhere_in_it_stores_nothing,
    lists_are_newest_first_and_cut,
    only_the_owner_changes_a_live_character,
    a_deleted_character_is_gone_for_everybody,
    a_mark_is_put_on_and_taken_away_and_counted,
    of_many_toggles_at_once_none_fails_and_the_counter_is_the_truth,
    sealed_rows_are_listed_and_replaced_if_they_are_what_was_read,
}

const DRIFT: &str = "UPDATE characters SET likes_count = 7, bookmarks_count = 3 WHERE id = 'c1'";

#[tokio::test]
async fn the_embedded_database_mends_counters() {
    let db = crate::support::databases::sqlite().await;
    let repo = airi_server::adapters::sqlite::characters::SqliteCharacters { db: db.clone() };
    make(&repo, &whole("c1", "o1")).await;
    make(&repo, &bare("c2", "o1")).await;
    repo.toggle(&id("c1"), &user("viewer"), Mark::Like).await.unwrap();
    sqlx::query(DRIFT).execute(&db.writer).await.unwrap();
    assert_eq!((repo.recount().await.unwrap(), likes(&repo, "c1").await), (1, 1));
}

#[cfg(feature = "live")]
#[tokio::test]
async fn postgresql_mends_counters() {
    let database = crate::support::databases::postgres().await;
    let repo = airi_server::adapters::postgres::characters::PgCharacters { pool: database.pool.clone() };
    make(&repo, &whole("c1", "o1")).await;
    make(&repo, &bare("c2", "o1")).await;
    repo.toggle(&id("c1"), &user("viewer"), Mark::Like).await.unwrap();
    sqlx::query(DRIFT).execute(&database.pool).await.unwrap();
    assert_eq!((repo.recount().await.unwrap(), likes(&repo, "c1").await), (1, 1));
}
