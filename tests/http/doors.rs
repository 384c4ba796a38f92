//! Who is let in, and what strangers learn.

use poem::http::StatusCode;
use serde_json::Value;

use crate::world::{ADMIN, UNLUCKY, UNVERIFIED, USER, World};

const GUARDED: [&str; 7] = ["openai", "audio", "flux", "stripe", "chats", "characters", "providers"];

#[tokio::test]
async fn strangers_get_401_and_callers_404_on_whole_prefixes() {
    let client = World::default().client();
    for prefix in GUARDED {
        for path in
            [format!("/api/v1/{prefix}/no/such"), format!("/api/v1/{prefix}/"), format!("/api/v1/{prefix}/%2F/no")]
        {
            for token in ["", "Basic dXNlcg==", "Bearer unknown", "user"] {
                let answer = client.patch(&path).header("authorization", token).send().await;
                assert_eq!(answer.0.status(), StatusCode::UNAUTHORIZED, "{path} {token}");
            }
            let answer = client.patch(&path).header("authorization", USER).send().await;
            assert_eq!(answer.0.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
    for open in ["/api/v1/fluxus", "/api/v2/flux", "/api"] {
        assert_eq!(client.get(open).send().await.0.status(), StatusCode::NOT_FOUND, "{open}");
    }
    // The two doors of a guarded prefix that are open to strangers.
    client.get("/api/v1/stripe/packages").send().await.assert_status_is_ok();
    let unconfigured = client.post("/api/v1/stripe/webhook").body("{}").send().await;
    assert_eq!(unconfigured.0.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_scheme_word_has_no_case() {
    let client = World::default().client();
    for token in ["Bearer user", "bearer user", "BEARER user"] {
        client.get("/api/v1/flux").header("authorization", token).send().await.assert_status_is_ok();
    }
}

#[tokio::test]
async fn a_failing_database_is_503_and_says_nothing_of_itself() {
    let client = World::default().client();
    for path in ["/api/v1/flux", "/api/v1/openai/chat/completions", "/api/admin/x"] {
        let mut answer = client.get(path).header("authorization", UNLUCKY).send().await.0;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(answer.headers()["retry-after"], "1");
        let body = answer.take_body().into_string().await.unwrap();
        assert_eq!(body, r#"{"error":"SERVICE_UNAVAILABLE","message":"Service temporarily unavailable"}"#);
    }
}

#[tokio::test]
async fn the_admin_prefix_asks_three_questions_before_it_routes() {
    let client = World::default().client();
    let ask = async |token: &'static str| {
        let answer = client.get("/api/admin/no/such").header("authorization", token).send().await.0;
        let status = answer.status();
        let body: Value = answer.into_body().into_json().await.unwrap();
        (status.as_u16(), body["message"].as_str().unwrap().to_owned())
    };
    assert_eq!(ask("").await, (401, "Unauthorized".to_owned()));
    assert_eq!(ask(UNVERIFIED).await, (403, "Admin access requires a verified email".to_owned()));
    assert_eq!(ask(USER).await, (403, "Admin access required".to_owned()));
    assert_eq!(ask(ADMIN).await.0, 404);
}

#[tokio::test]
async fn a_panic_is_a_500_of_the_usual_shape() {
    let client = World::default().client();
    let mut answer = client.get("/api/v1/flux").header("authorization", "Bearer panic").send().await.0;
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.headers()["cache-control"], "no-store, no-cache, private, max-age=0");
    assert_eq!(answer.headers()["content-type"], "application/json");
    let body = answer.take_body().into_string().await.unwrap();
    assert_eq!(body, r#"{"error":"INTERNAL_SERVER_ERROR","message":"Internal Server Error"}"#);
}
