//! Every recorded exchange with the reference, played again through real sockets: the same frames come back but for ids,
//! times and what the contract wants to be different (contract `chats.md` §5.4, §9, §11).

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::house::{House, Peer};

/// A frame told apart from others: its type, the kind of answer, its body without times.
type Told = (String, Value, Value);

fn lines(fixture: &str) -> Vec<Value> {
    fixture.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Lines of one case that follow one another, without those of the library's demo server and of Redis.
fn cases(fixture: &str) -> Vec<(String, Vec<Value>)> {
    let mut cases: Vec<(String, Vec<Value>)> = Vec::new();
    for line in lines(fixture) {
        let case = line["case"].as_str().unwrap().to_owned();
        let elsewhere = line["conn"] == "generic" || line["direction"] == "redis-pubsub";
        match cases.last_mut() {
            _ if elsewhere => {}
            Some((name, group)) if *name == case => group.push(line),
            _ => cases.push((case, vec![line])),
        }
    }
    cases
}

/// Checks and removes what differs from run to run.
fn told(frame: &str) -> Told {
    let mut frame: Value = serde_json::from_str(frame).unwrap();
    assert_eq!(frame["id"].as_str().unwrap().len(), 36, "{frame}");
    assert!(frame["timestamp"].is_i64(), "{frame}");
    let payload = &frame["payload"];
    assert_eq!(
        (&payload["id"], &payload["type"], &payload["_flowDirection"]),
        (&frame["type"], &json!("event"), &json!("outbound"))
    );
    let invoke_type = payload["invokeType"].clone();
    let mut body = frame["payload"]["body"].take();
    for at in ["/messages", "/content/messages"] {
        let Some(messages) = body.pointer_mut(at).and_then(Value::as_array_mut) else { continue };
        for message in messages {
            for time in ["createdAt", "updatedAt"] {
                assert!(message.as_object_mut().unwrap().shift_remove(time).is_some_and(|time| time.is_i64()));
            }
        }
    }
    (frame["type"].as_str().unwrap().to_owned(), invoke_type, body)
}

fn message(id: &str, sender: Option<&str>, role: &str, content: &str, seq: i64) -> Value {
    json!({ "id": id, "chatId": "chat-1", "senderId": sender, "role": role, "content": content, "seq": seq })
}

fn result(call: &str, id: &str, content: &Value) -> Told {
    (format!("{call}-receive-{id}"), json!(4), json!({ "invokeId": id, "content": content }))
}

fn failure(call: &str, id: &str, error: &Value) -> Told {
    let mut whole = json!({ "name": "ApiError" });
    whole.as_object_mut().unwrap().extend(error.as_object().unwrap().clone());
    (format!("{call}-receive-error-{id}"), json!(5), json!({ "invokeId": id, "content": { "error": whole } }))
}

const SEND: &str = "chat:send-messages";
const PULL: &str = "chat:pull-messages";
const ONE: &str = "alice-device-1@instance-A";
const CAROL: &str = "carol@instance-A";

/// What the contract wants where the reference is wrong; `id` is that of the call. The second half is how far the
/// numbers of the chat lag behind the recorded ones from here on.
fn wanted<'a>(case: &str, id: &str) -> Option<(Vec<(&'a str, Told)>, i64)> {
    let alice = Some("user-alice");
    let invalid = || failure(SEND, id, &json!({ "statusCode": 400, "errorCode": "INVALID_REQUEST" }));
    let middle = [message("m-2", None, "assistant", "hi there", 2), message("m-3", alice, "user", "third", 3)];
    let (frames, lag) = match case.split(" (").next().unwrap() {
        "pull-messages: limit 1" => {
            let page = json!({ "messages": [message("m-1", alice, "user", "hello", 1)], "seq": 1, "hasMore": true });
            (vec![(ONE, result(PULL, id, &page))], 0)
        }
        "send-messages: empty list" => (vec![(ONE, result(SEND, id, &json!({ "seq": 4 })))], 0),
        "send-messages: another member overwrites a message" => {
            let details = json!({ "messageIds": ["m-3"] });
            let error = json!({ "statusCode": 403, "errorCode": "FORBIDDEN", "details": details });
            (vec![("bob@instance-B", failure(SEND, id, &error))], 1)
        }
        "send-messages: id that lives in another chat" => (vec![(CAROL, result(SEND, id, &json!({ "seq": 1 })))], 1),
        "pull-messages: after the lost write" => {
            let mut stored = message("m-1", Some("user-carol"), "user", "stolen id", 1);
            stored["chatId"] = json!("chat-2");
            (vec![(CAROL, result(PULL, id, &json!({ "messages": [stored], "seq": 1, "hasMore": false })))], 1)
        }
        "error: duplicate new id inside one batch" => {
            let push = json!({ "chatId": "chat-1", "messages": [message("dup", alice, "user", "2", 5)], "fromSeq": 5, "toSeq": 5 });
            let others = ["alice-device-2@instance-A", "alice-device-3@instance-B", "bob@instance-B"];
            let mut frames: Vec<_> =
                others.map(|other| (other, ("chat:new-messages".to_owned(), Value::Null, push.clone()))).into();
            frames.push((ONE, result(SEND, id, &json!({ "seq": 5 }))));
            (frames, 0)
        }
        "error: request body missing" | "error: messages missing" | "send-messages: null content" => {
            (vec![(ONE, invalid())], 0)
        }
        "pull-messages: afterSeq missing" => {
            let edited = message("m-1", alice, "user", "hello, edited", 4);
            let dup = message("dup", alice, "user", "2", 5);
            let all = [middle.as_slice(), &[edited, dup]].concat();
            (vec![(ONE, result(PULL, id, &json!({ "messages": all, "seq": 5, "hasMore": false })))], 0)
        }
        "pull-messages: fractional limit" => {
            let page = json!({ "messages": [middle[0]], "seq": 2, "hasMore": true });
            (vec![(ONE, result(PULL, id, &page))], 0)
        }
        "send-messages: role outside the vocabulary is accepted" => (vec![(ONE, invalid())], 1),
        "send-messages: wrong content type" => (vec![(ONE, invalid())], 3),
        "malformed: unknown type" => {
            (vec![(ONE, failure("chat:unknown", id, &json!({ "statusCode": 404, "errorCode": "NOT_FOUND" })))], 3)
        }
        "minimal accepted frame" | "invokeId with a slash" => {
            (vec![(ONE, result(PULL, id, &json!({ "messages": [], "seq": 5, "hasMore": false })))], 3)
        }
        "abort: for an id the server does not know" => (vec![], 3),
        _ => return None,
    };
    Some((frames, lag))
}

