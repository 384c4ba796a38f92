//! Identity over a complete in-memory world: what a client and the reader of a letter see.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use airi_server::compose::testing;
use airi_server::core::App;
use airi_server::core::accounts::NewUser;
use airi_server::core::model::accounts::Email;
use airi_server::core::model::limits::{Admission, Limit};
use airi_server::core::model::secret::Secret;
use airi_server::http::{HttpSettings, routes};
use airi_server::ports::limits::RateLimiter;
use airi_server::ports::runtime::Tasks;
use airi_server::ports::{Fault, Ports};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use poem::Response;
use poem::endpoint::BoxEndpoint;
use poem::http::{Method, StatusCode};
use poem::test::TestClient;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) const PASSWORD: &str = "hunter22hunter22";
pub(crate) const ORIGIN: &str = "http://localhost:3000";

/// Runs what others would do later at once, so that a letter is there when the answer is.
struct InLine;

impl Tasks for InLine {
    fn spawn(&self, _: &'static str, job: BoxFuture<'static, ()>) {
        job.now_or_never().expect("letters are kept without waiting");
    }
}

/// Counts, and refuses only what a test asks it to.
#[derive(Default)]
pub(crate) struct Counter {
    strict: bool,
    seen: Mutex<HashMap<String, u64>>,
}

impl Counter {
    /// Refuses whatever a limit refuses.
    pub(crate) fn strict() -> Self {
        Self { strict: true, ..Self::default() }
    }
}

#[async_trait]
impl RateLimiter for Counter {
    async fn admit(&self, limit: &Limit, key: &str) -> Result<Admission, Fault> {
        let mut seen = self.seen.lock().unwrap();
        let count = seen.entry(format!("{}:{key}", limit.route)).or_default();
        *count += 1;
        let count = if self.strict || limit.route == "auth.verification_letter" { *count } else { 1 };
        Ok(Admission::judge(limit, count, Duration::from_secs(30)))
    }
}

pub(crate) struct World {
    pub(crate) app: Arc<App>,
    pub(crate) client: TestClient<BoxEndpoint<'static, Response>>,
}

/// An answer, read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: poem::http::HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn code(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }

    pub(crate) fn location(&self) -> &str {
        self.headers.get("location").map(|to| to.to_str().unwrap()).unwrap_or_default()
    }

    /// The session cookie as a browser would send it back.
    pub(crate) fn cookie(&self) -> Option<String> {
        let lines = self.headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap());
        let line = lines.into_iter().find(|line| line.starts_with("better-auth.session_token="))?;
        Some(line.split(';').next().unwrap().to_owned())
    }
}

pub(crate) async fn world() -> World {
    world_of(Counter::default()).await
}

pub(crate) async fn world_of(limits: Counter) -> World {
    world_with(limits, |ports| ports).await
}

/// A world with other ports.
pub(crate) async fn world_with(limits: Counter, change: impl FnOnce(Ports) -> Ports) -> World {
    let ports = Ports { tasks: Arc::new(InLine), limits: Arc::new(limits), ..testing::ports().await.unwrap() };
    let ports = change(ports);
    let app = Arc::new(App::new(ports, testing::policies()));
    let client = TestClient::new(routes(app.clone(), &HttpSettings::default(), CancellationToken::new()));
    World { app, client }
}

