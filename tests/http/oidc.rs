//! The OpenID provider from its doors down to an embedded database, without a socket.

use std::sync::Arc;

use airi_server::compose::testing;
use airi_server::core::App;
use airi_server::core::accounts::NewUser;
use airi_server::core::model::accounts::{Email, Session};
use airi_server::http::{HttpSettings, routes};
use airi_server::ports::Ports;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use poem::endpoint::BoxEndpoint;
use poem::http::StatusCode;
use poem::test::TestClient;
use poem::{Endpoint, Request, Response};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use url::Url;
use url::form_urlencoded::Serializer;

use crate::identity::Counter;

const ORIGIN: &str = "http://localhost:3000";
const REDIRECT: &str = "http://localhost:5173/auth/callback";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct World {
    app: Arc<App>,
    doors: BoxEndpoint<'static, Response>,
    session: Session,
}

struct Answer {
    status: StatusCode,
    location: Option<Url>,
    body: Value,
}

impl World {
    async fn begin() -> Self {
        let ports = Ports { limits: Arc::new(Counter::default()), ..testing::ports().await.unwrap() };
        let app = Arc::new(App::new(ports, testing::policies()));
        app.oidc.seed().await.unwrap();
        let email = Email::parse("ada@example.com").unwrap();
        let new =
            NewUser { email: email.clone(), name: Some("Ada Lovelace".to_owned()), password: None, verified: true };
        app.accounts.create(new).await.unwrap();
        let session = app.accounts.open_session(&email).await.unwrap();
        let doors = routes(app.clone(), &HttpSettings::default(), CancellationToken::new());
        Self { app, doors, session }
    }

    async fn send(&self, request: Request) -> Answer {
        let answer = self.doors.get_response(request).await;
        let status = answer.status();
        assert!(!status.is_server_error(), "{status}");
        let location = answer.header("location").map(|url| Url::parse(ORIGIN).unwrap().join(url).unwrap());
        let text = answer.into_body().into_string().await.unwrap();
        Answer { status, location, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)], bearer: Option<&str>) -> Answer {
        let query = Serializer::new(String::new()).extend_pairs(query).finish();
        let mut request = Request::builder().uri_str(format!("{path}?{query}"));
        if let Some(bearer) = bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        self.send(request.finish()).await
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let form = Serializer::new(String::new()).extend_pairs(form).finish();
        let request = Request::builder()
            .method(poem::http::Method::POST)
            .uri_str(path)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        self.send(request).await
    }

    async fn authorize(&self, changes: &[(&str, &str)]) -> Answer {
        let session = self.session.token.expose().to_owned();
        self.get("/api/auth/oauth2/authorize", &request(changes), Some(&session)).await
    }

    async fn code(&self) -> String {
        parameter(&self.authorize(&[]).await, "code")
    }

    async fn redeem(&self, code: &str, changes: &[(&str, &str)]) -> Answer {
        let usual = [
            ("grant_type", "authorization_code"),
            ("client_id", "airi-stage-web"),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", REDIRECT),
            ("resource", ORIGIN),
        ];
        self.post("/api/auth/oauth2/token", &changed(&usual, changes)).await
    }

    async fn refresh(&self, token: &str) -> Answer {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", "airi-stage-web"),
            ("refresh_token", token),
            ("resource", ORIGIN),
        ];
        self.post("/api/auth/oauth2/token", &form).await
    }
}

/// The usual request; an empty change removes its parameter.
fn request<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let usual = [
        ("response_type", "code"),
        ("client_id", "airi-stage-web"),
        ("redirect_uri", REDIRECT),
        ("scope", "openid profile email offline_access"),
        ("state", "st"),
        ("nonce", "no"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    changed(&usual, changes)
}

fn changed<'a>(usual: &[(&'a str, &'a str)], changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = usual.iter().filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    kept.chain(changes.iter().filter(|(_, value)| !value.is_empty())).copied().collect()
}

fn parameter(answer: &Answer, name: &str) -> String {
    let url = answer.location.as_ref().unwrap_or_else(|| panic!("{} {}", answer.status, answer.body));
    url.query_pairs().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name} in {url}")).1.into_owned()
}

