//! A database the reference made, with its secret: nobody is signed out (contract `auth.md` §13).

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::caller::client;
use crate::server::{Mode, Server};

const SECRET: &str = "contract-test-secret-000000000000000000";
const SESSION: &str = "AbCdEfGhIjKlMnOpQrStUvWxYz012345";
const SIGNATURE: &str = "P4ZWq3NtKBVrQ/1xeSYM5vw0mng2/k85u4OEa5VJ8CQ=";
const REFRESH: &str = "zGUNAN93MJI911J3lCq5R9rMYnHWL2hD";

/// One person with everything the reference keeps of one; hashes, key and tokens are the vectors of the contract.
const PERSON: &str = r#"
INSERT INTO "user" (id, name, email, email_verified) VALUES ('u1', 'Ada', 'ada@example.com', true);
INSERT INTO account (id, account_id, provider_id, user_id, password, updated_at) VALUES ('a1', 'u1', 'credential', 'u1',
  '600f94f065da57ff10b9968f979c9067:d03864aa7beff5792ab076e1e8826ea20f8a7e43cebc02a55b46caac26a7c0800df8f6df442caa6758376fce62c05b79a609d8b5e7e0ac6dce3017c4d21d3825',
  now());
INSERT INTO session (id, token, user_id, expires_at, updated_at)
VALUES ('s1', 'AbCdEfGhIjKlMnOpQrStUvWxYz012345', 'u1', now() + interval '7 days', now());
INSERT INTO jwks (id, public_key, private_key, created_at) VALUES ('kid-of-the-reference',
  '{"crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kty":"OKP"}',
  '"f78647addd6a9da997eb7bfe0ff6d19806e5a3e60bc01de806b051fdcdbbb6159f712f76c612a83735757556270ae07c5804c07e424297cdf28b54ec3ab9e3d263e184c0a831247aa8322da70685c926c2ac12347a00e323aec9006a4fb1cadea50816a71a9d41a90406c12c6aa55ecadae8c6c976981e379e2186e5d63db15f56218270d92b9aae7f530521e3a49f8b1048da166aa0863e6f8c64d8fca7b1b044a7b93546fed64fb3"',
  now());
INSERT INTO oauth_client (id, client_id, redirect_uris, public, require_pkce, scopes)
VALUES ('c1', 'airi-stage-web', '{https://airi.moeru.ai/auth/callback}', true, true, '{openid,profile,email,offline_access}');
INSERT INTO oauth_refresh_token (id, token, client_id, session_id, user_id, expires_at, created_at, scopes)
VALUES ('r1', 'O8LWtvyKOtlKq_tQ6zyXcM2hPPJVmNnO5SuD-DPml30', 'airi-stage-web', 's1', 'u1', now() + interval '20 days', now(),
  '{openid,profile,email,offline_access}');
"#;

async fn taken_over() -> Server {
    let mut server = Server::install(Mode::Services).await;
    let mut connection = PgConnection::connect(&server.database.as_ref().unwrap().url()).await.unwrap();
    for sql in [
        include_str!("../../migrations/postgres/0001_reference_schema.sql"),
        include_str!("../../migrations/postgres/reference_bookkeeping.sql"),
        PERSON,
    ] {
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    server.set("BETTER_AUTH_SECRET", SECRET);
    let url = server.url();
    server.set("API_SERVER_URL", &url);
    server.start().await;
    server
}

async fn session(server: &Server, header: &str, value: &str) -> Value {
    let url = format!("{}/api/auth/get-session", server.url());
    client().get(url).header(header, value).send().await.unwrap().json().await.unwrap()
}

async fn refresh(server: &Server, token: &str) -> Value {
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "airi-stage-web"),
        ("refresh_token", token),
        ("resource", &server.url()),
    ];
    let url = format!("{}/api/auth/oauth2/token", server.url());
    client().post(url).form(&form).send().await.unwrap().json().await.unwrap()
}

async fn keys(server: &Server) -> Vec<Value> {
    let url = format!("{}/api/auth/jwks", server.url());
    let body: Value = client().get(url).send().await.unwrap().json().await.unwrap();
    body["keys"].as_array().unwrap().clone()
}

fn kid(token: &str) -> Value {
    use base64::Engine;
    let header = token.split('.').next().unwrap();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_signed_out_by_the_change_of_servers() {
    let mut server = taken_over().await;
    let cookie = format!("better-auth.session_token={SESSION}.{}", SIGNATURE.replace('/', "%2F").replace('=', "%3D"));
    assert_eq!(session(&server, "cookie", &cookie).await["user"]["email"], "ada@example.com");
    for bearer in [SESSION.to_owned(), format!("{SESSION}.{SIGNATURE}")] {
        let told = session(&server, "authorization", &format!("Bearer {bearer}")).await;
        assert_eq!(told["session"]["id"], "s1", "{bearer}");
    }
    let password = json!({ "email": "Ada@Example.com", "password": "hunter22hunter22" });
    let url = format!("{}/api/auth/sign-in/email", server.url());
    assert_eq!(client().post(url).json(&password).send().await.unwrap().status(), 200);

    let tokens = refresh(&server, REFRESH).await;
    let access = tokens["access_token"].as_str().unwrap_or_else(|| panic!("{tokens}")).to_owned();
    assert_eq!(kid(&access), json!({ "alg": "EdDSA", "kid": "kid-of-the-reference" }));
    assert_eq!(session(&server, "authorization", &format!("Bearer {access}")).await["user"]["id"], "u1");
    let published = keys(&server).await;
    assert_eq!(published.len(), 1);
    assert_eq!(published[0]["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");

    // Another key is published before it signs, and the tokens of the first stay good.
    let new = server.ask(&["keys", "rotate-signing"]);
    server.stop().await;
    server.start().await;
    let both = keys(&server).await;
    assert_eq!(both.len(), 2);
    assert!(both.iter().any(|key| key["kid"] == new.as_str() && key["alg"] == "RS256"), "{both:?}");
    assert_eq!(session(&server, "authorization", &format!("Bearer {access}")).await["user"]["id"], "u1");
    let again = refresh(&server, tokens["refresh_token"].as_str().unwrap()).await;
    assert_eq!(kid(again["access_token"].as_str().unwrap())["kid"], "kid-of-the-reference");
}