impl World {
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Answer {
        let mut request = self.client.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let mut answer = request.send().await.0;
        let text = answer.take_body().into_string().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), body, text }
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.post_as(path, &[], body).await
    }

    pub(crate) async fn post_as(&self, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.send(Method::POST, &format!("/api/auth/{path}"), &all, Some(body.to_string())).await
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers, None).await
    }

    pub(crate) async fn person(&self, email: &str, verified: bool) {
        let new = NewUser {
            email: Email::parse(email).unwrap(),
            name: Some("Ann".to_owned()),
            password: Some(Secret::new(PASSWORD)),
            verified,
        };
        self.app.accounts.create(new).await.unwrap();
    }

    /// The cookie of a fresh sign-in.
    pub(crate) async fn signed_in(&self, email: &str) -> String {
        let answer = self.post("sign-in/email", json!({ "email": email, "password": PASSWORD })).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.cookie().unwrap()
    }

    pub(crate) async fn is_signed_in(&self, cookie: &str) -> bool {
        !self.get("/api/auth/get-session", &[("cookie", cookie)]).await.body.is_null()
    }

    /// Path and query of the link in the newest letter.
    pub(crate) fn link(&self) -> String {
        let letters = self.app.outbox.as_ref().unwrap().letters();
        let link = letters.first().expect("no letter").letter.link.expose().to_owned();
        link.strip_prefix(ORIGIN).unwrap().to_owned()
    }

    pub(crate) fn letters(&self) -> usize {
        self.app.outbox.as_ref().unwrap().letters().len()
    }
}

#[tokio::test]
async fn from_sign_up_to_a_session_by_the_mailed_link() {
    let world = world().await;
    let callback = "/auth/verify-email?verified=true";
    let body = json!({ "name": "Ann", "email": "Ann@Example.com", "password": PASSWORD, "callbackURL": callback });
    let made = world.post("sign-up/email", body.clone()).await;
    assert_eq!((made.status, &made.body["token"]), (200, &Value::Null), "{}", made.text);
    assert_eq!(made.body["user"]["email"], "ann@example.com");
    assert_eq!(made.body["user"]["emailVerified"], false);
    assert!(made.cookie().is_none());
    let refused = world.post("sign-in/email", json!({ "email": "ann@example.com", "password": PASSWORD })).await;
    assert_eq!(refused.code(), (403, "EMAIL_NOT_VERIFIED"));
    assert_eq!(world.letters(), 1, "one letter a minute");

    let opened = world.get(&world.link(), &[]).await;
    assert_eq!((opened.status, opened.location()), (302, callback), "{}", opened.text);
    let cookie = opened.cookie().unwrap();
    let session = world.get("/api/auth/get-session", &[("cookie", &cookie)]).await;
    assert_eq!(session.body["user"]["emailVerified"], true);
    assert!(session.body["user"]["image"].as_str().unwrap().starts_with("https://www.gravatar.com/avatar/"));
    let again = world.get(&world.link(), &[]).await;
    assert_eq!((again.status, again.location()), (302, callback));
    assert!(again.cookie().is_none(), "a link signs in once");

    let repeated = world.post("sign-up/email", body).await;
    assert_eq!(repeated.status, 200);
    assert_ne!(repeated.body["user"]["id"], made.body["user"]["id"]);
}

