//! What sign-in and deletion ask of `AccountRepo`, `SessionRepo`, `VerificationRepo` and `ErasureRepo`.

use airi_server::core::model::accounts::{Account, Email, NewAccount, PasswordIdentity, Session};
use airi_server::core::model::erasure::Erasure;
use airi_server::core::model::identity::{
    Afterwards, Closing, Moving, PasswordChange, PasswordReset, ProfileChange, Proof, Proving, Unlinking,
};
use airi_server::core::model::ids::{IdentityId, SessionId, UserId};
use airi_server::core::model::proofs::Verification;
use airi_server::core::model::secret::Secret;
use airi_server::ports::accounts::{AccountRepo, SessionRepo};
use airi_server::ports::erasure::ErasureRepo;
use airi_server::ports::verification::VerificationRepo;

use crate::accounts::{account, at};

/// Every repository over one database, and the database itself for what no port writes yet.
struct World {
    accounts: Box<dyn AccountRepo>,
    sessions: Box<dyn SessionRepo>,
    verifications: Box<dyn VerificationRepo>,
    erasures: Box<dyn ErasureRepo>,
    sql: Sql,
}

/// A database past its ports.
pub(crate) enum Sql {
    Sqlite(sqlx::SqlitePool),
    #[cfg(feature = "live")]
    Postgres(sqlx::PgPool),
}

impl Sql {
    /// Runs statements both databases understand.
    async fn run(&self, statements: &'static str) {
        match self {
            Self::Sqlite(pool) => drop(sqlx::raw_sql(statements).execute(pool).await.unwrap()),
            #[cfg(feature = "live")]
            Self::Postgres(pool) => drop(sqlx::raw_sql(statements).execute(pool).await.unwrap()),
        }
    }

    pub(crate) async fn count(&self, query: &'static str) -> i64 {
        match self {
            Self::Sqlite(pool) => sqlx::query_scalar(query).fetch_one(pool).await.unwrap(),
            #[cfg(feature = "live")]
            Self::Postgres(pool) => sqlx::query_scalar(query).fetch_one(pool).await.unwrap(),
        }
    }
}

fn u1() -> UserId {
    UserId::new("u1")
}

fn password(id: &str, hash: &str) -> PasswordIdentity {
    PasswordIdentity { id: IdentityId::new(id), hash: Secret::new(hash) }
}

async fn person(world: &World, id: &str, verified: bool) -> Account {
    let account = Account { email_verified: verified, ..account(id, &format!("{id}@example.com")) };
    let new = NewAccount { account: account.clone(), password: Some(password(&format!("pw-{id}"), "old")) };
    world.accounts.create(&new).await.unwrap();
    account
}

fn session(id: &str, user: &str) -> Session {
    Session {
        id: SessionId::new(id),
        token: Secret::new(format!("token-{id}")),
        user: UserId::new(user),
        expires_at: at(604_800),
        created_at: at(10),
        updated_at: at(10),
        ip_address: Some(String::new()),
        user_agent: Some(String::new()),
    }
}

/// Three sessions of `u1`, one of `u2`; a refresh token tied to each, and one of `u1` whose session is gone.
async fn devices(world: &World) {
    person(world, "u1", true).await;
    person(world, "u2", true).await;
    for (id, user) in [("s1", "u1"), ("s2", "u1"), ("s3", "u1"), ("other", "u2")] {
        world.sessions.open(&session(id, user)).await.unwrap();
    }
    world
        .sql
        .run(
            "INSERT INTO oauth_client (id, client_id, redirect_uris) VALUES ('c', 'c', '{}');
             INSERT INTO oauth_refresh_token (id, token, client_id, session_id, user_id, scopes) VALUES
                 ('r1', 'r1', 'c', 's1', 'u1', '{}'), ('r2', 'r2', 'c', 's2', 'u1', '{}'),
                 ('r3', 'r3', 'c', 's3', 'u1', '{}'), ('r4', 'r4', 'c', NULL, 'u1', '{}'),
                 ('ro', 'ro', 'c', 'other', 'u2', '{}');
             INSERT INTO oauth_access_token (id, token, client_id, session_id, user_id, scopes) VALUES
                 ('a1', 'a1', 'c', 's1', 'u1', '{}'), ('a2', 'a2', 'c', 's2', 'u1', '{}');",
        )
        .await;
}

