//! What every provider over HTTP has in common: limits, refusals, and audio handed on as it arrives.

use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::header::{DATE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response};
use tokio::time::{Instant, timeout_at};

use super::Egress;
use crate::core::model::retry_after::retry_after_seconds;
use crate::core::model::tts::MAX_AUDIO;
use crate::ports::tts::{SpeechFailure, SpokenAudio};
use crate::ports::upstream::{ByteStream, Patience, UpstreamError};

/// What is kept of the body of a refusal.
const REFUSAL_BYTES: usize = 16 * 1024;
/// How long the body of a refusal is waited for; the status alone is enough to go on.
const REFUSAL_WAIT: Duration = Duration::from_secs(2);
/// What is told of a success that is none, characters.
const SAID_CHARS: usize = 256;

/// The moments at which [`Patience`] ends.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) first_byte: Instant,
    pub(super) end: Instant,
    pub(super) idle: Duration,
}

impl Limits {
    pub(super) fn from_now(patience: Patience) -> Self {
        let now = Instant::now();
        let end = now + patience.total;
        Self { first_byte: (now + patience.head.min(patience.first_byte)).min(end), end, idle: patience.idle }
    }
}

/// A success whose head has arrived.
pub(super) async fn send(egress: &Egress, request: RequestBuilder, limits: Limits) -> Result<Response, SpeechFailure> {
    let request = request.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let request = request.build().map_err(|error| SpeechFailure::Misconfigured(explain(error)))?;
    let sent = timeout_at(limits.first_byte, egress.bounded.send(request)).await.map_err(|_| SpeechFailure::Timeout)?;
    let response = sent.map_err(|error| SpeechFailure::Transport(error.explain()))?;
    let status = response.status();
    if !status.is_success() {
        let retry_after = retry_after(response.headers());
        let until = limits.first_byte.min(Instant::now() + REFUSAL_WAIT);
        let body = beginning(response, until).await;
        return Err(SpeechFailure::Status { status: status.as_u16(), body, retry_after });
    }
    let encoded = response.headers().get(CONTENT_ENCODING);
    if encoded.is_some_and(|coding| !coding.is_empty() && !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(SpeechFailure::NoAudio("the body is encoded although identity was asked for".to_owned()));
    }
    Ok(response)
}

/// The whole of a short document.
pub(super) async fn document(response: Response, limits: Limits, cap: usize) -> Result<Bytes, SpeechFailure> {
    let mut rest = response.bytes_stream();
    let mut whole = BytesMut::new();
    loop {
        let read = timeout_at(limits.first_byte, rest.next()).await.map_err(|_| SpeechFailure::Timeout)?;
        match read {
            None => return Ok(whole.freeze()),
            Some(Err(error)) => return Err(SpeechFailure::Transport(explain(error))),
            Some(Ok(bytes)) if whole.len() + bytes.len() > cap => {
                return Err(SpeechFailure::NoAudio("the answer is longer than any of its kind".to_owned()));
            }
            Some(Ok(bytes)) => whole.extend_from_slice(&bytes),
        }
    }
}

/// The body of a response as audio of `content_type`, once its first byte is in hand.
pub(super) async fn audio(
    response: Response,
    content_type: String,
    limits: Limits,
) -> Result<SpokenAudio, SpeechFailure> {
    let announced = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_AUDIO) {
        return Err(SpeechFailure::TooLarge);
    }
    let bytes = response.bytes_stream().map(|read| read.map_err(|error| UpstreamError::Transport(explain(error))));
    begin(bytes, content_type, limits).await
}

/// Audio from any stream of bytes, once its first byte is in hand.
pub(super) async fn begin(
    bytes: impl Stream<Item = Result<Bytes, UpstreamError>> + Send + 'static,
    content_type: String,
    limits: Limits,
) -> Result<SpokenAudio, SpeechFailure> {
    let mut rest = bytes.boxed();
    let first = loop {
        let read = timeout_at(limits.first_byte, rest.next()).await.map_err(|_| SpeechFailure::Timeout)?;
        match read {
            Some(Ok(bytes)) if bytes.is_empty() => {}
            Some(Ok(bytes)) => break bytes,
            Some(Err(error)) => return Err(SpeechFailure::Transport(error.to_string())),
            None => return Err(SpeechFailure::NoAudio("the answer is empty".to_owned())),
        }
    };
    if is_text(&first, &content_type) {
        return Err(SpeechFailure::NoAudio(said(&first)));
    }
    Ok(SpokenAudio { content_type, body: timed(first, rest, limits) })
}

