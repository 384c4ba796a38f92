//! The whole table of `speech-ws-cases.json`, played over real sockets against whatever house is brought.
//!
//! A case of the table says what is configured, what the upstream does and what the client sends in words; here each of
//! them is given a meaning, and whatever is not understood fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{SinkExt, StreamExt, stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_async, connect_async};

/// Longer than any step takes, so that a step that never happens fails instead of hanging.
const PATIENT: Duration = Duration::from_secs(30);

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Peer = WebSocketStream<TcpStream>;

/// What a server is configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrangement {
    /// Flux per 1 000 characters, if there is a price.
    pub(crate) price: Option<i64>,
    /// Where the streaming upstream is, if there is one.
    pub(crate) upstream: Option<String>,
    /// How many keys it has.
    pub(crate) keys: usize,
    /// What stands in place of the first key's token.
    pub(crate) token: Option<String>,
}

/// What the books say of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Units metered.
    pub(crate) units: i64,
    /// How often.
    pub(crate) uses: usize,
    /// Status of each row of the request log.
    pub(crate) rows: Vec<i32>,
}

/// A running server with one signed-in user per case.
pub(crate) trait House: Sized {
    /// Starts it; users are given by their balance.
    async fn open(arranged: Arrangement, balances: &[i64]) -> Self;
    /// The address of the socket.
    fn address(&self) -> String;
    /// The token of a user.
    fn token(&self, user: usize) -> String;
    /// Lets time pass, or makes it.
    async fn pass(&self, time: Duration);
    /// Stops it in good order and reads the books.
    async fn close(self) -> Vec<Account>;
}

/// Plays every case of the table.
pub(crate) async fn play<H: House>() {
    let table: Value = serde_json::from_str(include_str!("../fixtures/speech-ws-cases.json")).unwrap();
    let mut groups: Vec<(Setting, Vec<Case>)> = Vec::new();
    for row in table["cases"].as_array().unwrap() {
        let case = Case::read(row);
        let setting = case.setting.clone();
        match groups.iter_mut().find(|(known, _)| *known == setting) {
            Some((_, cases)) => cases.push(case),
            None => groups.push((setting, vec![case])),
        }
    }
    let played = groups.iter().map(|(_, cases)| cases.len()).sum::<usize>();
    assert_eq!(played, table["cases"].as_array().unwrap().len());
    // Some at a time: each is a server with stores of its own. The one that has to wait a minute goes first.
    groups.sort_by_key(|(setting, _)| !setting.alone);
    stream::iter(groups).for_each_concurrent(3, |(setting, cases)| group::<H>(setting, cases)).await;
}

async fn group<H: House>(setting: Setting, cases: Vec<Case>) {
    let upstream = Upstream::start(setting.upstream).await;
    let arranged = Arrangement {
        price: setting.price,
        upstream: upstream.address.clone(),
        keys: if setting.upstream == Manner::Unauthorized { 2 } else { 1 },
        token: setting.token,
    };
    let balances: Vec<i64> = cases.iter().map(|case| case.balance).collect();
    let house = H::open(arranged, &balances).await;
    join_all(cases.iter().enumerate().map(|(user, case)| case.play(&house, user, &upstream))).await;
    let accounts = house.close().await;
    for (case, account) in cases.iter().zip(&accounts) {
        case.judge(account);
    }
    upstream.deserted().await;
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    price: Option<i64>,
    upstream: Manner,
    token: Option<String>,
    /// Cases that change the time share a house with nobody.
    alone: bool,
}

struct Case {
    name: String,
    query: Option<String>,
    balance: i64,
    setting: Setting,
    send: Vec<Value>,
    script: String,
    expected: Value,
}

impl Case {
    fn read(row: &Value) -> Self {
        let name = row["name"].as_str().unwrap().to_owned();
        let expected = if row["target"] == "same" { row["reference"].clone() } else { row["target"].clone() };
        let script = row["upstream"].as_str().unwrap_or_default().to_owned();
        let missing = |key: &str| row["config"].as_object().is_some_and(|config| config.contains_key(key));
        let upstream = match (script.as_str(), name.as_str()) {
            _ if missing("STREAMING_TTS_UPSTREAM") => Manner::Absent,
            ("closed port", _) => Manner::Closed,
            ("http 401", _) => Manner::Unauthorized,
            ("ws://[", _) => Manner::Unusable,
            (_, "client leaves during dial" | "65 frames before upstream is open") => Manner::Silent,
            (_, "frames before upstream is open") => Manner::Late,
            _ => Manner::Plays,
        };
        let price = (!missing("FLUX_PER_1K_CHARS_TTS")).then(|| row["price"].as_i64().unwrap_or(2));
        Self {
            query: row["query"].as_str().map(str::to_owned),
            balance: row["balance"].as_i64().unwrap_or(100),
            setting: Setting {
                price,
                upstream,
                token: row["keyCiphertext"].as_str().map(str::to_owned),
                alone: name == "60 s of silence",
            },
            send: row["send"].as_array().cloned().unwrap_or_default(),
            script,
            name,
            expected,
        }
    }