#[tokio::test]
async fn every_credential_of_a_session_is_accepted_and_a_bad_cookie_is_no_shadow() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    let answer = world
        .post("sign-in/email", json!({ "email": "ann@example.com", "password": PASSWORD, "callbackURL": "/x" }))
        .await;
    assert_eq!((answer.status, answer.location(), &answer.body["redirect"]), (200, "/x", &json!(true)));
    let token = answer.body["token"].as_str().unwrap().to_owned();
    let cookie = answer.cookie().unwrap();
    let signed = answer.headers["set-auth-token"].to_str().unwrap().to_owned();
    let encoded = cookie.split_once('=').unwrap().1;
    let line = answer.headers["set-cookie"].to_str().unwrap();
    assert!(line.ends_with("; Max-Age=604800; Path=/; HttpOnly; SameSite=Lax"), "{line}");
    for headers in [
        vec![("cookie", cookie.clone())],
        vec![("authorization", format!("Bearer {token}"))],
        vec![("authorization", format!("bearer {signed}"))],
        vec![("authorization", format!("BEARER {encoded}"))],
        vec![("cookie", "better-auth.session_token=junk".to_owned()), ("authorization", format!("Bearer {token}"))],
        vec![("cookie", format!("a=b; {cookie}; better-auth.session_token=junk"))],
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let found = world.get("/api/auth/get-session", &headers).await;
        assert_eq!(found.body["session"]["token"], token.as_str(), "{headers:?}");
    }
    for (name, value) in [
        ("authorization", format!("Bearer {token}.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
        ("authorization", "Bearer %ff.%".to_owned()),
        ("authorization", "Basic abc".to_owned()),
        ("cookie", format!("better-auth.session_token={token}")),
        ("cookie", "better-auth.session_token=%zz.%".to_owned()),
        ("cookie", "=;;;=".to_owned()),
    ] {
        let found = world.get("/api/auth/get-session", &[(name, &value)]).await;
        assert_eq!((found.status, found.text.as_str()), (200, "null"), "{value}");
    }
}

#[tokio::test]
async fn a_session_not_to_be_remembered_ends_with_the_browser() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "rememberMe": false });
    let answer = world.post("sign-in/email", body).await;
    let lines: Vec<_> = answer.headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| !line.contains("Max-Age")), "{lines:?}");
    assert!(lines[1].starts_with("better-auth.dont_remember=true."), "{lines:?}");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_look_alike() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    for (email, password) in [("ann@example.com", "wrong-password"), ("nobody@example.com", PASSWORD)] {
        let refused = world.post("sign-in/email", json!({ "email": email, "password": password })).await;
        assert_eq!(refused.code(), (401, "INVALID_EMAIL_OR_PASSWORD"));
    }
    let bad = world.post("sign-in/email", json!({ "email": "nobody", "password": "x" })).await;
    assert_eq!(bad.code(), (400, "INVALID_EMAIL"));
}

#[tokio::test]
async fn signing_out_ends_the_session_and_clears_every_cookie() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    let cookie = world.signed_in("ann@example.com").await;
    let forged = [("cookie", cookie.as_str()), ("origin", "https://evil.example")];
    assert_eq!(world.post_as("sign-out", &forged, json!({})).await.code(), (403, "INVALID_ORIGIN"));
    assert!(world.is_signed_in(&cookie).await);
    let own = [("cookie", cookie.as_str()), ("origin", ORIGIN)];
    let done = world.post_as("sign-out", &own, json!({})).await;
    assert_eq!(done.body, json!({ "success": true }));
    assert_eq!(done.headers.get_all("set-cookie").iter().count(), 3);
    assert!(!world.is_signed_in(&cookie).await);
    assert_eq!(world.post("sign-out", json!({})).await.status, 200, "nobody may sign out as well");
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    world.person("bob@example.com", true).await;
    let (one, two) = (world.signed_in("ann@example.com").await, world.signed_in("ann@example.com").await);
    let bob = world.signed_in("bob@example.com").await;
    let own = |cookie: &str| [("cookie", cookie.to_owned()), ("origin", ORIGIN.to_owned())];
    let listed = world.get("/api/auth/list-sessions", &[("cookie", &one)]).await;
    assert_eq!(listed.body.as_array().unwrap().len(), 2);
    let token_of_two = world.get("/api/auth/get-session", &[("cookie", &two)]).await.body["session"]["token"].clone();
    let post = async |path: &str, cookie: &str, body: Value| {
        let headers = own(cookie);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        world.post_as(path, &headers, body).await
    };
    assert_eq!(post("revoke-session", &bob, json!({ "token": token_of_two })).await.body, json!({ "status": true }));
    assert!(world.is_signed_in(&two).await, "somebody else's session is not touched");
    assert_eq!(post("revoke-other-sessions", &one, json!({})).await.status, 200);
    assert!(!world.is_signed_in(&two).await && world.is_signed_in(&one).await);
    assert_eq!(post("revoke-sessions", &one, json!({})).await.status, 200);
    assert!(!world.is_signed_in(&one).await && world.is_signed_in(&bob).await);
    for path in ["revoke-sessions", "revoke-other-sessions", "revoke-session", "update-user", "change-password"] {
        assert_eq!(world.post(path, json!({})).await.code(), (401, "UNAUTHORIZED"), "{path}");
    }
    assert_eq!(world.get("/api/auth/list-accounts", &[]).await.code(), (401, "UNAUTHORIZED"));
    let nobodys = world.get("/api/auth/list-sessions", &[]).await;
    assert_eq!((nobodys.status, nobodys.body), (200, json!([])));
}

