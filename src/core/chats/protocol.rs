//! Frames of the chat socket, all versions, read and printed (contract `chats.md` §5–6).
//!
//! Every version of the client library writes `type` and `payload.body`; newer ones repeat them under other keys, which
//! are ignored.

use serde_json::{Map, Value, json};

use super::Sent;
use crate::core::error::{Code, Error};
use crate::core::model::chats::{Draft, LogPage, NewMessages, Role, page_limit};
use crate::core::model::ids::{ChatId, MessageId, UserId};

const SEND: &str = "chat:send-messages";
const PULL: &str = "chat:pull-messages";
const AUTHENTICATE: &str = "chat:authenticate";
const NEW_MESSAGES: &str = "chat:new-messages";
const CONNECTED: &str = "eventa:adapters:hono-ws:connected";
const FAILED: &str = "eventa:adapters:hono-ws:error";

/// What a text frame says.
#[derive(Debug)]
pub enum Frame {
    /// No frame at all; the text says why.
    Malformed(&'static str),
    /// Nothing that is answered.
    Silent,
    /// A call.
    Call(Invoke, Result<Request, Error>),
}

/// A call's name and the id its caller gave it: both are part of the answer's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoke {
    name: String,
    id: String,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Says who is calling.
    Authenticate {
        /// A bearer token.
        token: String,
    },
    /// Pushes messages.
    Send {
        /// Where.
        chat: ChatId,
        /// What.
        drafts: Vec<Draft>,
    },
    /// Pulls messages.
    Pull {
        /// Where.
        chat: ChatId,
        /// Behind which number.
        after: i64,
        /// How many at most.
        limit: u32,
    },
}

/// Reads a text frame.
pub fn parse(text: &str) -> Frame {
    let Ok(frame) = serde_json::from_str::<Value>(text) else { return Frame::Malformed("the frame is not JSON") };
    let Some(payload) = frame.get("payload").filter(|payload| !payload.is_null()) else {
        return Frame::Malformed("the frame has no payload");
    };
    let Some(body) = payload.get("body") else { return Frame::Silent };
    let name = frame.get("type").and_then(Value::as_str).and_then(|kind| kind.strip_suffix("-send"));
    let (Some(name), Some(id)) = (name, body.get("invokeId").and_then(Value::as_str)) else { return Frame::Silent };
    let content = body.get("content").unwrap_or(&Value::Null);
    let request = match name {
        SEND => read_send(content),
        PULL => read_pull(content),
        AUTHENTICATE => match content.get("token").and_then(Value::as_str) {
            Some(token) => Ok(Request::Authenticate { token: token.to_owned() }),
            None => Err(invalid("token must be a string")),
        },
        _ => Err(Error::new(Code::NotFound).saying("No such call")),
    };
    Frame::Call(Invoke { name: name.to_owned(), id: id.to_owned() }, request)
}

const MOST_MESSAGES: usize = 5_000;
const LONGEST_ID: usize = 128;
const LONGEST_CONTENT: usize = 1024 * 1024;

fn read_send(content: &Value) -> Result<Request, Error> {
    let chat = chat_id(content)?;
    let messages =
        content.get("messages").and_then(Value::as_array).ok_or_else(|| invalid("messages must be an array"))?;
    if messages.len() > MOST_MESSAGES {
        return Err(invalid("messages must be at most 5000"));
    }
    let drafts = messages
        .iter()
        .enumerate()
        .map(|(at, message)| read_draft(message).map_err(|why| invalid(&format!("messages[{at}].{why}"))));
    Ok(Request::Send { chat, drafts: drafts.collect::<Result<_, _>>()? })
}

fn read_draft(message: &Value) -> Result<Draft, &'static str> {
    let text = |key| message.get(key).and_then(Value::as_str);
    let id = text("id")
        .filter(|id| (1..=LONGEST_ID).contains(&id.encode_utf16().count()) && !id.contains('\0'))
        .ok_or("id must be a string of 1 to 128 characters without U+0000")?;
    let role = text("role").and_then(Role::parse).ok_or("role must be one of system, user, assistant, tool, error")?;
    let content = text("content")
        .filter(|content| content.len() <= LONGEST_CONTENT && !content.contains('\0'))
        .ok_or("content must be a string of at most 1 MiB without U+0000")?;
    Ok(Draft { id: MessageId::new(id), role, content: content.to_owned() })
}

