//! A pretended upstream, so that a server with nothing configured can be tried: honest about what it is, and as
//! deterministic as a real one is not.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::core::model::llm::Usage;
use crate::ports::llm::{LlmUpstream, UpstreamAnswer, UpstreamCall};
use crate::ports::runtime::Clock;
use crate::ports::upstream::UpstreamError;

/// The name of the sandbox wherever a model is named.
pub const SANDBOX_MODEL: &str = "sandbox";

/// Between two tokens of a stream: slow enough to be seen, quick enough not to be waited for.
const PACE: Duration = Duration::from_millis(12);
/// What is repeated of the caller's message, in characters.
const ECHO_CHARACTERS: usize = 2_000;

/// Answers calls to `sandbox:` addresses itself and passes all others on.
pub struct SandboxUpstream {
    /// Where real calls go.
    pub inner: Arc<dyn LlmUpstream>,
    /// Dates the answers.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl LlmUpstream for SandboxUpstream {
    async fn send(&self, call: &UpstreamCall) -> Result<UpstreamAnswer, UpstreamError> {
        if !call.url.starts_with("sandbox:") {
            return self.inner.send(call).await;
        }
        let Ok(request) = serde_json::from_slice::<Value>(&call.body) else {
            return Err(refusal("the body must be a json object"));
        };
        let Some(messages) = request["messages"].as_array().filter(|messages| !messages.is_empty()) else {
            return Err(refusal("messages must be a list with at least one message"));
        };
        let answer = Answer::to(messages, &request, &call.body, self.clock.now().timestamp());
        if request["stream"] == true {
            let with_usage = request["stream_options"]["include_usage"] == true;
            return Ok(answer.streamed(with_usage));
        }
        Ok(answer.whole())
    }
}

/// One answer, not yet sent.
struct Answer {
    id: String,
    created: i64,
    tokens: Vec<String>,
    finish: &'static str,
    usage: Usage,
}

impl Answer {
    fn to(messages: &[Value], request: &Value, body: &[u8], created: i64) -> Self {
        let said = messages.iter().rev().find(|message| message["role"] == "user").map(text_of).unwrap_or_default();
        let mut tokens = tokens_of(&reply_to(&said));
        let asked = request["max_completion_tokens"].as_u64().or_else(|| request["max_tokens"].as_u64());
        let limit = asked.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX).max(1);
        let finish = if tokens.len() > limit { "length" } else { "stop" };
        tokens.truncate(limit);
        let prompt = messages.iter().map(|message| tokens_of(&text_of(message)).len() + 3).sum::<usize>();
        let usage = Usage { prompt: prompt as u64, completion: tokens.len() as u64 };
        let id = format!("chatcmpl-sandbox-{}", hex::encode(&Sha256::digest(body)[..8]));
        Self { id, created, tokens, finish, usage }
    }

    fn whole(&self) -> UpstreamAnswer {
        let mut document = self.envelope("chat.completion");
        document["choices"] = json!([{
            "index": 0,
            "message": { "role": "assistant", "content": self.tokens.concat(), "refusal": null },
            "logprobs": null,
            "finish_reason": self.finish,
        }]);
        document["usage"] = self.usage_json();
        let body = Bytes::from(document.to_string());
        UpstreamAnswer {
            status: 200,
            content_type: Some("application/json".to_owned()),
            body: stream::iter([Ok(body)]).boxed(),
        }
    }

    fn streamed(&self, with_usage: bool) -> UpstreamAnswer {
        let mut events = vec![self.chunk(&json!({ "role": "assistant", "content": "" }), None, with_usage)];
        events.extend(self.tokens.iter().map(|token| self.chunk(&json!({ "content": token }), None, with_usage)));
        events.push(self.chunk(&json!({}), Some(self.finish), with_usage));
        if with_usage {
            let mut last = self.envelope("chat.completion.chunk");
            last["choices"] = json!([]);
            last["usage"] = self.usage_json();
            events.push(last);
        }
        let mut lines: Vec<Bytes> = events.iter().map(|event| Bytes::from(format!("data: {event}\n\n"))).collect();
        lines.push(Bytes::from_static(b"data: [DONE]\n\n"));
        let paced = stream::iter(lines.into_iter().enumerate()).then(|(index, line)| async move {
            if index > 0 {
                tokio::time::sleep(PACE).await;
            }
            Ok(line)
        });
        UpstreamAnswer { status: 200, content_type: Some("text/event-stream".to_owned()), body: paced.boxed() }
    }

    fn chunk(&self, delta: &Value, finish: Option<&str>, with_usage: bool) -> Value {
        let mut event = self.envelope("chat.completion.chunk");
        event["choices"] = json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }]);
        if with_usage {
            event["usage"] = Value::Null;
        }
        event
    }

    fn envelope(&self, object: &str) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": SANDBOX_MODEL,
            "system_fingerprint": SANDBOX_MODEL,
        })
    }

    fn usage_json(&self) -> Value {
        let Usage { prompt, completion } = self.usage;
        json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
    }
}

