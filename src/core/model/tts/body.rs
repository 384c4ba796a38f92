//! The body of a one-shot speech call (contract `audio.md` §2.1, AU-D02).

use serde_json::{Map, Value};
use thiserror::Error;

use crate::core::model::llm::AUTO_MODEL;

/// OpenAI's own limit, Unicode scalar values.
const MAX_INPUT: usize = 4_096;
const MAX_VOICE: usize = 200;
const MAX_FORMAT: usize = 64;

/// A speech call whose members are fit to be routed.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeechBody {
    /// The text.
    pub input: String,
    /// Provider voice id.
    pub voice: Option<String>,
    /// OpenAI format word, or a provider's own code; which ones a provider knows only its adapter can say.
    pub response_format: Option<String>,
    /// Speaking rate, 0.25 to 4; 1 is normal.
    pub speed: Option<f64>,
}

/// One thing that is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The member.
    pub path: &'static str,
    /// What would be accepted.
    pub message: &'static str,
}

/// Why a body is refused before it is routed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnusableBody {
    /// Not JSON, or JSON that is not an object.
    #[error("Request body must be JSON")]
    NotAnObject,
    /// Members are unusable.
    #[error("Invalid Request")]
    Members(Vec<Issue>),
}

impl SpeechBody {
    /// The members of a body, in no way judged but for being an object. An escape of half a surrogate pair is no JSON.
    pub fn members(bytes: &[u8]) -> Result<Map<String, Value>, UnusableBody> {
        serde_json::from_slice(bytes).map_err(|_| UnusableBody::NotAnObject)
    }

    /// The model asked for, as the caller wrote it: `auto` when absent, empty or falsy.
    pub fn requested_model(members: &Map<String, Value>) -> Value {
        match members.get("model") {
            None | Some(Value::Null | Value::Bool(false)) => AUTO_MODEL.into(),
            Some(Value::String(text)) if text.is_empty() => AUTO_MODEL.into(),
            Some(Value::Number(number)) if number.as_f64() == Some(0.0) => AUTO_MODEL.into(),
            Some(value) => value.clone(),
        }
    }

    /// Judges the members this server reads; others are dropped.
    pub fn read(mut members: Map<String, Value>) -> Result<Self, UnusableBody> {
        let mut issues = Vec::new();
        let mut issue = |path, message| issues.push(Issue { path, message });
        let input = match members.remove("input") {
            Some(Value::String(text)) => text,
            _ => {
                issue("input", "must be a string");
                String::from("-")
            }
        };
        if input.trim().is_empty() {
            issue("input", "must not be empty");
        }
        if input.chars().nth(MAX_INPUT).is_some() {
            issue("input", "must be at most 4096 characters");
        }
        let mut text = |path, fits: fn(&str) -> bool, message| match members.remove(path) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if fits(&text) => Some(text),
            Some(_) => {
                issue(path, message);
                None
            }
        };
        let voice = text("voice", is_voice, "must be a string of 1 to 200 characters");
        let format = text("response_format", is_format, "must be mp3, opus, aac, flac, wav, pcm or a provider's code");
        let speed = match members.remove("speed") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let speed = value.as_f64().filter(|speed| (0.25..=4.0).contains(speed));
                if speed.is_none() {
                    issue("speed", "must be a number from 0.25 to 4");
                }
                speed
            }
        };
        if !issues.is_empty() {
            return Err(UnusableBody::Members(issues));
        }
        Ok(Self { input, voice, response_format: format.filter(|format| !format.is_empty()), speed })
    }
}

fn is_voice(text: &str) -> bool {
    !text.is_empty() && text.chars().nth(MAX_VOICE).is_none()
}

/// Empty stands for absent, as clients send it.
fn is_format(text: &str) -> bool {
    let code = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    text.len() <= MAX_FORMAT && text.bytes().all(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<SpeechBody, UnusableBody> {
        SpeechBody::read(SpeechBody::members(json.as_bytes())?)
    }

    #[test]
    fn a_usable_body_is_read_and_what_is_not_known_is_dropped() {
        let body = read(r#"{"model":"m","input":" hi ","voice":"v","response_format":"","speed":0.25,"ssml":"<x>"}"#);
        let body = body.unwrap();
        assert_eq!((body.input.as_str(), body.voice.as_deref(), body.speed), (" hi ", Some("v"), Some(0.25)));
        assert_eq!(body.response_format, None);
        let bare = read(r#"{"input":"x","voice":null,"speed":null,"response_format":null}"#).unwrap();
        assert_eq!((bare.voice, bare.speed), (None, None));
    }

    #[test]
    fn what_is_no_object_is_no_body() {
        for json in ["", "{", "null", "[]", "5", r#"{"input":"\ud83d"}"#, r#"{"input":"\ude00 x"}"#] {
            assert_eq!(read(json).unwrap_err(), UnusableBody::NotAnObject, "{json}");
        }
    }

    #[test]
    fn every_unusable_member_is_named() {
        let long = format!(r#"{{"input":"{}"}}"#, "😀".repeat(4_097));
        let longest = format!(r#"{{"input":"{}"}}"#, "😀".repeat(4_096));
        assert!(read(&longest).is_ok());
        for (json, paths) in [
            (long.as_str(), &["input"][..]),
            ("{}", &["input"]),
            (r#"{"input":5}"#, &["input"]),
            (r#"{"input":" \n\t"}"#, &["input"]),
            (r#"{"input":"x","voice":""}"#, &["voice"]),
            (r#"{"input":"x","voice":{"id":"v"}}"#, &["voice"]),
            (r#"{"input":"x","speed":"1"}"#, &["speed"]),
            (r#"{"input":"x","speed":4.1}"#, &["speed"]),
            (r#"{"input":"x","speed":-3}"#, &["speed"]),
            (r#"{"input":"x","response_format":"MP3"}"#, &["response_format"]),
            (r#"{"input":"x","response_format":"a'/>"}"#, &["response_format"]),
            (r#"{"voice":1,"speed":true,"response_format":[]}"#, &["input", "voice", "response_format", "speed"]),
        ] {
            let Err(UnusableBody::Members(issues)) = read(json) else { panic!("{json}") };
            assert_eq!(issues.iter().map(|issue| issue.path).collect::<Vec<_>>(), paths, "{json}");
        }
    }

    #[test]
    fn falsy_models_mean_auto_and_others_are_reported_as_sent() {
        let requested = |json: &str| SpeechBody::requested_model(&SpeechBody::members(json.as_bytes()).unwrap());
        for json in ["{}", r#"{"model":null}"#, r#"{"model":""}"#, r#"{"model":0}"#, r#"{"model":false}"#] {
            assert_eq!(requested(json), "auto", "{json}");
        }
        assert_eq!(requested(r#"{"model":5}"#), 5);
    }
}
