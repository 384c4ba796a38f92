//! `GrantRepo`.

use airi_server::core::model::accounts::Session;
use airi_server::core::model::identity::Closing;
use airi_server::core::model::ids::{SessionId, UserId};
use airi_server::core::model::oidc::SignIn;
use airi_server::core::model::oidc::authorize::Accepted;
use airi_server::core::model::oidc::clients::WEB;
use airi_server::core::model::oidc::grants::{
    CodeGrant, CodeKind, NewTokens, OpaqueRow, Redemption, RefreshRow, Renewal,
};
use airi_server::core::model::secret::Secret;
use airi_server::ports::accounts::{AccountRepo, SessionRepo};
use airi_server::ports::oidc::{ClientRepo, GrantRepo};
use chrono::Duration;
use futures::future::join_all;

use crate::accounts::{account, at, without_password};
use crate::clients::ours;

/// A store with one person, in one session, and our clients.
struct World<'a> {
    people: &'a dyn AccountRepo,
    sessions: &'a dyn SessionRepo,
    clients: &'a dyn ClientRepo,
    grants: &'a dyn GrantRepo,
}

impl World<'_> {
    async fn settle(&self) {
        self.people.create(&without_password(account("u1", "a@example.com"))).await.unwrap();
        self.sign_in(session(), 1).await;
        for client in ours() {
            self.clients.seed(&client, &client.client_id, at(1)).await.unwrap();
        }
    }

    async fn sign_in(&self, id: SessionId, opened: i64) {
        let session = Session {
            token: Secret::new(format!("token of {id}")),
            id,
            user: UserId::new("u1"),
            expires_at: at(opened + 699_999),
            created_at: at(opened),
            updated_at: at(opened),
            ip_address: None,
            user_agent: None,
        };
        self.sessions.open(&session).await.unwrap();
    }

    async fn end(&self, id: SessionId, when: i64) -> Vec<SessionId> {
        self.sessions.close(&UserId::new("u1"), &Closing::One(id), at(when)).await.unwrap()
    }

    async fn code(&self, digest: &str) {
        self.grants.save_code(digest, &grant(), &format!("row of {digest}"), at(10), at(610)).await.unwrap();
    }

    /// The token that grew out of the code `code`.
    async fn redeemed(&self, id: &str) -> RefreshRow {
        self.code("code").await;
        let tokens = tokens(id, 20);
        assert_eq!(self.grants.redeem("code", &session(), &tokens, at(20)).await.unwrap(), Redemption::Redeemed);
        self.refresh(id).await
    }

    async fn refresh(&self, id: &str) -> RefreshRow {
        self.grants.find_refresh(&digest(id)).await.unwrap().unwrap()
    }

    async fn is_revoked(&self, id: &str) -> bool {
        self.refresh(id).await.revoked.is_some()
    }

    async fn has_opaque(&self, id: &str) -> bool {
        self.grants.find_opaque(&format!("opaque {id}")).await.unwrap().is_some()
    }
}

fn session() -> SessionId {
    SessionId::new("s1")
}

fn digest(id: &str) -> String {
    format!("digest of {id}")
}

fn grant() -> CodeGrant {
    CodeGrant {
        r#type: CodeKind::AuthorizationCode,
        query: Accepted { response_type: "code".to_owned(), client_id: WEB.to_owned(), ..Accepted::default() },
        user_id: UserId::new("u1"),
        session_id: session(),
        auth_time: Some(1_000),
    }
}

fn tokens(id: &str, made: i64) -> NewTokens {
    let scopes = vec!["openid".to_owned(), "offline_access".to_owned()];
    let refresh = RefreshRow {
        id: id.to_owned(),
        digest: digest(id),
        client_id: WEB.to_owned(),
        session: Some(session()),
        user: UserId::new("u1"),
        expires_at: at(2_000_000),
        created_at: at(made),
        revoked: None,
        auth_time: Some(at(1)),
        scopes: scopes.clone(),
        family: None,
    };
    let opaque = OpaqueRow {
        id: format!("access {id}"),
        digest: format!("opaque {id}"),
        client_id: WEB.to_owned(),
        session: Some(session()),
        user: UserId::new("u1"),
        expires_at: at(made + 3_600),
        created_at: at(made),
        scopes,
    };
    NewTokens { refresh: Some(refresh), opaque: Some(opaque) }
}

