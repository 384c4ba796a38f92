//! How much may be sent.

use bytes::Bytes;
use futures::stream;
use poem::Body;
use poem::http::StatusCode;
use serde_json::Value;

use airi_server::http::HttpSettings;

use crate::world::{Client, USER, World};

const CHAT: &str = "/api/v1/openai/chat/completions";

fn client() -> Client {
    let settings = HttpSettings { body_limit_bytes: 1_000, chat_body_limit_bytes: 4_000, ..HttpSettings::default() };
    World { settings, ..World::default() }.client()
}

fn chunked(length: usize) -> Body {
    let chunks = (0..length.div_ceil(100)).map(move |i| {
        let chunk = vec![b'x'; 100.min(length - i * 100)];
        Ok::<_, std::io::Error>(Bytes::from(chunk))
    });
    Body::from_bytes_stream(stream::iter(chunks))
}

async fn error(answer: poem::test::TestResponse) -> (u16, String) {
    let status = answer.0.status().as_u16();
    let body: Value = answer.0.into_body().into_json().await.unwrap();
    (status, format!("{}: {}", body["error"].as_str().unwrap(), body["message"].as_str().unwrap()))
}

#[tokio::test]
async fn an_announced_body_beyond_the_limit_is_413() {
    let client = client();
    let send = async |length: usize| {
        error(client.post(CHAT).header("authorization", USER).header("content-length", length).body("x").send().await)
            .await
    };
    assert_eq!(send(4_001).await, (413, "PAYLOAD_TOO_LARGE: Request body too large".to_owned()));
    assert_eq!(send(4_000).await.0, 400);
}

#[tokio::test]
async fn a_body_that_does_not_announce_its_length_is_counted_while_it_is_read() {
    let client = client();
    let send =
        async |length| error(client.post(CHAT).header("authorization", USER).body(chunked(length)).send().await).await;
    assert_eq!(send(4_001).await, (413, "PAYLOAD_TOO_LARGE: Request body too large".to_owned()));
    assert_eq!(send(4_000).await, (400, "INVALID_BODY: Request body must be JSON".to_owned()));
}

#[tokio::test]
async fn other_routes_have_the_smaller_limit() {
    let answer = client().post("/api/nope").header("content-length", 1_001).body("x").send().await;
    assert_eq!(answer.0.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let answer = client().post("/api/nope").header("content-length", 1_000).body("x").send().await;
    assert_eq!(answer.0.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn any_content_type_is_read_as_json() {
    for kind in [None, Some("text/plain"), Some("application/json; charset=utf-8")] {
        let client = client();
        let mut request = client.post(CHAT).header("authorization", USER).body("{\"messages\":[]}");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        request.send().await.assert_status_is_ok();
    }
}