fn claims(token: &Value) -> Value {
    let part = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test]
async fn a_code_becomes_tokens_that_open_doors_and_a_sign_out_ends_them() {
    let world = World::begin().await;
    let answer = world.authorize(&[]).await;
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(parameter(&answer, "state"), "st");
    assert_eq!(parameter(&answer, "iss"), "http://localhost:3000/api/auth");
    let tokens = world.redeem(&parameter(&answer, "code"), &[]).await;
    assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.body);
    let (access, refresh) = (text(&tokens.body["access_token"]), text(&tokens.body["refresh_token"]));
    assert_eq!((&tokens.body["token_type"], &tokens.body["expires_in"]), (&"Bearer".into(), &3_600.into()));
    let id = claims(&tokens.body["id_token"]);
    assert_eq!((&id["nonce"], &id["aud"], &id["given_name"]), (&"no".into(), &"airi-stage-web".into(), &"Ada".into()));
    assert_eq!(id["sid"], world.session.id.as_str());
    assert_eq!(claims(&tokens.body["access_token"])["azp"], "airi-stage-web");

    let flux = world.get("/api/v1/flux", &[], Some(access)).await;
    assert_eq!((flux.status, &flux.body["userId"]), (StatusCode::OK, &id["sub"]));
    let told = world.get("/api/auth/oauth2/userinfo", &[], Some(access)).await;
    assert_eq!(told.body["email"], "ada@example.com");

    let renewed = world.refresh(refresh).await;
    assert_eq!(renewed.status, StatusCode::OK, "{}", renewed.body);
    assert_ne!(renewed.body["refresh_token"], tokens.body["refresh_token"]);
    assert!(claims(&renewed.body["id_token"]).get("nonce").is_none());

    let hint = text(&tokens.body["id_token"]).to_owned();
    for _ in 0..2 {
        let ended = world.get("/api/auth/oauth2/end-session", &[("id_token_hint", &hint)], None).await;
        assert_eq!((ended.status, ended.body), (StatusCode::OK, "".into()));
    }
    let dead = world.refresh(text(&renewed.body["refresh_token"])).await;
    assert_eq!((dead.status, &dead.body["error"]), (StatusCode::BAD_REQUEST, &"invalid_grant".into()));
    let session = world.session.token.expose();
    assert_eq!(world.get("/api/v1/flux", &[], Some(session)).await.status, StatusCode::UNAUTHORIZED);
    assert!(world.authorize(&[]).await.location.unwrap().path().ends_with("/auth/sign-in"));
}

#[tokio::test]
async fn every_authorization_request_ends_where_the_contract_says() {
    let world = World::begin().await;
    let error_page = format!("{ORIGIN}/api/auth/error");
    for (changes, status, place, error) in [
        (&[("response_type", "token")][..], 400, "", "VALIDATION_ERROR"),
        (&[("response_type", "")], 400, "", "VALIDATION_ERROR"),
        (&[("redirect_uri", "javascript:alert(1)")], 400, "", "VALIDATION_ERROR"),
        (&[("redirect_uri", "http://evil.example/auth/callback")], 400, "", "VALIDATION_ERROR"),
        (&[("code_challenge_method", "plain")], 400, "", "VALIDATION_ERROR"),
        (&[("prompt", "dance")], 400, "", "VALIDATION_ERROR"),
        (&[("state", "\0")], 400, "", "VALIDATION_ERROR"),
        (&[("prompt", "select_account")], 302, &error_page, "unsupported_prompt_select_account"),
        (&[("client_id", "nobody")], 302, &error_page, "invalid_client"),
        (&[("redirect_uri", "")], 302, &error_page, "invalid_redirect"),
        (&[("redirect_uri", "https://evil.example/auth/callback")], 302, &error_page, "invalid_redirect"),
        (&[("redirect_uri", "http://localhost:5173/auth/callback/")], 302, &error_page, "invalid_redirect"),
        (&[("scope", "openid admin")], 302, REDIRECT, "invalid_scope"),
        (&[("code_challenge", ""), ("code_challenge_method", "")], 302, REDIRECT, "invalid_request"),
        (&[("code_challenge_method", "")], 302, REDIRECT, "invalid_request"),
        (&[("prompt", "consent")], 302, REDIRECT, "consent_required"),
        (
            &[
                ("client_id", "airi-stage-electron"),
                ("redirect_uri", "http://localhost:3000/api/auth/oidc/electron-callback"),
                ("state", "x@evil.example:1"),
            ],
            302,
            &error_page,
            "invalid_request",
        ),
    ] {
        let answer = world.authorize(changes).await;
        assert_eq!(answer.status.as_u16(), status, "{changes:?} {}", answer.body);
        if status == 400 {
            assert_eq!(answer.body["code"], error, "{changes:?}");
            continue;
        }
        let location = answer.location.as_ref().unwrap();
        assert!(location.as_str().starts_with(&format!("{place}?")), "{changes:?} {location}");
        assert_eq!(parameter(&answer, "error"), error, "{changes:?}");
        assert!(!location.as_str().contains("code="), "{location}");
    }
    let stranger = world.get("/api/auth/oauth2/authorize", &request(&[]), None).await;
    assert_eq!(stranger.location.as_ref().unwrap().path(), "/auth/sign-in");
    assert_eq!(parameter(&stranger, "code_challenge"), CHALLENGE);
    let silent = world.get("/api/auth/oauth2/authorize", &request(&[("prompt", "none")]), None).await;
    assert_eq!(parameter(&silent, "error"), "login_required");
    let again = world.authorize(&[("prompt", "login")]).await;
    assert_eq!(again.location.unwrap().path(), "/auth/sign-in");
}