const GRACE: Duration = Duration::seconds(30);

async fn a_code_and_its_tokens_are_found_as_they_were_stored(world: World<'_>) {
    let signed_in = SignIn { user: UserId::new("u1"), at: at(1), ends: at(700_000) };
    assert_eq!(world.grants.sign_in_of(&session()).await.unwrap(), Some(signed_in));
    assert_eq!(world.grants.sign_in_of(&SessionId::new("s2")).await.unwrap(), None);
    world.code("code").await;
    assert_eq!(world.grants.find_code("code").await.unwrap(), Some((grant(), at(610))));
    let tokens = tokens("r1", 20);
    assert_eq!(world.grants.redeem("code", &session(), &tokens, at(20)).await.unwrap(), Redemption::Redeemed);
    assert_eq!(world.grants.find_code("code").await.unwrap(), None);
    let stored = RefreshRow { family: Some("code".to_owned()), ..tokens.refresh.unwrap() };
    assert_eq!(world.refresh("r1").await, stored);
    assert_eq!(world.grants.find_opaque("opaque r1").await.unwrap(), tokens.opaque);
    world.grants.remove_opaque("opaque r1").await.unwrap();
    world.grants.remove_opaque("opaque r1").await.unwrap();
    assert!(!world.has_opaque("r1").await);
}

async fn fifty_redeem_one_code_and_one_succeeds_and_the_others_take_its_tokens_back(world: World<'_>) {
    world.code("code").await;
    let all: Vec<_> = (0..50).map(|n| tokens(&format!("r{n}"), 20)).collect();
    let session = session();
    let answers = join_all(all.iter().map(|tokens| world.grants.redeem("code", &session, tokens, at(20)))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == Redemption::Redeemed).count(), 1);
    assert_eq!(answers.iter().filter(|answer| **answer == Redemption::Spent).count(), 49);
    let winner = answers.iter().position(|answer| *answer == Redemption::Redeemed).unwrap();
    let winner = format!("r{winner}");
    assert!(world.is_revoked(&winner).await && !world.has_opaque(&winner).await, "reuse revokes");
}

async fn fifty_present_one_refresh_token_and_one_rotates_it(world: World<'_>) {
    let presented = world.redeemed("r").await;
    let all: Vec<_> = (0..50).map(|n| tokens(&format!("r{n}"), 30)).collect();
    let renewals = all.iter().map(|tokens| world.grants.renew(&presented, tokens, at(30), GRACE));
    let renewals: Vec<_> = join_all(renewals).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(renewals.iter().filter(|renewal| **renewal == Renewal::Rotated).count(), 1);
    assert_eq!(renewals.iter().filter(|renewal| **renewal == Renewal::Forked).count(), 49);
    assert!(world.is_revoked("r").await);
    for n in 0..50 {
        let child = world.refresh(&format!("r{n}")).await;
        assert_eq!((child.revoked, child.family.as_deref()), (None, Some("code")));
    }
}

async fn without_grace_fifty_present_one_refresh_token_one_succeeds_and_the_family_ends(world: World<'_>) {
    let presented = world.redeemed("r").await;
    let all: Vec<_> = (0..50).map(|n| tokens(&format!("r{n}"), 30)).collect();
    let renewals = all.iter().map(|tokens| world.grants.renew(&presented, tokens, at(30), Duration::zero()));
    let renewals: Vec<_> = join_all(renewals).await.into_iter().map(Result::unwrap).collect();
    let count = |wanted| renewals.iter().filter(|renewal| **renewal == wanted).count();
    assert_eq!((count(Renewal::Rotated), count(Renewal::Reused), count(Renewal::Dead)), (1, 1, 48));
    let winner = renewals.iter().position(|renewal| *renewal == Renewal::Rotated).unwrap();
    assert!(world.is_revoked(&format!("r{winner}")).await);
}

