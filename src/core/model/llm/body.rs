//! The body of a chat completion, kept as the caller wrote it.

use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{AUTO_MODEL, whole};

/// A JSON object whose members keep their order, their number text and their unknown names.
///
/// Only `model`, `stream_options` and a limit of tokens the balance does not afford are ever replaced (contract
/// `gateway.md` §3): an upstream sees what the caller sent, down to integers no double can hold.
#[derive(Clone, Debug)]
pub struct ChatBody {
    members: IndexMap<String, Box<RawValue>>,
}

/// Why a body is refused before it is routed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidBody {
    /// Not JSON, or JSON that is not an object.
    #[error("Request body must be JSON")]
    NotAnObject,
    /// A member this server reads has the wrong type.
    #[error("{member} must be {expected}")]
    Member {
        /// The member.
        member: &'static str,
        /// What would be accepted.
        expected: &'static str,
    },
}

impl ChatBody {
    /// Reads a body and checks the members this server looks at.
    ///
    /// `model` may be a string, null or absent; a number, a boolean or any other value is refused unless it is
    /// falsy (`0`, `false`), which the shipped clients' server treats as absent.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidBody> {
        let members: IndexMap<String, Box<RawValue>> =
            serde_json::from_slice(bytes).map_err(|_| InvalidBody::NotAnObject)?;
        let body = Self { members };
        body.check("stream", "a boolean", |value| value.is_boolean() || value.is_null())?;
        body.check("messages", "an array", Value::is_array)?;
        body.check("stream_options", "an object", |value| value.is_object() || value.is_null())?;
        Ok(body)
    }

    fn check(
        &self,
        member: &'static str,
        expected: &'static str,
        accepts: impl Fn(&Value) -> bool,
    ) -> Result<(), InvalidBody> {
        match self.value(member) {
            Some(value) if !accepts(&value) => Err(InvalidBody::Member { member, expected }),
            _ => Ok(()),
        }
    }

    fn value(&self, member: &str) -> Option<Value> {
        serde_json::from_str(self.members.get(member)?.get()).ok()
    }

    /// The model asked for, as the caller wrote it: `auto` when absent, empty or falsy.
    pub fn requested_model(&self) -> Value {
        match self.value("model") {
            None | Some(Value::Null | Value::Bool(false)) => AUTO_MODEL.into(),
            Some(Value::String(text)) if text.is_empty() => AUTO_MODEL.into(),
            Some(Value::Number(number)) if number.as_f64() == Some(0.0) => AUTO_MODEL.into(),
            Some(value) => value,
        }
    }

    /// Whether an event stream was asked for.
    pub fn streams(&self) -> bool {
        self.value("stream") == Some(Value::Bool(true))
    }

    /// Whether the caller itself asked for the usage event.
    pub fn asks_for_usage(&self) -> bool {
        self.value("stream_options")
            .and_then(|options| options.get("include_usage").cloned())
            .is_some_and(|flag| flag == Value::Bool(true))
    }

    /// How many messages there are, when there is a list of them.
    pub fn message_count(&self) -> Option<usize> {
        self.value("messages")?.as_array().map(Vec::len)
    }

    /// Bytes of the JSON text of `messages`: the basis of a prompt estimate.
    pub fn messages_len(&self) -> usize {
        self.members.get("messages").map_or(0, |raw| raw.get().len())
    }

    /// The most tokens the caller wants per answer, if it says so with a number.
    pub fn token_limit(&self) -> Option<u64> {
        self.limit_member().and_then(|name| whole(&self.value(name)?))
    }

    /// Asks for at most `tokens` per answer, under the name the caller used for it.
    pub fn limit_tokens(&mut self, tokens: u64) {
        let name = self.limit_member().unwrap_or("max_tokens");
        set(&mut self.members, name, &tokens);
    }

    /// Providers that know both names let the newer one win.
    fn limit_member(&self) -> Option<&'static str> {
        let given = |name: &&str| self.value(name).is_some_and(|value| whole(&value).is_some());
        ["max_completion_tokens", "max_tokens"].into_iter().find(given)
    }

    /// How many answers are asked for at once.
    pub fn choices(&self) -> u64 {
        self.value("n").and_then(|n| whole(&n)).unwrap_or(1).max(1)
    }

    /// What an upstream has to read.
    pub fn prompt(&self) -> Prompt {
        let mut prompt = Prompt::default();
        if let Some(Value::Array(messages)) = self.value("messages") {
            prompt.messages = messages.len() as u64;
            messages.iter().for_each(|message| prompt.read(message));
        }
        for name in ["tools", "functions", "response_format"] {
            if let Some(raw) = self.members.get(name) {
                prompt.text.push_str(raw.get());
            }
        }
        prompt
    }

    /// The body an upstream receives: `model` replaced, and usage asked for when `include_usage`.
    pub fn for_upstream(&self, model: &str, include_usage: bool) -> Bytes {
        let mut members = self.members.clone();
        set(&mut members, "model", &Value::from(model));
        if include_usage && self.streams() && !self.asks_for_usage() {
            let mut options: IndexMap<String, Box<RawValue>> =
                members.get("stream_options").and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
            set(&mut options, "include_usage", &Value::Bool(true));
            set(&mut members, "stream_options", &options);
        }
        // Serialising a map of raw JSON texts cannot fail.
        serde_json::to_vec(&members).unwrap_or_default().into()
    }
}