/// The recorded answers with the numbers they have here and what is added to them.
fn recorded(group: &[Value], lag: i64) -> Vec<(&str, Told)> {
    let answers = group.iter().filter(|line| line["direction"] == "server->client" && line["frame"].is_string());
    answers
        .map(|line| {
            let (kind, invoke_type, mut body) = told(line["frame"].as_str().unwrap());
            renumber(&mut body, lag);
            if kind.starts_with("chat:pull-messages-receive-") && invoke_type == 4 {
                body["content"]["hasMore"] = json!(false);
            }
            (line["conn"].as_str().unwrap(), (kind, invoke_type, body))
        })
        .collect()
}

fn renumber(value: &mut Value, lag: i64) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member.as_i64()) {
                    ("seq" | "fromSeq" | "toSeq", Some(number)) => *member = json!(number - lag),
                    _ => renumber(member, lag),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| renumber(item, lag)),
        _ => {}
    }
}

/// Errors carry a text in any case: the client's printer needs it.
fn without_words((kind, invoke_type, mut body): Told) -> Told {
    if let Some(error) = body.pointer_mut("/content/error").and_then(Value::as_object_mut) {
        assert!(error.shift_remove("message").is_some_and(|text| text.is_string()), "{error:?}");
        if error.get("statusCode") == Some(&json!(400)) {
            error.shift_remove("details");
        }
    }
    if kind == "eventa:adapters:hono-ws:error" {
        let said = body["error"].as_object_mut().unwrap().shift_remove("message");
        assert!(said.is_some_and(|text| text.is_string()));
    }
    (kind, invoke_type, sorted(body))
}

