//! A scripted upstream on loopback: a raw HTTP/1.1 server that answers as told and remembers what it saw.
//!
//! ```ignore
//! let upstream = ScriptedUpstream::start().await;
//! upstream.for_key("bad-key").always(Reply::refusal(401, "no such key"));
//! upstream.any_key().next(Reply::reset_after_head());
//! upstream.any_key().always(Reply::stream(&["Hel", "lo"], Some((9, 2))).paced(Duration::from_millis(20)));
//! // … run the code under test against `upstream.base_url()` …
//! upstream.wait_for(3).await;
//! assert_eq!(upstream.tally().completion_tokens, 2);
//! ```
//!
//! The reply of a request is the first that exists: next for its key, next for any key, always for its key, always
//! for any key, else 500. A key is what follows `Bearer ` in `authorization` (or the whole value without that word).

#![expect(dead_code, unreachable_pub, reason = "each suite uses a part of it")]

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// One thing the upstream does on the connection, in order.
#[derive(Clone, Debug)]
pub enum Step {
    /// Writes these bytes as they are.
    Write(Vec<u8>),
    /// Writes these bytes as one chunk of a chunked body.
    Chunk(Vec<u8>),
    /// Waits, watching for the client to leave.
    Pause(Duration),
    /// Does nothing until the client leaves.
    Hang,
    /// Ends with a TCP reset.
    Reset,
    /// Ends with an orderly close, whatever was promised.
    Close,
    /// Counts the completion as delivered.
    Delivered,
}

/// A whole answer. Build with one of the constructors and refine with the builder methods.
#[derive(Clone, Debug)]
pub struct Reply {
    steps: Vec<Step>,
    usage: Option<(u64, u64)>,
}

