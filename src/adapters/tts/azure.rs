//! Azure AI Speech (contract `audio.md` §4.1).

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::json;

use super::wire::{Limits, announced_type, audio, send};
use super::{Egress, UNSUPPORTED_FORMAT};
use crate::ports::tts::{SpeechAttempt, SpeechFailure, SpokenAudio};

const DEFAULT_VOICE: &str = "en-US-AvaMultilingualNeural";
const KEY: HeaderName = HeaderName::from_static("ocp-apim-subscription-key");
const FORMAT: HeaderName = HeaderName::from_static("x-microsoft-outputformat");

pub(super) async fn speak(
    egress: &Egress,
    attempt: &SpeechAttempt,
    limits: Limits,
) -> Result<SpokenAudio, SpeechFailure> {
    let voice = attempt.voice.as_deref().unwrap_or(DEFAULT_VOICE);
    if !is_voice(voice) {
        return Err(SpeechFailure::BadRequest {
            message: format!("azure voice id contains unsupported characters: {voice}"),
            details: Some(json!({ "voice": voice })),
        });
    }
    let format = output_format(attempt.response_format.as_deref()).ok_or(UNSUPPORTED_FORMAT)?;
    let url = (egress.admit)(&attempt.base_url).map_err(SpeechFailure::Misconfigured)?;
    let mut key = HeaderValue::from_str(attempt.key.expose())
        .map_err(|_| SpeechFailure::Misconfigured("the key is not a valid header value".to_owned()))?;
    key.set_sensitive(true);
    let request = egress
        .client
        .post(url)
        .header(KEY, key)
        .header(FORMAT, format)
        .header(CONTENT_TYPE, "application/ssml+xml")
        .body(ssml(&attempt.text, voice, attempt.speed));
    let response = send(egress, request, limits).await?;
    let content_type = announced_type(response.headers())?.unwrap_or_else(|| media_type_of(format).to_owned());
    audio(response, content_type, limits).await
}

/// The one line of SSML. Everything the caller wrote is escaped, and what XML 1.0 forbids is dropped (AU-D06).
fn ssml(text: &str, voice: &str, speed: Option<f64>) -> String {
    let percent = speed.map_or(0.0, percent);
    let text = escaped(text);
    let text = if percent == 0.0 { text } else { format!("<prosody rate='{percent:+}%'>{text}</prosody>") };
    format!("<speak version='1.0' xml:lang='en-US'><voice name='{voice}'>{text}</voice></speak>")
}

/// Whole percent, ties toward the greater, as the reference's language rounds.
fn percent(speed: f64) -> f64 {
    let exact = (speed - 1.0) * 100.0;
    // `floor(x + 0.5)` would round the largest number below one half up.
    let floor = exact.floor();
    if exact - floor >= 0.5 { floor + 1.0 } else { floor }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\t' | '\n' | '\r' => out.push(character),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
            _ => out.push(character),
        }
    }
    out
}

/// Guards the attribute it is written into.
fn is_voice(voice: &str) -> bool {
    !voice.is_empty() && voice.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn output_format(asked: Option<&str>) -> Option<&str> {
    match asked.unwrap_or_default() {
        "" | "mp3" => Some("audio-24khz-48kbitrate-mono-mp3"),
        "wav" => Some("riff-24khz-16bit-mono-pcm"),
        "opus" => Some("ogg-24khz-16bit-mono-opus"),
        "pcm" => Some("raw-24khz-16bit-mono-pcm"),
        own if own.contains('-') && own.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') => {
            Some(own)
        }
        _ => None,
    }
}

fn media_type_of(format: &str) -> &'static str {
    if format.contains("mp3") {
        "audio/mpeg"
    } else if format.contains("opus") {
        "audio/ogg"
    } else if format.contains("pcm") || format.starts_with("riff") {
        "audio/wav"
    } else {
        "application/octet-stream"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../../tests/fixtures/azure-ssml-vectors.json")).unwrap()
    }

    #[test]
    fn every_body_of_the_vectors_byte_for_byte() {
        for row in vectors()["body"].as_array().unwrap() {
            let voice = row["voice"].as_str().unwrap_or(DEFAULT_VOICE);
            let body = ssml(row["input"].as_str().unwrap(), voice, row["speed"].as_f64());
            assert_eq!(body, row["expectedBody"].as_str().unwrap(), "{row}");
        }
    }

    #[test]
    fn every_format_and_voice_of_the_vectors() {
        let vectors = vectors();
        for row in vectors["outputFormat"].as_array().unwrap() {
            assert_eq!(output_format(row["responseFormat"].as_str()), row["targetHeader"].as_str(), "{row}");
        }
        let voices = |name: &str| vectors["voiceId"][name].as_array().unwrap().clone();
        assert!(voices("accept").iter().all(|voice| is_voice(voice.as_str().unwrap())));
        assert!(voices("reject").iter().all(|voice| !is_voice(voice.as_str().unwrap())));
        assert_eq!(output_format(Some("x-'/>")), None);
    }

    #[test]
    fn what_xml_forbids_is_dropped_and_white_space_stays() {
        assert_eq!(escaped("a\u{0}\u{8}\u{b}b\t\r\n\u{fffe}c\u{7f}"), "ab\t\r\nc\u{7f}");
    }

    #[test]
    fn the_media_type_follows_the_format() {
        for (format, kind) in [
            ("audio-24khz-48kbitrate-mono-mp3", "audio/mpeg"),
            ("ogg-24khz-16bit-mono-opus", "audio/ogg"),
            ("raw-24khz-16bit-mono-pcm", "audio/wav"),
            ("amr-wb-16000hz", "application/octet-stream"),
        ] {
            assert_eq!(media_type_of(format), kind);
        }
    }
}