fn reply_to(said: &str) -> String {
    let mut echo: String = said.trim().chars().take(ECHO_CHARACTERS).collect();
    if echo.is_empty() {
        return "This is the sandbox, not a language model. You said nothing I can read; send a text message and I \
                will repeat it."
            .to_owned();
    }
    if echo.len() < said.trim().len() {
        echo.push('…');
    }
    let words = said.split_whitespace().count();
    let plural = if words == 1 { "word" } else { "words" };
    let backwards: Vec<&str> = echo.split_whitespace().rev().collect();
    format!(
        "This is the sandbox, not a language model. You said: “{echo}”. That is {words} {plural}; read backwards: {}. \
         Configure an upstream to talk to a real model.",
        backwards.join(" ")
    )
}

/// The text of a message, whether it is one string or a list of parts.
fn text_of(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            texts.join(" ")
        }
        _ => String::new(),
    }
}

/// Words with the space before them; long runs without spaces are cut, so that every language is seen to stream.
fn tokens_of(text: &str) -> Vec<String> {
    const LONGEST: usize = 12;
    let mut tokens: Vec<String> = Vec::new();
    let mut length = 0;
    for character in text.chars() {
        if length == 0 || length == LONGEST || character.is_whitespace() {
            tokens.push(String::new());
            length = 0;
        }
        if let Some(token) = tokens.last_mut() {
            token.push(character);
        }
        length += 1;
    }
    tokens
}

