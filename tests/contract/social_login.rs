//! Providers over HTTP: what is asked of them, and what is made of their answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use airi_server::adapters::social::{HttpSocial, Registration, SocialSettings};
use airi_server::core::model::accounts::Email;
use airi_server::core::model::secret::Secret;
use airi_server::core::model::social::{Provider, Unknown};
use airi_server::ports::social::{Departure, Return, SocialLogin};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::web::{Data, Form, Path};
use poem::{EndpointExt, Request, Response, Route, get, handler, post};
use serde_json::{Value, json};
use url::Url;

/// The forms that were posted.
type Seen = Arc<Mutex<Vec<BTreeMap<String, String>>>>;

#[handler]
fn token(
    Path(provider): Path<String>,
    Form(form): Form<BTreeMap<String, String>>,
    Data(seen): Data<&Seen>,
) -> Response {
    let code = form.get("code").cloned().unwrap_or_default();
    seen.lock().unwrap().push(form);
    let claims = json!({ "sub": "g-1", "aud": "our-id", "email": "ann@example.com", "name": "Ann" });
    let id_token = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let body = match (provider.as_str(), code.as_str()) {
        ("google", "good") => {
            json!({ "access_token": "at", "token_type": "Bearer", "expires_in": 3_599, "refresh_token": "rt",
            "scope": "openid email", "id_token": id_token })
        }
        ("google", "mute") => json!({ "access_token": "at", "token_type": "Bearer" }),
        ("github", "good") => {
            json!({ "access_token": "gho_1", "token_type": "bearer", "scope": "read:user,user:email" })
        }
        // GitHub refuses with a 200.
        ("github", _) => json!({ "error": "bad_verification_code" }),
        (_, "long") => Value::String("x".repeat(1 << 20)),
        _ => {
            return Response::builder()
                .status(poem::http::StatusCode::BAD_REQUEST)
                .body(r#"{"error":"invalid_grant"}"#);
        }
    };
    Response::builder().content_type("application/json").body(body.to_string())
}

#[handler]
fn api(req: &Request) -> Response {
    if req.header("authorization") != Some("Bearer gho_1") || req.header("user-agent").is_none() {
        return Response::builder().status(poem::http::StatusCode::UNAUTHORIZED).finish();
    }
    let body = match req.uri().path() {
        "/api/user" => json!({ "id": 7, "login": "ann", "name": null, "email": null, "avatar_url": "https://a" }),
        _ => json!([{ "email": "ann@example.com", "primary": true, "verified": true }]),
    };
    Response::builder().content_type("application/json").body(body.to_string())
}

async fn world() -> (HttpSocial, Seen) {
    let seen = Seen::default();
    let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
    let base = format!("http://{}", acceptor.local_addr()[0].as_socket_addr().unwrap());
    let doors = Route::new().at("/token/:provider", post(token)).at("/api/*", get(api)).data(seen.clone());
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(poem::Server::new_with_acceptor(acceptor).run(doors));
    let registration = |provider: &str| Registration {
        client_id: "our-id".to_owned(),
        client_secret: Secret::new("our-secret"),
        authorize_url: Url::parse("https://provider.example/authorize").unwrap(),
        token_url: Url::parse(&format!("{base}/token/{provider}")).unwrap(),
        api_base: format!("{base}/api"),
    };
    let settings = SocialSettings { google: Some(registration("google")), github: Some(registration("github")) };
    (HttpSocial::new(settings).unwrap(), seen)
}

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn returned(code: &str) -> Return<'_> {
    Return { code, verifier: VERIFIER, redirect_uri: "http://localhost:3000/api/auth/callback/google" }
}

#[tokio::test]
async fn a_browser_leaves_with_what_the_contract_lists_in_its_order() {
    let (social, _) = world().await;
    assert!(social.is_known(Provider::Google) && social.is_known(Provider::GitHub));
    let departure = Departure {
        state: "st",
        verifier: VERIFIER,
        redirect_uri: "http://localhost:3000/cb",
        scopes: &["email".to_owned(), "calendar".to_owned()],
        login_hint: Some("ann"),
    };
    let pairs = |provider| -> Vec<(String, String)> {
        let url = Url::parse(&social.address(provider, &departure).unwrap()).unwrap();
        url.query_pairs().into_owned().collect()
    };
    let expected = [
        ("response_type", "code"),
        ("client_id", "our-id"),
        ("state", "st"),
        ("scope", "email profile openid calendar"),
        ("redirect_uri", "http://localhost:3000/cb"),
        ("login_hint", "ann"),
        ("code_challenge_method", "S256"),
        ("code_challenge", CHALLENGE),
        ("include_granted_scopes", "true"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(pairs(Provider::Google), expected);
    let github = pairs(Provider::GitHub);
    assert_eq!(github.len(), 8);
    assert_eq!(github[3].1, "read:user user:email email calendar");
    let nobody = HttpSocial::new(SocialSettings::default()).unwrap();
    assert!(!nobody.is_known(Provider::Google) && nobody.address(Provider::Google, &departure).is_none());
}

#[tokio::test]
async fn a_code_becomes_a_person() {
    let (social, seen) = world().await;
    let google = social.exchange(Provider::Google, &returned("good")).await.unwrap();
    assert_eq!((google.profile.account_id.as_str(), google.profile.name.as_str()), ("g-1", "Ann"));
    assert_eq!(google.tokens.scopes, ["openid", "email"]);
    assert!(google.tokens.access_lifetime.is_some() && google.tokens.refresh.is_some() && google.tokens.id.is_some());
    let github = social.exchange(Provider::GitHub, &returned("good")).await.unwrap();
    assert_eq!(github.profile.account_id, "7");
    assert_eq!(github.profile.email, Some(Email::parse("ann@example.com").unwrap()));
    assert!(github.profile.email_verified);
    assert_eq!(github.profile.name, "ann");
    let form = &seen.lock().unwrap()[0];
    for (name, value) in [
        ("grant_type", "authorization_code"),
        ("code", "good"),
        ("code_verifier", VERIFIER),
        ("redirect_uri", "http://localhost:3000/api/auth/callback/google"),
        ("client_id", "our-id"),
        ("client_secret", "our-secret"),
    ] {
        assert_eq!(form[name], value, "{name}");
    }
}

#[tokio::test]
async fn a_provider_that_does_not_say_who_it_is_names_nobody() {
    let (social, _) = world().await;
    for (provider, code, unknown) in [
        (Provider::Google, "bad", Unknown::InvalidCode),
        (Provider::Google, "long", Unknown::InvalidCode),
        (Provider::GitHub, "bad", Unknown::InvalidCode),
        (Provider::Google, "mute", Unknown::NoUserInfo),
    ] {
        assert_eq!(social.exchange(provider, &returned(code)).await.unwrap_err(), unknown, "{provider:?} {code}");
    }
}
