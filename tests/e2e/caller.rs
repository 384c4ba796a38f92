//! A signed-in user with an HTTP client.

use std::time::{Duration, Instant};

use futures::StreamExt;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// Sees what is sent: no proxy, no redirect, nothing unpacked.
pub(crate) fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.pool_max_idle_per_host(0).timeout(Duration::from_secs(60)).build().unwrap()
}

#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) url: String,
    pub(crate) id: String,
    pub(crate) token: String,
    client: reqwest::Client,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    /// When its last byte was in hand.
    pub(crate) at: Instant,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The id under which the call is charged.
    pub(crate) fn request_id(&self) -> String {
        self.header("x-request-id").expect("no x-request-id").to_owned()
    }
}

/// An event stream, as far as it was read.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The data of each event.
    pub(crate) events: Vec<String>,
    /// Whether the body ended as it should.
    pub(crate) complete: bool,
    pub(crate) at: Instant,
}

impl Heard {
    pub(crate) fn is_done(&self) -> bool {
        self.complete && self.events.last().is_some_and(|event| event == "[DONE]")
    }

    /// The text of all deltas.
    pub(crate) fn text(&self) -> String {
        let deltas = self.events.iter().filter_map(|event| serde_json::from_str::<Value>(event).ok());
        deltas.filter_map(|event| Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned())).collect()
    }

    pub(crate) fn request_id(&self) -> String {
        self.headers.get("x-request-id").expect("no x-request-id").to_str().unwrap().to_owned()
    }
}

/// The body of a completion of one user message.
pub(crate) fn question(stream: bool) -> Value {
    json!({ "model": "auto", "stream": stream, "messages": [{ "role": "user", "content": "hello" }] })
}

impl Caller {
    pub(crate) fn new(url: String, id: String, token: String) -> Self {
        Self { url, id, token, client: client() }
    }

    fn post(&self, body: &Value) -> reqwest::RequestBuilder {
        let request = self.client.post(format!("{}/api/v1/openai/chat/completions", self.url));
        request.bearer_auth(&self.token).header("content-type", "application/json").body(body.to_string())
    }

    /// One completion; `None` when the connection broke.
    pub(crate) async fn try_complete(&self, body: &Value) -> Option<Answer> {
        let response = self.post(body).send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.bytes().await.ok()?;
        let body = serde_json::from_slice(&text).unwrap_or(Value::Null);
        Some(Answer { status, headers, body, at: Instant::now() })
    }

    pub(crate) async fn complete(&self, body: &Value) -> Answer {
        self.try_complete(body).await.expect("the connection broke")
    }

    /// A streamed completion, left after `events` of its events; `None` when there was no answer.
    pub(crate) async fn try_stream(&self, body: &Value, events: usize) -> Option<Heard> {
        let response = self.post(body).send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut heard = Heard { status, headers, events: Vec::new(), complete: false, at: Instant::now() };
        let (mut body, mut unread) = (response.bytes_stream(), String::new());
        while heard.events.len() < events {
            match body.next().await {
                Some(Ok(bytes)) => unread.push_str(std::str::from_utf8(&bytes).unwrap()),
                Some(Err(_)) => break,
                None => {
                    heard.complete = true;
                    break;
                }
            }
            while let Some((event, rest)) = unread.split_once("\n\n") {
                heard.events.extend(event.strip_prefix("data: ").map(str::to_owned));
                unread = rest.to_owned();
            }
        }
        heard.at = Instant::now();
        Some(heard)
    }

    pub(crate) async fn stream(&self, body: &Value) -> Heard {
        self.try_stream(body, usize::MAX).await.expect("the connection broke")
    }

    /// The balance the server tells.
    pub(crate) async fn balance(&self) -> i64 {
        let answer =
            self.client.get(format!("{}/api/v1/flux", self.url)).bearer_auth(&self.token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap()["flux"].as_i64().unwrap()
    }
}
