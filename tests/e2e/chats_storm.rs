//! Two servers on one PostgreSQL and one Redis, devices that drop whenever they like, Redis cut off and restarted in
//! between: every device ends with exactly what the database has.
//!
//! `TEST_CHAT_MESSAGES` says how many messages; a few thousand when it is not set.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::caller::Caller;
use crate::server::{Mode, Server};
use crate::stores::{Cable, PATIENCE, eventually};

const PEOPLE: usize = 4;
const CHATS: usize = 4;
const USUAL: usize = 6_000;
/// Messages of one push, at most.
const BATCH: usize = 12;
/// A device drops once in so many frames.
const DROPS: u64 = 60;

fn asked_for() -> usize {
    std::env::vars()
        .find_map(|(name, value)| (name == "TEST_CHAT_MESSAGES").then(|| value.parse().unwrap()))
        .unwrap_or(USUAL)
}

/// What all devices look at.
struct Storm {
    /// Messages of which the server said that they are stored.
    stored: AtomicUsize,
    /// Devices whose messages are all stored.
    finished: AtomicUsize,
    /// From here on nobody drops.
    calm: AtomicBool,
    drops: AtomicUsize,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One device: the shipped client's rules, and a memory of what it was told.
struct Device {
    name: String,
    url: String,
    storm: Arc<Storm>,
    dice: u64,
    /// What it has of each chat: number to id.
    logs: HashMap<String, BTreeMap<i64, String>>,
    /// The shipped client's cursor: the highest number it was told of.
    cursors: HashMap<String, i64>,
    own: HashSet<String>,
    outbox: VecDeque<(String, String)>,
    done: bool,
}

impl Device {
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides
    }

    /// Opens a socket and pulls each chat, one page only, as the shipped client does.
    async fn connect(&self) -> Option<Socket> {
        let (mut socket, _) = connect_async(&self.url).await.ok()?;
        for chat in 0..CHATS {
            let chat = format!("chat-{chat}");
            let after = self.cursors.get(&chat).copied().unwrap_or(0);
            let content = json!({ "chatId": chat, "afterSeq": after });
            socket.send(call("chat:pull-messages", &format!("pull:{chat}"), &content)).await.ok()?;
        }
        Some(socket)
    }

    /// Sends what waits for one chat, at most a batch; its answer names how many.
    async fn push(&mut self, socket: &mut Socket) -> Option<()> {
        let Some((chat, _)) = self.outbox.front().cloned() else { return Some(()) };
        let most = 1 + usize::try_from(self.roll(BATCH as u64)).unwrap();
        let ids: Vec<_> = self.outbox.iter().take_while(|(of, _)| *of == chat).take(most).map(|(_, id)| id).collect();
        let messages: Vec<_> =
            ids.iter().map(|id| json!({ "id": id, "role": "user", "content": format!("{id} says hello") })).collect();
        let id = format!("push:{}", messages.len());
        let content = json!({ "chatId": chat, "messages": messages });
        socket.send(call("chat:send-messages", &id, &content)).await.ok()
    }

    fn merge(&mut self, chat: &str, messages: &[Value], seq: i64) {
        let log = self.logs.entry(chat.to_owned()).or_default();
        for message in messages {
            let (number, id) = (message["seq"].as_i64().unwrap(), message["id"].as_str().unwrap());
            let before = log.insert(number, id.to_owned());
            assert!(before.is_none_or(|before| before == id), "{}: two messages have number {number}", self.name);
        }
        let cursor = self.cursors.entry(chat.to_owned()).or_default();
        *cursor = seq.max(*cursor);
    }