fn read_pull(content: &Value) -> Result<Request, Error> {
    let chat = chat_id(content)?;
    let after = match content.get("afterSeq") {
        None => 0,
        Some(Value::Number(number)) => {
            let whole = number
                .as_i64()
                .or_else(|| number.as_f64().filter(|number| number.fract() == 0.0).map(|number| number as i64));
            whole.ok_or_else(|| invalid("afterSeq must be an integer"))?.max(0)
        }
        Some(_) => return Err(invalid("afterSeq must be an integer")),
    };
    let limit = match content.get("limit") {
        None => None,
        Some(limit) => Some(limit.as_f64().ok_or_else(|| invalid("limit must be a number"))?),
    };
    Ok(Request::Pull { chat, after, limit: page_limit(limit) })
}

fn chat_id(content: &Value) -> Result<ChatId, Error> {
    let id = content.get("chatId").and_then(Value::as_str).filter(|id| !id.is_empty() && !id.contains('\0'));
    id.map(ChatId::new).ok_or_else(|| invalid("chatId must be a non-empty string without U+0000"))
}

fn invalid(message: &str) -> Error {
    Error::new(Code::InvalidRequest).saying(message)
}

/// Something to send; its id and time are given when it is printed.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    kind: String,
    invoke_type: Option<u8>,
    body: Value,
}

const RESULT: u8 = 4;
const FAILURE: u8 = 5;

impl Message {
    /// The first frame of every socket.
    pub fn connected() -> Self {
        Self { kind: CONNECTED.to_owned(), invoke_type: None, body: Value::Object(Map::new()) }
    }

    /// The answer to what is no frame.
    pub fn malformed(why: &str) -> Self {
        Self { kind: FAILED.to_owned(), invoke_type: None, body: json!({ "error": { "message": why } }) }
    }

    /// Messages of a chat.
    pub fn new_messages(event: &NewMessages) -> Self {
        Self { kind: NEW_MESSAGES.to_owned(), invoke_type: None, body: json!(event) }
    }

    /// A push was stored.
    pub fn sent(invoke: &Invoke, sent: Sent) -> Self {
        Self::result(invoke, &json!({ "seq": sent.seq }))
    }

    /// A page of a log.
    pub fn page(invoke: &Invoke, page: &LogPage) -> Self {
        let messages: Vec<Value> = page.messages.iter().map(crate::core::model::chats::Message::wire).collect();
        Self::result(invoke, &json!({ "messages": messages, "seq": page.seq, "hasMore": page.has_more }))
    }

    /// The caller is known now.
    pub fn authenticated(invoke: &Invoke, user: &UserId) -> Self {
        Self::result(invoke, &json!({ "userId": user }))
    }

    fn result(invoke: &Invoke, content: &Value) -> Self {
        Self {
            kind: format!("{}-receive-{}", invoke.name, invoke.id),
            invoke_type: Some(RESULT),
            body: json!({ "invokeId": invoke.id, "content": content }),
        }
    }

    /// A call failed.
    pub fn failure(invoke: &Invoke, error: &Error) -> Self {
        let mut told = json!({
            "name": "ApiError", "statusCode": error.code.kind().status(), "errorCode": error.code.wire(),
            "message": error.message,
        });
        if let (Some(details), Some(told)) = (&error.details, told.as_object_mut()) {
            told.insert("details".to_owned(), (**details).clone());
        }
        Self {
            kind: format!("{}-receive-error-{}", invoke.name, invoke.id),
            invoke_type: Some(FAILURE),
            body: json!({ "invokeId": invoke.id, "content": { "error": told } }),
        }
    }

    /// The text of the frame. `id` is a fresh one of [`IdSource::id`](crate::ports::runtime::IdSource::id): newer
    /// clients drop a frame whose id they have seen. `at_ms` is the time since 1970.
    pub fn print(self, id: &str, at_ms: i64) -> String {
        let mut payload = Map::new();
        payload.insert("id".to_owned(), Value::String(self.kind.clone()));
        payload.insert("type".to_owned(), "event".into());
        payload.insert("_flowDirection".to_owned(), "outbound".into());
        if let Some(number) = self.invoke_type {
            payload.insert("invokeType".to_owned(), number.into());
        }
        payload.insert("body".to_owned(), self.body);
        json!({ "id": uuid(id), "type": self.kind, "payload": payload, "timestamp": at_ms }).to_string()
    }
}