async fn a_late_reuse_ends_the_whole_family_and_no_other(world: World<'_>) {
    let first = world.redeemed("r1").await;
    assert_eq!(world.grants.renew(&first, &tokens("r2", 30), at(30), GRACE).await.unwrap(), Renewal::Rotated);
    let second = world.refresh("r2").await;
    assert_eq!(world.grants.renew(&second, &tokens("r3", 40), at(40), GRACE).await.unwrap(), Renewal::Rotated);
    world.code("other").await;
    world.grants.redeem("other", &session(), &tokens("o1", 40), at(40)).await.unwrap();
    assert_eq!(world.grants.renew(&first, &tokens("r4", 90), at(90), GRACE).await.unwrap(), Renewal::Reused);
    assert!(world.is_revoked("r3").await && !world.has_opaque("r3").await);
    assert!(!world.is_revoked("o1").await && world.has_opaque("o1").await);
    assert!(world.grants.find_refresh(&digest("r4")).await.unwrap().is_none());
    let third = world.refresh("r3").await;
    assert_eq!(world.grants.renew(&third, &tokens("r5", 91), at(91), GRACE).await.unwrap(), Renewal::Dead);
}

async fn a_rotation_never_escapes_the_end_of_its_family(world: World<'_>) {
    let first = world.redeemed("r0").await;
    world.grants.renew(&first, &tokens("x", 30), at(30), GRACE).await.unwrap();
    let current = world.refresh("x").await;
    let all: Vec<_> = (1..=20).map(|n| tokens(&format!("r{n}"), 40)).collect();
    let rotations = join_all(all.iter().map(|tokens| world.grants.renew(&current, tokens, at(40), GRACE)));
    let (_, ended) = futures::join!(rotations, world.grants.revoke_family(&first, at(41)));
    ended.unwrap();
    let mut seen = 0;
    for n in 1..=20 {
        if let Some(child) = world.grants.find_refresh(&digest(&format!("r{n}"))).await.unwrap() {
            assert!(child.revoked.is_some(), "r{n} outlived its family");
            seen += 1;
        }
    }
    assert!(seen > 0, "no rotation came before the end");
}

async fn a_spoiled_code_gives_nothing_and_a_spent_one_takes_back(world: World<'_>) {
    world.code("spoiled").await;
    world.grants.spoil("spoiled", at(20)).await.unwrap();
    let late = world.grants.redeem("spoiled", &session(), &tokens("r1", 20), at(20)).await.unwrap();
    assert_eq!(late, Redemption::Spent);
    world.redeemed("r2").await;
    world.grants.spoil("code", at(21)).await.unwrap();
    assert!(world.is_revoked("r2").await && !world.has_opaque("r2").await);
    world.grants.spoil("never there", at(21)).await.unwrap();
}

async fn an_ended_session_takes_its_tokens_along_and_redeems_nothing(world: World<'_>) {
    let before = world.redeemed("r1").await;
    world.code("second").await;
    assert_eq!(world.end(session(), 30).await, [session()]);
    assert_eq!(world.end(session(), 31).await, []);
    assert!(world.grants.sign_in_of(&session()).await.unwrap().is_none());
    assert!(world.is_revoked("r1").await && !world.has_opaque("r1").await);
    assert_eq!(world.refresh("r1").await.session, None);
    let late = world.grants.redeem("second", &session(), &tokens("r2", 31), at(31)).await.unwrap();
    assert_eq!(late, Redemption::SessionOver);
    assert_eq!(world.grants.find_code("second").await.unwrap(), None);
    let renewed = world.grants.renew(&before, &tokens("r3", 32), at(32), GRACE).await.unwrap();
    assert_eq!(renewed, Renewal::Dead, "the grace is no way back after a sign-out");
}

async fn a_refresh_token_outlives_its_expired_session(world: World<'_>) {
    let first = world.redeemed("r1").await;
    let late = world.grants.renew(&first, &tokens("r2", 800_000), at(800_000), GRACE).await.unwrap();
    assert_eq!(late, Renewal::Rotated);
    world.code("late").await;
    let redeemed = world.grants.redeem("late", &session(), &tokens("r3", 800_000), at(800_000)).await.unwrap();
    assert_eq!(redeemed, Redemption::SessionOver);
}