/// The order of an error's members says nothing.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().map(|(name, member)| (name, sorted(member))).collect();
            members.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Object(members.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

struct Stage {
    house: House,
    /// Id and token by recorded name.
    people: HashMap<String, (String, String)>,
    peers: HashMap<String, Peer>,
}

impl Stage {
    async fn of(names: &[&str]) -> Self {
        let house = House::open().await;
        let mut people = HashMap::new();
        for name in names {
            people.insert((*name).to_owned(), house.person(name).await);
        }
        Self { house, people, peers: HashMap::new() }
    }

    async fn chat(&self, id: &str, owner: &str, other: Option<&str>) {
        let members: Vec<_> =
            other.map(|other| json!({ "type": "user", "userId": self.people[other].0 })).into_iter().collect();
        let body = json!({ "id": id, "members": members }).to_string();
        assert_eq!(self.house.ask(&self.people[owner].1, "POST", "", Some(&body)).await.0, 201);
    }

    async fn peer(&mut self, conn: &str) -> &mut Peer {
        if !self.peers.contains_key(conn) {
            let name = conn.split(['-', '@', ' ']).next().unwrap();
            let token = self.people.get(name).map_or("", |(_, token)| token);
            let peer = self.house.raw(&format!("/ws/chat?token={token}")).await;
            self.peers.insert(conn.to_owned(), peer);
        }
        self.peers.get_mut(conn).unwrap()
    }

    async fn say(&mut self, line: &Value) {
        let frame = match (line["frame"].as_str(), line["frame_base64"].as_str()) {
            (Some(text), _) => {
                let mut text = text.to_owned();
                for (name, (id, _)) in &self.people {
                    text = text.replace(&format!("user-{name}"), id);
                }
                Message::text(text)
            }
            (None, Some(bytes)) => Message::binary(STANDARD.decode(bytes).unwrap()),
            (None, None) => return,
        };
        self.peer(line["conn"].as_str().unwrap()).await.0.send(frame).await.unwrap();
    }

    async fn hear(&mut self, conn: &str) -> Told {
        let mut text = self.peer(conn).await.frame().await.to_string();
        for (name, (id, _)) in &self.people {
            text = text.replace(id.as_str(), &format!("user-{name}"));
        }
        without_words(told(&text))
    }

    async fn end(&mut self, line: &Value) {
        let conn = line["conn"].as_str().unwrap().to_owned();
        let code = u16::try_from(line["close"]["code"].as_u64().unwrap()).unwrap();
        if line["direction"] == "server->client" {
            let reason = line["close"]["reason"].as_str().unwrap().to_owned();
            assert_eq!(self.peer(&conn).await.closed().await, (code, reason));
            return;
        }
        let Some(mut peer) = self.peers.remove(&conn) else { return };
        if code == 1006 {
            // Gone without a word.
            return;
        }
        let frame = (code != 1005).then(|| CloseFrame { code: code.into(), reason: "bye".into() });
        peer.0.close(frame).await.unwrap();
        while let Some(Ok(answer)) = peer.next().await {
            assert!(answer.is_close() || answer.is_ping(), "{answer:?}");
        }
    }

    /// Plays one case; says how far the numbers lag after it.
    async fn play(&mut self, case: &str, group: &[Value], lag: i64) -> (usize, i64) {
        let said = group.iter().filter(|line| line["direction"] == "client->server");
        let mut call = String::new();
        for line in said {
            self.say(line).await;
            let frame = line["frame"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
            let body = frame.as_ref().and_then(|frame| frame.pointer("/payload/body/invokeId"));
            body.and_then(Value::as_str).unwrap_or_default().clone_into(&mut call);
        }
        let (expected, lag) = wanted(case, &call).unwrap_or_else(|| (recorded(group, lag), lag));
        let count = expected.len();
        for (conn, frame) in expected {
            let frame = (frame.0, frame.1, sorted(frame.2));
            assert_eq!(self.hear(conn).await, frame, "{case} at {conn}");
        }
        for line in group.iter().filter(|line| line["close"].is_object()) {
            self.end(line).await;
        }
        (count, lag)
    }

    /// Nothing is left to be read: the next frame is the answer to the next call.
    async fn silence(&mut self) {
        for (conn, peer) in &mut self.peers {
            if !matches!(conn.as_str(), "anon" | "bad") {
                assert!(peer.call(PULL, json!({ "chatId": "silence" })).await.is_err(), "{conn}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exchange_of_the_shipped_client_is_played_again() {
    let mut stage = Stage::of(&["alice", "bob", "carol"]).await;
    stage.chat("chat-1", "alice", Some("bob")).await;
    stage.chat("chat-2", "carol", None).await;
    let (mut compared, mut lag) = (0, 0);
    for (case, group) in cases(include_str!("../fixtures/eventa-frames.jsonl")) {
        if case == "disconnect: pending call rejects locally" {
            stage.silence().await;
        }
        let (count, lags) = stage.play(&case, &group, lag).await;
        (compared, lag) = (compared + count, lags);
    }
    assert!(compared >= 45, "{compared}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exchange_of_the_newer_client_is_played_again() {
    let mut stage = Stage::of(&["dave"]).await;
    stage.chat("chat-9", "dave", None).await;
    let mut compared = 0;
    for (case, group) in cases(include_str!("../fixtures/eventa-frames-newer-client.jsonl")) {
        compared += stage.play(&case, &group, 0).await.0;
    }
    stage.silence().await;
    assert_eq!(compared, 7);
}
