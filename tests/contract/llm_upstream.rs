//! `LlmUpstream`: what one attempt must keep, against a scripted upstream.

use std::time::{Duration, Instant};

use airi_server::adapters::llm::{HttpUpstream, UpstreamSettings};
use airi_server::core::model::secret::Secret;
use airi_server::ports::llm::{LlmUpstream, UpstreamAnswer, UpstreamCall};
use airi_server::ports::upstream::{Patience, UpstreamError};
use futures::StreamExt;

use crate::support::upstream::{Ended, Reply, ScriptedUpstream, Step};

/// Long enough that only a test about a limit ever meets one.
const PATIENT: Patience = Patience {
    head: Duration::from_secs(20),
    first_byte: Duration::from_secs(20),
    idle: Duration::from_secs(20),
    total: Duration::from_secs(60),
};
const SHORT: Duration = Duration::from_millis(150);

async fn what_is_sent_is_a_plain_post_with_the_key(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::completion("hi", Some((1, 1)))).await;
    drop(under_test.send(&call(&upstream)).await.unwrap());
    let seen = upstream.wait_for(1).await.swap_remove(0);
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/chat/completions"));
    assert_eq!(seen.key.as_deref(), Some("sk-contract"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("accept"), Some("*/*"));
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    assert!(seen.header("user-agent").unwrap().starts_with("airi-server/"));
    for foreign in ["cookie", "referer", "accept-language", "traceparent"] {
        assert_eq!(seen.header(foreign), None, "{foreign}");
    }
    assert_eq!(seen.body, br#"{"model":"m"}"#);
}

async fn a_body_passes_byte_for_byte_with_its_type(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::stream(&["a", "b"], Some((3, 2)))).await;
    let answer = under_test.send(&call(&upstream)).await.unwrap();
    assert_eq!((answer.status, answer.content_type.as_deref()), (200, Some("text/event-stream")));
    let text = String::from_utf8(whole(answer).await.unwrap()).unwrap();
    assert_eq!(text.matches("\n\n").count(), 6, "{text}");
    assert!(text.starts_with("data: {") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(upstream.tally().completion_tokens, 2);
}

async fn a_large_body_arrives_whole(under_test: &dyn LlmUpstream) {
    let body = vec![b'x'; 8 * 1024 * 1024];
    let upstream = scripted(Reply::plain(200, &[], &body)).await;
    assert_eq!(whole(under_test.send(&call(&upstream)).await.unwrap()).await.unwrap(), body);
}

async fn an_answer_is_handed_over_at_its_first_byte(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::events(["data: 1\n\n"]).then(Step::Hang)).await;
    let mut answer = under_test.send(&call(&upstream)).await.unwrap();
    assert_eq!(answer.body.next().await.unwrap().unwrap(), "data: 1\n\n");
}

async fn an_empty_success_is_empty_and_complete(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::plain(201, &[], "")).await;
    let answer = under_test.send(&call(&upstream)).await.unwrap();
    assert_eq!(answer.status, 201);
    assert_eq!(whole(answer).await.unwrap(), b"");
}

async fn connections_are_reused(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::completion("hi", None)).await;
    for _ in 0..5 {
        whole(under_test.send(&call(&upstream)).await.unwrap()).await.unwrap();
    }
    assert_eq!(upstream.connections(), 1);
}

async fn a_refusal_carries_status_body_and_retry_after(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::retry_after(429, "7")).await;
    let refused = under_test.send(&call(&upstream)).await.unwrap_err();
    assert_eq!(refused, UpstreamError::Status { status: 429, body: "{}".into(), retry_after: Some(7) });
}

async fn of_a_refusal_at_most_16_kib_are_kept(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::plain(500, &[], vec![b'e'; 1024 * 1024])).await;
    let UpstreamError::Status { status: 500, body, retry_after: None } = failed(under_test, &upstream).await else {
        panic!("a refusal was expected")
    };
    assert_eq!(body, vec![b'e'; 16 * 1024]);
}

async fn a_refusal_whose_body_never_ends_is_still_a_refusal(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::steps([
        Step::Write(b"HTTP/1.1 503 x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()),
        Step::Chunk(b"busy".to_vec()),
        Step::Hang,
    ]))
    .await;
    let begun = Instant::now();
    let refused = failed(under_test, &upstream).await;
    assert_eq!(refused, UpstreamError::Status { status: 503, body: "busy".into(), retry_after: None });
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(upstream.wait_ended(0).await.left_after().is_some());
}

async fn a_redirect_is_a_refusal_and_is_not_followed(under_test: &dyn LlmUpstream) {
    let elsewhere = scripted(Reply::completion("stolen", None)).await;
    for status in [301, 302, 303, 307, 308] {
        let upstream = scripted(Reply::redirect(status, &elsewhere.chat_url())).await;
        let refused = failed(under_test, &upstream).await;
        assert!(matches!(refused, UpstreamError::Status { status: s, .. } if s == status), "{refused:?}");
    }
    assert!(elsewhere.seen().is_empty());
}

