//! `TtsEngine` and `StreamingSpeech`: what one attempt must keep, against recorded providers on loopback.

use std::sync::Arc;
use std::time::{Duration, Instant};

use airi_server::compose::testing;
use airi_server::core::model::secret::Secret;
use airi_server::core::model::tts::{Frame, TtsProvider};
use airi_server::ports::tts::{DialFailure, SpeechAttempt, SpeechFailure, SpokenAudio, StreamingSpeech, TtsEngine};
use airi_server::ports::upstream::{Patience, UpstreamError};
use futures::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use crate::support::upstream::{Reply, ScriptedUpstream, Step};

const PATIENT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

async fn engine() -> Arc<dyn TtsEngine> {
    testing::ports().await.unwrap().tts
}

async fn streaming() -> Arc<dyn StreamingSpeech> {
    testing::ports().await.unwrap().speech
}

fn attempt(provider: TtsProvider, base_url: &str, params: &Value) -> SpeechAttempt {
    SpeechAttempt {
        provider,
        base_url: base_url.to_owned(),
        key: Secret::new("k3y"),
        params: params.as_object().cloned().unwrap_or_else(Map::new),
        text: "你好 <b> 😀".to_owned(),
        voice: None,
        speed: Some(1.25),
        response_format: None,
        patience: Patience { head: PATIENT, first_byte: PATIENT, idle: PATIENT, total: PATIENT },
    }
}

async fn scripted(reply: Reply) -> ScriptedUpstream {
    let upstream = ScriptedUpstream::start().await;
    upstream.any_key().always(reply);
    upstream
}

fn audio(bytes: &[u8]) -> Reply {
    Reply::plain(200, &[("content-type", "audio/mpeg")], bytes)
}

async fn whole(audio: SpokenAudio) -> Result<Vec<u8>, UpstreamError> {
    let mut body = audio.body;
    let mut whole = Vec::new();
    while let Some(bytes) = body.next().await {
        whole.extend_from_slice(&bytes?);
    }
    Ok(whole)
}

async fn azure(upstream: &ScriptedUpstream) -> Result<SpokenAudio, SpeechFailure> {
    engine().await.speak(&attempt(TtsProvider::Azure, &upstream.base_url(), &json!({}))).await
}

#[tokio::test]
async fn azure_is_asked_as_documented_and_its_audio_passes_with_its_type() {
    let upstream = scripted(audio(b"ID3azure")).await;
    let spoken = azure(&upstream).await.unwrap();
    assert_eq!(spoken.content_type, "audio/mpeg");
    assert_eq!(whole(spoken).await.unwrap(), b"ID3azure");
    let seen = upstream.wait_for(1).await.swap_remove(0);
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1"));
    assert_eq!(seen.header("ocp-apim-subscription-key"), Some("k3y"));
    assert_eq!(seen.header("x-microsoft-outputformat"), Some("audio-24khz-48kbitrate-mono-mp3"));
    assert_eq!(seen.header("content-type"), Some("application/ssml+xml"));
    assert_eq!(seen.header("authorization"), None);
    assert!(seen.header("user-agent").unwrap().starts_with("airi-server/"));
    let expected = "<speak version='1.0' xml:lang='en-US'><voice name='en-US-AvaMultilingualNeural'>\
        <prosody rate='+25%'>你好 &lt;b&gt; 😀</prosody></voice></speak>";
    assert_eq!(String::from_utf8(seen.body).unwrap(), expected);
}

#[tokio::test]
async fn refusals_redirects_and_lies_are_told_apart() {
    for (reply, expected) in [
        (Reply::plain(401, &[], ""), Some(401)),
        (Reply::redirect(302, "http://127.0.0.1:1/x"), Some(302)),
        (Reply::retry_after(429, "7"), Some(429)),
        (Reply::plain(200, &[("content-type", "text/html")], "<html>"), None),
        (audio(b"{\"error\":\"quota\"}"), None),
        (audio(b""), None),
        (Reply::gzipped(), None),
    ] {
        let upstream = scripted(reply).await;
        match azure(&upstream).await.unwrap_err() {
            SpeechFailure::Status { status, retry_after, .. } => {
                assert_eq!(Some(status), expected);
                assert_eq!(retry_after, (status == 429).then_some(7));
            }
            failure => assert_eq!((matches!(failure, SpeechFailure::NoAudio(_)), expected), (true, None), "{failure}"),
        }
        assert_eq!(upstream.seen().len(), 1, "nothing is followed");
    }
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 26214401\r\n\r\nID3".to_vec();
    let upstream = scripted(Reply::steps([Step::Write(head), Step::Hang])).await;
    assert_eq!(azure(&upstream).await.unwrap_err(), SpeechFailure::TooLarge);
}