const LIVE_TOKENS: &str = "SELECT count(id) FROM oauth_refresh_token WHERE revoked IS NULL";

fn sorted(ids: &[SessionId]) -> Vec<String> {
    let mut ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    ids.sort();
    ids
}

async fn live(world: &World, user: &str) -> Vec<String> {
    let found = world.sessions.list(&UserId::new(user), at(20)).await.unwrap();
    sorted(&found.into_iter().map(|session| session.id).collect::<Vec<_>>())
}

async fn a_profile_changes_where_asked(world: &World) {
    let before = person(world, "u1", true).await;
    let renamed = ProfileChange { name: Some("Ann".to_owned()), image: None };
    world.accounts.update(&u1(), &renamed, at(5)).await.unwrap();
    let found = world.accounts.find(&u1()).await.unwrap().unwrap();
    assert_eq!((found.name.as_str(), &found.image, found.updated_at), ("Ann", &before.image, at(5)));
    let bare = ProfileChange { name: None, image: Some(None) };
    world.accounts.update(&u1(), &bare, at(6)).await.unwrap();
    let found = world.accounts.find(&u1()).await.unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.image), ("Ann", None));
    world.accounts.update(&UserId::new("gone"), &renamed, at(7)).await.unwrap();
}

async fn identities_are_listed_and_the_last_one_stays(world: &World) {
    person(world, "u1", true).await;
    assert_eq!(world.accounts.unlink(&u1(), "credential", None).await.unwrap(), Unlinking::LastOne);
    world
        .sql
        .run(
            "INSERT INTO account (id, account_id, provider_id, user_id, scope, created_at, updated_at)
             SELECT 'g', 'g-1', 'google', 'u1', 'email,openid', created_at, updated_at FROM account",
        )
        .await;
    let listed = world.accounts.list_identities(&u1()).await.unwrap();
    let names: Vec<_> = listed.iter().map(|found| (found.provider.as_str(), found.account_id.as_str())).collect();
    assert_eq!(names, [("google", "g-1"), ("credential", "u1")]);
    assert_eq!((listed[0].scopes.len(), listed[1].scopes.len()), (2, 0));
    assert_eq!(world.accounts.unlink(&u1(), "google", Some("x")).await.unwrap(), Unlinking::Missing);
    let user = u1();
    let both = futures::future::join(
        world.accounts.unlink(&user, "google", Some("g-1")),
        world.accounts.unlink(&user, "credential", None),
    )
    .await;
    let outcomes = [both.0.unwrap(), both.1.unwrap()];
    assert!(outcomes.contains(&Unlinking::Unlinked) && outcomes.contains(&Unlinking::LastOne), "{outcomes:?}");
    assert_eq!(world.accounts.list_identities(&u1()).await.unwrap().len(), 1);
}

async fn an_address_is_proved_once(world: &World) {
    person(world, "u1", false).await;
    assert_eq!(world.accounts.prove_email(&u1(), Proof::OwnLink, at(5)).await.unwrap(), Proving::Newly(Vec::new()));
    assert!(world.accounts.find(&u1()).await.unwrap().unwrap().email_verified);
    assert!(world.accounts.find_password(&u1()).await.unwrap().is_some());
    assert_eq!(world.accounts.prove_email(&u1(), Proof::Elsewhere, at(6)).await.unwrap(), Proving::Already);
    assert!(world.accounts.find_password(&u1()).await.unwrap().is_some(), "a proved password stays");
    let gone = UserId::new("gone");
    assert_eq!(world.accounts.prove_email(&gone, Proof::OwnLink, at(6)).await.unwrap(), Proving::Gone);
}

