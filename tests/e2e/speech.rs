//! Speech of the built binary: foreign clients, ten-minute clips in little memory, fallback, and a killed process.

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, connect_async};

use crate::caller::Caller;
use crate::foreign_clients::script;
use crate::server::{Mode, Server, in_both_modes};
use crate::stores::{eventually, exported};
use crate::upstream::{Ended, Reply, ScriptedUpstream, Step};

in_both_modes!(
    node_speaks_into_a_file,
    python_speaks_into_a_file,
    a_provider_that_fails_is_replaced_only_before_the_first_byte,
    ten_minutes_over_http_need_little_memory,
    ten_minutes_over_sockets_need_little_memory,
    no_unit_is_lost_or_doubled_by_a_kill,
);

const GRANT: i64 = 1_000;
/// At the price of 2 flux per 1 000 characters.
const UNITS_PER_FLUX: i64 = 500;

/// Thai, Han, an emoji family and a rare Han character: 37 units, as UTF-16 has them.
const TEXT: &str = "สวัสดีชาวโลก 你好，世界。 👨‍👩‍👧 𠮷 hello";

async fn node_speaks_into_a_file(mode: Mode) {
    let mut client = Command::new("node");
    client.arg(script("node/speech.cjs")).env("NODE_PATH", exported("TEST_NODE_MODULES"));
    speaks_into_a_file(mode, client).await;
}

async fn python_speaks_into_a_file(mode: Mode) {
    let mut client = Command::new(exported("TEST_PYTHON"));
    client.arg(script("python/speech.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    speaks_into_a_file(mode, client).await;
}

async fn speaks_into_a_file(mode: Mode, mut client: Command) {
    let mut server = Server::install(mode).await;
    server.set("AIRI_SANDBOX", "true");
    let caller = server.user("speaker", GRANT);
    server.start().await;
    let file = server.directory().join("spoken.wav");
    client.env("OPENAI_BASE_URL", format!("{}/api/v1", server.url())).env("OPENAI_API_KEY", &caller.token);
    client.env("TEXT", TEXT).env("OUTPUT", &file).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || client.output()).await.unwrap();
    let output = output.expect("the client could not be started; run ./scripts/test");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{complained}", output.status);
    let told: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}\n{complained}"));
    let units = i64::try_from(TEXT.encode_utf16().count()).unwrap();
    assert_eq!((&told["type"], &told["units"]), (&json!("audio/wav"), &json!(units.to_string())));
    assert!(told["timing"].as_str().unwrap().starts_with("ttfa;dur="), "{told}");
    assert_eq!(told["refused"], json!({ "status": 400, "kind": "BadRequestError" }));

    let mut probe = Command::new("ffprobe");
    probe.args(["-v", "error", "-show_entries", "stream=codec_type,codec_name:format=duration", "-of", "json"]);
    let probed = probe.arg(&file).output().expect("ffprobe is not installed; run ./scripts/test");
    let complained = String::from_utf8_lossy(&probed.stderr);
    assert!(probed.status.success() && complained.is_empty(), "{complained}");
    let heard: Value = serde_json::from_slice(&probed.stdout).unwrap();
    assert_eq!(heard["streams"], json!([{ "codec_name": "pcm_s16le", "codec_type": "audio" }]));
    let seconds: f64 = heard["format"]["duration"].as_str().unwrap().parse().unwrap();
    assert!(seconds > 0.2, "{heard}");
    let books = server.books().await;
    let used =
        eventually("the use", async || Some(books.metered(&caller.id).await).filter(|used| !used.is_empty())).await;
    assert_eq!(used, [units], "the refused text costs nothing");
}

/// A server whose only voice is an Azure-shaped upstream of ours, with two keys; `auto` means it.
async fn with_voice(mode: Mode, base_url: &str, kind: &str, users: &[&str]) -> (Server, Vec<Caller>) {
    let mut server = Server::install(mode).await;
    let slice = match kind {
        "azure" => json!({ "kind": "azure", "modelName": "voice", "region": "test", "plaintextKey": "k3y" }),
        _ => {
            json!({ "kind": "dashscope-cosyvoice", "modelName": "voice", "region": "cn", "upstreamModel": "cosyvoice-v2", "plaintextKey": "k3y" })
        }
    };
    let socket = json!({ "kind": "streaming-tts", "upstreamURL": "ws://127.0.0.1:9/v1", "plaintextKey": "k3y" });
    server.route(&json!({ "slices": [slice, socket], "defaults": { "ttsModel": "voice" } }));
    let callers = users.iter().map(|name| server.user(name, GRANT)).collect();
    let mut tree = server.entry("LLM_ROUTER_CONFIG").await;
    let upstream = &mut tree["tts"]["models"]["voice"]["upstreams"][0];
    upstream["baseURL"] = Value::from(base_url);
    let key = upstream["keys"][0].clone();
    upstream["keys"] = json!([key, key]);
    server.configure("LLM_ROUTER_CONFIG", &tree).await;
    let mut streaming = server.entry("STREAMING_TTS_UPSTREAM").await;
    streaming["baseURL"] = Value::from(base_url.replacen("http", "ws", 1));
    server.configure("STREAMING_TTS_UPSTREAM", &streaming).await;
    server.configure("FLUX_PER_1K_CHARS_TTS", &json!(2)).await;
    server.start().await;
    (server, callers)
}