#[tokio::test]
async fn a_password_is_reset_by_the_mailed_link_once_and_ends_every_session() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    let cookie = world.signed_in("ann@example.com").await;
    for email in ["nobody@example.com", "ann@example.com"] {
        let asked =
            world.post("request-password-reset", json!({ "email": email, "redirectTo": "/auth/reset-password" }));
        let asked = asked.await;
        assert_eq!((asked.status, &asked.body["status"]), (200, &json!(true)));
    }
    assert_eq!(world.letters(), 1);
    let opened = world.get(&world.link(), &[]).await;
    let token = opened.location().strip_prefix("/auth/reset-password?token=").unwrap().to_owned();
    let short = world.post("reset-password", json!({ "token": token, "newPassword": "short" })).await;
    assert_eq!(short.code(), (400, "PASSWORD_TOO_SHORT"));
    let long = world.post("reset-password", json!({ "token": token, "newPassword": "x".repeat(129) })).await;
    assert_eq!(long.code(), (400, "PASSWORD_TOO_LONG"));
    let reset = json!({ "token": token, "newPassword": "another-password" });
    assert_eq!(world.post("reset-password", reset.clone()).await.body, json!({ "status": true }));
    assert_eq!(world.post("reset-password", reset).await.code(), (400, "INVALID_TOKEN"));
    assert_eq!(world.post("reset-password", json!({ "newPassword": PASSWORD })).await.code(), (400, "INVALID_TOKEN"));
    assert!(!world.is_signed_in(&cookie).await);
    let body = json!({ "email": "ann@example.com", "password": "another-password" });
    assert_eq!(world.post("sign-in/email", body).await.status, 200);
    let stale = world.get(&world.link(), &[]).await;
    assert_eq!(stale.location(), "/auth/reset-password?error=INVALID_TOKEN");
}

#[tokio::test]
async fn a_magic_link_signs_in_once() {
    let world = world().await;
    let asked = world.post("sign-in/magic-link", json!({ "email": "new@example.com", "callbackURL": "/in" })).await;
    assert_eq!(asked.body, json!({ "status": true }), "{}", asked.text);
    let link = world.link();
    let opened = world.get(&link, &[]).await;
    assert_eq!((opened.status, opened.location()), (302, "/in"));
    assert!(world.is_signed_in(&opened.cookie().unwrap()).await);
    assert_eq!(world.get(&link, &[]).await.location(), "/in?error=ATTEMPTS_EXCEEDED");
    assert_eq!(world.get(&link, &[]).await.location(), "/in?error=INVALID_TOKEN");
}

#[tokio::test]
async fn a_magic_link_drops_a_password_nobody_proved() {
    let world = world().await;
    world.person("ann@example.com", false).await;
    world.post("sign-in/magic-link", json!({ "email": "ann@example.com" })).await;
    assert_eq!(world.get(&world.link(), &[]).await.status, 302);
    let refused = world.post("sign-in/email", json!({ "email": "ann@example.com", "password": PASSWORD })).await;
    assert_eq!(refused.code(), (401, "INVALID_EMAIL_OR_PASSWORD"));
}

