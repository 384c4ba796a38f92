//! Speech providers over HTTP and WebSocket (contract `audio.md` §3, §4).

mod azure;
mod bounded;
mod cosyvoice;
mod cosyvoice_stream;
mod socket;
mod streaming;
mod volcengine;
mod volcengine_clip;
mod volcengine_stream;
mod wire;

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use reqwest::Client;
use tokio::net::TcpStream;
use url::Url;

use crate::core::model::tts::TtsProvider;
use crate::ports::runtime::IdSource;
use crate::ports::tts::{SpeechAttempt, SpeechFailure, SpokenAudio, TtsEngine};
use wire::Limits;

pub use bounded::Bounded;
pub use streaming::UnspeechUpstream;

/// What we call ourselves; Azure wants a name.
const PRODUCT: &str = concat!("airi-server/", env!("CARGO_PKG_VERSION"));

/// How providers are reached: what every upstream of this server shares, handed over by whoever assembles it.
#[derive(Clone)]
pub struct Egress {
    /// Follows no redirect, and resolves names to admitted addresses only.
    pub client: Client,
    /// For bodies of audio: holds little of what was not taken yet.
    pub bounded: Bounded,
    /// Reads an `http` or `https` address and refuses those an upstream may not have.
    pub admit: Admit,
    /// Connects to an admitted address of a host, for WebSockets.
    pub connect: Connect,
    /// TLS of those connections.
    pub tls: Arc<rustls::ClientConfig>,
}

/// Judges an address.
pub type Admit = Arc<dyn Fn(&str) -> Result<Url, String> + Send + Sync>;

/// Connects to a host at a port.
pub type Connect = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<TcpStream>> + Send + Sync>;

/// Every provider there is.
pub struct Engines {
    /// The way out.
    pub egress: Egress,
    /// Names requests where a protocol wants a name.
    pub ids: Arc<dyn IdSource>,
}

#[async_trait]
impl TtsEngine for Engines {
    #[tracing::instrument(name = "llm.gateway.tts", skip_all, fields(
        otel.kind = "client", gen_ai.system = system(attempt.provider), airi.gen_ai.operation.kind = "tts",
    ))]
    async fn speak(&self, attempt: &SpeechAttempt) -> Result<SpokenAudio, SpeechFailure> {
        let limits = Limits::from_now(attempt.patience);
        match attempt.provider {
            TtsProvider::Azure => azure::speak(&self.egress, attempt, limits).await,
            TtsProvider::DashscopeCosyvoice if wants_stream(attempt) => {
                cosyvoice_stream::speak(&self.egress, attempt, &self.ids.token(), limits).await
            }
            TtsProvider::DashscopeCosyvoice => cosyvoice::speak(&self.egress, attempt, limits).await,
            TtsProvider::Volcengine if wants_stream(attempt) => {
                volcengine_stream::speak(&self.egress, attempt, &self.ids.id(), limits).await
            }
            TtsProvider::Volcengine => volcengine::speak(&self.egress, attempt, &self.ids.id(), limits).await,
        }
    }
}

fn system(provider: TtsProvider) -> &'static str {
    match provider {
        TtsProvider::Azure => "azure.speech",
        TtsProvider::DashscopeCosyvoice => "dashscope.cosyvoice",
        TtsProvider::Volcengine => "volcengine.tts",
    }
}

/// The WebSocket form is spoken when the address is one, or when `adapterParams.stream` asks for it.
fn wants_stream(attempt: &SpeechAttempt) -> bool {
    let by_address = attempt.base_url.starts_with("ws:") || attempt.base_url.starts_with("wss:");
    by_address || attempt.params.get("stream").is_some_and(|stream| stream == true)
}

/// The address of the WebSocket form: the one configured, or `path` on the host of the other form.
fn stream_address(base_url: &str, path: &str) -> String {
    if base_url.starts_with("ws") {
        return base_url.to_owned();
    }
    let socket = base_url.replacen("http", "ws", 1);
    let host_at = socket.find("://").map_or(0, |at| at + 3);
    let host_end = socket[host_at..].find('/').map_or(socket.len(), |at| host_at + at);
    format!("{}{path}", &socket[..host_end])
}

const UNSUPPORTED_FORMAT: SpeechFailure =
    SpeechFailure::Unsupported { path: "response_format", message: "is not supported by this model" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_lives_on_the_same_host() {
        for (base_url, expected) in [
            ("https://a.example/api/v1/tts", "wss://a.example/s"),
            ("http://127.0.0.1:80", "ws://127.0.0.1:80/s"),
            ("wss://a.example/own", "wss://a.example/own"),
        ] {
            assert_eq!(stream_address(base_url, "/s"), expected);
        }
    }
}