    async fn play<H: House>(&self, house: &H, user: usize, upstream: &Upstream) {
        let query = self.query.clone().unwrap_or_else(|| format!("token={}", house.token(user)));
        let connect = || async { connect_async(format!("{}?{query}", house.address())).await.unwrap().0 };
        let mut client = connect().await;
        match self.name.as_str() {
            "no token"
            | "bad token"
            | "upstream not configured"
            | "balance zero"
            | "balance below the 2000-unit estimate"
            | "price not configured"
            | "key cannot be decrypted" => {
                self.hear_the_end(&mut client).await;
            }
            "first frame is not start" => {
                for frame in &self.send {
                    client.send(event(frame)).await.unwrap();
                }
                self.hear_the_end(&mut client).await;
            }
            "upstream refuses the connection" | "upstream address unusable" => {
                client.send(self.start()).await.unwrap();
                self.hear_the_end(&mut client).await;
            }
            "upstream answers the handshake with 401" => {
                assert_eq!(self.expected["next"], "tries the next key; if none: frames and close as above");
                client.send(self.start()).await.unwrap();
                let told =
                    json!([{ "event": "error", "code": "upstream_error", "message": "Upstream connection failed" }]);
                let heard = until_closed(&mut client).await;
                assert_eq!(heard, (told, Some((1011, "upstream_error".to_owned()))), "{}", self.name);
                assert_eq!(upstream.accepted(), 2, "each key is tried");
            }
            "balance equal to the estimate" => {
                assert_eq!(self.expected["opensUpstream"], true);
                client.send(self.start()).await.unwrap();
                assert_eq!(next(&mut client).await.into_text().unwrap(), r#"{"event":"session.started"}"#);
                client.close(None).await.unwrap();
            }
            "finished with usage"
            | "finished with usage zero"
            | "finished with fractional usage"
            | "finished with negative usage"
            | "finished twice" => {
                client.send(self.start()).await.unwrap();
                for frame in &self.send {
                    client.send(event(frame)).await.unwrap();
                }
                client.send(event(&json!({ "event": "finish" }))).await.unwrap();
                let (frames, close) = until_closed(&mut client).await;
                let kinds: Vec<&str> =
                    frames.as_array().unwrap().iter().filter_map(|frame| frame["event"].as_str()).collect();
                assert_eq!(kinds, ["session.started", "session.finished"], "{}", self.name);
                assert_eq!(close, Some((1000, "session_finished".to_owned())), "{}", self.name);
            }
            "client leaves after audio" | "client leaves before audio" => {
                client.send(self.start()).await.unwrap();
                for frame in &self.send {
                    client.send(event(frame)).await.unwrap();
                }
                let last = if self.name.ends_with("after audio") { "AUDIO" } else { r#"{"event":"subtitle"}"# };
                while next(&mut client).await.into_data() != last {}
                drop(client);
                upstream.hears(&self.name, r#"{"event":"cancel"}"#).await;
            }
            "client leaves during dial" => {
                client.send(self.start()).await.unwrap();
                upstream.wait("a dial", |told| told.iter().any(|(who, what)| who.is_empty() && what == "open")).await;
                let left = Instant::now();
                drop(client);
                upstream.hears("", "gone").await;
                let limit = self.expected["upstreamClosedWithinMs"].as_u64().unwrap();
                assert!(left.elapsed() <= Duration::from_millis(limit), "{:?}", left.elapsed());
            }
            "upstream drops after audio" => {
                client.send(self.start()).await.unwrap();
                client.send(event(&json!({ "event": "text", "text": "lost" }))).await.unwrap();
                self.hear_the_end(&mut client).await;
            }
            "frames before upstream is open" => {
                assert_eq!(self.expected["forwardedInOrder"], true);
                for name in &self.send {
                    client
                        .send(match name.as_str().unwrap() {
                            "start" => self.start(),
                            name => event(&json!({ "event": name, "text": "early" })),
                        })
                        .await
                        .unwrap();
                }
                let (_, close) = until_closed(&mut client).await;
                assert_eq!(close, Some((1000, "session_finished".to_owned())));
                let heard = upstream.heard(&self.name);
                let order: Vec<_> = heard.iter().map(|said| said["event"].as_str().unwrap().to_owned()).collect();
                assert_eq!(order, ["start", "text", "finish"]);
            }
            "65 frames before upstream is open" => {
                client.send(self.start()).await.unwrap();
                for _ in 0..64 {
                    client.send(event(&json!({ "event": "text", "text": "x" }))).await.unwrap();
                }
                self.hear_the_end(&mut client).await;
            }
            "60 s of silence" => {
                client.send(self.start()).await.unwrap();
                assert_eq!(next(&mut client).await.into_text().unwrap(), r#"{"event":"session.started"}"#);
                let ((), ()) = tokio::join!(house.pass(Duration::from_secs(61)), self.hear_the_end(&mut client));
            }
            "fifth parallel session of one user" => {
                let mut open = vec![client];
                for _ in 0..3 {
                    open.push(connect().await);
                }
                for client in &mut open {
                    client.send(self.start()).await.unwrap();
                    assert_eq!(next(client).await.into_text().unwrap(), r#"{"event":"session.started"}"#);
                }
                self.hear_the_end(&mut connect().await).await;
                for mut client in open {
                    client.close(None).await.unwrap();
                }
            }
            other => panic!("nobody knows how to play {other:?}"),
        }
    }

    /// The upstream learns from the voice which case it plays.
    fn start(&self) -> Message {
        event(
            &json!({ "event": "start", "model": "volcengine/seed-tts-2.0", "voice": self.name, "script": self.script }),
        )
    }

    /// The close the table names, and the frames before it where it names them.
    async fn hear_the_end(&self, client: &mut Client) {
        let begun = Instant::now();
        let (frames, close) = until_closed(client).await;
        let expected = &self.expected["close"];
        let code = u16::try_from(expected[0].as_u64().unwrap()).unwrap();
        let (code_heard, reason) = close.unwrap();
        assert_eq!((code_heard, reason.as_str()), (code, expected[1].as_str().unwrap()), "{}", self.name);
        if let Some(told) = self.expected.get("frames") {
            assert_eq!(&frames, told, "{}", self.name);
        }
        if self.name == "60 s of silence" {
            assert!(begun.elapsed() < Duration::from_secs(75), "{:?}", begun.elapsed());
        }
    }

    fn judge(&self, account: &Account) {
        for (what, value) in self.expected.as_object().unwrap() {
            match what.as_str() {
                "billedUnits" => assert_eq!(account.units, value.as_i64().unwrap(), "{}: {account:?}", self.name),
                "billedOnce" => assert_eq!(account.uses, 1, "{}: {account:?}", self.name),
                "requestLogRow" => assert!(account.rows.is_empty(), "{}: {account:?}", self.name),
                "requestLogStatus" => {
                    assert_eq!(account.rows, [i32::try_from(value.as_i64().unwrap()).unwrap()], "{}", self.name);
                }
                "handshake" => assert_eq!(value, 101),
                "frames" | "close" | "next" | "opensUpstream" | "upstreamClosedWithinMs" | "forwardedInOrder" => {}
                other => panic!("{}: nobody knows what {other:?} means", self.name),
            }
        }
    }
}

/// What the upstream of a house is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Absent,
    /// Nobody listens.
    Closed,
    Unusable,
    /// Takes connections and never answers.
    Silent,
    /// Answers the handshake after a while.
    Late,
    Unauthorized,
    /// Plays what the case says.
    Plays,
}

type Told = Arc<Mutex<Vec<(String, String)>>>;

struct Upstream {
    address: Option<String>,
    told: Told,
    _running: JoinSet<()>,
}

impl Upstream {
    async fn start(manner: Manner) -> Self {
        let told = Told::default();
        let mut running = JoinSet::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = match manner {
            Manner::Absent => None,
            Manner::Unusable => Some("ws://[".to_owned()),
            _ => Some(format!("ws://127.0.0.1:{port}/v1")),
        };
        if matches!(manner, Manner::Silent | Manner::Late | Manner::Unauthorized | Manner::Plays) {
            let book = told.clone();
            running.spawn(async move {
                let mut guests = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    guests.spawn(attend(manner, stream, book.clone()));
                }
            });
        }
        Self { address, told, _running: running }
    }

    fn entries(&self) -> Vec<(String, String)> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn accepted(&self) -> usize {
        self.entries().iter().filter(|(_, what)| what == "open").count()
    }

    /// What the upstream of a case was sent.
    fn heard(&self, case: &str) -> Vec<Value> {
        let of_case = self.entries().into_iter().filter(|(who, _)| who == case);
        of_case.filter_map(|(_, what)| serde_json::from_str(&what).ok()).collect()
    }

    async fn hears(&self, case: &str, what: &str) {
        self.wait(what, |told| told.iter().any(|(who, said)| who == case && said == what)).await;
    }

    async fn wait(&self, what: &str, done: impl Fn(&[(String, String)]) -> bool) {
        let waiting = async {
            while !done(&self.entries()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENT, waiting).await;
        waited.unwrap_or_else(|_| panic!("the upstream waited for {what}: {:?}", self.entries()));
    }

    /// No connection of the server is left.
    async fn deserted(&self) {
        let count = |told: &[(String, String)], which: &str| told.iter().filter(|(_, what)| what == which).count();
        self.wait("the last connection to end", |told| count(told, "open") == count(told, "gone")).await;
    }
}

async fn attend(manner: Manner, mut stream: TcpStream, told: Told) {
    let note = |who: &str, what: &str| {
        told.lock().unwrap_or_else(PoisonError::into_inner).push((who.to_owned(), what.to_owned()));
    };
    note("", "open");
    match manner {
        Manner::Silent => while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {},
        Manner::Unauthorized => {
            let read = stream.read(&mut [0; 4096]).await;
            assert!(matches!(read, Ok(1..)), "{read:?}");
            let refusal = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(refusal).await.unwrap();
        }
        _ => {
            if manner == Manner::Late {
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
            // A client that is gone before the handshake is no failure of the upstream.
            if let Ok(socket) = accept_async(stream).await {
                session(socket, &note).await;
            }
        }
    }
    note("", "gone");
}

/// One session, as the case in the first frame has it.
async fn session(mut socket: Peer, note: &impl Fn(&str, &str)) {
    let (mut case, mut script) = (String::new(), String::new());
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let said: Value = serde_json::from_str(text.as_str()).unwrap();
        if said["event"] == "start" {
            case = said["voice"].as_str().unwrap().to_owned();
            script = said["script"].as_str().unwrap().to_owned();
        }
        note(&case, text.as_str());
        let answers = match said["event"].as_str().unwrap() {
            "start" => vec![event(&json!({ "event": "session.started" }))],
            "text" if case == "client leaves before audio" => vec![event(&json!({ "event": "subtitle" }))],
            "text" if case.starts_with("finished") => vec![],
            "text" => vec![Message::binary("AUDIO")],
            "finish" => finish(&script),
            _ => vec![],
        };
        let drops = case == "upstream drops after audio" && said["event"] == "text";
        for answer in answers {
            // Whoever was told enough hangs up.
            drop(socket.send(answer).await);
        }
        if drops {
            return;
        }
    }
}

fn finish(script: &str) -> Vec<Message> {
    let finished = |words: Value| {
        let payload = json!({ "status_code": 20_000_000, "message": "ok", "usage": { "text_words": words } });
        event(&json!({ "event": "session.finished", "payload": payload }))
    };
    match script.strip_prefix("session.finished text_words ") {
        Some(words) => vec![finished(serde_json::from_str(words).unwrap())],
        None if script == "two session.finished frames" => vec![finished(json!(3)), finished(json!(4))],
        None => vec![finished(json!(5))],
    }
}

fn event(value: &Value) -> Message {
    Message::text(value.to_string())
}

async fn next(socket: &mut Client) -> Message {
    loop {
        let message = tokio::time::timeout(3 * PATIENT, socket.next()).await.unwrap().unwrap().unwrap();
        if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
            return message;
        }
    }
}

/// The text frames before the close, then its code and reason.
async fn until_closed(socket: &mut Client) -> (Value, Option<(u16, String)>) {
    let mut frames = Vec::new();
    loop {
        match next(socket).await {
            Message::Text(text) => frames.push(serde_json::from_str(text.as_str()).unwrap()),
            Message::Close(close) => {
                let close = close.map(|close| (close.code.into(), close.reason.as_str().to_owned()));
                return (Value::Array(frames), close);
            }
            _ => {}
        }
    }
}