impl Reply {
    /// Exactly these steps.
    pub fn steps(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), usage: None }
    }

    /// A status, headers and a body with its length.
    pub fn plain(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let length = body.len().to_string();
        let mut all = vec![("content-length", length.as_str())];
        all.extend_from_slice(headers);
        let mut bytes = head(status, &all);
        bytes.extend_from_slice(body);
        Self::steps([Step::Write(bytes)])
    }

    /// A JSON document.
    pub fn json(status: u16, document: &Value) -> Self {
        Self::plain(status, &[("content-type", "application/json")], document.to_string())
    }

    /// A refusal in the form OpenAI-compatible upstreams use.
    pub fn refusal(status: u16, message: &str) -> Self {
        Self::json(status, &json!({ "error": { "message": message, "type": "scripted", "code": null } }))
    }

    /// A refusal that says when to come back.
    pub fn retry_after(status: u16, retry_after: &str) -> Self {
        Self::plain(status, &[("retry-after", retry_after), ("content-type", "application/json")], "{}")
    }

    /// A complete answer that is not streamed. `usage` is prompt and completion tokens.
    pub fn completion(text: &str, usage: Option<(u64, u64)>) -> Self {
        let document = json!({
            "id": "chatcmpl-scripted", "object": "chat.completion", "created": 1_700_000_000, "model": "scripted",
            "choices": [{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": text } }],
            "usage": usage.map(usage_json),
        });
        let mut reply = Self::json(200, &document);
        reply.steps.push(Step::Delivered);
        reply.usage = usage;
        reply
    }

    /// A 200 whose JSON body is an error.
    pub fn error_inside_success(message: &str) -> Self {
        Self::json(200, &json!({ "error": { "message": message } }))
    }

    /// A complete event stream: one event per token, the usage event when `usage` is given, and `[DONE]`.
    pub fn stream(tokens: &[&str], usage: Option<(u64, u64)>) -> Self {
        let mut events: Vec<Value> = vec![delta(json!({ "role": "assistant", "content": "" }), None)];
        events.extend(tokens.iter().map(|token| delta(json!({ "content": token }), None)));
        events.push(delta(json!({}), Some("stop")));
        events.extend(usage.map(|usage| {
            let mut event = delta(json!({}), None);
            event["choices"] = json!([]);
            event["usage"] = usage_json(usage);
            event
        }));
        let mut reply = Self::events(events.iter().map(|event| format!("data: {event}\n\n")));
        reply.steps.push(Step::Chunk(b"data: [DONE]\n\n".to_vec()));
        reply.steps.push(Step::Delivered);
        reply.steps.push(Step::Write(LAST_CHUNK.to_vec()));
        reply.usage = usage;
        reply
    }

    /// An event-stream head and one chunk per given text; the body is left open.
    pub fn events(texts: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        let mut steps = vec![Step::Write(event_stream_head())];
        steps.extend(texts.into_iter().map(|text| Step::Chunk(text.into())));
        Self::steps(steps)
    }

    /// Says nothing at all.
    pub fn hang_before_head() -> Self {
        Self::steps([Step::Hang])
    }

    /// Sends the head of an event stream and nothing more.
    pub fn hang_after_head() -> Self {
        Self::steps([Step::Write(event_stream_head()), Step::Hang])
    }

    /// Sends the head of an event stream, then resets.
    pub fn reset_after_head() -> Self {
        Self::steps([Step::Write(event_stream_head()), Step::Pause(Duration::from_millis(20)), Step::Reset])
    }

    /// Compressed although nobody asked for it.
    pub fn gzipped() -> Self {
        Self::plain(200, &[("content-encoding", "gzip"), ("content-type", "application/json")], [0x1f, 0x8b, 8, 0])
    }

    /// Sends the caller elsewhere.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::plain(status, &[("location", location)], "")
    }

    /// Waits before everything else.
    pub fn delayed(mut self, pause: Duration) -> Self {
        self.steps.insert(0, Step::Pause(pause));
        self
    }

    /// Waits before every chunk.
    pub fn paced(mut self, pause: Duration) -> Self {
        let paced = self.steps.into_iter().flat_map(|step| match step {
            Step::Chunk(_) => vec![Step::Pause(pause), step],
            other => vec![other],
        });
        self.steps = paced.collect();
        self
    }

    /// Keeps what happens up to and including the `chunks`-th chunk, then does `step`.
    pub fn cut_after(mut self, chunks: usize, step: Step) -> Self {
        let mut left = chunks;
        self.steps.retain(|step| match step {
            Step::Chunk(_) if left > 0 => {
                left -= 1;
                true
            }
            Step::Chunk(_) | Step::Delivered => false,
            Step::Write(bytes) => bytes != LAST_CHUNK,
            _ => left > 0,
        });
        self.steps.push(step);
        self
    }

    /// Delivers everything, then leaves the body open until the client goes.
    pub fn hang_at_end(mut self) -> Self {
        self.steps.retain(|step| !matches!(step, Step::Write(bytes) if bytes == LAST_CHUNK));
        self.steps.push(Step::Hang);
        self
    }

    /// Does one more thing at the end.
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

/// One request, as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Upper-case.
    pub method: String,
    /// With its query.
    pub path: String,
    /// In order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Whole.
    pub body: Vec<u8>,
    /// From `authorization`.
    pub key: Option<String>,
    /// When its last byte was read.
    pub at: Instant,
    /// How its answer ended; absent while it runs.
    pub ended: Option<Ended>,
}

impl Seen {
    /// The first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// How long after the request the client left, if it left before the script was through.
    pub fn left_after(&self) -> Option<Duration> {
        match self.ended {
            Some(Ended::ClientLeft { at }) => Some(at.duration_since(self.at)),
            _ => None,
        }
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The script was through.
    Played,
    /// The client closed the connection before.
    ClientLeft {
        /// When that was noticed.
        at: Instant,
    },
}

/// What was given away, to hold against the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Completions delivered to their end.
    pub completions: u64,
    /// Of those, tokens read.
    pub prompt_tokens: u64,
    /// Of those, tokens written.
    pub completion_tokens: u64,
}