#[tokio::test]
async fn a_code_is_good_for_one_attempt_and_its_reuse_takes_its_tokens_back() {
    let world = World::begin().await;
    for (changes, status, error) in [
        (&[("redirect_uri", "")][..], 400, "invalid_request"),
        (&[("code_verifier", "")], 400, "invalid_request"),
        (&[("client_id", "airi-stage-pocket")], 401, "invalid_client"),
        (&[("redirect_uri", "https://airi.moeru.ai/auth/callback")], 400, "invalid_request"),
        (&[("client_secret", "x")], 400, "invalid_client"),
        (&[("code_verifier", "EBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")], 401, "invalid_request"),
        (&[("resource", "http://localhost:3000/")], 400, "invalid_request"),
        (&[("code", "made-up")], 401, "invalid_verification"),
        (&[("grant_type", "client_credentials")], 400, "unauthorized_client"),
    ] {
        let code = world.code().await;
        let answer = world.redeem(&code, changes).await;
        assert_eq!((answer.status.as_u16(), text(&answer.body["error"])), (status, error), "{changes:?}");
    }
    let code = world.code().await;
    assert_eq!(world.redeem(&code, &[("code_verifier", VERIFIER), ("client_secret", "x")]).await.status, 400);
    assert_eq!(world.redeem(&code, &[]).await.body["error"], "invalid_verification");

    let code = world.code().await;
    let first = world.redeem(&code, &[]).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(world.redeem(&code, &[]).await.body["error"], "invalid_verification");
    let refreshed = world.refresh(text(&first.body["refresh_token"])).await;
    assert_eq!(refreshed.body["error"], "invalid_grant", "reuse of the code revoked what it gave");
}

