//! Volcengine openspeech v1 over WebSocket ("submit"): audio arrives piece by piece in the provider's binary frames.
//!
//! A frame is a header of four bytes (version and header size in words, kind and flags, encoding and compression,
//! reserved), for numbered frames a signed sequence, then the size of the payload and the payload, all big-endian. The
//! last piece of audio has a negative sequence, and flags that say so. Audio is never compressed; the text of an error
//! may be.

use bytes::{Buf, Bytes};
use futures::{SinkExt, StreamExt, stream};
use tokio::time::timeout_at;
use tokio_tungstenite::tungstenite::Message;

use super::socket::{Socket, open};
use super::volcengine::{Call, authorization, failure_of};
use super::wire::{Limits, begin};
use super::{Egress, UNSUPPORTED_FORMAT, stream_address};
use crate::ports::tts::{SpeechAttempt, SpeechFailure, SpokenAudio};
use crate::ports::upstream::UpstreamError;

const PATH: &str = "/api/v1/tts/ws_binary";
/// Version 1, a header of one word; a whole client request; JSON, not compressed.
const REQUEST_HEADER: [u8; 4] = [0x11, 0x10, 0x10, 0x00];
const AUDIO: u8 = 0xb;
const ERROR: u8 = 0xf;
/// The flag of the last piece.
const LAST: u8 = 0b10;

pub(super) async fn speak(
    egress: &Egress,
    attempt: &SpeechAttempt,
    id: &str,
    limits: Limits,
) -> Result<SpokenAudio, SpeechFailure> {
    let call = Call::of(attempt, id, "submit")?;
    if call.media_type() == "audio/wav" {
        // The provider cannot stream it: its header tells a length that is not known yet.
        return Err(UNSUPPORTED_FORMAT);
    }
    let address = stream_address(&attempt.base_url, PATH);
    let mut socket = open(egress, &address, authorization(attempt)?, limits.first_byte).await?;
    let request = request(&call).ok_or_else(|| SpeechFailure::Misconfigured("the request is too long".to_owned()))?;
    let first = async {
        let sent = socket.send(Message::binary(request)).await;
        sent.map_err(|error| SpeechFailure::Transport(error.to_string()))?;
        next(&mut socket).await
    };
    let first = timeout_at(limits.first_byte, first).await.map_err(|_| SpeechFailure::Timeout)??;
    let rest = stream::unfold((!first.last).then_some(socket), |socket| async move {
        let mut socket = socket?;
        match next(&mut socket).await {
            Ok(piece) => Some((Ok(piece.audio), (!piece.last).then_some(socket))),
            Err(failure) => Some((Err(UpstreamError::Transport(failure.to_string())), None)),
        }
    });
    begin(stream::iter([Ok(first.audio)]).chain(rest), call.media_type().to_owned(), limits).await
}

fn request(call: &Call<'_>) -> Option<Vec<u8>> {
    let payload = serde_json::to_vec(call).ok()?;
    let mut frame = REQUEST_HEADER.to_vec();
    frame.extend_from_slice(&u32::try_from(payload.len()).ok()?.to_be_bytes());
    frame.extend_from_slice(&payload);
    Some(frame)
}

#[derive(Debug, PartialEq)]
struct Piece {
    audio: Bytes,
    last: bool,
}

async fn next(socket: &mut Socket) -> Result<Piece, SpeechFailure> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(frame))) => {
                if let Some(piece) = piece(frame)? {
                    return Ok(piece);
                }
            }
            Some(Ok(Message::Close(_))) | None => {
                return Err(SpeechFailure::Transport("the stream closed before its last piece".to_owned()));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(SpeechFailure::Transport(error.to_string())),
        }
    }
}

/// The audio of a frame; `None` for an acknowledgement.
fn piece(mut frame: Bytes) -> Result<Option<Piece>, SpeechFailure> {
    let garbled = || SpeechFailure::NoAudio("a frame that is none of the protocol".to_owned());
    let [first, second, third, ..] = *frame else { return Err(garbled()) };
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != 1 || header < 4 || frame.len() < header {
        return Err(garbled());
    }
    frame.advance(header);
    match (second >> 4, second & 0x0f) {
        (AUDIO, 0) => Ok(None),
        (AUDIO, flags) => {
            let sequence = frame.try_get_i32().map_err(|_| garbled())?;
            let size = frame.try_get_u32().map_err(|_| garbled())? as usize;
            if frame.len() < size {
                return Err(garbled());
            }
            Ok(Some(Piece { audio: frame.split_to(size), last: sequence < 0 || flags & LAST != 0 }))
        }
        (ERROR, _) => {
            let code = frame.try_get_u32().map_err(|_| garbled())?;
            let size = frame.try_get_u32().map_err(|_| garbled())? as usize;
            let plain = third & 0x0f == 0;
            let message = if plain { &frame[..size.min(frame.len())] } else { b"a compressed message" };
            let message = String::from_utf8_lossy(message).into_owned();
            Err(failure_of(i64::from(code), &message))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, words: &[u32], payload: &[u8]) -> Bytes {
        let mut frame = vec![0x11, kind, 0x10, 0];
        words.iter().for_each(|word| frame.extend_from_slice(&word.to_be_bytes()));
        frame.extend_from_slice(payload);
        frame.into()
    }

    #[test]
    fn audio_its_last_piece_and_errors_are_told_apart() {
        assert_eq!(piece(frame(0xb0, &[], b"")).unwrap(), None);
        let audio = piece(frame(0xb1, &[1, 3], b"abc")).unwrap().unwrap();
        assert_eq!(audio, Piece { audio: Bytes::from_static(b"abc"), last: false });
        let last = piece(frame(0xb3, &[(-2_i32).cast_unsigned(), 1], b"z")).unwrap().unwrap();
        assert_eq!(last, Piece { audio: Bytes::from_static(b"z"), last: true });
        let refused = piece(frame(0xf0, &[3_003, 4], b"busy")).unwrap_err();
        assert!(matches!(refused, SpeechFailure::Status { status: 429, .. }), "{refused}");
        let flagged = piece(frame(0xb2, &[5, 1], b"z")).unwrap().unwrap();
        assert!(flagged.last);
        let mut packed = frame(0xf0, &[3_003, 2], b"\x1f\x8b").to_vec();
        packed[2] = 0x11;
        let refused = piece(packed.into()).unwrap_err();
        let SpeechFailure::Status { status: 429, body, .. } = refused else { panic!("{refused}") };
        assert!(!body.contains(&0x1f), "what is packed is not shown");
        for garbage in [&b""[..], b"x", b"\x11", b"\x11\xb1\x10\x00\x00", b"\x21\xb1\x10\x00", b"\x1f\xb1\x10\x00"] {
            assert!(piece(Bytes::from_static(garbage)).is_err(), "{garbage:?}");
        }
        assert!(piece(frame(0xb1, &[1, 9], b"abc")).is_err());
    }
}