/// A document that claims to be audio. Every format but raw samples begins with a mark of its own.
fn is_text(first: &[u8], content_type: &str) -> bool {
    let raw = content_type.starts_with("audio/L16") || content_type == "application/octet-stream";
    !raw && matches!(first.trim_ascii_start().first(), Some(b'<' | b'{' | b'['))
}

/// The body under the limits of silence and of the whole. A failure ends it and closes the connection at once.
fn timed(first: Bytes, rest: ByteStream, limits: Limits) -> ByteStream {
    let rest = stream::unfold(Some(rest), move |rest| async move {
        let mut rest = rest?;
        let now = Instant::now();
        // A timer is asked only when nothing is ready, so an upstream that never pauses needs this check.
        if now >= limits.end {
            return Some((Err(UpstreamError::Stalled), None));
        }
        match timeout_at(limits.end.min(now + limits.idle), rest.next()).await {
            Err(_) => Some((Err(UpstreamError::Stalled), None)),
            Ok(None) => None,
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(rest))),
            Ok(Some(Err(error))) => Some((Err(error), None)),
        }
    });
    stream::iter([Ok(first)]).chain(rest).boxed()
}

/// The media type an upstream announced, if it is one of audio or says nothing.
pub(super) fn announced_type(headers: &HeaderMap) -> Result<Option<String>, SpeechFailure> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "" | "application/octet-stream" | "binary/octet-stream" => Ok(None),
        "application/ogg" => Ok(Some(text.to_owned())),
        _ if kind.starts_with("audio/") => Ok(Some(text.to_owned())),
        _ => Err(SpeechFailure::NoAudio(format!("the answer is {kind}"))),
    }
}

/// The media type of OpenAI's and the providers' format words.
pub(super) fn media_type(format: &str) -> &'static str {
    match format {
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "pcm" => "audio/L16",
        "opus" | "ogg_opus" => "audio/ogg",
        _ => "application/octet-stream",
    }
}

/// The beginning of what an upstream said, for the log.
pub(super) fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SAID_CHARS)]).chars().take(SAID_CHARS).collect()
}

/// The chain of causes on one line, without the address: its query may hold a key.
pub(super) fn explain(error: reqwest::Error) -> String {
    chain(&error.without_url())
}

/// An error with its causes.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    retry_after_seconds(text(RETRY_AFTER)?, text(DATE))
}

/// At most [`REFUSAL_BYTES`] of a refusal; a read that fails or takes too long ends it, and is no second failure.
async fn beginning(response: Response, until: Instant) -> Bytes {
    let mut rest = response.bytes_stream();
    let mut kept = BytesMut::new();
    while kept.len() < REFUSAL_BYTES {
        let Ok(Some(Ok(bytes))) = timeout_at(until, rest.next()).await else { break };
        kept.extend_from_slice(&bytes[..bytes.len().min(REFUSAL_BYTES - kept.len())]);
    }
    kept.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &'static str) -> Result<Option<String>, SpeechFailure> {
        announced_type(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]))
    }

    #[test]
    fn only_audio_is_taken_for_audio() {
        assert_eq!(of("audio/mpeg").unwrap().as_deref(), Some("audio/mpeg"));
        assert_eq!(of("Audio/Ogg; codecs=opus").unwrap().as_deref(), Some("Audio/Ogg; codecs=opus"));
        assert_eq!(of("application/octet-stream").unwrap(), None);
        for kind in ["text/html; charset=utf-8", "application/json", "text/plain"] {
            assert!(matches!(of(kind), Err(SpeechFailure::NoAudio(_))), "{kind}");
        }
    }

    #[test]
    fn a_document_that_claims_to_be_audio_is_found_out() {
        for text in ["<html>", " \n{\"code\":1}", "[1]"] {
            assert!(is_text(text.as_bytes(), "audio/mpeg"), "{text}");
            assert!(!is_text(text.as_bytes(), "audio/L16"), "raw samples may be anything");
        }
        for audio in [&b"ID3\x04"[..], b"\xff\xfb\x90", b"RIFF", b"OggS"] {
            assert!(!is_text(audio, "audio/mpeg"));
        }
    }
}
