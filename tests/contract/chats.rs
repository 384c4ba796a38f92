//! `ChatRepo`: what every adapter keeps (contract `chats.md` §2–4, §9).

use std::collections::HashSet;
use std::sync::Arc;

use airi_server::adapters::sqlite::accounts::SqliteAccounts;
use airi_server::adapters::sqlite::chats::SqliteChats;
use airi_server::core::model::chats::{
    Append, Appended, Barred, Chat, ChatKind, Draft, ListAnchor, LogPage, Member, NewChat, Participant, Push, Role,
};
use airi_server::core::model::ids::{ChatId, MemberId, MessageId, UserId};
use airi_server::ports::accounts::AccountRepo;
use airi_server::ports::chats::{ChatRepo, Creation, Join};
use futures::future::join_all;

use crate::accounts::{account, at, without_password};

/// A database with chats and the people in them.
struct World {
    chats: Arc<dyn ChatRepo>,
    accounts: Arc<dyn AccountRepo>,
    #[cfg(feature = "live")]
    _database: Option<crate::support::databases::PgDatabase>,
}

impl World {
    async fn sqlite() -> Self {
        let db = crate::support::databases::sqlite().await;
        Self {
            chats: Arc::new(SqliteChats { db: db.clone() }),
            accounts: Arc::new(SqliteAccounts { db }),
            #[cfg(feature = "live")]
            _database: None,
        }
    }

    #[cfg(feature = "live")]
    async fn postgres() -> Self {
        let database = crate::support::databases::postgres().await;
        Self {
            chats: Arc::new(airi_server::adapters::postgres::chats::PgChats { pool: database.pool.clone() }),
            accounts: Arc::new(airi_server::adapters::postgres::accounts::PgAccounts { pool: database.pool.clone() }),
            _database: Some(database),
        }
    }

    async fn chat(&self, id: &str, people: &[&str]) -> ChatId {
        assert_eq!(self.chats.create(&new_chat(id, people)).await.unwrap(), Creation::Created);
        ChatId::new(id)
    }

    async fn push(&self, chat: &ChatId, who: &str, drafts: &[(&str, &str)]) -> Appended {
        match self.chats.append(&push(chat, who, drafts)).await.unwrap() {
            Append::Appended(appended) => appended,
            other => panic!("{other:?}"),
        }
    }

    async fn log(&self, chat: &ChatId, who: &str) -> Vec<(String, i64, String)> {
        let page = self.chats.pull(chat, &user(who), 0, 500).await.unwrap().unwrap();
        page.messages.into_iter().map(|message| (message.id.to_string(), message.seq, message.content)).collect()
    }
}

fn user(id: &str) -> UserId {
    UserId::new(id)
}

fn member(chat: &str, id: &str, who: Participant) -> Member {
    Member { id: MemberId::new(format!("{chat}:{id}")), chat: ChatId::new(chat), who }
}

fn new_chat(id: &str, people: &[&str]) -> NewChat {
    let chat = Chat {
        id: ChatId::new(id),
        kind: ChatKind::Group,
        title: None,
        created_at: at(0),
        updated_at: at(0),
        deleted_at: None,
    };
    let members = people.iter().map(|name| member(id, name, Participant::User(Some(user(name))))).collect();
    NewChat { chat, members }
}

fn push(chat: &ChatId, who: &str, drafts: &[(&str, &str)]) -> Push {
    let drafts = drafts.iter().map(|(id, content)| Draft {
        id: MessageId::new(*id),
        role: Role::User,
        content: (*content).to_owned(),
    });
    Push::new(chat.clone(), user(who), drafts.collect(), at(5))
}

async fn a_created_chat_is_found_with_its_members(world: &World) {
    let mut new = new_chat("c", &["alice", "bob"]);
    new.chat.title = Some("a title".to_owned());
    new.chat.kind = ChatKind::Bot;
    new.members.push(member("c", "x", Participant::Character(Some("lain".to_owned()))));
    assert_eq!(world.chats.create(&new).await.unwrap(), Creation::Created);
    let (chat, members) = world.chats.find(&new.chat.id, &user("bob")).await.unwrap().unwrap();
    assert_eq!((chat, members), (new.chat, new.members));
}

async fn an_id_is_taken_for_ever_whoever_has_it(world: &World) {
    let chat = world.chat("c", &["alice"]).await;
    assert_eq!(world.chats.create(&new_chat("c", &["bob"])).await.unwrap(), Creation::Taken);
    world.chats.retire(&chat, &user("alice"), at(1)).await.unwrap().unwrap();
    assert_eq!(world.chats.create(&new_chat("c", &["alice"])).await.unwrap(), Creation::Taken);
}