#[tokio::test]
async fn a_silent_provider_is_given_up_and_its_connection_closed() {
    for reply in [Reply::hang_before_head(), Reply::steps([Step::Write(chunked_head()), Step::Hang])] {
        let upstream = scripted(reply).await;
        let mut asked = attempt(TtsProvider::Azure, &upstream.base_url(), &json!({}));
        asked.patience.first_byte = SHORT;
        let begun = Instant::now();
        assert_eq!(engine().await.speak(&asked).await.unwrap_err(), SpeechFailure::Timeout);
        assert!(begun.elapsed() >= SHORT);
        upstream.wait_ended(0).await;
    }
}

#[tokio::test]
async fn audio_is_handed_on_as_it_arrives_and_a_stall_ends_it() {
    let upstream =
        scripted(Reply::steps([Step::Write(chunked_head()), Step::Chunk(b"ID3".to_vec()), Step::Hang])).await;
    let mut asked = attempt(TtsProvider::Azure, &upstream.base_url(), &json!({}));
    asked.patience.idle = SHORT;
    let mut spoken = engine().await.speak(&asked).await.unwrap();
    assert_eq!(spoken.body.next().await.unwrap().unwrap(), "ID3");
    assert_eq!(spoken.body.next().await.unwrap().unwrap_err(), UpstreamError::Stalled);
    assert!(spoken.body.next().await.is_none());
    upstream.wait_ended(0).await;
}

/// Ten minutes at 192 kbit/s: no piece of it is large, so whatever relays it holds little.
#[tokio::test]
async fn ten_minutes_pass_in_small_pieces() {
    const PIECE: usize = 24_000;
    let mut steps = vec![Step::Write(chunked_head())];
    steps.extend((0..600).map(|_| Step::Chunk(vec![0xff; PIECE])));
    steps.push(Step::Write(b"0\r\n\r\n".to_vec()));
    let upstream = scripted(Reply::steps(steps)).await;
    let mut spoken = azure(&upstream).await.unwrap();
    let (mut total, mut largest) = (0, 0);
    while let Some(bytes) = spoken.body.next().await {
        let bytes = bytes.unwrap();
        largest = largest.max(bytes.len());
        total += bytes.len();
    }
    assert_eq!(total, 600 * PIECE);
    assert!(largest <= 256 * 1024, "{largest}");
}

#[tokio::test]
async fn cosyvoice_names_a_file_that_is_fetched_without_the_key() {
    let upstream = ScriptedUpstream::start().await;
    let file = format!("{}/fx1.mp3?Signature=s", upstream.base_url());
    upstream.any_key().next(Reply::json(200, &json!({ "output": { "audio": { "url": file } } })));
    upstream.any_key().next(audio(b"ID3cosy"));
    let params = json!({ "model": "cosyvoice-v3", "downloadHosts": ["127.0.0.1"] });
    let asked = attempt(TtsProvider::DashscopeCosyvoice, &upstream.base_url(), &params);
    let spoken = engine().await.speak(&asked).await.unwrap();
    assert_eq!(spoken.content_type, "audio/mpeg");
    assert_eq!(whole(spoken).await.unwrap(), b"ID3cosy");
    let seen = upstream.wait_for(2).await;
    assert_eq!(seen[0].key.as_deref(), Some("k3y"));
    let body = r#"{"model":"cosyvoice-v3","input":{"text":"你好 <b> 😀","voice":"longxiaochun_v2","format":"mp3","rate":1.25}}"#;
    assert_eq!(String::from_utf8(seen[0].body.clone()).unwrap(), body);
    assert_eq!((seen[1].method.as_str(), seen[1].header("authorization")), ("GET", None));
    assert_eq!(seen[1].path, "/v1/fx1.mp3?Signature=s");
}

