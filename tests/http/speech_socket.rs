//! The socket of streaming speech: a real server, a real client, and an upstream on loopback.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use airi_server::compose::testing;
use airi_server::core::App;
use airi_server::core::accounts::NewUser;
use airi_server::core::model::accounts::Email;
use airi_server::core::model::config::ConfigWrite;
use airi_server::core::model::fact::Fact;
use airi_server::core::model::ids::UserId;
use airi_server::core::model::request_log::LoggedRequest;
use airi_server::core::model::secret::Secret;
use airi_server::http::{HttpSettings, serve};
use airi_server::ports::Ports;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_async, connect_async};
use tokio_util::sync::CancellationToken;

use crate::house::access_token;
use crate::world::Facts;

type ClientSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type UpstreamSocket = WebSocketStream<TcpStream>;

/// Longer than any step takes, so that a step that never happens fails instead of hanging.
const PATIENT: Duration = Duration::from_secs(20);

/// What a case arranges.
struct Case {
    balance: i64,
    price: Option<&'static str>,
    upstream: Option<String>,
    sealed: bool,
}

struct Server {
    app: Arc<App>,
    address: String,
    token: String,
    user: UserId,
    ports: Ports,
    facts: Facts,
    leaving: CancellationToken,
}

impl Default for Case {
    fn default() -> Self {
        Self { balance: 100, price: Some("2"), upstream: None, sealed: true }
    }
}

impl Case {
    async fn start(self) -> Server {
        let facts = Facts::default();
        let ports = Ports { journal: Arc::new(facts.clone()), ..testing::ports().await.unwrap() };
        let mut entries = vec![("INITIAL_USER_FLUX", Some(self.balance.to_string()))];
        entries.extend(self.price.map(|price| ("FLUX_PER_1K_CHARS_TTS", Some(price.to_owned()))));
        if let Some(url) = self.upstream {
            let token = ports.vault.seal(&Secret::new("volc-key"), "streaming-tts", "k1").unwrap();
            let token = if self.sealed { token } else { "v1.AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA".to_owned() };
            let upstream = json!({ "baseURL": url, "keys": [{ "id": "k1", "ciphertext": token }] });
            entries.push(("STREAMING_TTS_UPSTREAM", Some(upstream.to_string())));
        }
        ports.config.write(&ConfigWrite { entries, expected_version: None }).await.unwrap();
        let app = Arc::new(App::new(ports.clone(), testing::policies()));
        let email = Email::parse("speaker@example.com").unwrap();
        let new = NewUser { email: email.clone(), name: None, password: None, verified: true };
        let user = app.accounts.create(new).await.unwrap().id;
        let token = app.accounts.open_session(&email).await.unwrap().token.expose().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("ws://{}/api/v1/audio/speech/ws", listener.local_addr().unwrap());
        let leaving = CancellationToken::new();
        let stop = leaving.clone();
        let served = app.clone();
        tokio::spawn(async move { serve(served, &HttpSettings::default(), listener, stop).await });
        Server { app, address, token, user, ports, facts, leaving }
    }
}

impl Server {
    async fn connect(&self) -> ClientSocket {
        self.connect_with(&format!("token={}", self.token)).await
    }

    async fn connect_with(&self, query: &str) -> ClientSocket {
        connect_async(format!("{}?{query}", self.address)).await.unwrap().0
    }

    async fn row(&self) -> LoggedRequest {
        let ended = |fact| match fact {
            Fact::GenerationEnded { row, .. } => Some(row),
            _ => None,
        };
        let waiting = async {
            loop {
                if let Some(row) = self.facts.all().into_iter().find_map(ended) {
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENT, waiting).await.unwrap()
    }

    async fn debt(&self) -> i64 {
        self.ports.meter.debt(&self.user, "tts", Duration::from_secs(86_400)).await.unwrap().units
    }
}

/// An upstream that plays one session, or as many as come.
async fn upstream<F>(play: impl Fn(UpstreamSocket) -> F + Send + Sync + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("ws://{}/v1", listener.local_addr().unwrap());
    let play = Arc::new(play);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let play = play.clone();
            tokio::spawn(async move { play(accept_async(stream).await.unwrap()).await });
        }
    });
    address
}

fn event(value: &Value) -> Message {
    Message::text(value.to_string())
}

async fn next(socket: &mut ClientSocket) -> Message {
    loop {
        let message = tokio::time::timeout(PATIENT, socket.next()).await.unwrap().unwrap().unwrap();
        if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
            return message;
        }
    }
}

