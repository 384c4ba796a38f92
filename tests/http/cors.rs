//! Pages of other origins.

use poem::http::{HeaderMap, Method, StatusCode};

use crate::world::{USER, World};

async fn call(method: Method, path: &str, origin: Option<&str>) -> (StatusCode, HeaderMap, Vec<u8>) {
    let client = World::default().client();
    let mut request = client.request(method, path).header("authorization", USER);
    if let Some(origin) = origin {
        request = request.header("origin", origin).header("access-control-request-headers", "authorization, x-a");
    }
    let answer = request.send().await.0;
    (answer.status(), answer.headers().clone(), answer.into_body().into_vec().await.unwrap())
}

#[tokio::test]
async fn a_preflight_is_answered_before_anybody_asks_who_is_calling() {
    let client = World::default().client();
    let request = client.request(Method::OPTIONS, "/api/v1/openai/chat/completions");
    let answer = request.header("origin", "http://localhost:5173").send().await.0;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert_eq!(answer.headers()["access-control-allow-origin"], "http://localhost:5173");
    assert!(!answer.headers().contains_key("ratelimit-limit"));
}

#[tokio::test]
async fn a_preflight_of_a_trusted_page_is_granted() {
    let (status, headers, body) = call(Method::OPTIONS, "/api/any/thing", Some("https://airi.moeru.ai")).await;
    assert_eq!((status, body.as_slice()), (StatusCode::NO_CONTENT, b"".as_slice()));
    for (name, value) in [
        ("access-control-allow-origin", "https://airi.moeru.ai"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET,HEAD,PUT,POST,DELETE,PATCH"),
        ("access-control-allow-headers", "authorization, x-a"),
        ("access-control-max-age", "600"),
        ("vary", "Origin, Access-Control-Request-Headers"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
}

#[tokio::test]
async fn answers_to_trusted_pages_may_be_read() {
    for origin in ["capacitor://localhost", "https://a.kwaa.workers.dev"] {
        let (status, headers, _) = call(Method::GET, "/api/v1/flux", Some(origin)).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers["access-control-allow-origin"], origin);
        assert_eq!(headers["access-control-allow-credentials"], "true");
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        for name in ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After", "X-Request-Id"] {
            assert!(exposed.contains(name), "{name}");
        }
        assert_eq!(headers["vary"], "Origin");
    }
}

#[tokio::test]
async fn errors_may_be_read_by_trusted_pages_too() {
    let (status, headers, _) = call(Method::GET, "/api/nope", Some("https://airi.moeru.ai")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(headers["access-control-allow-origin"], "https://airi.moeru.ai");
}

#[tokio::test]
async fn other_pages_are_served_and_not_allowed_to_read() {
    for origin in
        [Some("https://evil.example"), Some("null"), Some("file://"), Some("https://airi.moeru.ai.evil.example"), None]
    {
        for method in [Method::GET, Method::OPTIONS] {
            let (status, headers, _) = call(method.clone(), "/api/v1/flux", origin).await;
            assert_eq!(status, if method == Method::GET { StatusCode::OK } else { StatusCode::NO_CONTENT });
            assert!(!headers.contains_key("access-control-allow-origin"), "{origin:?}");
            assert!(!headers.contains_key("access-control-allow-credentials"), "{origin:?}");
            assert!(headers["vary"].to_str().unwrap().starts_with("Origin"));
        }
    }
}

#[tokio::test]
async fn outside_of_the_api_nothing_is_shared() {
    let (status, headers, _) = call(Method::GET, "/livez", Some("https://airi.moeru.ai")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(!headers.contains_key("access-control-allow-origin"));
    assert!(!headers.contains_key("vary"));
    assert_eq!(call(Method::OPTIONS, "/livez", Some("https://airi.moeru.ai")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_header_that_is_not_text_is_no_origin() {
    let client = World::default().client();
    let value = poem::http::HeaderValue::from_bytes(b"https://\xff").unwrap();
    let answer = client.get("/api/nope").header("origin", value).send().await.0;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}