    /// Takes a frame; `told` is what this socket was pushed last of each chat.
    fn take(&mut self, frame: &Value, told: &mut HashMap<String, i64>, pushing: &mut bool) {
        let kind = frame["type"].as_str().unwrap();
        let body = &frame["payload"]["body"];
        if kind == "chat:new-messages" {
            let chat = body["chatId"].as_str().unwrap();
            let numbers: Vec<i64> =
                body["messages"].as_array().unwrap().iter().map(|message| message["seq"].as_i64().unwrap()).collect();
            assert!(numbers.is_sorted_by(|one, other| one < other), "{}: out of order in a push", self.name);
            if let (Some(first), Some(last)) = (numbers.first(), numbers.last()) {
                let before = told.insert(chat.to_owned(), *last);
                // Only what a first page could not hold is told behind a push that overtook it.
                let again = before.is_some_and(|before| *first <= before);
                assert!(!again || told.remove(&format!("page {chat}")).is_some(), "{}: told twice", self.name);
            }
            self.merge(chat, body["messages"].as_array().unwrap(), body["toSeq"].as_i64().unwrap());
        } else if let Some(chat) = kind.strip_prefix("chat:pull-messages-receive-pull:") {
            let page = &body["content"];
            if page["hasMore"] == true {
                told.insert(format!("page {chat}"), 0);
            }
            self.merge(chat, page["messages"].as_array().unwrap(), page["seq"].as_i64().unwrap());
        } else if let Some(count) = kind.strip_prefix("chat:send-messages-receive-push:") {
            for _ in 0..count.parse::<usize>().unwrap() {
                let (_, id) = self.outbox.pop_front().unwrap();
                self.own.insert(id);
                self.storm.stored.fetch_add(1, Ordering::Relaxed);
            }
            *pushing = false;
        } else {
            assert!(kind.ends_with(":connected"), "{}: {frame}", self.name);
        }
        if self.outbox.is_empty() && !std::mem::replace(&mut self.done, true) {
            self.storm.finished.fetch_add(1, Ordering::Relaxed);
        }
        self.done = self.outbox.is_empty();
    }

    /// Lives until the storm is over and `whole` says that it has everything, or nothing more comes.
    async fn live(mut self, whole: impl Fn(&Self) -> bool) -> Self {
        let mut quiet = Instant::now();
        'sockets: loop {
            let Some(mut socket) = self.connect().await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let (mut told, mut pushing) = (HashMap::new(), false);
            loop {
                if self.storm.calm.load(Ordering::Relaxed) {
                    if whole(&self) || quiet.elapsed() > PATIENCE {
                        return self;
                    }
                } else if self.roll(DROPS) == 0 {
                    self.storm.drops.fetch_add(1, Ordering::Relaxed);
                    // Sometimes away for a while, sometimes with a word, mostly without.
                    if self.roll(4) == 0 {
                        drop(socket.close(None).await);
                    }
                    drop(socket);
                    let pause = self.roll(60);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    continue 'sockets;
                }
                if !pushing && !self.outbox.is_empty() {
                    pushing = true;
                    if self.push(&mut socket).await.is_none() {
                        continue 'sockets;
                    }
                }
                match tokio::time::timeout(Duration::from_millis(200), socket.next()).await {
                    Ok(Some(Ok(Message::Text(text)))) => {
                        quiet = Instant::now();
                        self.take(&serde_json::from_str(&text).unwrap(), &mut told, &mut pushing);
                    }
                    Ok(Some(Ok(Message::Ping(_)))) | Err(_) => {}
                    Ok(Some(Ok(other))) => panic!("{}: {other:?}", self.name),
                    Ok(Some(Err(_)) | None) => continue 'sockets,
                }
            }
        }
    }
}

fn call(name: &str, id: &str, content: &Value) -> Message {
    let body = json!({ "invokeId": id, "content": content });
    Message::text(json!({ "type": format!("{name}-send"), "payload": { "body": body } }).to_string())
}

async fn chats(url: &str, people: &[Caller]) {
    for chat in 0..CHATS {
        let members: Vec<_> = people.iter().map(|person| json!({ "type": "user", "userId": person.id })).collect();
        let body = json!({ "id": format!("chat-{chat}"), "members": members });
        let answer = crate::caller::client()
            .post(format!("{url}/api/v1/chats"))
            .bearer_auth(&people[0].token)
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201);
    }
}