/// A version 4 UUID of the randomness of one of our ids, six bits a character (RFC 9562 §5.4).
fn uuid(id: &str) -> String {
    let mut bits: u128 = 0;
    for byte in id.bytes() {
        let six = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            b'_' => 62,
            _ => 63,
        };
        bits = bits << 6 | u128::from(six);
    }
    let version = bits & !(0xf << 76) | 0x4 << 76;
    let digits = format!("{:032x}", version & !(0x3 << 62) | 0x2 << 62);
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, content: &Value) -> Result<Request, Error> {
        let frame =
            json!({ "type": format!("{name}-send"), "payload": { "body": { "invokeId": "i", "content": content } } });
        match parse(&frame.to_string()) {
            Frame::Call(_, request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_good_call_is_told_apart() {
        for text in ["no json", "null", "5", r#"{"type":"chat:pull-messages-send"}"#, r#"{"payload":null}"#] {
            assert!(matches!(parse(text), Frame::Malformed(_)), "{text}");
        }
        for text in [
            r#"{"type":"chat:pull-messages-send","payload":{}}"#,
            r#"{"type":"chat:pull-messages-send","payload":{"body":{"content":{}}}}"#,
            r#"{"type":"chat:new-messages","payload":{"body":{"invokeId":"i"}}}"#,
            r#"{"type":"chat:send-messages-send-abort","payload":{"body":{"invokeId":"i"}}}"#,
            r#"{"type":7,"payload":{"body":{"invokeId":"i"}}}"#,
        ] {
            assert!(matches!(parse(text), Frame::Silent), "{text}");
        }
        assert_eq!(call("chat:unknown", &json!({})).unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn every_row_of_the_table_of_checks() {
        let message = |id: Value, role: Value, content: Value| {
            call(SEND, &json!({ "chatId": "c", "messages": [{ "id": id, "role": role, "content": content }] }))
        };
        let text = |length: usize| Value::String("x".repeat(length));
        message(json!("m"), json!("tool"), json!("")).unwrap();
        message(text(128), json!("user"), text(LONGEST_CONTENT)).unwrap();
        for bad in [
            message(json!(""), json!("user"), json!("x")),
            message(text(129), json!("user"), json!("x")),
            message(json!("\0"), json!("user"), json!("x")),
            message(json!("m"), json!("wizard"), json!("x")),
            message(json!("m"), json!("user"), json!(null)),
            message(json!("m"), json!("user"), json!({ "a": 1 })),
            message(json!("m"), json!("user"), json!("a\0b")),
            message(json!("m"), json!("user"), text(LONGEST_CONTENT + 1)),
            call(SEND, &json!({ "chatId": "", "messages": [] })),
            call(SEND, &json!({ "chatId": "c" })),
            call(SEND, &json!(null)),
            call(SEND, &json!({ "chatId": "c", "messages": vec![1; 5_001] })),
            call(PULL, &json!({ "chatId": "c", "afterSeq": "1" })),
            call(PULL, &json!({ "chatId": "c", "afterSeq": 1.5 })),
            call(PULL, &json!({ "chatId": "c", "limit": "1" })),
        ] {
            assert_eq!(bad.unwrap_err().code, Code::InvalidRequest);
        }
        let pull = |content: Value| match call(PULL, &content).unwrap() {
            Request::Pull { after, limit, .. } => (after, limit),
            other => panic!("{other:?}"),
        };
        assert_eq!(pull(json!({ "chatId": "c" })), (0, 100));
        assert_eq!(pull(json!({ "chatId": "c", "afterSeq": -4, "limit": 1.5 })), (0, 1));
        assert_eq!(pull(json!({ "chatId": "c", "afterSeq": 7.0, "limit": 501 })), (7, 500));
    }

    #[test]
    fn ids_become_distinct_uuids_of_version_4() {
        let one = uuid("V1StGXR8_Z5jdHi6B-myT");
        assert_eq!((one.len(), one.as_bytes()[14]), (36, b'4'));
        assert!(matches!(one.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{one}");
        assert_ne!(one, uuid("V1StGXR8_Z5jdHi6B-myU"));
    }
}