fn speaking(caller: &Caller, text: &str) -> reqwest::RequestBuilder {
    let body = json!({ "model": "auto", "input": text, "response_format": "mp3" });
    let request = crate::caller::client().post(format!("{}/api/v1/audio/speech", caller.url));
    request.bearer_auth(&caller.token).header("content-type", "application/json").body(body.to_string())
}

fn head() -> Step {
    Step::Write(b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n".to_vec())
}

/// Whatever a player takes for MP3 at first sight.
fn piece(bytes: usize) -> Vec<u8> {
    let mut piece = vec![0x55; bytes];
    piece[..3].copy_from_slice(b"ID3");
    piece
}

fn clip(pieces: usize, bytes: usize) -> Reply {
    let chunks = (0..pieces).map(|_| Step::Chunk(piece(bytes)));
    Reply::steps(std::iter::once(head()).chain(chunks)).then(Step::Write(b"0\r\n\r\n".to_vec()))
}

async fn a_provider_that_fails_is_replaced_only_before_the_first_byte(mode: Mode) {
    let upstream = ScriptedUpstream::start().await;
    let (server, callers) = with_voice(mode, &upstream.base_url(), "azure", &["speaker"]).await;
    upstream.any_key().next(Reply::plain(429, &[], "")).next(clip(4, 1_000).paced(Duration::from_millis(150)));
    let answer = speaking(&callers[0], "twelve chars").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let timing = answer.headers()["server-timing"].to_str().unwrap().to_owned();
    let ms: f64 = timing.strip_prefix("ttfa;dur=").unwrap().parse().unwrap();
    assert!((150.0..600.0).contains(&ms), "the provider took 150 ms to its first byte: {timing}");
    assert_eq!(answer.bytes().await.unwrap().len(), 4_000);
    assert_eq!(upstream.seen().len(), 2);

    upstream.any_key().next(clip(4, 1_000).paced(Duration::from_millis(20)).cut_after(2, Step::Reset));
    let answer = speaking(&callers[0], "never told whole").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap_err();
    assert_eq!(upstream.seen().len(), 3, "nothing is tried after the first byte");
    let books = server.books().await;
    let log = eventually("both rows", async || Some(books.log().await).filter(|log| log.len() == 2)).await;
    let rows: Vec<_> = log.iter().map(|row| (row.status, row.fallback_depth)).collect();
    assert_eq!(rows, [(200, Some(1)), (502, Some(0))]);
    assert_eq!(books.metered(&callers[0].id).await, [12]);
}

/// Ten minutes at 192 kbit/s.
const PIECES: usize = 600;
const PIECE: usize = 24_000;
/// What one request may cost above idle, whatever its clip's length, and how many are heard at once.
const PER_REQUEST: u64 = 256 * 1024;
const AT_ONCE: usize = 16;

async fn ten_minutes_over_http_need_little_memory(mode: Mode) {
    let upstream = ScriptedUpstream::start().await;
    let (server, callers) = with_voice(mode, &upstream.base_url(), "azure", &["speaker"]).await;
    upstream.any_key().always(clip(10, PIECE));
    // Whatever is allocated once is there now.
    join_all((0..AT_ONCE).map(|_| hear(&callers[0], Duration::ZERO))).await;
    for (reply, pause) in [
        (clip(PIECES, PIECE).paced(Duration::from_millis(4)), Duration::ZERO),
        // A provider that is done at once, heard by somebody slow: what is not heard yet stays with the provider.
        (clip(PIECES, PIECE), Duration::from_millis(2)),
    ] {
        upstream.any_key().always(reply);
        let idle = settled_rss(server.pid()).await;
        let heard = join_all((0..AT_ONCE).map(|_| hear(&callers[0], pause))).await;
        let grown = peak(server.pid()).saturating_sub(idle);
        assert_eq!(heard, [PIECES * PIECE; AT_ONCE]);
        let most = PER_REQUEST * u64::try_from(AT_ONCE).unwrap();
        assert!(grown <= most, "{grown} bytes above idle for {AT_ONCE} requests, pausing {pause:?}");
    }
    assert!(upstream.seen().iter().all(|seen| seen.ended == Some(Ended::Played)));
}

/// Hears a clip to its end, pausing after every piece; answers its length.
async fn hear(caller: &Caller, pause: Duration) -> usize {
    let answer = speaking(caller, "ten minutes").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let (mut body, mut heard) = (answer.bytes_stream(), 0);
    while let Some(bytes) = body.next().await {
        heard += bytes.unwrap().len();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    heard
}

async fn ten_minutes_over_sockets_need_little_memory(mode: Mode) {
    let provider = Provider::start().await;
    let users = ["a", "b", "c", "d"];
    let (server, callers) = with_voice(mode, &provider.address, "dashscope-cosyvoice", &users).await;
    join_all((0..AT_ONCE).map(|n| through_the_socket(&callers[n % users.len()], "short"))).await;
    join_all((0..AT_ONCE).map(|n| spoken(&callers[n % users.len()], "short"))).await;
    let most = PER_REQUEST * u64::try_from(AT_ONCE).unwrap();

    let idle = settled_rss(server.pid()).await;
    let heard = join_all((0..AT_ONCE).map(|n| through_the_socket(&callers[n % users.len()], "long"))).await;
    let grown = peak(server.pid()).saturating_sub(idle);
    assert_eq!(heard, [PIECES * PIECE; AT_ONCE]);
    assert!(grown <= most, "{grown} bytes above idle for {AT_ONCE} sockets");

    let idle = settled_rss(server.pid()).await;
    let heard = join_all((0..AT_ONCE).map(|n| spoken(&callers[n % users.len()], "long"))).await;
    let grown = peak(server.pid()).saturating_sub(idle);
    assert_eq!(heard, [PIECES * PIECE; AT_ONCE]);
    assert!(grown <= most, "{grown} bytes above idle for {AT_ONCE} requests behind a provider's socket");
}

/// One-shot speech from a provider that streams over a socket of its own.
async fn spoken(caller: &Caller, text: &str) -> usize {
    let answer = speaking(caller, text).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let (mut body, mut heard) = (answer.bytes_stream(), 0);
    while let Some(bytes) = body.next().await {
        heard += bytes.unwrap().len();
    }
    heard
}

/// One session of the speech socket.
async fn through_the_socket(caller: &Caller, text: &str) -> usize {
    let address = caller.url.replacen("http", "ws", 1);
    let url = format!("{address}/api/v1/audio/speech/ws?token={}", caller.token);
    let (mut socket, _) = connect_async(url).await.unwrap();
    for said in [
        json!({ "event": "start", "model": "volcengine/seed-tts-2.0", "voice": "v" }),
        json!({ "event": "text", "text": text }),
        json!({ "event": "finish" }),
    ] {
        socket.send(Message::text(said.to_string())).await.unwrap();
    }
    let mut heard = 0;
    while let Some(message) = socket.next().await {
        match message.unwrap() {
            Message::Binary(bytes) => heard += bytes.len(),
            Message::Close(close) => {
                let close = close.unwrap();
                assert_eq!((u16::from(close.code), close.reason.as_str()), (1000, "session_finished"));
            }
            _ => {}
        }
    }
    heard
}

/// Speaks both protocols over WebSocket, by the first word it hears; the text says how long.
struct Provider {
    address: String,
    _running: JoinSet<()>,
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("ws://{}/v1", listener.local_addr().unwrap());
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sessions.spawn(async move { session(accept_async(stream).await.unwrap()).await });
            }
        });
        Self { address, _running: running }
    }
}