async fn of_many_creations_of_one_id_one_succeeds(world: &World) {
    let wishes: Vec<_> = (0..10).map(|n| new_chat("c", &[&format!("u{n}")])).collect();
    let outcomes = join_all(wishes.iter().map(|wish| world.chats.create(wish))).await;
    assert_eq!(outcomes.iter().filter(|outcome| *outcome.as_ref().unwrap() == Creation::Created).count(), 1);
}

async fn strangers_and_labels_are_barred_and_missing_chats_told_first(world: &World) {
    let mut new = new_chat("c", &["alice"]);
    new.members.push(member("c", "x", Participant::Character(Some("eve".to_owned()))));
    world.chats.create(&new).await.unwrap();
    let somebody = Participant::Character(Some("y".to_owned()));
    for (id, who, barred) in [("c", "eve", Barred::Stranger), ("nope", "alice", Barred::Missing)] {
        let (chat, caller, id) = (ChatId::new(id), user(who), MemberId::new("new"));
        assert_eq!(world.chats.find(&chat, &caller).await.unwrap().unwrap_err(), barred);
        assert_eq!(world.chats.rename(&chat, &caller, None, at(1)).await.unwrap().unwrap_err(), barred);
        assert_eq!(world.chats.retire(&chat, &caller, at(1)).await.unwrap().unwrap_err(), barred);
        assert_eq!(world.chats.join(&chat, &caller, &id, &somebody).await.unwrap().unwrap_err(), barred);
        assert_eq!(world.chats.leave(&chat, &caller, &id, at(1)).await.unwrap().unwrap_err(), barred);
        assert_eq!(world.chats.pull(&chat, &caller, 0, 10).await.unwrap().unwrap_err(), barred);
        assert_eq!(world.chats.append(&push(&chat, who, &[("m", "x")])).await.unwrap(), Append::Barred(barred));
        assert_eq!(world.chats.append(&push(&chat, who, &[])).await.unwrap(), Append::Barred(barred));
    }
}

async fn chats_are_listed_newest_change_first_and_in_pages(world: &World) {
    for (id, seconds) in [("a", 1), ("b", 3), ("c", 1), ("d", 2)] {
        let mut new = new_chat(id, &["alice"]);
        new.chat.updated_at = at(seconds);
        world.chats.create(&new).await.unwrap();
    }
    world.chat("other", &["bob"]).await;
    let gone = world.chat("gone", &["alice"]).await;
    world.chats.retire(&gone, &user("alice"), at(9)).await.unwrap().unwrap();
    let ids = |chats: &[Chat]| chats.iter().map(|chat| chat.id.to_string()).collect::<Vec<_>>();
    let all = world.chats.list(&user("alice"), None, None).await.unwrap();
    assert_eq!(ids(&all), ["b", "d", "a", "c"]);
    let first = world.chats.list(&user("alice"), None, Some(3)).await.unwrap();
    assert_eq!(ids(&first), ["b", "d", "a"]);
    let anchor = ListAnchor { updated_at: first[2].updated_at, id: first[2].id.clone() };
    assert_eq!(ids(&world.chats.list(&user("alice"), Some(&anchor), Some(3)).await.unwrap()), ["c"]);
    assert_eq!(ids(&world.chats.list(&user("nobody"), None, None).await.unwrap()), Vec::<String>::new());
}

async fn a_title_is_changed_and_a_change_without_one_only_moves_the_time(world: &World) {
    let chat = world.chat("c", &["alice"]).await;
    let renamed = world.chats.rename(&chat, &user("alice"), Some("new"), at(1)).await.unwrap().unwrap();
    assert_eq!((renamed.title.as_deref(), renamed.created_at, renamed.updated_at), (Some("new"), at(0), at(1)));
    let kept = world.chats.rename(&chat, &user("alice"), None, at(2)).await.unwrap().unwrap();
    assert_eq!((kept.title.as_deref(), kept.updated_at), (Some("new"), at(2)));
    assert_eq!(world.chats.find(&chat, &user("alice")).await.unwrap().unwrap().0, kept);
}