async fn a_proof_from_elsewhere_ends_what_was_never_proved(world: &World) {
    person(world, "u1", false).await;
    world.sessions.open(&session("s1", "u1")).await.unwrap();
    let proved = world.accounts.prove_email(&u1(), Proof::Elsewhere, at(5)).await.unwrap();
    assert_eq!(proved, Proving::Newly(vec![SessionId::new("s1")]));
    assert_eq!(world.accounts.find_password(&u1()).await.unwrap(), None);
    assert!(live(world, "u1").await.is_empty());
}

async fn an_address_moves_to_one_nobody_has(world: &World) {
    let (one, other) = (person(world, "u1", false).await, person(world, "u2", true).await);
    let to = Email::parse("new@example.com").unwrap();
    let moving = async |from: &Email, to: &Email| world.accounts.move_email(&u1(), from, to, at(5)).await.unwrap();
    assert_eq!(moving(&one.email, &other.email).await, Moving::AddressTaken);
    assert_eq!(moving(&to, &to).await, Moving::Gone);
    assert_eq!(moving(&one.email, &to).await, Moving::Moved);
    let found = world.accounts.find_by_email(&to).await.unwrap().unwrap();
    assert!(found.id == u1() && found.email_verified);
    assert_eq!(moving(&one.email, &to).await, Moving::Gone);
}

async fn closing_ends_what_was_named_and_what_is_tied_to_it(world: &World) {
    devices(world).await;
    let close = async |which: Closing| sorted(&world.sessions.close(&u1(), &which, at(11)).await.unwrap());
    assert!(close(Closing::One(SessionId::new("other"))).await.is_empty());
    assert!(close(Closing::Token(Secret::new("token-other"))).await.is_empty());
    assert_eq!(live(world, "u2").await, ["other"]);
    assert_eq!(close(Closing::Token(Secret::new("token-s1"))).await, ["s1"]);
    assert_eq!(world.sql.count(LIVE_TOKENS).await, 4);
    assert_eq!(world.sql.count("SELECT count(id) FROM oauth_access_token").await, 1);
    assert_eq!(close(Closing::Others(Some(SessionId::new("s3")))).await, ["s2"]);
    assert_eq!(world.sql.count(LIVE_TOKENS).await, 2, "that of s3 and that of the other person");
    assert_eq!(close(Closing::All).await, ["s3"]);
    assert_eq!(world.sql.count(LIVE_TOKENS).await, 1);
    assert_eq!(live(world, "u2").await, ["other"]);
    world.sessions.touch(&SessionId::new("s3")).await;
}

async fn a_caller_without_a_session_keeps_their_tokens(world: &World) {
    devices(world).await;
    world.sessions.close(&u1(), &Closing::Others(None), at(11)).await.unwrap();
    assert!(live(world, "u1").await.is_empty());
    assert_eq!(world.sql.count(LIVE_TOKENS).await, 2, "the untied one and that of the other person");
}

async fn expired_sessions_are_not_listed(world: &World) {
    devices(world).await;
    world.sessions.extend(&SessionId::new("s1"), at(15), at(11)).await.unwrap();
    assert_eq!(live(world, "u1").await, ["s2", "s3"]);
}

async fn a_changed_password_replaces_the_session_of_the_caller(world: &World) {
    devices(world).await;
    let sessions = Afterwards::Replace { old: SessionId::new("s1"), new: session("new", "u1") };
    let change = PasswordChange { user: u1(), password: password("p9", "changed"), at: at(11), sessions };
    let closed = world.accounts.change_password(&change).await.unwrap();
    assert_eq!(sorted(&closed), ["s1", "s2", "s3"]);
    assert_eq!(live(world, "u1").await, ["new"]);
    assert_eq!(world.accounts.find_password(&u1()).await.unwrap().unwrap().expose(), "changed");
    let inherited =
        "SELECT count(id) FROM oauth_refresh_token WHERE id = 'r1' AND session_id = 'new' AND revoked IS NULL";
    assert_eq!(world.sql.count(inherited).await, 1);
    assert_eq!(world.sql.count(LIVE_TOKENS).await, 2);
    assert_eq!(world.accounts.list_identities(&u1()).await.unwrap().len(), 1);
}

