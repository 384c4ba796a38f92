//! `/audio`: what a client that wants to hear something sees.

use std::sync::Arc;

use airi_server::core::model::fact::Fact;
use airi_server::core::model::request_log::LoggedRequest;
use airi_server::ports::tts::{SpeechFailure, SpokenAudio};
use bytes::Bytes;
use futures::{StreamExt, stream};
use poem::http::StatusCode;
use poem::test::TestResponse;
use serde_json::{Value, json};

use crate::world::{Client, Facts, USER, Voice, World, saying};

const SPEECH: &str = "/api/v1/audio/speech";

/// What a row of the fixture assumes about speech.
pub(crate) struct Arranged {
    pub(crate) stored: Vec<(&'static str, String)>,
    pub(crate) voice: Voice,
}

/// The configuration and the outcome of the adapter that a condition names; the adapters' own suites show that they
/// come to it.
pub(crate) fn arranged(condition: &str) -> Option<Arranged> {
    let failure = match condition {
        "user, azure model, voice \"x y\"" => SpeechFailure::BadRequest {
            message: "azure voice id contains unsupported characters: x y".to_owned(),
            details: Some(json!({ "voice": "x y" })),
        },
        "user, azure upstream hangs" => SpeechFailure::Timeout,
        "user, cosyvoice 200 without audio.url" => SpeechFailure::NoAudio("{}".to_owned()),
        "user, volcengine 200 code 3050" => {
            SpeechFailure::Status { status: 400, body: r#"{"message":"no such voice"}"#.into(), retry_after: None }
        }
        "user, volcengine upstream without appid" => SpeechFailure::Misconfigured("appid".to_owned()),
        _ => return None,
    };
    Some(Arranged { stored: configured(), voice: Arc::new(move |_| Err(failure.clone())) })
}

fn configured() -> Vec<(&'static str, String)> {
    let key = |id: &str| json!({ "id": id, "ciphertext": "c" });
    let tree = json!({
        "llm": { "models": {} },
        "tts": { "models": { "m": { "provider": "azure", "upstreams": [
            { "baseURL": "https://a.example/v1", "keys": [key("k1"), key("k2")] },
        ] } } },
    });
    vec![("LLM_ROUTER_CONFIG", tree.to_string()), ("FLUX_PER_1K_CHARS_TTS", "2".to_owned())]
}

fn world(voice: Voice) -> World {
    let mut stored = configured();
    stored.push(("DEFAULT_TTS_MODEL", r#""m""#.to_owned()));
    stored.push(("DEFAULT_TTS_VOICES", r#"{"m":{"en-US":"v1"}}"#.to_owned()));
    World { stored, voice, ..World::default() }
}

async fn speak(client: &Client, body: &'static str) -> TestResponse {
    client.post(SPEECH).header("authorization", USER).body(body).send().await
}

fn header<'a>(answer: &'a TestResponse, name: &str) -> Option<&'a str> {
    answer.0.headers().get(name).map(|value| value.to_str().unwrap())
}

/// The row of the one call, once its settlement is done.
async fn row(facts: &Facts) -> LoggedRequest {
    loop {
        let ended = facts.all().into_iter().find_map(|fact| match fact {
            Fact::GenerationEnded { row, .. } => Some(row),
            _ => None,
        });
        match ended {
            Some(row) => return row,
            None => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn audio_is_passed_on_and_billed_by_the_character() {
    let world = world(saying(&[Ok("ID3"), Ok("abc")]));
    let facts = world.facts.clone();
    let answer = speak(&world.client(), r#"{"model":"auto","input":"你好😀"}"#).await;
    answer.assert_status_is_ok();
    assert_eq!(header(&answer, "content-type"), Some("audio/mpeg"));
    assert_eq!(header(&answer, "x-airi-billed-units"), Some("4"));
    assert!(header(&answer, "server-timing").unwrap().starts_with("ttfa;dur="));
    assert_eq!(header(&answer, "ratelimit-limit"), Some("60"));
    let id = header(&answer, "x-request-id").unwrap().to_owned();
    answer.assert_text("ID3abc").await;
    let row = row(&facts).await;
    assert_eq!((row.status, row.kind.as_str(), row.model.as_str()), (200, "tts", "m"));
    assert_eq!((row.charged.get(), row.request.as_str()), (1, id.as_str()));
    assert!(facts.all().iter().any(|fact| matches!(fact, Fact::UnitsMetered { units: 4, .. })));
}

#[tokio::test]
async fn a_client_that_leaves_pays_what_it_heard_and_nothing_before() {
    let world = world(saying(&[Ok("ID3"), Ok("abc")]));
    let facts = world.facts.clone();
    let mut answer = speak(&world.client(), r#"{"input":"hello"}"#).await.0;
    let mut body = Box::pin(answer.take_body().into_bytes_stream());
    body.next().await.unwrap().unwrap();
    drop(body);
    let row = row(&facts).await;
    assert_eq!((row.status, row.charged.get()), (499, 1));
}

#[tokio::test]
async fn audio_that_breaks_off_is_not_billed() {
    let world = world(saying(&[Ok("ID3"), Err(())]));
    let facts = world.facts.clone();
    let answer = speak(&world.client(), r#"{"input":"hello"}"#).await;
    answer.assert_status_is_ok();
    assert!(answer.0.into_body().into_vec().await.is_err());
    let row = row(&facts).await;
    assert_eq!((row.status, row.charged.get(), row.error), (502, 0, Some("stream_interrupted")));
    let unbilled = |fact: &Fact| matches!(fact, Fact::Unbilled { reason: "upstream_interrupted", .. });
    assert!(facts.all().iter().any(unbilled));
}

#[tokio::test]
async fn a_clip_we_cut_is_billed_for_what_was_delivered() {
    let endless: Voice = Arc::new(|_| {
        let body = stream::repeat_with(|| Ok(Bytes::from(vec![0; 1 << 20]))).boxed();
        Ok(SpokenAudio { content_type: "audio/mpeg".to_owned(), body })
    });
    let world = world(endless);
    let facts = world.facts.clone();
    let answer = speak(&world.client(), r#"{"input":"hello"}"#).await;
    answer.assert_status_is_ok();
    assert!(answer.0.into_body().into_vec().await.is_err(), "the client must not take it for the whole");
    assert_eq!(row(&facts).await.charged.get(), 1);
    assert!(!facts.all().iter().any(|fact| matches!(fact, Fact::Unbilled { .. })));
}

#[tokio::test]
async fn the_gates_stand_in_their_order() {
    let bodies = ["{", r#"{"input":""}"#, r#"{"model":"nope","input":"x"}"#, r#"{"model":"m","input":"hello"}"#];
    for (balance, expected) in [
        (0, [(402, "PAYMENT_REQUIRED"); 4]),
        (1_000, [(400, "INVALID_BODY"), (400, "INVALID_REQUEST"), (400, "BAD_REQUEST"), (200, "")]),
    ] {
        for (body, (status, error)) in bodies.iter().zip(expected) {
            let world = World { balance, ..world(saying(&[Ok("ID3")])) };
            let answer = speak(&world.client(), body).await;
            assert_eq!(answer.0.status().as_u16(), status, "{balance} {body}");
            if status != 200 {
                let told: Value = answer.0.into_body().into_json().await.unwrap();
                assert_eq!(told["error"], error, "{balance} {body}");
            }
        }
    }
    let unpriced = World { sandbox: false, balance: 0, ..World::default() };
    let answer = speak(&unpriced.client(), "{").await;
    assert_eq!(answer.0.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_text_the_balance_does_not_afford_is_refused_before_anybody_speaks() {
    let mut world = world(Arc::new(|_| panic!("asked to speak")));
    world.balance = 1;
    world.stored.retain(|(name, _)| *name != "FLUX_PER_1K_CHARS_TTS");
    world.stored.push(("FLUX_PER_1K_CHARS_TTS", "1000".to_owned()));
    let facts = world.facts.clone();
    let answer = speak(&world.client(), r#"{"input":"hello"}"#).await;
    assert_eq!(answer.0.status(), StatusCode::PAYMENT_REQUIRED);
    assert!(facts.all().iter().any(|fact| matches!(fact, Fact::PreflightRejected { meter: "tts" })));
}

#[tokio::test]
async fn voices_are_those_of_the_models_provider() {
    let client = world(saying(&[])).client();
    for (query, count) in [("", 2), ("?model=auto", 2), ("?model=m", 2), ("?model=sandbox-voice", 1)] {
        let answer = client.get(format!("/api/v1/audio/voices{query}")).header("authorization", USER).send().await;
        answer.assert_status_is_ok();
        assert_eq!(header(&answer, "ratelimit-limit"), Some("120"));
        let told: Value = answer.0.into_body().into_json().await.unwrap();
        assert_eq!(told["voices"].as_array().unwrap().len(), count, "{query}");
        let recommended = if count == 2 { json!({ "en-US": "v1" }) } else { json!({}) };
        assert_eq!(told["recommended"], recommended, "{query}");
        assert_eq!(told.get("degraded"), None);
    }
}

#[tokio::test]
async fn a_catalogue_out_of_reach_is_empty_and_says_so() {
    let mut world = world(saying(&[]));
    let upstream = json!({ "baseURL": "ws://[", "keys": [{ "id": "k", "ciphertext": "c" }] });
    world.stored.push(("STREAMING_TTS_UPSTREAM", upstream.to_string()));
    let client = world.client();
    let answer = client.get("/api/v1/audio/voices/streaming?model=x/m").header("authorization", USER).send().await;
    answer.assert_status_is_ok();
    let told: Value = answer.0.into_body().into_json().await.unwrap();
    assert_eq!(told, json!({ "voices": [], "recommended": { "en-US": "v1" }, "degraded": true }));
}
