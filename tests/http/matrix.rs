//! Every route, asked by everybody: whose door it is never depends on what lies behind it.

use std::sync::Arc;
use std::time::Duration;

use airi_server::adapters::frozen::FrozenClock;
use airi_server::compose::testing;
use airi_server::core::App;
use airi_server::core::model::accounts::Email;
use airi_server::core::model::oidc::claims::Claims;
use airi_server::http::{HttpSettings, routes};
use airi_server::ports::Ports;
use airi_server::ports::oidc::TokenSigner;
use airi_server::ports::runtime::Clock;
use poem::http::Method;
use poem::test::TestClient;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::identity::{Counter, ORIGIN, World};

const USER: &str = "user@example.com";
const ADMIN: &str = "admin@example.com";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Anonymous,
    /// With a session.
    User,
    /// With a signed access token.
    TokenUser,
    Admin,
    /// With a session that has ended.
    Expired,
    /// With an access token that has ended.
    ExpiredToken,
    /// With an access token that somebody else signed.
    Foreign,
}

const EVERYBODY: [Caller; 7] = [
    Caller::Anonymous,
    Caller::User,
    Caller::TokenUser,
    Caller::Admin,
    Caller::Expired,
    Caller::ExpiredToken,
    Caller::Foreign,
];

impl Caller {
    fn is_somebody(self) -> bool {
        matches!(self, Self::User | Self::TokenUser | Self::Admin)
    }
}

struct Crowd {
    world: World,
    clock: Arc<FrozenClock>,
    tokens: Arc<dyn TokenSigner>,
    foreign: Arc<dyn TokenSigner>,
    expired: String,
}

impl Crowd {
    async fn gather() -> Self {
        let clock = Arc::new(FrozenClock::at(testing::START));
        let limits = Arc::new(Counter::default());
        let ports = Ports { clock: clock.clone(), limits, ..testing::ports().await.unwrap() };
        let tokens = ports.tokens.clone();
        let foreign = testing::ports().await.unwrap().tokens;
        let app = Arc::new(App::new(ports, testing::policies()));
        app.oidc.seed().await.unwrap();
        let settings = HttpSettings { admin_emails: ADMIN.to_owned(), ..HttpSettings::default() };
        let client = TestClient::new(routes(app.clone(), &settings, CancellationToken::new()));
        let world = World { app, client };
        for email in [USER, ADMIN] {
            world.person(email, true).await;
        }
        let expired = session(&world, USER).await;
        clock.advance(Duration::from_secs(8 * 86_400));
        Self { world, clock, tokens, foreign, expired }
    }

    async fn signed(&self, by: &dyn TokenSigner, life: i64) -> String {
        let person = self.world.app.accounts.find_by_email(&Email::parse(USER).unwrap()).await.unwrap();
        let now = self.clock.now().timestamp();
        let claims: Claims = json!({ "iss": format!("{ORIGIN}/api/auth"), "aud": [ORIGIN], "sub": person.id,
            "iat": now - 60, "exp": now + life })
        .as_object()
        .unwrap()
        .clone();
        by.sign(&claims).await.unwrap().expose().to_owned()
    }

    /// A fresh credential each time: some doors end it.
    async fn credential(&self, caller: Caller) -> Option<String> {
        Some(match caller {
            Caller::Anonymous => return None,
            Caller::User => session(&self.world, USER).await,
            Caller::TokenUser => self.signed(self.tokens.as_ref(), 3_600).await,
            Caller::Admin => session(&self.world, ADMIN).await,
            Caller::Expired => self.expired.clone(),
            Caller::ExpiredToken => self.signed(self.tokens.as_ref(), 0).await,
            Caller::Foreign => self.signed(self.foreign.as_ref(), 3_600).await,
        })
    }

    async fn ask(&self, caller: Caller, method: &str, path: &str) -> u16 {
        let credential = self.credential(caller).await.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(credential.as_deref().map(|credential| ("authorization", credential)));
        let body = (method != "GET").then(|| "{}".to_owned());
        self.world.send(Method::from_bytes(method.as_bytes()).unwrap(), path, &headers, body).await.status
    }
}

async fn session(world: &World, email: &str) -> String {
    let session = world.app.accounts.open_session(&Email::parse(email).unwrap()).await.unwrap();
    session.token.expose().to_owned()
}

/// Operations of the API description, with whether they are guarded.
fn described() -> Vec<(String, String, bool)> {
    let document: Value = serde_json::from_str(include_str!("../../openapi/openapi.json")).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let guarded = operation.get("security").is_some();
            operations.push((method.to_uppercase(), path.replace("{id}", "x"), guarded));
        }
    }
    assert!(operations.len() > 25);
    operations
}

#[tokio::test]
async fn operations_open_to_whom_their_description_says() {
    let crowd = Crowd::gather().await;
    for (method, path, guarded) in described() {
        for caller in EVERYBODY {
            let status = crowd.ask(caller, &method, &path).await;
            let told = format!("{caller:?} {method} {path}: {status}");
            let admin_only = path.starts_with("/api/admin");
            match (guarded, caller) {
                (false, _) => assert!(status != 401 && status != 403, "{told}"),
                (true, caller) if !caller.is_somebody() => assert_eq!(status, 401, "{told}"),
                (true, Caller::User | Caller::TokenUser) if admin_only => assert_eq!(status, 403, "{told}"),
                (true, _) => assert!(status != 401 && status != 403, "{told}"),
            }
            // What nobody has configured here is unavailable, and says so to whoever may ask.
            let unset = path == "/api/v1/audio/voices" || path.contains("/stripe/");
            assert!(status < 500 || (unset && status == 503), "{told}");
        }
    }
}

