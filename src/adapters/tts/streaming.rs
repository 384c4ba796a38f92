//! The streaming speech upstream: an unspeech server over WebSocket (contract `audio.md` §5, §6).

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, future};
use reqwest::header::HeaderValue;
use tokio_tungstenite::tungstenite::Message;

use super::Egress;
use super::socket::{NotOpen, open, within};
use super::wire::explain;
use crate::core::model::secret::Secret;
use crate::core::model::tts::Frame;
use crate::ports::tts::{DialFailure, LinkBroken, SpeechLink, StreamingSpeech};
use crate::ports::{Fault, FaultKind};

/// The longest catalogue, bytes.
const MAX_VOICES: usize = 4 << 20;

/// Dials the upstream and asks it for its voices.
pub struct UnspeechUpstream {
    /// The way out.
    pub egress: Egress,
}

#[async_trait]
impl StreamingSpeech for UnspeechUpstream {
    async fn dial(&self, url: &str, key: &Secret, limit: Duration) -> Result<SpeechLink, DialFailure> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
            .map_err(|_| DialFailure::Refused("the key is not a valid header value".to_owned()))?;
        authorization.set_sensitive(true);
        let socket = open(&self.egress, url, authorization, within(limit)).await.map_err(|why| match why {
            NotOpen::Unusable(why) => DialFailure::Unusable(why),
            NotOpen::Status(status, _) => DialFailure::Refused(format!("handshake answered {status}")),
            NotOpen::Timeout => DialFailure::Timeout,
            NotOpen::Broken(why) => DialFailure::Refused(why),
        })?;
        let (sink, frames) = socket.split();
        let frames = frames
            .take_while(|read| future::ready(!matches!(read, Ok(Message::Close(_)))))
            .filter_map(|read| future::ready(frame(read)));
        let sink = sink
            .with(|frame| {
                future::ready(Ok::<_, tokio_tungstenite::tungstenite::Error>(match frame {
                    Frame::Text(text) => Message::text(text),
                    Frame::Binary(bytes) => Message::binary(bytes),
                }))
            })
            .sink_map_err(|error| LinkBroken(error.to_string()));
        Ok(SpeechLink { frames: frames.boxed(), sink: Box::pin(sink) })
    }

    async fn voices(&self, url: &str, limit: Duration) -> Result<Bytes, Fault> {
        let fault = |why: String| Fault::new(FaultKind::Unavailable, "speech.voices", why);
        let asked = async {
            let url = (self.egress.admit)(url).map_err(fault)?;
            let answer = self.egress.client.get(url).send().await.map_err(|error| fault(explain(error)))?;
            if !answer.status().is_success() {
                return Err(fault(format!("answered {}", answer.status().as_u16())));
            }
            let mut rest = answer.bytes_stream();
            let mut whole = BytesMut::new();
            while let Some(read) = rest.next().await {
                let bytes = read.map_err(|error| fault(explain(error)))?;
                if whole.len() + bytes.len() > MAX_VOICES {
                    return Err(fault("the catalogue is longer than 4 MiB".to_owned()));
                }
                whole.extend_from_slice(&bytes);
            }
            Ok(whole.freeze())
        };
        let timed_out = |_| Fault::new(FaultKind::Timeout, "speech.voices", "no answer in time");
        tokio::time::timeout(limit, asked).await.map_err(timed_out)?
    }
}

fn frame(read: Result<Message, tokio_tungstenite::tungstenite::Error>) -> Option<Result<Frame, LinkBroken>> {
    match read {
        Ok(Message::Text(text)) => Some(Ok(Frame::Text(text.as_str().to_owned()))),
        Ok(Message::Binary(bytes)) => Some(Ok(Frame::Binary(bytes))),
        Ok(_) => None,
        Err(error) => Some(Err(LinkBroken(error.to_string()))),
    }
}