async fn a_changed_password_may_leave_sessions_alone(world: &World) {
    devices(world).await;
    let change =
        PasswordChange { user: u1(), password: password("p9", "changed"), at: at(11), sessions: Afterwards::Leave };
    assert!(world.accounts.change_password(&change).await.unwrap().is_empty());
    assert_eq!(live(world, "u1").await, ["s1", "s2", "s3"]);
    let kept = Afterwards::KeepOnly(Some(SessionId::new("s2")));
    world.accounts.change_password(&PasswordChange { sessions: kept, ..change }).await.unwrap();
    assert_eq!(live(world, "u1").await, ["s2"]);
}

fn row(identifier: &str, value: &str) -> Verification {
    Verification {
        id: format!("v-{identifier}-{value}"),
        identifier: identifier.to_owned(),
        value: value.to_owned(),
        expires_at: at(100),
        created_at: at(10),
    }
}

async fn a_reset_works_once_and_ends_everything(world: &World) {
    devices(world).await;
    world.verifications.issue(&row("reset-password:t", "u1")).await.unwrap();
    let reset = |hash: &str, seconds| PasswordReset {
        identifier: "reset-password:t".to_owned(),
        password: password("p9", hash),
        at: at(seconds),
    };
    assert_eq!(world.accounts.reset_password(&reset("late", 100)).await.unwrap(), None);
    let attempts: Vec<_> = (0..10).map(|n| reset(&format!("hash{n}"), 50)).collect();
    let done = futures::future::join_all(attempts.iter().map(|reset| world.accounts.reset_password(reset))).await;
    let done: Vec<_> = done.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(done.len(), 1);
    assert_eq!((&done[0].user, sorted(&done[0].closed)), (&u1(), vec!["s1".into(), "s2".into(), "s3".into()]));
    assert_eq!(world.sql.count(LIVE_TOKENS).await, 1);
    assert!(world.accounts.find_password(&u1()).await.unwrap().unwrap().expose().starts_with("hash"));
}

async fn a_reset_gives_a_password_to_whoever_had_none(world: &World) {
    let account = Account { email_verified: false, ..account("u1", "u1@example.com") };
    world.accounts.create(&NewAccount { account, password: None }).await.unwrap();
    world.verifications.issue(&row("reset-password:t", "u1")).await.unwrap();
    world.verifications.issue(&row("reset-password:x", "nobody")).await.unwrap();
    let reset = |token: &str| PasswordReset {
        identifier: format!("reset-password:{token}"),
        password: password("p1", "first"),
        at: at(50),
    };
    assert_eq!(world.accounts.reset_password(&reset("x")).await.unwrap(), None);
    assert!(world.accounts.reset_password(&reset("t")).await.unwrap().is_some());
    assert_eq!(world.accounts.find_password(&u1()).await.unwrap().unwrap().expose(), "first");
    assert!(world.accounts.find(&u1()).await.unwrap().unwrap().email_verified);
}

async fn a_secret_is_found_until_it_is_redeemed_by_one(world: &World) {
    let repo = &world.verifications;
    repo.issue(&row("a", "old")).await.unwrap();
    let newer = Verification { created_at: at(20), ..row("a", "new") };
    repo.issue(&newer).await.unwrap();
    repo.issue(&row("b", "other")).await.unwrap();
    assert_eq!(repo.find("a").await.unwrap(), Some(newer.clone()));
    let crowd = futures::future::join_all((0..20).map(|_| repo.redeem("a", at(50)))).await;
    let redeemed: Vec<_> = crowd.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(redeemed, [newer]);
    assert_eq!(repo.find("a").await.unwrap(), None);
    assert_eq!(repo.redeem("b", at(100)).await.unwrap(), None, "expired");
    assert_eq!(repo.find("b").await.unwrap(), None);
}

async fn a_value_is_swapped_by_one(world: &World) {
    let repo = &world.verifications;
    repo.issue(&row("a", "0")).await.unwrap();
    let crowd = futures::future::join_all((0..20).map(|_| repo.swap("a", "0", "1", at(11)))).await;
    assert_eq!(crowd.into_iter().filter(|done| *done.as_ref().unwrap()).count(), 1);
    assert_eq!(repo.find("a").await.unwrap().unwrap().value, "1");
    assert!(!repo.swap("b", "0", "1", at(11)).await.unwrap());
}

