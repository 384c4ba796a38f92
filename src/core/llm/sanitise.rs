//! An upstream's own words, made fit for a caller or a log line (contract `gateway.md` §5, §14).

use serde_json::Value;

/// Longest text of an upstream a caller sees, in characters.
const CALLER_CHARS: usize = 500;

/// Longest snippet a fact holds, in bytes.
const SNIPPET_BYTES: usize = 256;

const REDACTED: &str = "[redacted]";

/// The upstream's explanation for the caller, without secrets, at most 500 characters; the phrase of the status when
/// it gave none. `key` is the plaintext that was sent.
pub fn explanation(status: u16, body: &[u8], key: &str) -> String {
    let said = spoken(body).map(|text| sanitise(&text, key)).unwrap_or_default();
    let said: String = said.trim().chars().take(CALLER_CHARS).collect();
    if said.is_empty() { phrase(status).to_owned() } else { said }
}

/// What an upstream answered or how its connection failed, for the log: at most 256 bytes, without secrets.
///
/// Secrets are removed before the cut, so half a key at the edge cannot slip through.
pub fn snippet(body: &[u8], key: &str) -> Option<String> {
    let text = spoken(body).unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let mut text = sanitise(&text, key);
    text.truncate(text.floor_char_boundary(SNIPPET_BYTES));
    (!text.is_empty()).then_some(text)
}

/// Whether a refusal is about the usage we asked for on the caller's behalf.
pub fn names_usage_option(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("stream_options") || text.contains("include_usage")
}

fn spoken(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let error = value.get("error");
    let said = error.and_then(|error| error.get("message")).and_then(Value::as_str);
    let said = said.or_else(|| value.get("message").and_then(Value::as_str));
    said.or_else(|| error.and_then(Value::as_str)).map(str::to_owned)
}

fn phrase(status: u16) -> &'static str {
    match status {
        413 => "Payload Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Entity",
        _ => "Bad Request",
    }
}

/// Drops control characters, the key, and whatever looks like a credential or a query string.
fn sanitise(text: &str, key: &str) -> String {
    let clear: String = text.chars().filter(|c| !c.is_control()).collect();
    let clear = if key.is_empty() { clear } else { clear.replace(key, REDACTED) };
    let mut out = String::with_capacity(clear.len());
    let mut rest = clear.as_str();
    while let Some(first) = rest.chars().next() {
        let after_word = out.chars().next_back().is_some_and(char::is_alphanumeric);
        match credential(rest, after_word) {
            Some(len) => {
                out.push_str(REDACTED);
                rest = &rest[len..];
            }
            None if first == '?' && query(&rest[1..], &out) => {
                out.push('?');
                out.push_str(REDACTED);
                rest = &rest[1 + run(&rest[1..])..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// Length of the credential `text` begins with. `sk-` counts only at the start of a word: `task-based` is none.
fn credential(text: &str, after_word: bool) -> Option<usize> {
    let value_after = |prefix: &str| {
        let head = text.get(..prefix.len())?;
        if !head.eq_ignore_ascii_case(prefix) {
            return None;
        }
        let tail = &text[prefix.len()..];
        let blank = tail.len() - tail.trim_start().len();
        let value = run(&tail[blank..]);
        (value > 0).then_some((blank, prefix.len() + blank + value))
    };
    if !after_word {
        if let Some((0, len)) = value_after("sk-") {
            return Some(len);
        }
        if let Some((blank, len)) = value_after("bearer")
            && blank > 0
        {
            return Some(len);
        }
    }
    value_after("key=").filter(|(blank, _)| *blank == 0).map(|(_, len)| len)
}

/// Whether what follows a `?` is a query string: anything inside an address, `name=` elsewhere.
fn query(after: &str, before: &str) -> bool {
    let len = run(after);
    let word = before.rsplit(|c: char| !in_run(c)).next().unwrap_or_default();
    let named = after[..len].split_once('=').is_some_and(|(name, _)| !name.is_empty());
    len > 0 && (named || word.contains("://"))
}

/// Length of the run of characters up to white space, a quote or a bracket.
fn run(text: &str) -> usize {
    text.find(|c| !in_run(c)).unwrap_or(text.len())
}

fn in_run(c: char) -> bool {
    !(c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '(' | ')' | '[' | ']' | '{' | '}' | ','))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_clients_look_for_survive() {
        for (fixture, text) in [
            (
                &include_bytes!("../../../tests/fixtures/provider-responses/openai-error-400-tools.json")[..],
                "does not support tools",
            ),
            (
                include_bytes!("../../../tests/fixtures/provider-responses/openai-error-400-content-array.json"),
                "invalid type: sequence, expected a string",
            ),
        ] {
            assert!(explanation(400, fixture, "k3y").contains(text), "{text}");
        }
    }

    #[test]
    fn the_explanation_is_looked_for_in_order_and_falls_back_to_the_phrase() {
        for (body, said) in [
            (r#"{"error":{"message":"one"},"message":"two"}"#, "one"),
            (r#"{"error":{"code":1},"message":"two"}"#, "two"),
            (r#"{"error":"three"}"#, "three"),
            (r#"{"error":{"message":""}}"#, "Bad Request"),
            ("<html>", "Bad Request"),
            ("", "Bad Request"),
        ] {
            assert_eq!(explanation(400, body.as_bytes(), ""), said, "{body}");
        }
        assert_eq!(explanation(422, b"", ""), "Unprocessable Entity");
        let long = serde_json::json!({"message": "é".repeat(900)}).to_string();
        assert_eq!(explanation(400, long.as_bytes(), "").chars().count(), 500);
    }

    #[test]
    fn secrets_addresses_and_control_characters_do_not_pass() {
        for (text, clean) in [
            ("bad key sk-or-v1-abc.def here", "bad key [redacted] here"),
            ("(sk-abc)", "([redacted])"),
            ("Authorization: Bearer abc.def", "Authorization: [redacted]"),
            ("bearer   abc", "[redacted]"),
            ("api_key=abc&x=1 end", "api_[redacted] end"),
            ("GET https://x/y?token=abc failed", "GET https://x/y?[redacted] failed"),
            ("see \"/v1?a=b\" now", "see \"/v1?[redacted]\" now"),
            ("is it https://x/y? yes", "is it https://x/y? yes"),
            ("why? because", "why? because"),
            ("task-based risk-free bearers", "task-based risk-free bearers"),
            ("a\u{0}b\nc", "abc"),
            ("the pa$$w$&rd is wrong", "the [redacted] is wrong"),
            ("ключ sk-日本", "ключ [redacted]"),
        ] {
            assert_eq!(sanitise(text, "pa$$w$&rd"), clean, "{text}");
        }
    }

    #[test]
    fn a_key_at_the_edge_of_a_snippet_is_removed_before_the_cut() {
        let body = format!("{}0123456789abcdef", "x".repeat(250));
        let snippet = snippet(body.as_bytes(), "0123456789abcdef").unwrap();
        assert!(snippet.len() <= 256 && !snippet.contains("0123"), "{snippet}");
    }
}