async fn an_expired_session_stays_for_the_refresh_token_that_came_from_it_and_ends_with_it(world: World<'_>) {
    world.redeemed("r1").await;
    world.sign_in(SessionId::new("s2"), 800_000).await;
    assert_eq!(world.refresh("r1").await.session, Some(session()));
    assert_eq!(world.end(session(), 800_001).await, [session()]);
    assert!(world.is_revoked("r1").await, "a sign-out of the old session ends what came from it");
}

async fn what_ended_of_a_person_goes_when_they_sign_in_again(world: World<'_>) {
    const MONTH: i64 = 30 * 86_400;
    world.redeemed("r1").await;
    world.sign_in(SessionId::new("s2"), 1_900_000).await;
    assert!(world.grants.sign_in_of(&session()).await.unwrap().is_some(), "r1 is live");
    world.sign_in(SessionId::new("s3"), 2_000_000).await;
    assert!(world.grants.sign_in_of(&session()).await.unwrap().is_none(), "r1 has ended");
    assert!(world.grants.sign_in_of(&SessionId::new("s2")).await.unwrap().is_some(), "s2 has not");
    assert!(world.grants.find_refresh(&digest("r1")).await.unwrap().is_some(), "its reuse is still noticed");
    assert!(world.has_opaque("r1").await);
    world.sign_in(SessionId::new("s4"), 2_000_001 + MONTH).await;
    assert!(world.grants.find_refresh(&digest("r1")).await.unwrap().is_none());
    assert!(!world.has_opaque("r1").await);
}

macro_rules! over_every_adapter {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            use airi_server::adapters::sqlite::{
                accounts::SqliteAccounts, clients::SqliteClients, grants::SqliteGrants, sessions::SqliteSessions,
            };
            $(#[tokio::test]
            async fn $case() {
                let db = crate::support::databases::sqlite().await;
                let (people, sessions) = (SqliteAccounts { db: db.clone() }, SqliteSessions { db: db.clone() });
                let (clients, grants) = (SqliteClients { db: db.clone() }, SqliteGrants { db });
                let world = super::World { people: &people, sessions: &sessions, clients: &clients, grants: &grants };
                world.settle().await;
                super::$case(world).await;
            })+
        }

        #[cfg(feature = "live")]
        mod postgres {
            use airi_server::adapters::postgres::{
                accounts::PgAccounts, clients::PgClients, grants::PgGrants, sessions::PgSessions,
            };
            $(#[tokio::test]
            async fn $case() {
                let database = crate::support::databases::postgres().await;
                let pool = database.pool.clone();
                let (people, sessions) = (PgAccounts { pool: pool.clone() }, PgSessions { pool: pool.clone() });
                let (clients, grants) = (PgClients { pool: pool.clone() }, PgGrants { pool });
                let world = super::World { people: &people, sessions: &sessions, clients: &clients, grants: &grants };
                world.settle().await;
                super::$case(world).await;
            })+
        }
    };
}

over_every_adapter! {
    a_code_and_its_tokens_are_found_as_they_were_stored,
    fifty_redeem_one_code_and_one_succeeds_and_the_others_take_its_tokens_back,
    fifty_present_one_refresh_token_and_one_rotates_it,
    without_grace_fifty_present_one_refresh_token_one_succeeds_and_the_family_ends,
    a_late_reuse_ends_the_whole_family_and_no_other,
    a_rotation_never_escapes_the_end_of_its_family,
    a_spoiled_code_gives_nothing_and_a_spent_one_takes_back,
    an_ended_session_takes_its_tokens_along_and_redeems_nothing,
    a_refresh_token_outlives_its_expired_session,
    an_expired_session_stays_for_the_refresh_token_that_came_from_it_and_ends_with_it,
    what_ended_of_a_person_goes_when_they_sign_in_again,
}
