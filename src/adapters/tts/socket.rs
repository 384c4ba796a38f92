//! Opening WebSockets to providers.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use url::Url;

use super::{Egress, PRODUCT};
use crate::ports::tts::SpeechFailure;

/// What a socket reads and writes at once: hundreds of them are open at the same time.
const BUFFER: usize = 8 * 1024;
/// The longest frame of an upstream.
const MAX_FRAME: usize = 4 << 20;

/// A connection to a provider.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why there is none.
pub(super) enum NotOpen {
    /// The address cannot be used.
    Unusable(String),
    /// It answered the handshake with this status.
    Status(u16, Vec<u8>),
    /// It did not answer in time.
    Timeout,
    /// The connection failed.
    Broken(String),
}

impl From<NotOpen> for SpeechFailure {
    fn from(why: NotOpen) -> Self {
        match why {
            NotOpen::Unusable(why) => Self::Misconfigured(why),
            NotOpen::Status(status, body) => Self::Status { status, body: body.into(), retry_after: None },
            NotOpen::Timeout => Self::Timeout,
            NotOpen::Broken(why) => Self::Transport(why),
        }
    }
}

/// Opens a WebSocket at a `ws` or `wss` address, with its own authorization and no sub-protocol, before `until`.
pub(super) async fn open(
    egress: &Egress,
    address: &str,
    authorization: HeaderValue,
    until: Instant,
) -> Result<Socket, NotOpen> {
    timeout_at(until, attempt(egress, address, authorization)).await.unwrap_or(Err(NotOpen::Timeout))
}

async fn attempt(egress: &Egress, address: &str, authorization: HeaderValue) -> Result<Socket, NotOpen> {
    let url = judged(egress, address).map_err(NotOpen::Unusable)?;
    let secure = url.scheme() == "wss";
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port().unwrap_or(if secure { 443 } else { 80 });
    let mut request = url.as_str().into_client_request().map_err(|_| NotOpen::Unusable("not a url".to_owned()))?;
    request.headers_mut().insert(AUTHORIZATION, authorization);
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(PRODUCT));
    let stream = (egress.connect)(host, port).await.map_err(|error| NotOpen::Broken(error.to_string()))?;
    let connector = if secure { Connector::Rustls(egress.tls.clone()) } else { Connector::Plain };
    let opened = client_async_tls_with_config(request, stream, Some(config()), Some(connector)).await;
    match opened {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => {
            let status = answer.status().as_u16();
            Err(NotOpen::Status(status, answer.into_body().unwrap_or_default()))
        }
        Err(error) => Err(NotOpen::Broken(error.to_string())),
    }
}

/// Addresses of sockets are judged like those of requests.
fn judged(egress: &Egress, address: &str) -> Result<Url, String> {
    let url = Url::parse(address).map_err(|_| "address is not a valid url".to_owned())?;
    let twin = match url.scheme() {
        "ws" => address.replacen("ws", "http", 1),
        "wss" => address.replacen("wss", "https", 1),
        _ => return Err("address must be ws or wss".to_owned()),
    };
    (egress.admit)(&twin)?;
    Ok(url)
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(2 << 20)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME))
}

/// The end of what may be waited for before a handshake of `limit`.
pub(super) fn within(limit: Duration) -> Instant {
    Instant::now() + limit
}
