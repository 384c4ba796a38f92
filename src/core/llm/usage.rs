//! Token usage, in a JSON answer and in an event stream whose bytes arrive split anywhere
//! (contract `gateway.md` §6.2, §6.3a, b, g).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::events::{Boundary, EventSplitter};
use crate::core::model::llm::{Usage, whole};
use crate::ports::llm::TokenCounter;

/// Token counts as far as an upstream reported them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Tokens read.
    pub prompt: Option<u64>,
    /// Tokens written.
    pub completion: Option<u64>,
}

impl TokenCounts {
    /// The counts in the `usage` member of an answer or an event.
    pub fn of(answer: &Value) -> Self {
        Self::in_usage(answer.get("usage"))
    }

    fn in_usage(usage: Option<&Value>) -> Self {
        let count = |name| usage.and_then(|usage| usage.get(name)).and_then(whole);
        Self { prompt: count("prompt_tokens"), completion: count("completion_tokens") }
    }

    /// The counts in a whole answer; `None` when it is not JSON. An answer may be long: only its usage is kept.
    pub fn of_whole(text: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Answer {
            usage: Option<Value>,
        }
        serde_json::from_slice::<&serde_json::value::RawValue>(text).ok()?;
        let usage = serde_json::from_slice::<Answer>(text).ok().and_then(|answer| answer.usage);
        Some(Self::in_usage(usage.as_ref()))
    }

    /// Both counts, which is what a price by tokens needs.
    pub fn complete(self) -> Option<Usage> {
        Some(Usage { prompt: self.prompt?, completion: self.completion? })
    }

    fn is_empty(self) -> bool {
        self.prompt.is_none() && self.completion.is_none()
    }
}

/// Whether more of a stream is to come, as far as its events say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing final was said.
    Open,
    /// `[DONE]` was said.
    Done,
    /// An event with a top-level `error` object was said.
    Failed,
}

/// Reads along an event stream: learns the usage, measures the text, and withholds the usage event from a caller
/// who did not ask for it. All other bytes pass unaltered.
pub struct UsageScanner {
    events: EventSplitter,
    /// `None` when nothing is to be withheld, and bytes pass without waiting for the end of their event.
    held: Option<BytesMut>,
    hides_usage: bool,
    counts: TokenCounts,
    text_bytes: u64,
    counter: Option<Arc<dyn TokenCounter>>,
    counted: u64,
    head: Head,
    standing: Standing,
}

/// What every event of a stream repeats.
#[derive(Clone, Debug, Default, PartialEq)]
struct Head {
    id: Value,
    created: Value,
    model: Value,
}

impl UsageScanner {
    /// `hide_usage`: the caller did not ask for the usage event.
    pub fn new(hide_usage: bool) -> Self {
        Self {
            events: EventSplitter::default(),
            held: hide_usage.then(BytesMut::new),
            hides_usage: hide_usage,
            counts: TokenCounts::default(),
            text_bytes: 0,
            counter: None,
            counted: 0,
            head: Head::default(),
            standing: Standing::Open,
        }
    }

    /// Counts the tokens of the text, and lets only whole events pass, so that the stream can be ended behind any.
    pub fn counting(self, counter: Arc<dyn TokenCounter>) -> Self {
        let held = Some(self.held.unwrap_or_default());
        Self { held, counter: Some(counter), ..self }
    }

    /// The most recent usage with both counts, else the most recent with one.
    pub fn counts(&self) -> TokenCounts {
        self.counts
    }

    /// Tokens of all content, reasoning and tool-argument text so far: counted, or a token for four bytes of UTF-8.
    pub fn text_tokens(&self) -> u64 {
        if self.counter.is_some() { self.counted } else { self.text_bytes.div_ceil(4) }
    }

    /// Tokens written so far, as counted or, when that is more, as the upstream says.
    pub fn written(&self) -> u64 {
        self.text_tokens().max(self.counts.completion.unwrap_or(0))
    }

    /// The events that end a stream which may say no more, in the upstream's words: all that is open has `length`.
    pub fn cut_off(&self, prompt: u64) -> Bytes {
        let Head { id, created, model } = &self.head;
        let event = |choices: Value| json!({ "id": id, "object": "chat.completion.chunk", "created": created, "model": model, "choices": choices });
        let last = event(json!([{ "index": 0, "delta": {}, "finish_reason": "length" }]));
        let mut text = format!("data: {last}\n\n");
        if !self.hides_usage {
            let completion = self.written();
            let mut usage = event(json!([]));
            usage["usage"] = json!({
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt.saturating_add(completion),
            });
            text.push_str(&format!("data: {usage}\n\n"));
        }
        text.push_str("data: [DONE]\n\n");
        text.into()
    }