/// The frames before the close, then its code and reason.
async fn until_closed(socket: &mut ClientSocket) -> (Vec<Value>, (u16, String)) {
    let mut frames = Vec::new();
    loop {
        match next(socket).await {
            Message::Text(text) => frames.push(serde_json::from_str(text.as_str()).unwrap()),
            Message::Close(Some(close)) => return (frames, (close.code.into(), close.reason.as_str().to_owned())),
            Message::Binary(bytes) => frames.push(json!(String::from_utf8(bytes.to_vec()).unwrap())),
            other => panic!("{other:?}"),
        }
    }
}

fn start() -> Message {
    event(&json!({ "event": "start", "model": "volcengine/seed-tts-2.0", "voice": "v" }))
}

#[tokio::test]
async fn strangers_are_told_so_after_the_handshake() {
    let server = Case::default().start().await;
    for query in ["", "token=nope", "token="] {
        let mut socket = server.connect_with(query).await;
        assert_eq!(until_closed(&mut socket).await, (vec![], (4001, "unauthorized".to_owned())), "{query}");
    }
}

#[tokio::test]
async fn an_access_token_opens_the_socket_as_a_session_does() {
    let server = Case::default().start().await;
    let good = access_token(&server.app, server.user.as_str(), 3_600).await;
    let ended = access_token(&server.app, server.user.as_str(), 0).await;
    for (token, code, reason) in [(good, 1008, "streaming_tts_not_configured"), (ended, 4001, "unauthorized")] {
        let mut socket = server.connect_with(&format!("token={token}")).await;
        assert_eq!(until_closed(&mut socket).await.1, (code, reason.to_owned()));
    }
}

#[tokio::test]
async fn a_dial_is_given_up_when_its_client_leaves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("ws://{}/v1", listener.local_addr().unwrap());
    let server = Case { upstream: Some(address), ..Case::default() }.start().await;
    let mut socket = server.connect().await;
    socket.send(start()).await.unwrap();
    let (mut dialled, _) = tokio::time::timeout(PATIENT, listener.accept()).await.unwrap().unwrap();
    drop(socket);
    // The handshake is never answered: only giving up ends the connection, well before the dial's own 10 s.
    let mut heard = Vec::new();
    let gone = dialled.read_to_end(&mut heard);
    assert!(tokio::time::timeout(Duration::from_secs(5), gone).await.is_ok());
    assert_eq!(server.row().await.status, 499);
}

#[tokio::test]
async fn a_client_that_cancels_pays_for_what_it_heard() {
    let upstream = upstream(|mut socket| async move {
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            let said: Value = serde_json::from_str(text.as_str()).unwrap();
            match said["event"].as_str() {
                Some("text") => socket.send(Message::binary("AUDIO")).await.unwrap(),
                Some("cancel") => return,
                _ => {}
            }
        }
    })
    .await;
    let server = Case { upstream: Some(upstream), ..Case::default() }.start().await;
    let mut socket = server.connect().await;
    socket.send(start()).await.unwrap();
    socket.send(event(&json!({ "event": "text", "text": "paid text" }))).await.unwrap();
    assert!(next(&mut socket).await.is_binary());
    socket.send(event(&json!({ "event": "cancel" }))).await.unwrap();
    assert_eq!(until_closed(&mut socket).await, (vec![], (1000, "session_cancelled".to_owned())));
    assert_eq!(server.row().await.status, 499);
    assert_eq!(server.debt().await, 9);
}

#[tokio::test]
async fn every_refusal_before_a_session_is_told_and_then_closed_with() {
    let idle = upstream(|mut socket| async move { while socket.next().await.is_some() {} }).await;
    let configured = || Case { upstream: Some(idle.clone()), ..Case::default() };
    for (name, case, code, reason) in [
        ("upstream not configured", Case::default(), 1008, "streaming_tts_not_configured"),
        ("balance zero", Case { balance: 0, ..configured() }, 1008, "insufficient_flux"),
        ("balance below the estimate", Case { balance: 3, ..configured() }, 1008, "insufficient_flux"),
        ("price not configured", Case { price: None, ..configured() }, 1008, "streaming_tts_not_configured"),
        ("key cannot be decrypted", Case { sealed: false, ..configured() }, 1011, "decrypt_failed"),
    ] {
        let server = case.start().await;
        let told = json!({ "event": "error", "code": reason, "message": reason });
        let heard = until_closed(&mut server.connect().await).await;
        assert_eq!(heard, (vec![told], (code, reason.to_owned())), "{name}");
    }
}