#[tokio::test]
async fn cosyvoice_fetches_from_nobody_else() {
    let upstream = ScriptedUpstream::start().await;
    for url in ["http://127.0.0.1:9/x", "file:///etc/passwd", "http://169.254.169.254/latest", "nonsense", ""] {
        upstream.any_key().next(Reply::json(200, &json!({ "output": { "audio": { "url": url } } })));
        let asked = attempt(TtsProvider::DashscopeCosyvoice, &upstream.base_url(), &json!({}));
        let failure = engine().await.speak(&asked).await.unwrap_err();
        assert!(matches!(failure, SpeechFailure::NoAudio(_)), "{url}: {failure}");
    }
    upstream.any_key().next(Reply::json(200, &json!({ "code": "Throttling.RateQuota", "message": "slow" })));
    let asked = attempt(TtsProvider::DashscopeCosyvoice, &upstream.base_url(), &json!({}));
    let failure = engine().await.speak(&asked).await.unwrap_err();
    assert!(matches!(failure, SpeechFailure::Status { status: 429, .. }), "{failure}");
}

#[tokio::test]
async fn volcengine_is_asked_as_documented_and_its_clip_decoded() {
    let document: Value =
        serde_json::from_str(include_str!("../fixtures/provider-responses/volcengine-200.json")).unwrap();
    let upstream = scripted(Reply::json(200, &document)).await;
    let asked = attempt(TtsProvider::Volcengine, &upstream.base_url(), &json!({ "appid": "a1" }));
    let spoken = engine().await.speak(&asked).await.unwrap();
    assert_eq!(whole(spoken).await.unwrap(), b"ID3fixture-audio");
    let seen = upstream.wait_for(1).await.swap_remove(0);
    assert_eq!(seen.header("authorization"), Some("Bearer;k3y"));
    let body = seen.json();
    assert_eq!((&body["app"]["appid"], &body["app"]["token"]), (&json!("a1"), &json!("k3y")));
    assert_eq!(body["request"]["reqid"].as_str().unwrap().len(), 21);
}

/// A provider over WebSocket: accepts one connection, remembers its authorization, and does what it is told.
async fn provider<F>(play: impl FnOnce(WebSocketStream<tokio::net::TcpStream>) -> F + Send + 'static) -> (String, Heard)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("ws://{}/stream", listener.local_addr().unwrap());
    let (told, heard) = tokio::sync::oneshot::channel();
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    let played = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut authorization = String::new();
        #[expect(clippy::result_large_err, reason = "the signature is the library's")]
        let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            authorization = request.headers()["authorization"].to_str().unwrap().to_owned();
            Ok(response)
        };
        let socket = accept_hdr_async(stream, note).await.unwrap();
        told.send(authorization).unwrap();
        play(socket).await;
    });
    (address, Heard { authorization: heard, played })
}

struct Heard {
    authorization: tokio::sync::oneshot::Receiver<String>,
    played: tokio::task::JoinHandle<()>,
}

async fn json_of(socket: &mut WebSocketStream<tokio::net::TcpStream>) -> Value {
    serde_json::from_str(socket.next().await.unwrap().unwrap().to_text().unwrap()).unwrap()
}

#[tokio::test]
async fn cosyvoice_streams_one_task_over_its_socket() {
    let (address, heard) = provider(|mut socket| async move {
        let run = json_of(&mut socket).await;
        assert_eq!((&run["header"]["action"], &run["payload"]["model"]), (&json!("run-task"), &json!("cosyvoice-v2")));
        let event = |event: &str| Message::text(json!({ "header": { "event": event } }).to_string());
        socket.send(event("task-started")).await.unwrap();
        let text = json_of(&mut socket).await;
        assert_eq!(text["payload"]["input"]["text"], "你好 <b> 😀");
        assert_eq!(text["header"]["task_id"], run["header"]["task_id"]);
        assert_eq!(json_of(&mut socket).await["header"]["action"], "finish-task");
        socket.send(Message::binary("ID3")).await.unwrap();
        socket.send(event("result-generated")).await.unwrap();
        socket.send(Message::binary("abc")).await.unwrap();
        socket.send(event("task-finished")).await.unwrap();
    })
    .await;
    let spoken = engine().await.speak(&attempt(TtsProvider::DashscopeCosyvoice, &address, &json!({}))).await.unwrap();
    assert_eq!(whole(spoken).await.unwrap(), b"ID3abc");
    assert_eq!(heard.authorization.await.unwrap(), "Bearer k3y");
    heard.played.await.unwrap();
}