async fn what_ended_a_day_ago_goes_when_something_else_is_issued(world: &World) {
    const DAY: i64 = 86_400;
    let repo = &world.verifications;
    repo.issue(&row("a", "0")).await.unwrap();
    let issue = async |identifier: &str, time: i64| {
        let later = Verification { created_at: at(time), expires_at: at(time + DAY), ..row(identifier, "1") };
        repo.issue(&later).await.unwrap();
    };
    issue("b", 100 + DAY).await;
    assert!(repo.find("a").await.unwrap().is_some(), "its holder is told that it came too late");
    let many = (0..20).map(|n| format!("c{n}")).collect::<Vec<_>>();
    futures::future::join_all(many.iter().map(|identifier| issue(identifier, 101 + DAY))).await;
    assert!(repo.find("a").await.unwrap().is_none());
    for kept in many.iter().map(String::as_str).chain(["b"]) {
        assert!(repo.find(kept).await.unwrap().is_some(), "{kept} has not ended");
    }
}

fn erasure() -> Erasure {
    Erasure { user: u1(), address_mark: "mark".to_owned(), at: at(50) }
}

const BELONGINGS: &str = "
    INSERT INTO user_flux (user_id, flux) VALUES ('u1', 500), ('u2', 7);
    INSERT INTO flux_transaction (id, user_id, type, amount, balance_before, balance_after, description)
        VALUES ('t1', 'u1', 'credit', 500, 0, 500, 'x');
    INSERT INTO chats (id, type) VALUES ('solo', 'bot'), ('pair', 'private'), ('group', 'group');
    INSERT INTO chat_members (id, chat_id, member_type, user_id) VALUES
        ('m1', 'solo', 'user', 'u1'), ('m2', 'pair', 'user', 'u1'), ('m3', 'pair', 'user', 'u2'),
        ('m4', 'group', 'user', 'u1');
    INSERT INTO messages (id, chat_id, sender_id, role, content, media_ids, sticker_ids) VALUES
        ('x1', 'solo', 'u1', 'user', 'a', '{}', '{}'), ('x2', 'pair', 'u1', 'user', 'b', '{}', '{}'),
        ('x3', 'group', 'u1', 'user', 'c', '{}', '{}');
    INSERT INTO stripe_subscription (id, user_id, stripe_subscription_id, stripe_customer_id, status)
        VALUES ('sub', 'u1', 'sub_1', 'cus_1', 'active');
";

async fn an_erased_person_is_gone_and_the_books_stay(world: &World) {
    devices(world).await;
    world.sql.run(BELONGINGS).await;
    world.verifications.issue(&row("delete-account-x", "u1")).await.unwrap();
    world.verifications.issue(&row("magic", "{\"email\":\"u1@example.com\",\"attempt\":0}")).await.unwrap();
    world.verifications.issue(&row("magic2", "{\"email\":\"u2@example.com\",\"attempt\":0}")).await.unwrap();
    let erased = world.erasures.erase(&erasure()).await.unwrap().unwrap();
    assert_eq!(sorted(&erased.sessions), ["s1", "s2", "s3"]);
    assert_eq!(world.accounts.find(&u1()).await.unwrap(), None);
    for (query, expected) in [
        ("SELECT count(id) FROM session WHERE user_id = 'u1'", 0),
        ("SELECT count(id) FROM account WHERE user_id = 'u1'", 0),
        ("SELECT count(id) FROM oauth_refresh_token WHERE user_id = 'u1'", 0),
        ("SELECT count(id) FROM verification", 1),
        ("SELECT CAST(flux AS bigint) FROM user_flux WHERE user_id = 'u1' AND deleted_at IS NOT NULL", 500),
        ("SELECT count(id) FROM flux_transaction WHERE user_id = 'u1'", 1),
        ("SELECT count(id) FROM chats WHERE deleted_at IS NOT NULL AND id = 'solo'", 1),
        ("SELECT count(id) FROM chats WHERE deleted_at IS NULL", 2),
        ("SELECT count(id) FROM chat_members WHERE user_id = 'u1'", 1),
        ("SELECT count(id) FROM messages WHERE deleted_at IS NOT NULL AND id = 'x1'", 1),
        ("SELECT count(id) FROM messages WHERE deleted_at IS NULL", 2),
        ("SELECT count(id) FROM stripe_subscription WHERE deleted_at IS NOT NULL", 1),
        ("SELECT count(user_id) FROM user_flux WHERE deleted_at IS NULL", 1),
    ] {
        assert_eq!(world.sql.count(query).await, expected, "{query}");
    }
    assert_eq!(world.erasures.erase(&erasure()).await.unwrap(), None);
    assert_eq!(live(world, "u2").await, ["other"]);
}