#[tokio::test]
async fn two_windows_refresh_at_once_and_both_stay_signed_in() {
    let world = World::begin().await;
    let tokens = world.redeem(&world.code().await, &[]).await;
    let token = text(&tokens.body["refresh_token"]);
    let (one, other) = futures::join!(world.refresh(token), world.refresh(token));
    for answer in [one, other] {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert_eq!(world.refresh(text(&answer.body["refresh_token"])).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_opaque_token_tells_its_person_until_it_is_revoked_and_is_no_credential() {
    let world = World::begin().await;
    let tokens = world.redeem(&world.code().await, &[("resource", "")]).await;
    let access = text(&tokens.body["access_token"]);
    assert!(!access.contains('.'));
    assert_eq!(world.get("/api/auth/oauth2/userinfo", &[], Some(access)).await.body["name"], "Ada Lovelace");
    assert_eq!(world.get("/api/v1/flux", &[], Some(access)).await.status, StatusCode::UNAUTHORIZED);
    let id = text(&tokens.body["id_token"]);
    assert_eq!(world.get("/api/v1/flux", &[], Some(id)).await.status, StatusCode::UNAUTHORIZED);
    let form = [("client_id", "airi-stage-web"), ("token", access)];
    for _ in 0..2 {
        assert_eq!(world.post("/api/auth/oauth2/revoke", &form).await.status, StatusCode::OK);
    }
    assert_eq!(world.get("/api/auth/oauth2/userinfo", &[], Some(access)).await.status, StatusCode::BAD_REQUEST);
    let refresh = text(&tokens.body["refresh_token"]);
    let form = [("client_id", "airi-stage-web"), ("token", refresh)];
    assert_eq!(world.post("/api/auth/oauth2/revoke", &form).await.status, StatusCode::OK);
    assert_eq!(world.refresh(refresh).await.body["error"], "invalid_grant");
    let form = [("client_id", "airi-stage-web"), ("client_secret", "x"), ("token", refresh)];
    assert_eq!(world.post("/api/auth/oauth2/introspect", &form).await.body["error"], "invalid_client");
}

#[tokio::test]
async fn nonsense_is_refused_everywhere_and_never_our_failure() {
    let world = World::begin().await;
    for bad in ["", "x", "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30.AA", "\u{0}", "ü"] {
        for path in ["/api/auth/oauth2/userinfo", "/api/v1/flux"] {
            let request = Request::builder().uri_str(path);
            let Ok(value) = poem::http::HeaderValue::from_str(&format!("Bearer {bad}")) else { continue };
            let answer = world.send(request.header("authorization", value).finish()).await;
            assert!(answer.status.is_client_error(), "{path} {bad}");
        }
        let ended = world.get("/api/auth/oauth2/end-session", &[("id_token_hint", bad)], None).await;
        assert!(ended.status.is_client_error(), "{bad}");
        for field in ["grant_type", "client_id", "code", "redirect_uri", "code_verifier", "resource"] {
            let answer = world.redeem("x", &[(field, bad)]).await;
            assert!(answer.status.is_client_error(), "{field} {bad}");
        }
        assert!(world.refresh(bad).await.status.is_client_error(), "{bad}");
        let relay = world.get("/api/auth/oidc/electron-callback", &[("state", bad), ("code", "x")], None).await;
        assert_eq!(relay.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let json = Request::builder()
        .method(poem::http::Method::POST)
        .uri_str("/api/auth/oauth2/token")
        .header("content-type", "application/json")
        .body("{}");
    assert_eq!(world.send(json).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(world.post("/api/auth/oauth2/register", &[]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(world.post("/api/auth/oauth2/create-client", &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn both_metadata_documents_are_one_and_name_what_there_is() {
    let world = World::begin().await;
    let document = world.get("/api/auth/.well-known/openid-configuration", &[], None).await.body;
    let other = world.get("/.well-known/oauth-authorization-server/api/auth", &[], None).await.body;
    assert_eq!(document, other);
    assert_eq!(document["issuer"], "http://localhost:3000/api/auth");
    assert_eq!(document["id_token_signing_alg_values_supported"], serde_json::json!(["RS256"]));
    let keys = world.get("/api/auth/jwks", &[], None).await.body;
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    world.app.oidc.rotate_keys().await.unwrap();
    assert_eq!(world.get("/api/auth/jwks", &[], None).await.body["keys"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn scripts_are_told_where_to_go_and_browsers_are_sent() {
    let world = World::begin().await;
    let client = TestClient::new(world.doors);
    let query = Serializer::new(String::new()).extend_pairs(request(&[])).finish();
    let mut answer = client
        .get(format!("/api/auth/oauth2/authorize?{query}"))
        .header("accept", "application/json")
        .header("authorization", format!("Bearer {}", world.session.token.expose()))
        .send()
        .await
        .0;
    let body: Value = answer.take_body().into_json().await.unwrap();
    assert_eq!((answer.status(), &body["redirect"]), (StatusCode::OK, &true.into()));
    assert!(text(&body["url"]).starts_with(REDIRECT));
}