    /// Takes the next bytes and returns what the caller is to get of them; nothing behind a final event passes.
    pub fn feed(&mut self, chunk: &Bytes) -> (Bytes, Standing) {
        let mut passed = BytesMut::new();
        let (mut at, mut kept_from) = (0, 0);
        let mut untouched = self.held.as_ref().is_none_or(BytesMut::is_empty);
        while at < chunk.len() && self.standing == Standing::Open {
            let (used, boundary) = self.events.advance(&chunk[at..]);
            at += used;
            let hidden = match boundary {
                Boundary::Event(data) => self.read(&data),
                Boundary::Unparsed | Boundary::Within => false,
            };
            if hidden && let Some(held) = &mut self.held {
                // The copy so far becomes necessary: from here on the output is not one slice of the chunk.
                if untouched {
                    passed.extend_from_slice(&chunk[..kept_from]);
                }
                untouched = false;
                held.clear();
                kept_from = at;
            } else if self.events.may_pass() || self.held.is_none() {
                if !untouched {
                    if let Some(held) = &mut self.held {
                        passed.extend_from_slice(&held.split());
                    }
                    passed.extend_from_slice(&chunk[kept_from..at]);
                }
                kept_from = at;
            }
        }
        if let Some(held) = &mut self.held {
            held.extend_from_slice(&chunk[kept_from..at]);
        }
        let out = if untouched { chunk.slice(..kept_from) } else { passed.freeze() };
        (out, self.standing)
    }

    /// Whether the caller got part of an event whose end is missing.
    pub fn is_torn(&self) -> bool {
        self.events.is_inside() && self.held.as_ref().is_none_or(BytesMut::is_empty)
    }

    /// The stream ended: an event without its final blank line counts, and its bytes are let go.
    pub fn finish(&mut self) -> (Bytes, Standing) {
        let last = if self.standing == Standing::Open { self.events.finish() } else { None };
        let hidden = last.is_some_and(|data| self.read(&data));
        let held = self.held.as_mut().map(BytesMut::split).unwrap_or_default();
        (if hidden { Bytes::new() } else { held.freeze() }, self.standing)
    }

    /// Learns from the data of one event; says whether the caller must not see it.
    fn read(&mut self, data: &[u8]) -> bool {
        if data == b"[DONE]" {
            self.standing = Standing::Done;
            return false;
        }
        let Ok(event) = serde_json::from_slice::<Value>(data) else { return false };
        let counts = TokenCounts::of(&event);
        if counts.complete().is_some() || (self.counts.complete().is_none() && !counts.is_empty()) {
            self.counts = counts;
        }
        self.hear(&event);
        if event.get("error").is_some_and(Value::is_object) {
            self.standing = Standing::Failed;
            return false;
        }
        let no_choices = event.get("choices").and_then(Value::as_array).is_some_and(Vec::is_empty);
        self.hides_usage && no_choices && event.get("usage").is_some_and(Value::is_object)
    }

    fn hear(&mut self, event: &Value) {
        for text in texts(event, "delta") {
            self.text_bytes = self.text_bytes.saturating_add(text.len() as u64);
            if let Some(counter) = &self.counter {
                self.counted = self.counted.saturating_add(counter.count(text));
            }
        }
        if self.counter.is_some() && self.head == Head::default() && event.get("choices").is_some() {
            let member = |name| event.get(name).cloned().unwrap_or_default();
            self.head = Head { id: member("id"), created: member("created"), model: member("model") };
        }
    }
}

/// Tokens of the text of a whole answer, for one whose upstream reports no usage.
pub fn tokens_of_whole(answer: &[u8], counter: &dyn TokenCounter) -> u64 {
    let Ok(answer) = serde_json::from_slice::<Value>(answer) else { return 0 };
    texts(&answer, "message").map(|text| counter.count(text)).sum()
}

