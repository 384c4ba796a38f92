//! Alibaba CosyVoice over WebSocket: audio arrives while the rest is still being made.
//!
//! One task per connection: `run-task`, then `continue-task` with the text once the task has started, then
//! `finish-task`; audio comes as binary frames, events as text.

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::timeout_at;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::cosyvoice::{bearer, format_of, model_of, rate_of, refusal, voice_of};
use super::socket::{Socket, open};
use super::wire::{Limits, begin, media_type};
use super::{Egress, stream_address};
use crate::ports::tts::{SpeechAttempt, SpeechFailure, SpokenAudio};
use crate::ports::upstream::UpstreamError;

const PATH: &str = "/api-ws/v1/inference";

pub(super) async fn speak(
    egress: &Egress,
    attempt: &SpeechAttempt,
    id: &str,
    limits: Limits,
) -> Result<SpokenAudio, SpeechFailure> {
    let format = format_of(attempt)?;
    let id = task_id(id);
    let address = stream_address(&attempt.base_url, PATH);
    let mut socket = open(egress, &address, bearer(attempt)?, limits.first_byte).await?;
    let first = timeout_at(limits.first_byte, converse(&mut socket, attempt, format, &id)).await;
    let first = first.map_err(|_| SpeechFailure::Timeout)??;
    let rest = stream::unfold(Some(socket), |socket| async move {
        let mut socket = socket?;
        match next(&mut socket).await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(socket))),
            Ok(None) => None,
            Err(failure) => Some((Err(UpstreamError::Transport(failure.to_string())), None)),
        }
    });
    begin(stream::iter([Ok(first)]).chain(rest), media_type(format).to_owned(), limits).await
}

/// 32 hexadecimal digits, as the provider wants a task named, from as many characters of a fresh token.
fn task_id(token: &str) -> String {
    token.bytes().filter_map(|byte| char::from_digit(u32::from(byte) % 16, 16)).collect()
}

/// Says everything there is to say and waits for the first audio.
async fn converse(
    socket: &mut Socket,
    attempt: &SpeechAttempt,
    format: &str,
    id: &str,
) -> Result<Bytes, SpeechFailure> {
    let mut parameters = json!({ "text_type": "PlainText", "voice": voice_of(attempt), "format": format });
    if let Some(rate) = rate_of(attempt.speed) {
        parameters["rate"] = rate.into();
    }
    let task = json!({
        "task_group": "audio",
        "task": "tts",
        "function": "SpeechSynthesizer",
        "model": model_of(attempt),
        "parameters": parameters,
        "input": {},
    });
    say(socket, "run-task", id, &task).await?;
    loop {
        match read(socket).await? {
            Said::Event(event) if event == "task-started" => break,
            Said::Event(_) => {}
            Said::Audio(bytes) => return Ok(bytes),
            Said::Finished => return Err(SpeechFailure::NoAudio("the task ended before it began".to_owned())),
        }
    }
    say(socket, "continue-task", id, &json!({ "input": { "text": attempt.text } })).await?;
    say(socket, "finish-task", id, &json!({ "input": {} })).await?;
    let first = next(socket).await?;
    first.ok_or_else(|| SpeechFailure::NoAudio("the task finished without audio".to_owned()))
}

async fn say(socket: &mut Socket, action: &str, id: &str, payload: &Value) -> Result<(), SpeechFailure> {
    let header = json!({ "action": action, "task_id": id, "streaming": "duplex" });
    let text = json!({ "header": header, "payload": payload }).to_string();
    socket.send(Message::text(text)).await.map_err(|error| broken(&error))
}

/// The next audio; `None` when the task has finished.
async fn next(socket: &mut Socket) -> Result<Option<Bytes>, SpeechFailure> {
    loop {
        match read(socket).await? {
            Said::Audio(bytes) => return Ok(Some(bytes)),
            Said::Finished => return Ok(None),
            Said::Event(_) => {}
        }
    }
}

enum Said {
    Audio(Bytes),
    Event(String),
    Finished,
}

async fn read(socket: &mut Socket) -> Result<Said, SpeechFailure> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => {}
            Some(Ok(Message::Binary(bytes))) => return Ok(Said::Audio(bytes)),
            Some(Ok(Message::Text(text))) => return event(text.as_str()),
            Some(Ok(Message::Close(_))) | None => {
                return Err(SpeechFailure::Transport("the stream closed before the task finished".to_owned()));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(broken(&error)),
        }
    }
}

fn event(text: &str) -> Result<Said, SpeechFailure> {
    let said: Value = serde_json::from_str(text).unwrap_or_default();
    let header = &said["header"];
    match header["event"].as_str().unwrap_or_default() {
        "task-finished" => Ok(Said::Finished),
        "task-failed" => {
            let text = |name: &str| header[name].as_str().unwrap_or_default();
            Err(refusal(text("error_code"), text("error_message")))
        }
        event => Ok(Said::Event(event.to_owned())),
    }
}

fn broken(error: &Error) -> SpeechFailure {
    SpeechFailure::Transport(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_named_in_hexadecimal_digits() {
        let id = task_id("AZaz09bcdefghijklmnopqrstuvwxyAB");
        assert_eq!(id.len(), 32);
        assert!(id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
        assert_ne!(id, task_id("BZaz09bcdefghijklmnopqrstuvwxyAB"));
    }
}