#[tokio::test]
async fn an_address_changes_by_two_letters() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    let cookie = world.signed_in("ann@example.com").await;
    let own = [("cookie", cookie.as_str()), ("origin", ORIGIN)];
    let same = world.post_as("change-email", &own, json!({ "newEmail": "Ann@example.com" })).await;
    assert_eq!((same.status, &same.body["message"]), (400, &json!("Email is the same")));
    world.post_as("change-email", &own, json!({ "newEmail": "new@example.com", "callbackURL": "/a?b=c d" })).await;
    assert_eq!(world.letters(), 0, "a callback that leads astray stops everything");
    world.post_as("change-email", &own, json!({ "newEmail": "new@example.com", "callbackURL": "/a?b=c" })).await;
    assert_eq!(world.get(&world.link(), &[("cookie", &cookie)]).await.location(), "/a?b=c");
    assert_eq!(world.letters(), 2);
    let moved = world.get(&world.link(), &[("cookie", &cookie)]).await;
    assert_eq!(moved.location(), "/a?b=c", "{}", moved.text);
    let body = json!({ "email": "new@example.com", "password": PASSWORD });
    assert_eq!(world.post("sign-in/email", body).await.status, 200);
}

#[tokio::test]
async fn a_profile_is_checked_and_changed() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    let cookie = world.signed_in("ann@example.com").await;
    let own = [("cookie", cookie.as_str()), ("origin", ORIGIN)];
    for (body, code) in [
        (json!({ "email": "x@y.zz" }), "EMAIL_CAN_NOT_BE_UPDATED"),
        (json!({}), ""),
        (json!({ "name": 5 }), "VALIDATION_ERROR"),
        (json!({ "name": "  " }), "VALIDATION_ERROR"),
        (json!({ "name": "x".repeat(101) }), "VALIDATION_ERROR"),
        (json!({ "image": "http://x.yz/a.png" }), "VALIDATION_ERROR"),
        (json!({ "image": "javascript:alert(1)" }), "VALIDATION_ERROR"),
    ] {
        assert_eq!(world.post_as("update-user", &own, body.clone()).await.code(), (400, code), "{body}");
    }
    let changed = world.post_as("update-user", &own, json!({ "name": " Zoë ", "image": "https://x.yz/a.png" })).await;
    assert_eq!(changed.body, json!({ "status": true }));
    assert!(changed.cookie().is_some());
    let user = world.get("/api/auth/get-session", &[("cookie", &cookie)]).await.body["user"].clone();
    assert_eq!((&user["name"], &user["image"]), (&json!("Zoë"), &json!("https://x.yz/a.png")));
}

#[tokio::test]
async fn a_password_changes_for_whoever_knows_it() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    let (cookie, other) = (world.signed_in("ann@example.com").await, world.signed_in("ann@example.com").await);
    let own = [("cookie", cookie.as_str()), ("origin", ORIGIN)];
    let change = |current: &str, new: &str| json!({ "currentPassword": current, "newPassword": new, "revokeOtherSessions": true });
    let short = world.post_as("change-password", &own, change("x", "short")).await;
    assert_eq!(short.code(), (400, "PASSWORD_TOO_SHORT"));
    let wrong = world.post_as("change-password", &own, change("wrong-password", "another-one")).await;
    assert_eq!(wrong.code(), (400, "INVALID_PASSWORD"));
    let done = world.post_as("change-password", &own, change(PASSWORD, "another-one")).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let new = done.cookie().unwrap();
    assert!(world.is_signed_in(&new).await);
    assert!(!world.is_signed_in(&cookie).await && !world.is_signed_in(&other).await);
}

#[tokio::test]
async fn ways_to_sign_in_are_listed_and_the_last_one_stays() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    let cookie = world.signed_in("ann@example.com").await;
    let own = [("cookie", cookie.as_str()), ("origin", ORIGIN)];
    let listed = world.get("/api/auth/list-accounts", &[("cookie", &cookie)]).await;
    assert_eq!((&listed.body[0]["providerId"], &listed.body[0]["scopes"]), (&json!("credential"), &json!([])));
    assert!(!listed.text.contains("password"), "{}", listed.text);
    let last = world.post_as("unlink-account", &own, json!({ "providerId": "credential" })).await;
    assert_eq!(last.code(), (400, "FAILED_TO_UNLINK_LAST_ACCOUNT"));
}