/// Number and id of every message.
async fn stored(database: &str) -> HashMap<String, BTreeMap<i64, String>> {
    let mut connection = PgConnection::connect(database).await.unwrap();
    let rows: Vec<(String, i32, String)> =
        sqlx::query_as("SELECT chat_id, seq, id FROM messages").fetch_all(&mut connection).await.unwrap();
    let mut logs: HashMap<String, BTreeMap<i64, String>> = HashMap::new();
    let total = rows.len();
    for (chat, seq, id) in rows {
        logs.entry(chat).or_default().insert(seq.into(), id);
    }
    assert_eq!(logs.values().map(BTreeMap::len).sum::<usize>(), total, "two messages have one number");
    logs
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_doubled_or_out_of_order_whatever_drops() {
    let total = asked_for();
    let mut stores = Server::install(Mode::Services).await;
    let redis = url::Url::parse(&stores.redis.as_ref().unwrap().url()).unwrap();
    let mut cable = Cable::to(("127.0.0.1".to_owned(), redis.port().unwrap())).await;
    stores.set("REDIS_URL", &format!("redis://{}", cable.address()));
    // The shipped client takes the number of a push for the end of what it has, even before its first page has come.
    stores.set("WS_HOLD_FIRST_PUSHES", "true");
    let people: Vec<Caller> = (0..PEOPLE).map(|n| stores.user(&format!("person-{n}"), 0)).collect();
    let mut one = stores.twin();
    one.start().await;
    let mut two = stores.twin();
    two.start().await;
    chats(&one.url(), &people).await;

    let storm = Arc::new(Storm {
        stored: AtomicUsize::new(0),
        finished: AtomicUsize::new(0),
        calm: AtomicBool::new(false),
        drops: AtomicUsize::new(0),
    });
    let each = total / (PEOPLE * 2);
    let total = each * PEOPLE * 2;
    let begun = Instant::now();
    let mut devices = tokio::task::JoinSet::new();
    for (n, (person, server)) in people.iter().flat_map(|person| [(person, &one), (person, &two)]).enumerate() {
        let name = format!("device-{n}");
        let outbox = (0..each).map(|k| (format!("chat-{}", (k / 7 + n) % CHATS), format!("{name}-{k:06}"))).collect();
        let device = Device {
            url: format!("{}/ws/chat?token={}", server.url().replacen("http", "ws", 1), person.token),
            storm: storm.clone(),
            dice: n as u64,
            logs: HashMap::new(),
            cursors: HashMap::new(),
            own: HashSet::new(),
            outbox,
            done: false,
            name,
        };
        devices.spawn(device.live(move |device| {
            let heard: HashSet<&String> = device.logs.values().flat_map(BTreeMap::values).collect();
            heard.union(&device.own.iter().collect()).count() == total + CHATS
        }));
    }

    let reached = async |part: usize| {
        let enough = total * part / 100;
        let slow = Duration::from_secs(60) + Duration::from_millis(10 * total as u64);
        let wait = async {
            while storm.stored.load(Ordering::Relaxed) < enough {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(slow, wait).await.unwrap_or_else(|_| panic!("{part} % were not stored in {slow:?}"));
    };
    reached(20).await;
    stores.redis.as_mut().unwrap().stop();
    reached(35).await;
    stores.redis.as_mut().unwrap().resume().await;
    reached(50).await;
    cable.cut().await;
    reached(65).await;
    cable.mend().await;
    reached(100).await;
    let took = begun.elapsed();

    // A word in each chat, so that who is behind finds out, as with the shipped client.
    storm.calm.store(true, Ordering::Relaxed);
    let last = format!("{}/ws/chat?token={}", two.url().replacen("http", "ws", 1), people[0].token);
    let (mut socket, _) = connect_async(last).await.unwrap();
    for chat in 0..CHATS {
        let message = json!([{ "id": format!("last-{chat}"), "role": "assistant", "content": "that was all" }]);
        let content = json!({ "chatId": format!("chat-{chat}"), "messages": message });
        socket.send(call("chat:send-messages", "last", &content)).await.unwrap();
    }
    let database = stores.database.as_ref().unwrap().url();
    let logs = eventually("the last words", async || {
        let logs = stored(&database).await;
        (logs.values().map(BTreeMap::len).sum::<usize>() == total + CHATS).then_some(logs)
    })
    .await;
    for log in logs.values() {
        assert!(log.keys().copied().eq(1..=log.len() as i64), "the numbers of a chat have a gap");
        let mut latest: HashMap<&str, &str> = HashMap::new();
        for id in log.values() {
            let device = id.rsplit_once('-').unwrap().0;
            assert!(latest.insert(device, id).is_none_or(|before| before < id.as_str()), "{id} overtook another");
        }
    }
    let devices = tokio::time::timeout(PATIENCE * 2, devices.join_all()).await.expect("a device misses messages");
    for device in devices {
        for (chat, log) in &logs {
            let has = &device.logs[chat];
            assert!(has.iter().all(|(seq, id)| log.get(seq) == Some(id)), "{} has other numbers", device.name);
            let missed: Vec<_> =
                log.iter().filter(|(seq, id)| !has.contains_key(seq) && !device.own.contains(*id)).collect();
            let cursor = device.cursors[chat];
            assert!(missed.is_empty(), "{} of {chat} misses {missed:?} before {cursor}", device.name);
        }
        assert_eq!(device.own.len(), each);
    }
    let drops = storm.drops.load(Ordering::Relaxed);
    assert!(drops > total / 500, "only {drops} drops");
    assert!(two.log().contains("chat event could not be published"), "redis was never missed");
    eprintln!("{total} messages, {drops} drops, {took:?}");
}
