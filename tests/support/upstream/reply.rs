//! What a scripted upstream can be told to do.

use std::time::Duration;

use serde_json::{Value, json};

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
    pub(super) steps: Vec<Step>,
    pub(super) usage: Option<(u64, u64)>,
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
        let mut events: Vec<Value> = vec![delta(&json!({ "role": "assistant", "content": "" }), None)];
        events.extend(tokens.iter().map(|token| delta(&json!({ "content": token }), None)));
        events.push(delta(&json!({}), Some("stop")));
        events.extend(usage.map(|usage| {
            let mut event = delta(&json!({}), None);
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

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

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

fn delta(delta: &Value, finish: Option<&str>) -> Value {
    json!({
        "id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "scripted",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
    })
}

fn usage_json((prompt, completion): (u64, u64)) -> Value {
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
}