/// The running server; ends when dropped.
pub struct ScriptedUpstream {
    address: SocketAddr,
    state: Arc<State>,
    _running: JoinSet<()>,
}

impl ScriptedUpstream {
    /// Listens on a free loopback port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { inner: Mutex::default(), changed: watch::channel(()).0 });
        let mut running = JoinSet::new();
        running.spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, _running: running }
    }

    /// What goes into `baseURL` of a routing document.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The full address of chat completions.
    pub fn chat_url(&self) -> String {
        format!("{}/chat/completions", self.base_url())
    }

    /// Scripts requests that carry this key.
    pub fn for_key(&self, key: &str) -> Script<'_> {
        Script { upstream: self, key: Some(key.to_owned()) }
    }

    /// Scripts requests that no script of their key covers.
    pub fn any_key(&self) -> Script<'_> {
        Script { upstream: self, key: None }
    }

    /// Every request so far, in order of arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().seen.clone()
    }

    /// The requests of one key.
    pub fn seen_with(&self, key: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.key.as_deref() == Some(key)).collect()
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.state.lock().connections
    }

    /// What was given away so far.
    pub fn tally(&self) -> Tally {
        self.state.lock().tally
    }

    /// Waits until at least `count` requests arrived.
    pub async fn wait_for(&self, count: usize) -> Vec<Seen> {
        self.wait_until(|seen| seen.len() >= count, "requests").await
    }

    /// Waits until the answer of request `index` ended.
    pub async fn wait_ended(&self, index: usize) -> Seen {
        let ended = |seen: &[Seen]| seen.get(index).is_some_and(|seen| seen.ended.is_some());
        self.wait_until(ended, "the end of an answer").await.swap_remove(index)
    }

    async fn wait_until(&self, done: impl Fn(&[Seen]) -> bool, what: &str) -> Vec<Seen> {
        let mut changed = self.state.changed.subscribe();
        let waiting = async {
            loop {
                let seen = self.seen();
                if done(&seen) {
                    return seen;
                }
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        waited.unwrap_or_else(|_| panic!("the scripted upstream waited 20 s for {what}: {:#?}", self.seen()))
    }
}

/// Where a reply goes.
pub struct Script<'a> {
    upstream: &'a ScriptedUpstream,
    key: Option<String>,
}

impl Script<'_> {
    /// Answers one request, after those already queued.
    pub fn next(&self, reply: Reply) -> &Self {
        self.upstream.state.lock().next.entry(self.key.clone()).or_default().push_back(reply);
        self
    }

    /// Answers every request for which nothing is queued.
    pub fn always(&self, reply: Reply) -> &Self {
        self.upstream.state.lock().always.insert(self.key.clone(), reply);
        self
    }
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

struct State {
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    next: HashMap<Option<String>, VecDeque<Reply>>,
    always: HashMap<Option<String>, Reply>,
    seen: Vec<Seen>,
    tally: Tally,
    connections: usize,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrived(&self, seen: Seen) -> (usize, Reply) {
        let mut inner = self.lock();
        let key = seen.key.clone();
        let next = |inner: &mut Inner, key| inner.next.get_mut(key).and_then(VecDeque::pop_front);
        let reply = next(&mut inner, &key)
            .or_else(|| next(&mut inner, &None))
            .or_else(|| inner.always.get(&key).or_else(|| inner.always.get(&None)).cloned())
            .unwrap_or_else(|| Reply::refusal(500, "nothing was scripted for this request"));
        inner.seen.push(seen);
        let index = inner.seen.len() - 1;
        drop(inner);
        self.changed.send_replace(());
        (index, reply)
    }

    fn ended(&self, index: usize, ended: Ended) {
        self.lock().seen[index].ended = Some(ended);
        self.changed.send_replace(());
    }

