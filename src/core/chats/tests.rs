use std::sync::Mutex;

use chrono::DateTime;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::*;
use crate::core::model::chats::{ChatEvent, Message, Role};
use crate::core::model::ids::MessageId;
use crate::ports::mocks::{MockBroadcaster, MockChatRepo, MockClock, MockIdSource, MockJournal};
use crate::ports::{Fault, FaultKind};

/// Runs jobs to their end: the doubles never give way.
struct AtOnce;

impl Tasks for AtOnce {
    fn spawn(&self, _name: &'static str, job: BoxFuture<'static, ()>) {
        job.now_or_never().unwrap();
    }
}

type Told = Arc<Mutex<Vec<(String, i64, i64)>>>;

fn chats(repo: MockChatRepo, told: &Told, reachable: bool) -> Arc<Chats> {
    let mut clock = MockClock::new();
    clock.expect_now().return_const(DateTime::UNIX_EPOCH);
    let mut ids = MockIdSource::new();
    ids.expect_id().returning(|| "an-id".to_owned());
    let mut journal = MockJournal::new();
    journal.expect_record().return_const(());
    let mut broadcaster = MockBroadcaster::new();
    let told = told.clone();
    broadcaster.expect_publish().returning(move |event: &ChatEvent| {
        told.lock().unwrap().push((event.user_id.to_string(), event.payload.from_seq, event.payload.to_seq));
        if reachable { Ok(()) } else { Err(Fault::new(FaultKind::Unavailable, "redis", "gone")) }
    });
    Arc::new(Chats {
        repo: Arc::new(repo),
        teller: Teller::new(Arc::new(broadcaster), Arc::new(journal)),
        tasks: Arc::new(AtOnce),
        ids: Arc::new(ids),
        clock: Arc::new(clock),
    })
}

fn message(seq: i64) -> Message {
    Message {
        id: MessageId::new(format!("m{seq}")),
        chat: ChatId::new("c"),
        sender: None,
        role: "tool".to_owned(),
        content: String::new(),
        seq,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

fn draft() -> Draft {
    Draft { id: MessageId::new("m"), role: Role::User, content: String::new() }
}

fn stored(count: i64) -> MockChatRepo {
    let mut repo = MockChatRepo::new();
    let readers = vec![UserId::new("alice"), UserId::new("bob")];
    let written: Vec<_> = (1..=count).map(message).collect();
    repo.expect_append().returning(move |_| {
        Ok(Append::Appended(Appended { seq: 9, written: written.clone(), readers: readers.clone() }))
    });
    repo
}

#[tokio::test]
async fn every_reader_is_told_each_piece_once() {
    let told = Told::default();
    let sent = chats(stored(700), &told, true).send(&UserId::new("alice"), ChatId::new("c"), vec![draft()]).await;
    assert_eq!(sent.unwrap(), Sent { seq: 9, given: Some((1, 700)) });
    let mut told = told.lock().unwrap().clone();
    told.sort();
    let expected = ["alice", "bob"].map(|who| [(who.to_owned(), 1, 500), (who.to_owned(), 501, 700)]).concat();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_push_that_changes_nothing_is_not_told() {
    let told = Told::default();
    let sent = chats(stored(0), &told, true).send(&UserId::new("alice"), ChatId::new("c"), vec![draft()]).await;
    assert_eq!(sent.unwrap(), Sent { seq: 9, given: None });
    assert!(told.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_push_succeeds_although_nobody_can_be_told() {
    let sent = chats(stored(1), &Told::default(), false).send(&UserId::new("alice"), ChatId::new("c"), vec![]).await;
    assert_eq!(sent.unwrap().given, Some((1, 1)));
}

#[tokio::test]
async fn refusals_are_told_in_the_words_of_the_contract() {
    let refused = async |outcome: fn() -> Append| {
        let mut repo = MockChatRepo::new();
        repo.expect_append().returning(move |_| Ok(outcome()));
        let chats = chats(repo, &Told::default(), true);
        chats.send(&UserId::new("alice"), ChatId::new("c"), vec![draft()]).await.unwrap_err()
    };
    let missing = refused(|| Append::Barred(Barred::Missing)).await;
    assert_eq!((missing.code, missing.message.as_str()), (Code::NotFound, "Chat not found"));
    assert_eq!(refused(|| Append::Barred(Barred::Stranger)).await.code, Code::Forbidden);
    let foreign = refused(|| Append::Foreign(vec![MessageId::new("m")])).await;
    assert_eq!((foreign.code, foreign.details), (Code::Forbidden, Some(Box::new(json!({ "messageIds": ["m"] })))));
}

#[tokio::test]
async fn an_account_that_cannot_be_closed_elsewhere_is_recorded() {
    let mut broadcaster = MockBroadcaster::new();
    broadcaster.expect_close().times(1).returning(|_| Err(Fault::new(FaultKind::Unavailable, "redis", "gone")));
    let mut journal = MockJournal::new();
    journal
        .expect_record()
        .withf(|fact| matches!(fact, Fact::Degraded { operation: "chats.close_account", .. }))
        .times(1)
        .return_const(());
    let chats = Chats {
        repo: Arc::new(MockChatRepo::new()),
        teller: Teller::new(Arc::new(broadcaster), Arc::new(journal)),
        tasks: Arc::new(AtOnce),
        ids: Arc::new(MockIdSource::new()),
        clock: Arc::new(MockClock::new()),
    };
    chats.close_account(&UserId::new("alice")).await;
}

#[tokio::test]
async fn the_maker_is_the_first_member_and_named_once() {
    let mut repo = MockChatRepo::new();
    repo.expect_unknown_users().returning(|_| Ok(vec![]));
    repo.expect_create()
        .withf(|new| {
            let who: Vec<_> = new.members.iter().map(|member| member.who.user().map(UserId::as_str)).collect();
            who == [Some("alice"), Some("bob"), None] && new.chat.kind == ChatKind::Group
        })
        .times(1)
        .returning(|_| Ok(Creation::Created));
    let person = |name| Participant::User(Some(UserId::new(name)));
    let lain = Participant::Bot(Some("lain".to_owned()));
    let members = vec![person("bob"), person("alice"), person("bob"), lain.clone(), lain];
    let wish = CreateChat { members, ..CreateChat::default() };
    let chat = chats(repo, &Told::default(), true).create(&UserId::new("alice"), wish).await.unwrap();
    assert_eq!((chat.id.as_str(), chat.created_at), ("an-id", chat.updated_at));
}