async fn a_silent_upstream_times_out_before_the_head(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::hang_before_head()).await;
    let call = UpstreamCall { patience: Patience { head: SHORT, ..PATIENT }, ..call(&upstream) };
    assert_eq!(under_test.send(&call).await.unwrap_err(), UpstreamError::Timeout);
    assert!(upstream.wait_ended(0).await.left_after().unwrap() < Duration::from_secs(1));
}

async fn a_head_without_a_body_times_out_before_the_first_byte(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::hang_after_head()).await;
    let call = UpstreamCall { patience: Patience { first_byte: SHORT, ..PATIENT }, ..call(&upstream) };
    assert_eq!(under_test.send(&call).await.unwrap_err(), UpstreamError::Timeout);
    assert!(upstream.wait_ended(0).await.left_after().unwrap() < Duration::from_secs(1));
}

async fn the_head_limit_does_not_bind_the_body(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::stream(&["slow"], None).paced(SHORT)).await;
    let call = UpstreamCall { patience: Patience { head: SHORT / 2, ..PATIENT }, ..call(&upstream) };
    whole(under_test.send(&call).await.unwrap()).await.unwrap();
}

async fn silence_inside_a_stream_stalls_it(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::events(["data: 1\n\n"]).then(Step::Hang)).await;
    let call = UpstreamCall { patience: Patience { idle: SHORT, ..PATIENT }, ..call(&upstream) };
    let mut body = under_test.send(&call).await.unwrap().body;
    assert!(body.next().await.unwrap().is_ok());
    assert_eq!(body.next().await.unwrap().unwrap_err(), UpstreamError::Stalled);
    assert!(body.next().await.is_none());
    // The body is still held: the connection must be closed all the same.
    assert!(upstream.wait_ended(0).await.left_after().is_some());
}

async fn a_stream_that_never_pauses_ends_at_its_total(under_test: &dyn LlmUpstream) {
    let endless = std::iter::repeat_n("data: tick\n\n", 10_000);
    let upstream = scripted(Reply::events(endless).paced(Duration::from_millis(5))).await;
    let call = UpstreamCall { patience: Patience { total: 2 * SHORT, ..PATIENT }, ..call(&upstream) };
    assert_eq!(whole(under_test.send(&call).await.unwrap()).await.unwrap_err(), UpstreamError::Stalled);
}

async fn dropping_the_body_closes_the_connection(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::events(["data: 1\n\n"]).then(Step::Hang)).await;
    let answer = under_test.send(&call(&upstream)).await.unwrap();
    let dropped = Instant::now();
    drop(answer);
    let Some(Ended::ClientLeft { at }) = upstream.wait_ended(0).await.ended else { panic!("it did not notice") };
    assert!(at.duration_since(dropped) < Duration::from_secs(1));
}

async fn dropping_the_attempt_closes_the_connection(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::hang_before_head()).await;
    let call = call(&upstream);
    tokio::select! {
        _ = under_test.send(&call) => panic!("nothing was answered"),
        _ = upstream.wait_for(1) => {}
    }
    let dropped = Instant::now();
    let Some(Ended::ClientLeft { at }) = upstream.wait_ended(0).await.ended else { panic!("it did not notice") };
    assert!(at.duration_since(dropped) < Duration::from_secs(1));
}

async fn a_reset_before_the_first_byte_is_a_transport_failure(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::reset_after_head()).await;
    assert!(matches!(failed(under_test, &upstream).await, UpstreamError::Transport(_)));
}

async fn a_stream_that_breaks_reports_it_after_what_arrived(under_test: &dyn LlmUpstream) {
    for end in [Step::Reset, Step::Close] {
        let reply = Reply::stream(&["a", "b"], None).cut_after(2, Step::Pause(Duration::from_millis(30))).then(end);
        let upstream = scripted(reply).await;
        let mut body = under_test.send(&call(&upstream)).await.unwrap().body;
        let mut arrived = Vec::new();
        let broken = loop {
            match body.next().await.unwrap() {
                Ok(bytes) => arrived.extend_from_slice(&bytes),
                Err(error) => break error,
            }
        };
        assert!(String::from_utf8(arrived).unwrap().contains("\"a\""));
        assert!(matches!(broken, UpstreamError::Transport(_)), "{broken:?}");
    }
}

async fn a_body_shorter_than_promised_is_broken(under_test: &dyn LlmUpstream) {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort".to_vec();
    let upstream = scripted(Reply::steps([Step::Write(head), Step::Close])).await;
    let answer = under_test.send(&call(&upstream)).await.unwrap();
    assert!(matches!(whole(answer).await.unwrap_err(), UpstreamError::Transport(_)));
}

async fn an_encoding_nobody_asked_for_is_refused(under_test: &dyn LlmUpstream) {
    let upstream = scripted(Reply::gzipped()).await;
    assert!(matches!(failed(under_test, &upstream).await, UpstreamError::Transport(_)));
}