async fn a_retired_chat_is_stamped_once_and_gone(world: &World) {
    let chat = world.chat("c", &["alice"]).await;
    world.push(&chat, "alice", &[("m", "x")]).await;
    let retired = world.chats.retire(&chat, &user("alice"), at(7)).await.unwrap().unwrap();
    assert_eq!((retired.deleted_at, retired.updated_at), (Some(at(7)), at(7)));
    assert_eq!(world.chats.retire(&chat, &user("alice"), at(8)).await.unwrap().unwrap_err(), Barred::Missing);
    assert_eq!(
        world.chats.append(&push(&chat, "alice", &[("n", "y")])).await.unwrap(),
        Append::Barred(Barred::Missing)
    );
}

async fn a_person_joins_once_and_must_exist(world: &World) {
    let chat = world.chat("c", &["alice"]).await;
    world.accounts.create(&without_password(account("bob", "bob@example.com"))).await.unwrap();
    let join = async |id: &str, who: Participant| {
        world.chats.join(&chat, &user("alice"), &MemberId::new(id), &who).await.unwrap().unwrap()
    };
    let bob = Participant::User(Some(user("bob")));
    let row = Member { id: MemberId::new("1"), chat: chat.clone(), who: bob.clone() };
    assert_eq!(join("1", bob.clone()).await, Join::Joined(row.clone()));
    assert_eq!(join("2", bob).await, Join::Present(row));
    assert_eq!(join("3", Participant::User(Some(user("ghost")))).await, Join::UnknownUser);
    let lain = |label: &str| Participant::Character(Some(label.to_owned()));
    assert!(matches!(join("4", lain("lain")).await, Join::Joined(_)));
    assert!(matches!(join("5", lain("lain")).await, Join::Present(member) if member.id.as_str() == "4"));
    assert!(matches!(join("6", Participant::Bot(Some("lain".to_owned()))).await, Join::Joined(_)));
    let (found, members) = world.chats.find(&chat, &user("bob")).await.unwrap().unwrap();
    assert_eq!((members.len(), found.updated_at), (4, at(0)));
}

async fn of_many_who_add_one_person_one_does(world: &World) {
    let chat = world.chat("c", &["alice"]).await;
    world.accounts.create(&without_password(account("bob", "bob@example.com"))).await.unwrap();
    let (caller, bob) = (user("alice"), Participant::User(Some(user("bob"))));
    let ids: Vec<_> = (0..12).map(|n| MemberId::new(format!("n{n}"))).collect();
    let outcomes = join_all(ids.iter().map(|id| world.chats.join(&chat, &caller, id, &bob))).await;
    let joined = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Ok(Join::Joined(_))))).count();
    let present = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Ok(Join::Present(_))))).count();
    assert_eq!((joined, present), (1, 11));
}

async fn a_member_leaves_and_the_last_person_takes_the_chat_along(world: &World) {
    let mut new = new_chat("c", &["alice", "bob"]);
    new.members.push(member("c", "x", Participant::Bot(Some("lain".to_owned()))));
    world.chats.create(&new).await.unwrap();
    let other = world.chat("d", &["alice"]).await;
    let leave = async |caller: &str, id: &str| {
        world.chats.leave(&new.chat.id, &user(caller), &MemberId::new(id), at(3)).await.unwrap()
    };
    assert_eq!(leave("alice", "d:alice").await, Ok(None), "a member of another chat");
    assert_eq!(leave("alice", "c:bob").await, Ok(Some(new.members[1].clone())));
    assert_eq!(leave("bob", "c:x").await, Err(Barred::Stranger));
    assert_eq!(leave("alice", "c:bob").await, Ok(None));
    assert_eq!(leave("alice", "c:alice").await, Ok(Some(new.members[0].clone())));
    assert_eq!(leave("alice", "c:x").await, Err(Barred::Missing));
    assert!(world.chats.find(&other, &user("alice")).await.unwrap().is_ok());
}

async fn a_push_is_numbered_stored_and_told_with_its_readers(world: &World) {
    let chat = world.chat("c", &["alice", "bob"]).await;
    let first = world.push(&chat, "alice", &[("m-1", "one"), ("m-2", "")]).await;
    assert_eq!((first.seq, first.written.len()), (2, 2));
    assert_eq!(first.readers.iter().cloned().collect::<HashSet<_>>(), HashSet::from([user("alice"), user("bob")]));
    let second = world.push(&chat, "alice", &[("m-1", "edited"), ("m-3", "three")]).await;
    let numbers: Vec<_> = second.written.iter().map(|message| (message.id.as_str(), message.seq)).collect();
    assert_eq!((numbers, second.seq), (vec![("m-3", 3), ("m-1", 4)], 4));
    let page = world.chats.pull(&chat, &user("bob"), 0, 500).await.unwrap().unwrap();
    assert_eq!(page.messages[1..], second.written[..]);
    assert_eq!(page.messages[0].sender, Some(user("alice")));
    assert_eq!(page.messages[0].created_at, at(5));
    assert_eq!(world.chats.find(&chat, &user("bob")).await.unwrap().unwrap().0.updated_at, at(5));
}