#[tokio::test]
async fn an_account_is_deleted_by_the_mailed_link_in_a_browser_of_its_owner() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    world.person("bob@example.com", true).await;
    let (ann, bob) = (world.signed_in("ann@example.com").await, world.signed_in("bob@example.com").await);
    let own = [("cookie", ann.as_str()), ("origin", ORIGIN)];
    let callback = format!("{ORIGIN}/auth/delete-account");
    let wrong = world.post_as("delete-user", &own, json!({ "password": "wrong-password" })).await;
    assert_eq!(wrong.code(), (400, "INVALID_PASSWORD"));
    let asked = world.post_as("delete-user", &own, json!({ "callbackURL": callback })).await;
    assert_eq!(asked.body, json!({ "success": true, "message": "Verification email sent" }));
    let link = world.link();
    let stranger = world.get(&link, &[]).await;
    assert!(stranger.location().starts_with(&format!("{callback}?token=")), "{}", stranger.location());
    let foreign = world.get(&link, &[("cookie", &bob)]).await;
    assert_eq!(foreign.location(), format!("{callback}?error=INVALID_TOKEN"));
    assert!(world.is_signed_in(&ann).await);
    let done = world.get(&link, &[("cookie", &ann)]).await;
    assert_eq!((done.status, done.location()), (302, callback.as_str()));
    assert!(!world.is_signed_in(&ann).await && world.is_signed_in(&bob).await);
    let known = world.post("check-email", json!({ "email": "ann@example.com" })).await;
    assert_eq!(known.body, json!({ "exists": false, "hasPassword": false }));
}

#[tokio::test]
async fn checking_an_address_needs_one() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    let known = world.post("check-email", json!({ "email": " Ann@Example.com " })).await;
    assert_eq!(known.body, json!({ "exists": true, "hasPassword": true }));
    for body in [json!({}), json!({ "email": 5 }), json!({ "email": "x" }), json!({ "email": "a b@c.de" })] {
        let refused = world.post("check-email", body).await;
        assert_eq!((refused.status, &refused.body["error"]), (400, &json!("INVALID_EMAIL")));
    }
}

#[tokio::test]
async fn whatever_is_malformed_is_refused_and_never_a_failure_of_ours() {
    let world = world().await;
    let paths = [
        "sign-up/email",
        "sign-in/email",
        "request-password-reset",
        "reset-password",
        "sign-in/magic-link",
        "send-verification-email",
        "change-email",
        "update-user",
        "change-password",
        "unlink-account",
        "delete-user",
        "revoke-session",
        "check-email",
        "sign-out",
        "get-session",
    ];
    for path in paths {
        for (media, body) in [
            ("application/json", "{"),
            ("application/json", "[]"),
            ("application/json", "\u{0}"),
            ("application/json", "{\"email\":{},\"password\":[],\"token\":5,\"newPassword\":null}"),
            ("text/plain", "email=a"),
            ("application/x-www-form-urlencoded", "email=%ff&password=%00"),
        ] {
            let headers = [("content-type", media)];
            let path = format!("/api/auth/{path}");
            let answer = world.send(Method::POST, &path, &headers, Some(body.to_owned())).await;
            match path.rsplit('/').next().unwrap() {
                "sign-out" => assert_eq!((answer.status, &answer.body["success"]), (200, &json!(true)), "{body}"),
                "get-session" => assert_eq!((answer.status, answer.text.as_str()), (200, "null"), "{body}"),
                "check-email" => {
                    assert_eq!((answer.status, &answer.body["error"]), (400, &json!("INVALID_EMAIL")), "{body}");
                }
                _ => assert!((400..500).contains(&answer.status), "{path} {body}: {}", answer.status),
            }
        }
    }
    for path in [
        "verify-email",
        "verify-email?token=x",
        "verify-email?token=a.b.c&callbackURL=/x",
        "magic-link/verify",
        "magic-link/verify?token=%00",
        "reset-password/%ff?callbackURL=/",
        "reset-password/x",
        "delete-user/callback?token=%00",
        "delete-user/callback",
    ] {
        let answer = world.get(&format!("/api/auth/{path}"), &[]).await;
        assert!((300..500).contains(&answer.status), "{path}: {}", answer.status);
    }
}