#[tokio::test]
async fn a_task_that_fails_is_what_its_code_says() {
    let (address, _heard) = provider(|mut socket| async move {
        json_of(&mut socket).await;
        let failed =
            json!({ "header": { "event": "task-failed", "error_code": "InvalidApiKey", "error_message": "" } });
        socket.send(Message::text(failed.to_string())).await.unwrap();
    })
    .await;
    let failure = engine().await.speak(&attempt(TtsProvider::DashscopeCosyvoice, &address, &json!({}))).await;
    assert!(matches!(failure, Err(SpeechFailure::Status { status: 401, .. })), "{failure:?}");
}

#[tokio::test]
async fn volcengine_streams_pieces_until_the_last() {
    let (address, heard) = provider(|mut socket| async move {
        let request = socket.next().await.unwrap().unwrap().into_data();
        assert_eq!(request[..4], [0x11, 0x10, 0x10, 0x00]);
        let body: Value = serde_json::from_slice(&request[8..]).unwrap();
        assert_eq!(body["request"]["operation"], "submit");
        let piece = |sequence: i32, audio: &[u8]| {
            let mut frame = vec![0x11, 0xb1, 0x00, 0x00];
            frame.extend_from_slice(&sequence.to_be_bytes());
            frame.extend_from_slice(&u32::try_from(audio.len()).unwrap().to_be_bytes());
            frame.extend_from_slice(audio);
            Message::binary(frame)
        };
        socket.send(Message::binary(vec![0x11, 0xb0, 0x00, 0x00])).await.unwrap();
        socket.send(piece(1, b"ID3")).await.unwrap();
        socket.send(piece(-2, b"abc")).await.unwrap();
    })
    .await;
    let asked = attempt(TtsProvider::Volcengine, &address, &json!({ "appid": "a1" }));
    let spoken = engine().await.speak(&asked).await.unwrap();
    assert_eq!(whole(spoken).await.unwrap(), b"ID3abc");
    assert_eq!(heard.authorization.await.unwrap(), "Bearer;k3y");
    heard.played.await.unwrap();
}

#[tokio::test]
async fn a_stream_is_dialled_with_the_key_and_carries_both_kinds_of_frames() {
    let (address, heard) = provider(|mut socket| async move {
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    })
    .await;
    let mut link = streaming().await.dial(&address, &Secret::new("volc-key"), PATIENT).await.unwrap();
    for frame in [Frame::Text(r#"{"event":"start"}"#.to_owned()), Frame::Binary("AUDIO".into())] {
        link.sink.send(frame.clone()).await.unwrap();
        assert_eq!(link.frames.next().await.unwrap().unwrap(), frame);
    }
    assert_eq!(heard.authorization.await.unwrap(), "Bearer volc-key");
    drop(link);
    heard.played.await.unwrap();
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_says_why() {
    let streaming = streaming().await;
    let key = Secret::new("k");
    for (address, limit) in [("ws://[", PATIENT), ("ftp://x", PATIENT), ("ws://169.254.169.254/x", PATIENT)] {
        let failure = streaming.dial(address, &key, limit).await.err().unwrap();
        assert!(matches!(failure, DialFailure::Unusable(_)), "{address}: {failure}");
    }
    let refusing = scripted(Reply::plain(401, &[], "")).await;
    let address = refusing.base_url().replacen("http", "ws", 1);
    assert!(matches!(streaming.dial(&address, &key, PATIENT).await.err(), Some(DialFailure::Refused(_))));
    let silent = scripted(Reply::hang_before_head()).await;
    let address = silent.base_url().replacen("http", "ws", 1);
    assert_eq!(streaming.dial(&address, &key, SHORT).await.err(), Some(DialFailure::Timeout));
    silent.wait_ended(0).await;
}

#[tokio::test]
async fn the_catalogue_is_read_without_credentials_and_within_its_limit() {
    let catalogue = include_str!("../fixtures/provider-responses/unspeech-voices.json");
    let upstream = scripted(Reply::plain(200, &[], catalogue)).await;
    let streaming = streaming().await;
    assert_eq!(streaming.voices(&upstream.base_url(), PATIENT).await.unwrap(), catalogue);
    assert_eq!(upstream.seen()[0].header("authorization"), None);
    for reply in [Reply::plain(500, &[], ""), Reply::plain(200, &[], vec![b'x'; (4 << 20) + 1])] {
        let upstream = scripted(reply).await;
        assert!(streaming.voices(&upstream.base_url(), PATIENT).await.is_err());
    }
    let silent = scripted(Reply::hang_before_head()).await;
    assert!(streaming.voices(&silent.base_url(), SHORT).await.is_err());
}

fn chunked_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()
}