async fn a_repeated_push_changes_nothing(world: &World) {
    let chat = world.chat("c", &["alice"]).await;
    let batch = [("a", "1"), ("b", "2")];
    world.push(&chat, "alice", &batch).await;
    world.push(&chat, "alice", &[("c", "3")]).await;
    let again = Push { at: at(99), ..push(&chat, "alice", &batch) };
    let nothing = Appended { seq: 3, ..Appended::default() };
    assert_eq!(world.chats.append(&again).await.unwrap(), Append::Appended(nothing.clone()));
    assert_eq!(world.push(&chat, "alice", &[]).await, nothing);
    assert_eq!(world.chats.find(&chat, &user("alice")).await.unwrap().unwrap().0.updated_at, at(5));
    // Half known, half new: a push whose answer was lost before more was written.
    assert_eq!(world.push(&chat, "alice", &[("a", "1"), ("d", "4")]).await.written.len(), 1);
}

async fn an_id_belongs_to_its_chat(world: &World) {
    let (one, other) = (world.chat("c", &["alice"]).await, world.chat("d", &["alice"]).await);
    world.push(&one, "alice", &[("m", "first")]).await;
    world.push(&other, "alice", &[("m", "second")]).await;
    assert_eq!(world.log(&one, "alice").await, [("m".to_owned(), 1, "first".to_owned())]);
    assert_eq!(world.log(&other, "alice").await, [("m".to_owned(), 1, "second".to_owned())]);
}

async fn what_a_person_said_is_changed_by_nobody_else(world: &World) {
    let chat = world.chat("c", &["alice", "bob"]).await;
    world.push(&chat, "alice", &[("m", "mine")]).await;
    let refused = world.chats.append(&push(&chat, "bob", &[("n", "new"), ("m", "his")])).await.unwrap();
    assert_eq!(refused, Append::Foreign(vec![MessageId::new("m")]));
    assert_eq!(world.log(&chat, "bob").await, [("m".to_owned(), 1, "mine".to_owned())]);
}

async fn a_long_log_is_pulled_in_pages_without_a_hole(world: &World) {
    let chat = world.chat("c", &["alice"]).await;
    let ids: Vec<String> = (1..=600).map(|n| format!("m{n}")).collect();
    let drafts: Vec<_> = ids.iter().map(|id| (id.as_str(), "x")).collect();
    world.push(&chat, "alice", &drafts).await;
    let pull = async |after| world.chats.pull(&chat, &user("alice"), after, 100).await.unwrap().unwrap();
    let (mut after, mut pages, mut seen) = (0, 0, 0);
    loop {
        let page = pull(after).await;
        assert!(page.messages.iter().all(|message| message.seq > after));
        (seen, pages, after) = (seen + page.messages.len(), pages + 1, page.seq);
        if !page.has_more {
            break;
        }
        assert_eq!((page.messages.len(), page.seq), (100, pages * 100));
    }
    assert_eq!((seen, after), (600, 600));
    assert_eq!(pull(600).await, LogPage { messages: Vec::new(), seq: 600, has_more: false });
    assert_eq!(pull(i64::MAX).await.seq, 600);
    assert_eq!(pull(-5).await.seq, 100);
    let long = "é".repeat(LogPage::TEXT_LIMIT / 4);
    world.push(&chat, "alice", &[("a", &long), ("b", &long), ("c", &long)]).await;
    assert_eq!((pull(600).await.messages.len(), pull(600).await.seq, pull(602).await.has_more), (2, 602, false));
}