async fn session(mut socket: tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>) {
    let mut text = String::new();
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(said) = message else { continue };
        let said: Value = serde_json::from_str(said.as_str()).unwrap();
        let task = |event: &str| json!({ "header": { "event": event, "task_id": said["header"]["task_id"], "attributes": {} }, "payload": {} });
        let (begin, end) = match (said["event"].as_str(), said["header"]["action"].as_str()) {
            (Some("start"), _) => (Some(json!({ "event": "session.started" })), None),
            (_, Some("run-task")) => (Some(task("task-started")), None),
            (Some("text"), _) => {
                said["text"].as_str().unwrap().clone_into(&mut text);
                (None, None)
            }
            (_, Some("continue-task")) => {
                said["payload"]["input"]["text"].as_str().unwrap().clone_into(&mut text);
                (None, None)
            }
            (Some("finish"), _) => {
                let payload = json!({ "usage": { "text_words": text.len() } });
                (None, Some(json!({ "event": "session.finished", "payload": payload })))
            }
            (_, Some("finish-task")) => (None, Some(task("task-finished"))),
            _ => (None, None),
        };
        if let Some(begin) = begin {
            socket.send(Message::text(begin.to_string())).await.unwrap();
        }
        let Some(end) = end else { continue };
        for _ in 0..if text == "long" { PIECES } else { 10 } {
            socket.send(Message::binary(piece(PIECE))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        socket.send(Message::text(end.to_string())).await.unwrap();
    }
}

/// What the process holds once it holds the same for a moment; its peak is counted anew from here.
async fn settled_rss(pid: u32) -> u64 {
    let mut before = status(pid, "VmRSS:");
    let begun = Instant::now();
    let rss = eventually("memory at rest", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = status(pid, "VmRSS:");
        let rests = now.abs_diff(std::mem::replace(&mut before, now)) < 64 * 1024;
        (rests && begun.elapsed() > Duration::from_millis(500)).then_some(now)
    })
    .await;
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    rss
}