#[tokio::test]
async fn links_and_bodies_that_lead_astray_are_refused_with_their_word() {
    let world = world().await;
    for (path, field, code) in [
        ("sign-in/email", "callbackURL", "INVALID_CALLBACK_URL"),
        ("request-password-reset", "redirectTo", "INVALID_REDIRECT_URL"),
        ("sign-in/magic-link", "errorCallbackURL", "INVALID_ERROR_CALLBACK_URL"),
        ("sign-in/magic-link", "newUserCallbackURL", "INVALID_NEW_USER_CALLBACK_URL"),
    ] {
        let refused = world.post(path, json!({ "email": "a@b.co", field: "https://evil.example/" })).await;
        assert_eq!(refused.code(), (403, code), "{path}");
    }
    for path in ["verify-email", "reset-password/x", "delete-user/callback", "magic-link/verify"] {
        let refused = world.get(&format!("/api/auth/{path}?token=x&callbackURL=//evil.example"), &[]).await;
        assert_eq!(refused.code(), (403, "INVALID_CALLBACK_URL"), "{path}");
    }
}

#[tokio::test]
async fn paths_without_a_door_are_silent() {
    let world = world().await;
    for path in ["/api/auth/nothing", "/api/auth/get-session/", "/api/auth//get-session", "/api/auth/token"] {
        for method in [Method::GET, Method::POST] {
            let answer = world.send(method, path, &[], None).await;
            assert_eq!((answer.status, answer.text.as_str()), (404, ""), "{path}");
        }
    }
    let other = world.send(Method::PUT, "/api/auth/get-session", &[], None).await;
    assert_eq!((other.status, &other.body["error"]), (404, &json!("NOT_FOUND")));
}

#[tokio::test]
async fn the_twenty_first_call_is_refused_and_every_answer_tells_the_count() {
    let world = world_of(Counter::strict()).await;
    for left in (0..20).rev() {
        let answer = world.get("/api/auth/get-session", &[]).await;
        assert_eq!(answer.headers["ratelimit-policy"], "20;w=60");
        assert_eq!(answer.headers["ratelimit-remaining"].to_str().unwrap(), left.to_string());
    }
    let refused = world.get("/api/auth/get-session", &[]).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS.as_u16());
    assert_eq!(refused.headers["retry-after"], "30");
    assert_eq!(refused.body, json!({ "error": "TOO_MANY_REQUESTS", "message": "Too many requests" }));
}

#[tokio::test]
async fn a_cookie_opens_the_api_but_not_to_a_foreign_page() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    let cookie = world.signed_in("ann@example.com").await;
    assert_eq!(world.get("/api/v1/flux", &[("cookie", &cookie)]).await.status, 200);
    let path = "/api/v1/openai/chat/completions";
    let body = Some("{\"model\":\"auto\",\"messages\":[]}".to_owned());
    for origin in ["https://evil.example", "null"] {
        let forged = world.send(Method::POST, path, &[("cookie", &cookie), ("origin", origin)], body.clone()).await;
        assert_eq!(forged.status, 403, "{origin}");
    }
    let own = world.send(Method::POST, path, &[("cookie", &cookie), ("origin", ORIGIN)], body).await;
    assert_ne!(own.status, 403, "{}", own.text);
}