/// Doors below `/api/auth` that ask who is calling.
const OF_SOMEBODY: [(&str, &str); 10] = [
    ("POST", "revoke-session"),
    ("POST", "revoke-sessions"),
    ("POST", "revoke-other-sessions"),
    ("POST", "change-email"),
    ("POST", "update-user"),
    ("POST", "change-password"),
    ("POST", "unlink-account"),
    ("POST", "link-social"),
    ("POST", "delete-user"),
    ("GET", "list-accounts"),
];

/// Doors below `/api/auth` that ask nobody; their answers to an empty request differ.
const OF_EVERYBODY: [(&str, &str); 28] = [
    ("GET", "get-session"),
    ("POST", "get-session"),
    ("POST", "sign-out"),
    ("GET", "list-sessions"),
    ("POST", "check-email"),
    ("POST", "sign-up/email"),
    ("POST", "sign-in/email"),
    ("POST", "sign-in/social"),
    ("POST", "sign-in/magic-link"),
    ("GET", "magic-link/verify"),
    ("GET", "callback/google"),
    ("POST", "callback/google"),
    ("GET", "verify-email"),
    ("POST", "send-verification-email"),
    ("POST", "request-password-reset"),
    ("GET", "reset-password/x"),
    ("POST", "reset-password"),
    ("GET", "delete-user/callback"),
    ("GET", "error"),
    ("GET", "ok"),
    ("GET", "jwks"),
    ("GET", ".well-known/openid-configuration"),
    ("GET", "oauth2/authorize"),
    ("POST", "oauth2/token"),
    ("POST", "oauth2/introspect"),
    ("POST", "oauth2/revoke"),
    ("GET", "oauth2/end-session"),
    ("GET", "oidc/electron-callback"),
];

/// What the reference has below `/api/auth` and nobody finds here (contract `auth.md` §2.1, F-14).
const OF_NOBODY: [(&str, &str); 3] =
    [("GET", "token"), ("POST", "oauth2/create-client"), ("GET", "oauth2/get-clients")];

/// Pages with a form that is posted to the page itself.
const FORMS: [&str; 6] = [
    "/auth/sign-in",
    "/auth/sign-up",
    "/auth/verify-email",
    "/auth/forgot-password",
    "/auth/reset-password",
    "/auth/delete-account",
];

const PAGES: [&str; 11] = [
    "/auth",
    "/auth/",
    "/auth/profile",
    "/auth/sign-in",
    "/auth/sign-up",
    "/auth/verify-email",
    "/auth/forgot-password",
    "/auth/reset-password",
    "/auth/delete-account",
    "/auth/error",
    "/.well-known/oauth-authorization-server/api/auth",
];

#[tokio::test]
async fn identity_doors_ask_who_is_calling_where_they_must_and_only_there() {
    let crowd = Crowd::gather().await;
    for caller in EVERYBODY {
        for (method, path) in OF_SOMEBODY {
            let status = crowd.ask(caller, method, &format!("/api/auth/{path}")).await;
            let told = format!("{caller:?} {method} {path}: {status}");
            assert_eq!(status != 401, caller.is_somebody(), "{told}");
            assert!(status < 500 && status != 404, "{told}");
        }
        for (method, path) in OF_EVERYBODY {
            let status = crowd.ask(caller, method, &format!("/api/auth/{path}")).await;
            assert!(status < 500 && status != 401 && status != 404, "{caller:?} {method} {path}: {status}");
        }
        for (method, path) in OF_NOBODY {
            assert_eq!(crowd.ask(caller, method, &format!("/api/auth/{path}")).await, 404, "{caller:?} {path}");
        }
        // Only access tokens with the scope for it are good here; a session's token is none.
        for method in ["GET", "POST"] {
            let status = crowd.ask(caller, method, "/api/auth/oauth2/userinfo").await;
            let signed_or_nothing = matches!(caller, Caller::Anonymous | Caller::ExpiredToken | Caller::Foreign);
            assert_eq!(status, if signed_or_nothing { 401 } else { 400 }, "{caller:?} {method}");
        }
        // A form that does not say where it comes from does nothing, whoever sends it.
        for page in FORMS {
            assert_eq!(crowd.ask(caller, "POST", page).await, 303, "{caller:?} {page}");
        }
        for page in ["/auth/", "/auth/profile"] {
            assert_eq!(crowd.ask(caller, "POST", page).await, 403, "{caller:?} {page}");
        }
        // Nobody here is on this machine.
        assert_eq!(crowd.ask(caller, "GET", "/dev/outbox").await, 404, "{caller:?}");
        for page in PAGES {
            let status = crowd.ask(caller, "GET", page).await;
            assert!(status == 200 || status == 303, "{caller:?} {page}: {status}");
        }
        // Clients are registered by nobody (contract F-14).
        assert_eq!(crowd.ask(caller, "POST", "/api/auth/oauth2/register").await, 403);
    }
}

#[tokio::test]
async fn a_token_of_somebody_who_is_gone_is_nobodys() {
    let crowd = Crowd::gather().await;
    let token = crowd.credential(Caller::TokenUser).await.unwrap();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(crowd.world.get("/api/v1/flux", &headers).await.status, 200);
    let asked = crowd.world.post_as("delete-user", &headers, json!({})).await;
    assert_eq!(asked.status, 200, "{}", asked.text);
    let letters = || crowd.world.app.outbox.as_ref().unwrap().letters();
    for _ in 0..100 {
        if !letters().is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let deleted = crowd.world.get(&crowd.world.link(), &headers).await;
    assert_eq!(deleted.status, 302, "{}", deleted.text);
    assert_eq!(crowd.world.get("/api/v1/flux", &headers).await.status, 401);
    assert!(crowd.world.get("/api/auth/get-session", &headers).await.body.is_null());
}