async fn nobody_listening_is_a_transport_failure(under_test: &dyn LlmUpstream) {
    let upstream = ScriptedUpstream::start().await;
    let call = call(&upstream);
    drop(upstream);
    assert!(matches!(under_test.send(&call).await.unwrap_err(), UpstreamError::Transport(_)));
}

async fn no_failure_tells_the_key(under_test: &dyn LlmUpstream) {
    let upstream = ScriptedUpstream::start().await;
    upstream.any_key().next(Reply::reset_after_head()).next(Reply::gzipped());
    upstream.any_key().always(Reply::steps([Step::Write(b"nonsense\r\n\r\n".to_vec()), Step::Close]));
    let mut calls = vec![call(&upstream), call(&upstream), call(&upstream)];
    calls.push(UpstreamCall {
        url: format!("{}?key=sk-contract", ScriptedUpstream::start().await.chat_url()),
        ..call(&upstream)
    });
    calls.push(UpstreamCall { url: "not a url sk-contract".to_owned(), ..call(&upstream) });
    calls.push(UpstreamCall { authorization: Secret::new("Bearer sk-contract\n"), ..call(&upstream) });
    for call in calls {
        let failure = under_test.send(&call).await.unwrap_err();
        let told = format!("{failure} {failure:?}");
        assert!(matches!(failure, UpstreamError::Transport(_)), "{told}");
        assert!(!told.contains("sk-contract"), "{told}");
    }
}

macro_rules! cases {
    ($under_test:expr; $($case:ident)+) => {$(
        #[tokio::test]
        async fn $case() {
            super::$case(&$under_test).await;
        }
    )+};
}

macro_rules! every_case {
    ($under_test:expr) => {
        cases! { $under_test;
            what_is_sent_is_a_plain_post_with_the_key
            a_body_passes_byte_for_byte_with_its_type
            a_large_body_arrives_whole
            an_answer_is_handed_over_at_its_first_byte
            an_empty_success_is_empty_and_complete
            connections_are_reused
            a_refusal_carries_status_body_and_retry_after
            of_a_refusal_at_most_16_kib_are_kept
            a_refusal_whose_body_never_ends_is_still_a_refusal
            a_redirect_is_a_refusal_and_is_not_followed
            a_silent_upstream_times_out_before_the_head
            a_head_without_a_body_times_out_before_the_first_byte
            the_head_limit_does_not_bind_the_body
            silence_inside_a_stream_stalls_it
            a_stream_that_never_pauses_ends_at_its_total
            dropping_the_body_closes_the_connection
            dropping_the_attempt_closes_the_connection
            a_reset_before_the_first_byte_is_a_transport_failure
            a_stream_that_breaks_reports_it_after_what_arrived
            a_body_shorter_than_promised_is_broken
            an_encoding_nobody_asked_for_is_refused
            nobody_listening_is_a_transport_failure
            no_failure_tells_the_key
        }
    };
}

mod http {
    use super::*;

    fn under_test() -> HttpUpstream {
        HttpUpstream::new(&UpstreamSettings { allow_insecure: true, ..UpstreamSettings::default() }).unwrap()
    }

    every_case!(under_test());

    #[tokio::test]
    async fn without_permission_nothing_near_is_called() {
        let secure = HttpUpstream::new(&UpstreamSettings::default()).unwrap();
        let near = scripted(Reply::completion("hi", None)).await;
        let port = near.base_url().rsplit(':').next().unwrap().to_owned();
        for url in [
            near.chat_url(),
            near.chat_url().replace("http:", "https:"),
            format!("https://localhost:{port}/chat/completions"),
        ] {
            let refused = secure.send(&UpstreamCall { url, ..call(&near) }).await.unwrap_err();
            assert!(matches!(refused, UpstreamError::Transport(_)), "{refused:?}");
        }
        assert_eq!(near.connections(), 0);
    }
}

async fn scripted(reply: Reply) -> ScriptedUpstream {
    let upstream = ScriptedUpstream::start().await;
    upstream.any_key().always(reply);
    upstream
}

fn call(upstream: &ScriptedUpstream) -> UpstreamCall {
    UpstreamCall {
        url: upstream.chat_url(),
        authorization: Secret::new("Bearer sk-contract"),
        body: r#"{"model":"m"}"#.into(),
        patience: PATIENT,
    }
}

async fn failed(under_test: &dyn LlmUpstream, upstream: &ScriptedUpstream) -> UpstreamError {
    under_test.send(&call(upstream)).await.unwrap_err()
}

async fn whole(mut answer: UpstreamAnswer) -> Result<Vec<u8>, UpstreamError> {
    let mut bytes = Vec::new();
    while let Some(read) = answer.body.next().await {
        bytes.extend_from_slice(&read?);
    }
    Ok(bytes)
}