async fn parallel_pushes_are_numbered_without_gap_or_double(world: &World) {
    let chat = world.chat("c", &["alice", "bob"]).await;
    let batches: Vec<Vec<(String, String)>> =
        (0..40).map(|n| (0..=n % 3).map(|k| (format!("m{n}-{k}"), format!("text {n}"))).collect()).collect();
    let pushes: Vec<_> = batches
        .iter()
        .enumerate()
        .map(|(n, batch)| {
            let drafts: Vec<_> = batch.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
            push(&chat, if n % 2 == 0 { "alice" } else { "bob" }, &drafts)
        })
        .collect();
    let outcomes = join_all(pushes.iter().map(|push| world.chats.append(push))).await;
    let mut numbers = Vec::new();
    for outcome in outcomes {
        let Append::Appended(appended) = outcome.unwrap() else { panic!("barred") };
        let of_push: Vec<_> = appended.written.iter().map(|message| message.seq).collect();
        assert!(of_push.windows(2).all(|pair| pair[1] == pair[0] + 1), "{of_push:?}");
        numbers.extend(of_push);
    }
    numbers.sort_unstable();
    let count = i64::try_from(batches.iter().map(Vec::len).sum::<usize>()).unwrap();
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
    let log = world.log(&chat, "bob").await;
    assert_eq!(log.iter().map(|(_, seq, _)| *seq).collect::<Vec<_>>(), (1..=count).collect::<Vec<_>>());
}

async fn twenty_copies_of_one_push_are_stored_once(world: &World) {
    let chat = world.chat("c", &["alice"]).await;
    let copy = push(&chat, "alice", &[("a", "1"), ("b", "2")]);
    let outcomes = join_all((0..20).map(|_| world.chats.append(&copy))).await;
    let written = outcomes.into_iter().filter(|outcome| {
        let Append::Appended(appended) = outcome.as_ref().unwrap() else { panic!("barred") };
        assert_eq!(appended.seq, 2);
        !appended.written.is_empty()
    });
    assert_eq!(written.count(), 1);
    assert_eq!(world.log(&chat, "alice").await.len(), 2);
}

async fn a_deletion_is_not_overtaken_by_a_push(world: &World) {
    for round in 0..10 {
        let chat = world.chat(&format!("c{round}"), &["alice"]).await;
        let pushes: Vec<_> = (0..6).map(|n| push(&chat, "alice", &[(&format!("m{n}"), "x")])).collect();
        let caller = user("alice");
        let retire = world.chats.retire(&chat, &caller, at(50));
        let (outcomes, retired) = tokio::join!(join_all(pushes.iter().map(|push| world.chats.append(push))), retire);
        let retired = retired.unwrap().unwrap();
        // Whatever was pushed first was stored; nothing moved the chat's time after its end.
        assert_eq!(retired.updated_at, at(50));
        for outcome in outcomes {
            assert!(matches!(outcome.unwrap(), Append::Appended(_) | Append::Barred(Barred::Missing)));
        }
        assert_eq!(world.chats.find(&chat, &caller).await.unwrap().unwrap_err(), Barred::Missing);
        assert_eq!(world.chats.append(&pushes[0]).await.unwrap(), Append::Barred(Barred::Missing));
    }
}

async fn people_without_an_account_are_named(world: &World) {
    world.accounts.create(&without_password(account("bob", "bob@example.com"))).await.unwrap();
    let asked = [user("bob"), user("ghost")];
    assert_eq!(world.chats.unknown_users(&asked).await.unwrap(), [user("ghost")]);
    assert_eq!(world.chats.unknown_users(&[]).await.unwrap(), []);
}

macro_rules! over_every_adapter {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(&super::World::sqlite().await).await;
            })+
        }

        #[cfg(feature = "live")]
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(&super::World::postgres().await).await;
            })+
        }
    };
}

over_every_adapter! {
    a_created_chat_is_found_with_its_members,
    an_id_is_taken_for_ever_whoever_has_it,
    of_many_creations_of_one_id_one_succeeds,
    strangers_and_labels_are_barred_and_missing_chats_told_first,
    chats_are_listed_newest_change_first_and_in_pages,
    a_title_is_changed_and_a_change_without_one_only_moves_the_time,
    a_retired_chat_is_stamped_once_and_gone,
    a_person_joins_once_and_must_exist,
    of_many_who_add_one_person_one_does,
    a_member_leaves_and_the_last_person_takes_the_chat_along,
    a_push_is_numbered_stored_and_told_with_its_readers,
    a_repeated_push_changes_nothing,
    an_id_belongs_to_its_chat,
    what_a_person_said_is_changed_by_nobody_else,
    a_long_log_is_pulled_in_pages_without_a_hole,
    parallel_pushes_are_numbered_without_gap_or_double,
    twenty_copies_of_one_push_are_stored_once,
    a_deletion_is_not_overtaken_by_a_push,
    people_without_an_account_are_named,
}
