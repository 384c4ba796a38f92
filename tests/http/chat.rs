//! `/openai`: what an OpenAI client sees.

use airi_server::core::model::fact::Fact;
use poem::http::StatusCode;
use poem::test::TestResponse;

use crate::world::{Client, USER, World, pieces};

const CHAT: &str = "/api/v1/openai/chat/completions";
const ALIAS: &str = "/api/v1/openai/chat/completion";

async fn send(client: &Client, path: &str, body: &'static str) -> TestResponse {
    client.post(path).header("authorization", USER).body(body).send().await
}

fn header<'a>(answer: &'a TestResponse, name: &str) -> Option<&'a str> {
    answer.0.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_whole_answer_is_the_upstreams_text() {
    let answer = send(&World::default().client(), CHAT, "{}").await;
    answer.assert_status_is_ok();
    assert_eq!(header(&answer, "content-type"), Some("application/json"));
    assert_eq!(header(&answer, "x-accel-buffering"), None);
    let text = r#"{"id":"x",  "choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    answer.assert_text(text).await;
}

#[tokio::test]
async fn one_id_names_the_call_everywhere() {
    let world = World::default();
    let facts = world.facts.clone();
    let answer = send(&world.client(), CHAT, "{}").await;
    let id = header(&answer, "x-request-id").unwrap();
    assert_eq!(header(&answer, "airi-request-id"), Some(id));
    let charged = facts.all().into_iter().find_map(|fact| match fact {
        Fact::Debited { request, .. } => Some(request),
        _ => None,
    });
    assert_eq!(charged.unwrap().as_str(), id);
}

#[tokio::test]
async fn events_pass_byte_for_byte_and_the_request_ends_with_them() {
    let world = World {
        upstream: pieces(&[Ok("data: {\"choices\":[{}]}\n"), Ok("\n: ping\r\n\r\n"), Ok("data: [DONE]\n\n")]),
        ..World::default()
    };
    let facts = world.facts.clone();
    let answer = send(&world.client(), CHAT, r#"{"stream":true}"#).await;
    answer.assert_status_is_ok();
    assert_eq!(header(&answer, "content-type"), Some("text/event-stream"));
    assert_eq!(header(&answer, "x-accel-buffering"), Some("no"));
    assert_eq!(header(&answer, "ratelimit-remaining"), Some("59"));
    assert_eq!(header(&answer, "content-length"), None);
    assert_eq!(facts.ended(), []);
    answer.assert_text("data: {\"choices\":[{}]}\n\n: ping\r\n\r\ndata: [DONE]\n\n: airi-flux-charged 1\n\n").await;
    assert_eq!(facts.ended(), [("POST", CHAT.to_owned(), 200)]);
}

#[tokio::test]
async fn a_stream_that_breaks_ends_the_body_abnormally() {
    let world = World { upstream: pieces(&[Ok("data: {\"choices\":[{}]}\n\n"), Err(())]), ..World::default() };
    let facts = world.facts.clone();
    let answer = send(&world.client(), CHAT, r#"{"stream":true}"#).await;
    answer.assert_status_is_ok();
    assert!(answer.0.into_body().into_bytes().await.is_err());
    assert_eq!(facts.ended().len(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_mid_stream_ends_the_request() {
    let world = World { upstream: pieces(&[Ok("data: {}\n\n"), Ok("data: [DONE]\n\n")]), ..World::default() };
    let facts = world.facts.clone();
    drop(send(&world.client(), CHAT, r#"{"stream":true}"#).await);
    assert_eq!(facts.ended().len(), 1);
}

#[tokio::test]
async fn both_paths_share_one_counter_and_the_61st_call_is_refused() {
    let client = World::default().client();
    for call in 0..60 {
        let path = if call % 2 == 0 { CHAT } else { ALIAS };
        let answer = send(&client, path, "{}").await;
        answer.assert_status_is_ok();
        assert_eq!(header(&answer, "ratelimit-remaining"), Some((59 - call).to_string().as_str()));
    }
    for path in [CHAT, ALIAS] {
        let answer = send(&client, path, "{}").await;
        answer.assert_status(StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(header(&answer, "retry-after"), Some("42"));
        assert_eq!(header(&answer, "ratelimit-reset"), Some("42"));
        assert_eq!(header(&answer, "ratelimit-policy"), Some("60;w=60"));
        assert_eq!(header(&answer, "ratelimit-limit"), Some("60"));
        assert_eq!(header(&answer, "ratelimit-remaining"), Some("0"));
        assert!(header(&answer, "airi-request-id").is_some());
        answer.assert_text(r#"{"error":"TOO_MANY_REQUESTS","message":"Too many requests"}"#).await;
    }
}

#[tokio::test]
async fn refused_calls_count_and_tell_the_count() {
    let client = World { balance: 4, ..World::default() }.client();
    let answer = send(&client, CHAT, "not json").await;
    answer.assert_status(StatusCode::PAYMENT_REQUIRED);
    assert_eq!(header(&answer, "ratelimit-remaining"), Some("59"));
    answer.assert_text(r#"{"error":"PAYMENT_REQUIRED","message":"Insufficient flux"}"#).await;

    let client = World::default().client();
    for (body, left) in [("not json", "59"), (r#"{"model":5}"#, "58")] {
        let answer = send(&client, CHAT, body).await;
        answer.assert_status(StatusCode::BAD_REQUEST);
        assert_eq!(header(&answer, "ratelimit-remaining"), Some(left));
    }
}

#[tokio::test]
async fn strangers_do_not_count() {
    let client = World::default().client();
    for _ in 0..3 {
        let answer = client.post(CHAT).body("{}").send().await;
        answer.assert_status(StatusCode::UNAUTHORIZED);
        assert_eq!(header(&answer, "ratelimit-limit"), None);
    }
    assert_eq!(header(&send(&client, CHAT, "{}").await, "ratelimit-remaining"), Some("59"));
}

#[tokio::test]
async fn models_are_listed_as_openai_lists_them() {
    let client = World { sandbox: false, ..World::default() }.client();
    let answer = client.get("/api/v1/openai/models").header("authorization", USER).send().await;
    answer
        .assert_text(r#"{"object":"list","data":[{"id":"auto","object":"model","created":0,"owned_by":"airi"}]}"#)
        .await;
}

#[tokio::test]
async fn paths_of_old_stay_gone() {
    let client = World::default().client();
    for path in ["/api/v1/openai/audio/speech", "/api/v1/openai/completions", "/api/v1/openai/chat"] {
        send(&client, path, "{}").await.assert_status(StatusCode::NOT_FOUND);
    }
}
