//! What every answer carries, and paths nobody serves.

use airi_server::core::model::fact::Fact;
use airi_server::http::HttpSettings;
use poem::http::{Method, StatusCode};

use crate::world::{USER, World};

#[tokio::test]
async fn every_answer_carries_the_same_headers() {
    let client = World::default().client();
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/livez"),
        (Method::GET, "/nope"),
        (Method::GET, "/docs"),
        (Method::GET, "/openapi.json"),
        (Method::POST, "/api/v1/flux"),
        (Method::OPTIONS, "/api/v1/flux"),
    ] {
        let answer = client.request(method, path).send().await.0;
        let header = |name| answer.headers()[name].to_str().unwrap();
        assert_eq!(header("cache-control"), "no-store, no-cache, private, max-age=0", "{path}");
        assert_eq!(header("pragma"), "no-cache", "{path}");
        assert_eq!(header("expires"), "0", "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header("x-request-id").len(), 21, "{path}");
        assert!(!answer.headers().contains_key("strict-transport-security"), "{path}");
    }
}

#[tokio::test]
async fn a_server_behind_https_insists_on_it() {
    let api_server_url = "https://api.example.com".to_owned();
    let world = World { settings: HttpSettings { api_server_url, ..HttpSettings::default() }, ..World::default() };
    world.client().get("/").send().await.assert_header("strict-transport-security", "max-age=31536000");
}

#[tokio::test]
async fn only_a_trusted_proxy_may_name_a_request_and_never_a_paid_one() {
    let name = async |hops: u8, path: &str, offered: &str| {
        let settings = HttpSettings { trusted_proxy_hops: hops, ..HttpSettings::default() };
        let client = World { settings, ..World::default() }.client();
        let request = client.get(path).header("authorization", USER).header("x-request-id", offered);
        request.send().await.0.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(name(1, "/api/v1/flux", "from-the-proxy_1").await, "from-the-proxy_1");
    assert_eq!(name(0, "/api/v1/flux", "from-the-proxy_1").await.len(), 21);
    assert_eq!(name(1, "/api/v1/flux", "short").await.len(), 21);
    assert_eq!(name(1, "/api/v1/flux", "with space 12").await.len(), 21);
    assert_eq!(name(1, "/api/v1/openai/models", "from-the-proxy_1").await.len(), 21);
}

#[tokio::test]
async fn a_missing_path_names_itself_without_its_query() {
    let client = World::default().client();
    let answer = client.get("/nope/x?token=secret").send().await;
    answer.assert_status(StatusCode::NOT_FOUND);
    answer
        .assert_text(
            r#"{"error":"NOT_FOUND","message":"No route matched GET /nope/x. This is the airi-api server; the product UI lives at https://airi.moeru.ai.","ui":"https://airi.moeru.ai"}"#,
        )
        .await;
}

#[tokio::test]
async fn a_wrong_method_is_404_and_tells_the_right_one() {
    let client = World::default().client();
    let answer = client.get("/api/v1/openai/chat/completions").header("authorization", USER).send().await.0;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(answer.headers()["allow"], "POST");
    assert!(!answer.headers().contains_key("ratelimit-limit"));
    let answer = client.post("/livez").send().await.0;
    assert_eq!((answer.status(), &answer.headers()["allow"]), (StatusCode::NOT_FOUND, &"GET, HEAD".parse().unwrap()));
    assert!(!client.get("/nope").send().await.0.headers().contains_key("allow"));
}

#[tokio::test]
async fn trailing_and_doubled_slashes_are_other_paths() {
    let client = World::default().client();
    for path in ["/livez/", "//livez", "/api/v1/flux/", "/api/v1//flux", "/docs/"] {
        let answer = client.get(path).header("authorization", USER).send().await;
        assert_eq!(answer.0.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let client = World::default().client();
    for (path, status) in [("/", 200), ("/livez", 200), ("/api/v1/flux", 200), ("/nope", 404), ("/openapi.json", 200)] {
        let answer = client.head(path).header("authorization", USER).send().await.0;
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_eq!(answer.into_body().into_vec().await.unwrap(), b"", "{path}");
    }
}

#[tokio::test]
async fn heads_nobody_sends_in_good_faith_are_refused() {
    let client = World::default().client();
    let long = "x".repeat(8 * 1024);
    assert_eq!(client.get(format!("/livez?{long}")).send().await.0.status(), StatusCode::URI_TOO_LONG);
    let answer = client.get("/livez").header("x-a", &long).header("x-b", &long).send().await;
    assert_eq!(answer.0.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    client.get("/livez").header("x-a", &long).send().await.assert_status_is_ok();
}

#[tokio::test]
async fn every_request_is_counted_once_under_its_pattern() {
    let world = World::default();
    let facts = world.facts.clone();
    let client = world.client();
    for path in ["/api/v1/flux/history?limit=1", "/nope/12345", "/livez", "/readyz", "/api/v1/openai/models"] {
        client.get(path).header("authorization", USER).send().await;
    }
    client.post("/api/v1/flux").header("authorization", USER).send().await;
    client.get("/api/v1/flux").send().await;
    let expected = [
        ("GET", "/api/v1/flux/history", 200),
        ("GET", "unmatched", 404),
        ("GET", "/api/v1/openai/models", 200),
        ("POST", "unmatched", 404),
        ("GET", "unmatched", 401),
    ];
    assert_eq!(facts.ended(), expected.map(|(method, route, status)| (method, route.to_owned(), status)));
    let started = facts.all().iter().filter(|fact| matches!(fact, Fact::HttpStarted { .. })).count();
    assert_eq!(started, expected.len());
}

#[tokio::test]
async fn a_client_that_leaves_early_is_counted_as_gone() {
    let world = World::default();
    let facts = world.facts.clone();
    let app = world.app();
    let next = std::sync::Arc::new(poem::endpoint::make(|_| std::future::pending::<&'static str>()));
    let tracer = airi_server::http::middleware::trace::Tracer { app, accepts_ids: false };
    let request = poem::Request::builder().uri_str("/x").finish();
    let call = airi_server::http::middleware::trace::trace(next, request, std::sync::Arc::new(tracer));
    assert!(futures::poll!(Box::pin(call)).is_pending());
    assert_eq!(facts.ended(), [("GET", "unmatched".to_owned(), 499)]);
}

#[tokio::test]
async fn the_description_and_its_page_need_nothing_from_elsewhere() {
    let client = World::default().client();
    let page = client.get("/docs").send().await.0;
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = page.into_body().into_string().await.unwrap();
    for link in ["/docs/swagger-ui.css", "/docs/swagger-ui.js", "/docs/start.js"] {
        assert!(page.contains(link));
        let part = client.get(link).send().await;
        part.assert_status_is_ok();
        assert!(!part.0.into_body().into_vec().await.unwrap().is_empty(), "{link}");
    }
    assert!(!page.contains("http"), "{page}");
    let spec = client.get("/openapi.json").send().await.0.into_body().into_string().await.unwrap();
    assert_eq!(spec, airi_server::http::spec_json());
}