async fn an_erased_address_gets_no_second_grant(world: &World) {
    person(world, "u1", true).await;
    let again = UserId::new("again");
    assert!(!world.erasures.withhold_grant(&again, "mark", at(60)).await.unwrap());
    world.erasures.erase(&erasure()).await.unwrap().unwrap();
    assert!(world.erasures.withhold_grant(&again, "mark", at(60)).await.unwrap());
    assert!(!world.erasures.withhold_grant(&again, "mark", at(61)).await.unwrap(), "it is there already");
    assert!(!world.erasures.withhold_grant(&UserId::new("new"), "another", at(60)).await.unwrap());
    let empty = "SELECT count(user_id) FROM user_flux WHERE user_id = 'again' AND flux = 0 AND deleted_at IS NULL";
    assert_eq!(world.sql.count(empty).await, 1);
}

macro_rules! over_every_adapter {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            use airi_server::adapters::sqlite::{accounts::SqliteAccounts, erasure::SqliteErasures};
            use airi_server::adapters::sqlite::{sessions::SqliteSessions, verification::SqliteVerifications};
            $(#[tokio::test]
            async fn $case() {
                let db = crate::support::databases::sqlite().await;
                super::$case(&super::World {
                    accounts: Box::new(SqliteAccounts { db: db.clone() }),
                    sessions: Box::new(SqliteSessions { db: db.clone() }),
                    verifications: Box::new(SqliteVerifications { db: db.clone() }),
                    erasures: Box::new(SqliteErasures { db: db.clone() }),
                    sql: super::Sql::Sqlite(db.writer.clone()),
                })
                .await;
            })+
        }

        #[cfg(feature = "live")]
        mod postgres {
            use airi_server::adapters::postgres::{accounts::PgAccounts, erasure::PgErasures};
            use airi_server::adapters::postgres::{sessions::PgSessions, verification::PgVerifications};
            $(#[tokio::test]
            async fn $case() {
                let database = crate::support::databases::postgres().await;
                let pool = database.pool.clone();
                super::$case(&super::World {
                    accounts: Box::new(PgAccounts { pool: pool.clone() }),
                    sessions: Box::new(PgSessions { pool: pool.clone() }),
                    verifications: Box::new(PgVerifications { pool: pool.clone() }),
                    erasures: Box::new(PgErasures { pool: pool.clone() }),
                    sql: super::Sql::Postgres(pool),
                })
                .await;
            })+
        }
    };
}

over_every_adapter! {
    a_profile_changes_where_asked,
    identities_are_listed_and_the_last_one_stays,
    an_address_is_proved_once,
    a_proof_from_elsewhere_ends_what_was_never_proved,
    an_address_moves_to_one_nobody_has,
    closing_ends_what_was_named_and_what_is_tied_to_it,
    a_caller_without_a_session_keeps_their_tokens,
    expired_sessions_are_not_listed,
    a_changed_password_replaces_the_session_of_the_caller,
    a_changed_password_may_leave_sessions_alone,
    a_reset_works_once_and_ends_everything,
    a_reset_gives_a_password_to_whoever_had_none,
    a_secret_is_found_until_it_is_redeemed_by_one,
    a_value_is_swapped_by_one,
    what_ended_a_day_ago_goes_when_something_else_is_issued,
    an_erased_person_is_gone_and_the_books_stay,
    an_erased_address_gets_no_second_grant,
}