/// What an upstream has to read: the basis of an estimate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// All that is written in messages, tools and the wanted format.
    pub text: String,
    /// Images, sounds and files that are part of the messages.
    pub attachments: u64,
    /// How many messages there are.
    pub messages: u64,
}

impl Prompt {
    fn read(&mut self, value: &Value) {
        match value {
            Value::String(text) if text.starts_with("data:") => self.attachments += 1,
            Value::String(text) => {
                self.text.push_str(text);
                self.text.push('\n');
            }
            Value::Array(parts) => parts.iter().for_each(|part| self.read(part)),
            Value::Object(members) => members.iter().for_each(|(name, part)| match (name.as_str(), part) {
                // Sound is base64 without a `data:` address.
                ("data" | "file_data", Value::String(_)) => self.attachments += 1,
                _ => self.read(part),
            }),
            _ => {}
        }
    }
}

fn set(members: &mut IndexMap<String, Box<RawValue>>, name: &str, value: &impl serde::Serialize) {
    if let Ok(raw) = serde_json::value::to_raw_value(value) {
        members.insert(name.to_owned(), raw);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(body: &str, model: &str, usage: bool) -> String {
        let body = ChatBody::parse(body.as_bytes()).unwrap();
        String::from_utf8(body.for_upstream(model, usage).to_vec()).unwrap()
    }

    #[test]
    fn order_numbers_and_unknown_members_survive() {
        let body = r#"{"10":1,"seed":12345678901234567890123,"model":"auto","2":1.10,"x":{"b":1,"a":1e400}}"#;
        assert_eq!(
            sent(body, "m", false),
            r#"{"10":1,"seed":12345678901234567890123,"model":"m","2":1.10,"x":{"b":1,"a":1e400}}"#
        );
    }

    #[test]
    fn usage_is_asked_for_only_on_streams_and_beside_other_options() {
        assert_eq!(sent(r#"{"messages":[]}"#, "m", true), r#"{"messages":[],"model":"m"}"#);
        assert_eq!(
            sent(r#"{"stream":true,"stream_options":{"a":1,"include_usage":false}}"#, "m", true),
            r#"{"stream":true,"stream_options":{"a":1,"include_usage":true},"model":"m"}"#
        );
        assert_eq!(sent(r#"{"stream":true}"#, "m", false), r#"{"stream":true,"model":"m"}"#);
    }

    #[test]
    fn a_limit_of_tokens_is_set_under_the_name_the_caller_used() {
        for (body, limit, limited) in [
            ("{}", None, r#"{"max_tokens":7,"model":"m"}"#),
            (r#"{"max_tokens":"x"}"#, None, r#"{"max_tokens":7,"model":"m"}"#),
            (r#"{"max_tokens":90.0,"n":2.0}"#, Some(90), r#"{"max_tokens":7,"n":2.0,"model":"m"}"#),
            (r#"{"max_tokens":90}"#, Some(90), r#"{"max_tokens":7,"model":"m"}"#),
            (
                r#"{"max_tokens":90,"max_completion_tokens":80}"#,
                Some(80),
                r#"{"max_tokens":90,"max_completion_tokens":7,"model":"m"}"#,
            ),
        ] {
            let mut parsed = ChatBody::parse(body.as_bytes()).unwrap();
            assert_eq!(parsed.token_limit(), limit, "{body}");
            parsed.limit_tokens(7);
            assert_eq!(parsed.for_upstream("m", false), limited, "{body}");
        }
    }

    #[test]
    fn a_prompt_is_its_words_and_not_the_bytes_of_its_pictures() {
        let body = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi"},
            {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}},
            {"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]}],"tools":[{"a":1}]}"#;
        let prompt = ChatBody::parse(body.as_bytes()).unwrap().prompt();
        let text = "user\ntext\nhi\nimage_url\ninput_audio\nwav\n[{\"a\":1}]".to_owned();
        assert_eq!(prompt, Prompt { text, attachments: 2, messages: 1 });
        assert_eq!(ChatBody::parse(b"{}").unwrap().prompt(), Prompt::default());
    }

    #[test]
    fn falsy_models_mean_auto_and_others_are_reported_as_sent() {
        for body in ["{}", r#"{"model":null}"#, r#"{"model":""}"#, r#"{"model":0}"#, r#"{"model":false}"#] {
            assert_eq!(ChatBody::parse(body.as_bytes()).unwrap().requested_model(), "auto", "{body}");
        }
        assert_eq!(ChatBody::parse(br#"{"model":5}"#).unwrap().requested_model(), 5);
    }

    #[test]
    fn bodies_that_are_not_objects_or_carry_wrong_types_are_refused() {
        for body in ["", "not json", "null", "[]", "5", "{"] {
            assert_eq!(ChatBody::parse(body.as_bytes()).unwrap_err(), InvalidBody::NotAnObject, "{body}");
        }
        for (body, member) in [
            (r#"{"messages":"hi"}"#, "messages"),
            (r#"{"stream":"yes"}"#, "stream"),
            (r#"{"stream_options":[]}"#, "stream_options"),
        ] {
            let refused = ChatBody::parse(body.as_bytes()).unwrap_err();
            assert!(matches!(refused, InvalidBody::Member { member: m, .. } if m == member), "{body}");
        }
    }
}