fn refusal(message: &str) -> UpstreamError {
    let body = json!({ "error": { "message": message, "type": "invalid_request_error", "code": "sandbox" } });
    UpstreamError::Status { status: 400, body: Bytes::from(body.to_string()), retry_after: None }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::core::model::llm::SANDBOX_URL;
    use crate::core::model::secret::Secret;
    use crate::ports::mocks::{MockClock, MockLlmUpstream};
    use crate::ports::upstream::Patience;

    fn sandbox() -> SandboxUpstream {
        let mut clock = MockClock::new();
        clock.expect_now().returning(|| chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap());
        SandboxUpstream { inner: Arc::new(MockLlmUpstream::new()), clock: Arc::new(clock) }
    }

    fn call(body: &Value) -> UpstreamCall {
        let long = Duration::from_secs(60);
        UpstreamCall {
            url: format!("{SANDBOX_URL}/chat/completions"),
            authorization: Secret::new("Bearer none"),
            body: Bytes::from(body.to_string()),
            patience: Patience { head: long, first_byte: long, idle: long, total: long },
        }
    }

    async fn text(answer: UpstreamAnswer) -> String {
        let read: Vec<_> = answer.body.collect().await;
        let bytes: Vec<u8> = read.into_iter().flat_map(|bytes| bytes.unwrap().to_vec()).collect();
        String::from_utf8(bytes).unwrap()
    }

    fn question(extra: &Value) -> Value {
        let mut body = json!({ "model": "sandbox", "messages": [
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": "hello there world" },
            { "role": "assistant", "content": "hm" },
        ] });
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    }

    #[tokio::test]
    async fn a_plain_answer_says_what_it_is_and_counts_its_tokens() {
        let call = call(&question(&json!({ "tools": [{ "type": "function", "function": { "name": "f" } }] })));
        let answer = sandbox().send(&call).await.unwrap();
        assert_eq!((answer.status, answer.content_type.as_deref()), (200, Some("application/json")));
        let document: Value = serde_json::from_str(&text(answer).await).unwrap();
        assert_eq!(document["object"], "chat.completion");
        assert_eq!((&document["model"], &document["system_fingerprint"]), (&json!("sandbox"), &json!("sandbox")));
        assert_eq!(document["created"], 1_700_000_000);
        let choice = &document["choices"][0];
        assert_eq!(choice["finish_reason"], "stop");
        let content = choice["message"]["content"].as_str().unwrap();
        assert!(content.starts_with("This is the sandbox, not a language model."), "{content}");
        assert!(content.contains("“hello there world”. That is 3 words; read backwards: world there hello."));
        let usage = &document["usage"];
        assert_eq!(usage["prompt_tokens"], 2 + 3 + 1 + 3 * 3);
        assert_eq!(usage["completion_tokens"], tokens_of(content).len());
    }

    #[tokio::test]
    async fn a_stream_is_the_same_answer_in_the_events_clients_know() {
        let whole: Value =
            serde_json::from_str(&text(sandbox().send(&call(&question(&json!({})))).await.unwrap()).await).unwrap();
        for with_usage in [false, true] {
            let options = json!({ "stream": true, "stream_options": { "include_usage": with_usage } });
            let answer = sandbox().send(&call(&question(&options))).await.unwrap();
            assert_eq!(answer.content_type.as_deref(), Some("text/event-stream"));
            let text = text(answer).await;
            let (events, rest) = text.split_once("data: [DONE]\n\n").unwrap();
            assert_eq!(rest, "");
            let mut events: Vec<Value> = events
                .split_terminator("\n\n")
                .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
                .collect();
            for event in &events {
                assert_eq!(event["object"], "chat.completion.chunk");
                assert_eq!((&event["id"], &event["model"]), (&events[0]["id"], &json!("sandbox")));
            }
            if with_usage {
                let last = events.pop().unwrap();
                assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
            }
            assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
            assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "stop");
            let content = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
            assert_eq!(content.collect::<String>(), whole["choices"][0]["message"]["content"].as_str().unwrap());
            assert!(events.iter().all(|event| event.get("usage").is_some() == with_usage));
        }
    }

    #[tokio::test]
    async fn a_stream_begins_at_once_and_takes_its_time() {
        let mut body = sandbox().send(&call(&question(&json!({ "stream": true })))).await.unwrap().body;
        let begun = Instant::now();
        let mut events = 0;
        while body.next().await.is_some() {
            events += 1;
        }
        assert!(events > 10);
        assert!(begun.elapsed() >= PACE * 10);
    }

    #[tokio::test]
    async fn a_limit_cuts_the_answer_and_says_so() {
        let answer = sandbox().send(&call(&question(&json!({ "max_tokens": 2 })))).await.unwrap();
        let document: Value = serde_json::from_str(&text(answer).await).unwrap();
        assert_eq!(document["choices"][0]["message"]["content"], "This is");
        assert_eq!(document["choices"][0]["finish_reason"], "length");
        assert_eq!(document["usage"]["completion_tokens"], 2);
    }

    #[tokio::test]
    async fn parts_empty_messages_and_scripts_without_spaces_are_understood() {
        let parts = json!([{ "type": "text", "text": "你好世界" }, { "type": "image_url", "image_url": {} }]);
        for (content, expected) in
            [(parts, "“你好世界”. That is 1 word;"), (json!(""), "You said nothing"), (Value::Null, "You said nothing")]
        {
            let body = json!({ "messages": [{ "role": "user", "content": content }] });
            let document = text(sandbox().send(&call(&body)).await.unwrap()).await;
            assert!(document.contains(expected), "{document}");
        }
        let long = "长".repeat(100);
        assert!(tokens_of(&long).len() > 5);
        assert_eq!(tokens_of(&long).concat(), long);
        assert!(reply_to(&"x".repeat(10_000)).len() < 3 * ECHO_CHARACTERS);
    }

    #[tokio::test]
    async fn what_no_model_could_answer_is_refused() {
        for body in [json!({}), json!({ "messages": [] }), json!([])] {
            let refused = sandbox().send(&call(&body)).await.unwrap_err();
            assert!(matches!(refused, UpstreamError::Status { status: 400, .. }), "{body}");
        }
    }

    #[tokio::test]
    async fn other_addresses_are_passed_on() {
        let mut inner = MockLlmUpstream::new();
        inner.expect_send().times(1).returning(|_| Err(UpstreamError::Timeout));
        let sandbox = SandboxUpstream { inner: Arc::new(inner), ..sandbox() };
        let call = UpstreamCall { url: "https://example.com/sandbox:".to_owned(), ..call(&json!({})) };
        assert_eq!(sandbox.send(&call).await.unwrap_err(), UpstreamError::Timeout);
    }
}
