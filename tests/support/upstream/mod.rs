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

mod reply;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use reply::{Reply, Step};

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
    let mut buffer = vec![0; 16 * 1024];
    match socket.read(&mut buffer).await {
        Ok(count @ 1..) => {
            pending.extend_from_slice(&buffer[..count]);
            Some(())
        }
        _ => None,
    }
}