fn peak(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// A line of the process's status, bytes.
fn status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

async fn no_unit_is_lost_or_doubled_by_a_kill(mode: Mode) {
    const CALLS: usize = 80;
    let upstream = ScriptedUpstream::start().await;
    let users = ["a", "b", "c", "d"];
    let (mut server, callers) = with_voice(mode, &upstream.base_url(), "azure", &users).await;
    // Clips end over three seconds, so the kill finds some settled, some under way and some not begun.
    for n in 0..CALLS {
        upstream.any_key().next(clip(2, 1_000).delayed(Duration::from_millis(40 * u64::try_from(n).unwrap())));
    }
    let text = "x".repeat(333);
    let over = Mutex::new(Vec::new());
    let calls = (0..CALLS).map(|n| {
        let (caller, text, over) = (&callers[n % users.len()], &text, &over);
        async move {
            let answer = speaking(caller, text).send().await.ok().filter(|answer| answer.status() == 200)?;
            let whole = answer.bytes().await.ok()?;
            let now = Instant::now();
            over.lock().unwrap().push(now);
            (whole.len() == 2_000).then_some((n % users.len(), now))
        }
    });
    let mut calls = Box::pin(join_all(calls));
    let some_are_old = eventually("calls that were over a while ago", async || {
        let over = over.lock().unwrap();
        let old = over.first().is_some_and(|first| first.elapsed() > Duration::from_millis(1_500));
        (over.len() >= 20 && old).then_some(())
    });
    tokio::select! {
        _ = &mut calls => panic!("everything was over before the kill"),
        () = some_are_old => {}
    }
    let killed = Instant::now();
    server.kill();
    let delivered: Vec<_> = calls.await.into_iter().flatten().collect();
    assert!((10..CALLS).contains(&delivered.len()), "{} calls were over", delivered.len());

    server.start().await;
    upstream.any_key().always(clip(2, 1_000));
    let books = server.books().await;
    for (n, caller) in callers.iter().enumerate() {
        let used = books.metered(&caller.id).await;
        let due = delivered.iter().filter(|(who, at)| *who == n && killed - *at > Duration::from_secs(1)).count();
        assert!(used.len() >= due, "{} of {due} calls are metered", used.len());
        assert_balanced(&books, caller).await;
        let answer = speaking(caller, &text).send().await.unwrap();
        assert_eq!((answer.status(), answer.bytes().await.unwrap().len()), (reqwest::StatusCode::OK, 2_000));
        eventually("the next use", async || (books.metered(&caller.id).await.len() > used.len()).then_some(())).await;
        assert_balanced(&books, caller).await;
    }
    books.balance().await;
}

/// Accumulated is settled or owed.
async fn assert_balanced(books: &crate::books::Books, caller: &Caller) {
    let spoken: i64 = books.metered(&caller.id).await.iter().sum();
    let charges = books.charges().await;
    let taken: i64 = charges.iter().filter(|charge| charge.user_id == caller.id).map(|charge| charge.amount).sum();
    assert_eq!(spoken, taken * UNITS_PER_FLUX + books.debt(&caller.id).await);
    assert_eq!(books.balances().await[&caller.id], GRANT - taken);
}