#[tokio::test]
async fn a_session_is_relayed_in_order_billed_and_closed() {
    let upstream = upstream(|mut socket| async move {
        let mut text = String::new();
        while let Some(Ok(message)) = socket.next().await {
            let Ok(said) = message.to_text() else { continue };
            let said: Value = serde_json::from_str(said).unwrap_or_default();
            match said["event"].as_str() {
                Some("start") => socket.send(event(&json!({ "event": "session.started" }))).await.unwrap(),
                Some("text") => text.push_str(said["text"].as_str().unwrap()),
                Some("finish") => break,
                _ => {}
            }
        }
        assert_eq!(text, "你好，世界。");
        socket.send(event(&json!({ "event": "sentence.start", "payload": { "text": text } }))).await.unwrap();
        socket.send(Message::binary("AUDIO-1")).await.unwrap();
        socket.send(event(&json!({ "event": "sentence.end", "payload": { "text": text } }))).await.unwrap();
        let usage = json!({ "usage": { "text_words": 6 } });
        socket.send(event(&json!({ "event": "session.finished", "payload": usage }))).await.unwrap();
        while socket.next().await.is_some() {}
    })
    .await;
    // The balance is exactly what the estimate needs.
    let server = Case { balance: 4, upstream: Some(upstream), ..Case::default() }.start().await;
    let mut socket = server.connect().await;
    socket.send(start()).await.unwrap();
    for said in ["你好，", "世界。"] {
        socket.send(event(&json!({ "event": "text", "text": said }))).await.unwrap();
    }
    socket.send(event(&json!({ "event": "finish" }))).await.unwrap();
    let (frames, close) = until_closed(&mut socket).await;
    assert_eq!(close, (1000, "session_finished".to_owned()));
    let kinds: Vec<_> = frames.iter().map(|frame| frame["event"].as_str().or(frame.as_str()).unwrap()).collect();
    assert_eq!(kinds, ["session.started", "sentence.start", "AUDIO-1", "sentence.end", "session.finished"]);
    let row = server.row().await;
    assert_eq!((row.status, row.kind.as_str(), row.model.as_str()), (200, "tts_stream", "volcengine/seed-tts-2.0"));
    assert_eq!(server.debt().await, 6);
    assert!(server.facts.all().contains(&Fact::SpeechSessionEnded { outcome: "finished" }));
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_upstream_and_pays_for_what_it_was_sent() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    let upstream = upstream(move |mut socket| {
        let told = told.clone();
        async move {
            while let Some(Ok(message)) = socket.next().await {
                let Message::Text(text) = message else { continue };
                let said: Value = serde_json::from_str(text.as_str()).unwrap();
                if said["event"] == "text" {
                    socket.send(Message::binary("AUDIO")).await.unwrap();
                }
                told.lock().unwrap().push(said["event"].as_str().unwrap().to_owned());
            }
            told.lock().unwrap().push("gone".to_owned());
        }
    })
    .await;
    let server = Case { upstream: Some(upstream), ..Case::default() }.start().await;
    let mut socket = server.connect().await;
    socket.send(start()).await.unwrap();
    socket.send(event(&json!({ "event": "text", "text": "paid text" }))).await.unwrap();
    assert!(next(&mut socket).await.is_binary());
    drop(socket);
    let row = server.row().await;
    assert_eq!(row.status, 499);
    assert_eq!(server.debt().await, 9);
    let waiting = async {
        while heard.lock().unwrap().last().is_none_or(|last| last != "gone") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENT, waiting).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), ["start", "text", "cancel", "gone"]);
}

#[tokio::test]
async fn an_upstream_out_of_reach_is_told_without_its_address() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("ws://{}/", listener.local_addr().unwrap())
    };
    let generic = json!({ "event": "error", "code": "upstream_error", "message": "Upstream connection failed" });
    let unusable = json!({ "event": "error", "code": "config_unavailable", "message": "config_unavailable" });
    for (address, told, reason) in
        [(closed, generic, "upstream_error"), ("ws://[".to_owned(), unusable, "config_unavailable")]
    {
        let server = Case { upstream: Some(address), ..Case::default() }.start().await;
        let mut socket = server.connect().await;
        socket.send(start()).await.unwrap();
        assert_eq!(until_closed(&mut socket).await, (vec![told], (1011, reason.to_owned())));
    }
}

#[tokio::test]
async fn a_fifth_session_waits_its_turn_and_shutdown_ends_the_others() {
    let idle = upstream(|mut socket| async move { while socket.next().await.is_some() {} }).await;
    let server = Case { upstream: Some(idle), ..Case::default() }.start().await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut socket = server.connect().await;
        socket.send(start()).await.unwrap();
        open.push(socket);
    }
    let admitted = async {
        while server.facts.all().iter().filter(|fact| **fact == Fact::SpeechSessionOpened).count() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENT, admitted).await.unwrap();
    let (_, close) = until_closed(&mut server.connect().await).await;
    assert_eq!(close, (1013, "too_many_sessions".to_owned()));
    server.leaving.cancel();
    for mut socket in open {
        assert_eq!(until_closed(&mut socket).await.1, (1001, "server_shutdown".to_owned()));
    }
}