    fn delivered(&self, usage: Option<(u64, u64)>) {
        let (prompt, completion) = usage.unwrap_or_default();
        let tally = &mut self.lock().tally;
        tally.completions += 1;
        tally.prompt_tokens += prompt;
        tally.completion_tokens += completion;
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        state.lock().connections += 1;
        connections.spawn(serve(socket, Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection: requests in turn until either side ends it.
async fn serve(mut socket: TcpStream, state: Arc<State>) {
    let _ = socket.set_nodelay(true);
    let mut pending = Vec::new();
    while let Some(seen) = read_request(&mut socket, &mut pending).await {
        let (index, reply) = state.arrived(seen);
        match play(&mut socket, &mut pending, &reply, &state).await {
            Played::Through => state.ended(index, Ended::Played),
            Played::Over => return state.ended(index, Ended::Played),
            Played::Reset => {
                let _ = socket.set_zero_linger();
                drop(socket);
                return state.ended(index, Ended::Played);
            }
            Played::ClientLeft => return state.ended(index, Ended::ClientLeft { at: Instant::now() }),
        }
    }
}

enum Played {
    Through,
    Over,
    Reset,
    ClientLeft,
}

async fn play(socket: &mut TcpStream, pending: &mut Vec<u8>, reply: &Reply, state: &State) -> Played {
    for step in &reply.steps {
        let stayed = match step {
            Step::Write(bytes) => write(socket, pending, bytes).await,
            Step::Chunk(bytes) => {
                let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
                framed.extend_from_slice(bytes);
                framed.extend_from_slice(b"\r\n");
                write(socket, pending, &framed).await
            }
            Step::Pause(pause) => tokio::time::timeout(*pause, client_leaves(socket, pending)).await.is_err(),
            Step::Hang => {
                client_leaves(socket, pending).await;
                false
            }
            Step::Delivered => {
                state.delivered(reply.usage);
                true
            }
            Step::Reset => return Played::Reset,
            Step::Close => return Played::Over,
        };
        if !stayed {
            return Played::ClientLeft;
        }
    }
    Played::Through
}

/// Writes while watching for the client to leave; `false` when it did.
async fn write(socket: &mut TcpStream, pending: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let (mut reader, mut writer) = socket.split();
    let mut buffer = [0; 1024];
    let writing = writer.write_all(bytes);
    tokio::pin!(writing);
    loop {
        tokio::select! {
            biased;
            written = &mut writing => return written.is_ok(),
            read = reader.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return false,
                Ok(count) => pending.extend_from_slice(&buffer[..count]),
            },
        }
    }
}

/// Ends when the client closes; what it sends meanwhile is kept for the next request.
async fn client_leaves(socket: &mut TcpStream, pending: &mut Vec<u8>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = socket.read(&mut buffer).await {
        pending.extend_from_slice(&buffer[..count]);
    }
}

async fn read_request(socket: &mut TcpStream, pending: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(at) = pending.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        read_more(socket, pending).await?;
    };
    let text = String::from_utf8_lossy(&pending[..end]).into_owned();
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let find = |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    let length: usize = find("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    let key = find("authorization").map(|value| value.strip_prefix("Bearer ").unwrap_or(value).to_owned());
    let begin = end + 4;
    while pending.len() < begin + length {
        read_more(socket, pending).await?;
    }
    let body = pending[begin..begin + length].to_vec();
    pending.drain(..begin + length);
    Some(Seen { method, path, headers, body, key, at: Instant::now(), ended: None })
}

async fn read_more(socket: &mut TcpStream, pending: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    match socket.read(&mut buffer).await {
        Ok(count @ 1..) => {
            pending.extend_from_slice(&buffer[..count]);
            Some(())
        }
        _ => None,
    }
}

fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

fn event_stream_head() -> Vec<u8> {
    head(200, &[("content-type", "text/event-stream"), ("transfer-encoding", "chunked")])
}

fn delta(delta: Value, finish: Option<&str>) -> Value {
    json!({
        "id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "scripted",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
    })
}

fn usage_json((prompt, completion): (u64, u64)) -> Value {
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
}