/// What was written: content, reasoning and the arguments of calls, of the `delta` or `message` of every choice.
fn texts<'a>(answer: &'a Value, member: &'static str) -> impl Iterator<Item = &'a str> {
    let choices = answer.get("choices").and_then(Value::as_array);
    choices.into_iter().flatten().filter_map(move |choice| choice.get(member)).flat_map(|said| {
        let arguments = |function: Option<&'a Value>| function.and_then(|function| function.get("arguments"));
        let calls = said.get("tool_calls").and_then(Value::as_array);
        let tools = calls.into_iter().flatten().map(move |call| arguments(call.get("function")));
        let words = ["content", "reasoning", "reasoning_content"].map(|name| said.get(name));
        let legacy = arguments(said.get("function_call"));
        words.into_iter().chain(tools).chain([legacy]).filter_map(|text| text.and_then(Value::as_str))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What came through, how it stood, and what was learnt, when `text` arrives cut at `cuts`.
    fn scan(text: &[u8], cuts: &[usize], hide: bool) -> (Vec<u8>, Standing, UsageScanner) {
        let text = Bytes::copy_from_slice(text);
        let mut scanner = UsageScanner::new(hide);
        let mut out = Vec::new();
        let mut from = 0;
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(text.len());
        for end in ends {
            let (passed, standing) = scanner.feed(&text.slice(from..end));
            out.extend_from_slice(&passed);
            from = end;
            if standing != Standing::Open {
                break;
            }
        }
        let (passed, standing) = scanner.finish();
        out.extend_from_slice(&passed);
        (out, standing, scanner)
    }

    fn every_byte(len: usize) -> Vec<usize> {
        (0..len).collect()
    }

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../../tests/fixtures/chat-usage-vectors.json")).unwrap()
    }

    fn expected(row: &Value) -> TokenCounts {
        TokenCounts { prompt: row["promptTokens"].as_u64(), completion: row["completionTokens"].as_u64() }
    }

    fn check_row(row: &Value, cuts: &[usize]) {
        let body = row["body"].as_str().unwrap();
        for hide in [false, true] {
            let (out, standing, scanner) = scan(body.as_bytes(), cuts, hide);
            assert_eq!(scanner.counts(), expected(&row["target"]), "{}", row["name"]);
            let failed = row.get("targetOutcome").is_some();
            assert_eq!(standing == Standing::Failed, failed, "{}", row["name"]);
            if !failed && !hide {
                assert_eq!(out, body.as_bytes(), "{}", row["name"]);
            }
            if hide {
                let out = String::from_utf8(out).unwrap();
                assert!(!out.contains("\"choices\":[],"), "{}: {out}", row["name"]);
            }
        }
    }

    #[test]
    fn every_row_of_the_usage_vectors_in_one_piece_and_byte_by_byte() {
        let vectors = vectors();
        let rows = vectors["streams"].as_array().unwrap();
        assert!(rows.len() >= 15);
        for row in rows {
            check_row(row, &[]);
            check_row(row, &every_byte(row["body"].as_str().unwrap().len()));
        }
        for row in vectors["bodies"].as_array().unwrap() {
            assert_eq!(TokenCounts::of(&row["body"]), expected(&row["result"]), "{row}");
            let text = row["body"].to_string();
            assert_eq!(TokenCounts::of_whole(text.as_bytes()), Some(expected(&row["result"])), "{row}");
        }
    }

    proptest! {
        #[test]
        fn every_row_of_the_usage_vectors_cut_anywhere(cuts in prop::collection::vec(0usize..10_000, 0..40)) {
            for row in vectors()["streams"].as_array().unwrap() {
                check_row(row, &cuts);
            }
        }

        #[test]
        fn bytes_that_are_no_event_stream_pass_unaltered(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            cuts in prop::collection::vec(0usize..400, 0..20),
            hide in any::<bool>(),
        ) {
            let (out, standing, _) = scan(&bytes, &cuts, hide);
            prop_assert_eq!(standing, Standing::Open);
            prop_assert_eq!(out, bytes);
        }
    }

    #[test]
    fn a_whole_answer_is_any_json() {
        for text in ["[]", "5", "null", r#"{"x":1e400}"#, r#"{"error":{"message":"x"}}"#] {
            assert_eq!(TokenCounts::of_whole(text.as_bytes()), Some(TokenCounts::default()), "{text}");
        }
        for text in ["", "<html>", r#"{"a":1}x"#, r#"{"usage":"#] {
            assert_eq!(TokenCounts::of_whole(text.as_bytes()), None, "{text}");
        }
    }

    const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":4}}"#;

    #[test]
    fn only_the_usage_event_is_withheld_whatever_the_line_ends() {
        for end in ["\n", "\r\n", "\r"] {
            let before = format!("\u{feff}: hi{end}{end}data: {{\"choices\":[{{\"delta\":{{}}}}]}}{end}{end}");
            let hidden = format!("data:{USAGE}{end}{end}");
            let after = format!("data: [DONE]{end}{end}");
            let whole = format!("{before}{hidden}{after}");
            for cuts in [vec![], every_byte(whole.len()), vec![before.len() + 3]] {
                let (out, standing, scanner) = scan(whole.as_bytes(), &cuts, true);
                assert_eq!(String::from_utf8(out).unwrap(), format!("{before}{after}"), "{end:?} {cuts:?}");
                assert_eq!(standing, Standing::Done);
                assert_eq!(scanner.counts().complete(), Some(Usage { prompt: 12, completion: 4 }));
            }
        }
    }

    #[test]
    fn without_anything_to_hide_bytes_pass_before_their_event_is_complete() {
        let mut scanner = UsageScanner::new(false);
        let (out, _) = scanner.feed(&Bytes::from_static(b"data: {\"cho"));
        assert_eq!(out, "data: {\"cho");
    }

    #[test]
    fn keep_alive_comments_pass_at_once_even_when_usage_is_hidden() {
        let mut scanner = UsageScanner::new(true);
        assert_eq!(scanner.feed(&Bytes::from_static(b": ping\n")).0, ": ping\n");
        assert_eq!(scanner.feed(&Bytes::from_static(b"data: x")).0, "");
    }

    #[test]
    fn an_event_beyond_the_cap_passes_unparsed_and_the_next_one_is_read() {
        let big = format!("data: {{\"usage\":1,\"x\":\"{}\"}}\n\n", "y".repeat(1_100_000));
        let whole = format!("{big}data: {USAGE}\n\ndata: [DONE]\n\n");
        for cuts in [vec![], (0..1200).map(|n| n * 1000).collect()] {
            let (out, standing, scanner) = scan(whole.as_bytes(), &cuts, true);
            assert_eq!(out.len(), big.len() + "data: [DONE]\n\n".len());
            assert_eq!(standing, Standing::Done);
            assert!(scanner.counts().complete().is_some());
        }
    }

    #[test]
    fn nothing_behind_an_error_event_or_the_end_passes() {
        let error = "data: {\"error\":{\"message\":\"x\"}}\n\n";
        let (out, standing, _) = scan(format!("{error}data: [DONE]\n\n").as_bytes(), &[], false);
        assert_eq!((out.as_slice(), standing), (error.as_bytes(), Standing::Failed));
        let (out, standing, _) = scan(b"data: [DONE]\n\ndata: late\n\n", &[], true);
        assert_eq!((out.as_slice(), standing), (&b"data: [DONE]\n\n"[..], Standing::Done));
    }

    #[test]
    fn delivered_text_is_measured_in_all_its_forms() {
        let text = include_bytes!("../../../tests/fixtures/provider-responses/openai-chat-stream-tool-call.sse.txt");
        assert_eq!(scan(text, &[], true).2.text_bytes, r#"{"q":"x"}"#.len() as u64);
        let text = r#"data: {"choices":[{"delta":{"content":"é","reasoning":"ab","reasoning_content":"c"}}]}"#;
        assert_eq!(scan(text.as_bytes(), &[], true).2.text_bytes, 5);
    }

    /// A token for each character.
    struct Letters;

    #[async_trait::async_trait]
    impl TokenCounter for Letters {
        async fn ready(&self) {}
        fn count(&self, text: &str) -> u64 {
            text.chars().count() as u64
        }
    }

    #[test]
    fn a_counting_scanner_passes_whole_events_and_can_end_behind_any() {
        let head = r#""id":"c1","created":5,"model":"m""#;
        let event = format!("data: {{{head},\"choices\":[{{\"delta\":{{\"content\":\"été\"}}}}]}}\n\n");
        for hide in [true, false] {
            let mut scanner = UsageScanner::new(hide).counting(Arc::new(Letters));
            let torn = Bytes::from(format!("{event}data: {{\"cho"));
            assert_eq!(scanner.feed(&torn).0, event);
            assert_eq!((scanner.written(), scanner.is_torn()), (3, false));
            let end = String::from_utf8(scanner.cut_off(4).to_vec()).unwrap();
            let events: Vec<&str> = end.split("\n\n").collect();
            let last: Value = serde_json::from_str(events[0].strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!((&last["id"], &last["created"], &last["model"]), (&json!("c1"), &json!(5), &json!("m")));
            assert_eq!(last["choices"][0]["finish_reason"], "length");
            assert_eq!(end.contains("\"total_tokens\":7"), !hide, "{end}");
            assert!(end.ends_with("data: [DONE]\n\n"));
        }
    }

    #[test]
    fn the_upstreams_word_counts_when_it_is_more() {
        let mut scanner = UsageScanner::new(true).counting(Arc::new(Letters));
        let text = r#"data: {"choices":[{"delta":{"content":"abc"}}],"usage":{"completion_tokens":9}}"#;
        let _passed = scanner.feed(&Bytes::from(format!("{text}\n\n")));
        assert_eq!((scanner.text_tokens(), scanner.written()), (3, 9));
    }

    #[test]
    fn the_text_of_a_whole_answer_is_counted() {
        let answer = br#"{"choices":[{"message":{"content":"ab","tool_calls":[{"function":{"arguments":"{}"}}]}}]}"#;
        assert_eq!(tokens_of_whole(answer, &Letters), 4);
        assert_eq!(tokens_of_whole(b"[]", &Letters), 0);
    }
}
