//! Token usage, in a JSON answer and in an event stream whose bytes arrive split anywhere
//! (contract `gateway.md` §6.2, §6.3a, b, g).

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::events::{Boundary, EventSplitter};
use crate::core::model::llm::Usage;

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

/// Some providers write counts as `12.0`.
fn whole(value: &Value) -> Option<u64> {
    let number = value.as_f64().filter(|number| *number >= 0.0 && number.fract() == 0.0);
    value.as_u64().or_else(|| number.map(|number| number as u64))
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
    counts: TokenCounts,
    text_bytes: u64,
    standing: Standing,
}

impl UsageScanner {
    /// `hide_usage`: the caller did not ask for the usage event.
    pub fn new(hide_usage: bool) -> Self {
        Self {
            events: EventSplitter::default(),
            held: hide_usage.then(BytesMut::new),
            counts: TokenCounts::default(),
            text_bytes: 0,
            standing: Standing::Open,
        }
    }

    /// The most recent usage with both counts, else the most recent with one.
    pub fn counts(&self) -> TokenCounts {
        self.counts
    }

    /// UTF-8 bytes of all content, reasoning and tool-argument text so far.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
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
        self.text_bytes = self.text_bytes.saturating_add(text_bytes(&event));
        if event.get("error").is_some_and(Value::is_object) {
            self.standing = Standing::Failed;
            return false;
        }
        let no_choices = event.get("choices").and_then(Value::as_array).is_some_and(Vec::is_empty);
        self.held.is_some() && no_choices && event.get("usage").is_some_and(Value::is_object)
    }
}

fn text_bytes(event: &Value) -> u64 {
    let choices = event.get("choices").and_then(Value::as_array);
    let deltas = choices.into_iter().flatten().filter_map(|choice| choice.get("delta"));
    deltas.map(delta_bytes).sum()
}

fn delta_bytes(delta: &Value) -> u64 {
    let len = |value: Option<&Value>| value.and_then(Value::as_str).map_or(0, |text| text.len() as u64);
    let arguments = |function: Option<&Value>| len(function.and_then(|function| function.get("arguments")));
    let calls = delta.get("tool_calls").and_then(Value::as_array);
    let said: u64 = ["content", "reasoning", "reasoning_content"].iter().map(|name| len(delta.get(*name))).sum();
    let tools: u64 = calls.into_iter().flatten().map(|call| arguments(call.get("function"))).sum();
    said + tools + arguments(delta.get("function_call"))
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
        assert_eq!(scan(text, &[], true).2.text_bytes(), r#"{"q":"x"}"#.len() as u64);
        let text = r#"data: {"choices":[{"delta":{"content":"é","reasoning":"ab","reasoning_content":"c"}}]}"#;
        assert_eq!(scan(text.as_bytes(), &[], true).2.text_bytes(), 5);
    }
}
