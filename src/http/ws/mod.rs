//! Sockets: counted, so that a leaving server can say goodbye to each, and limited.

mod chat;
mod outbox;
pub(super) mod speech;

use std::io;
use std::time::Duration;

use futures::StreamExt;
use poem::Request;
use poem::web::websocket::{CloseCode, Message, WebSocketConfig, WebSocketStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::Doorkeeper;
use crate::core::error::Error;
use crate::core::model::ids::UserId;

pub(super) use chat::{ChatSockets, chat_socket};

/// Every open socket of this process. The framework forgets a connection once it is a socket.
#[derive(Clone, Debug)]
pub(super) struct Sockets {
    /// Cancelled when the server leaves: each socket closes with 1001.
    leaving: CancellationToken,
    open: TaskTracker,
}

impl Sockets {
    pub(super) fn new(leaving: CancellationToken) -> Self {
        Self { leaving, open: TaskTracker::new() }
    }

    /// Waits until the sockets have closed, which they do when the server leaves.
    pub(super) async fn closed(&self, patience: Duration) {
        self.open.close();
        if timeout(patience, self.open.wait()).await.is_err() {
            tracing::warn!(sockets = self.open.len(), "sockets were still open when the grace period ended");
        }
    }
}

/// Buffers small enough for many idle sockets; one frame is one message at most.
fn config(read_buffer: usize, largest_frame: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(read_buffer)
        .write_buffer_size(0)
        .max_message_size(Some(largest_frame))
        .max_frame_size(Some(largest_frame))
}

/// Browsers cannot set headers of a socket: the token comes in the query.
fn query_token(req: &Request) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(req.uri().query()?.as_bytes());
    pairs.find(|(name, _)| name == "token").map(|(_, token)| token.into_owned())
}

/// Whose token this is; sockets know the tokens every other door knows.
async fn judge(door: &Doorkeeper, token: &str) -> Result<Option<UserId>, Error> {
    let caller = door.identify_bearer(token).await?;
    Ok(caller.map(|caller| caller.principal.user().clone()))
}

/// Whether a peer sent more than [`config`] lets pass; the framework keeps only the text of the error.
fn is_too_large(error: &io::Error) -> bool {
    error.to_string().contains("too long")
}

fn closing(code: u16, reason: &str) -> Message {
    Message::Close(Some((CloseCode::from(code), reason.to_owned())))
}

/// Reads until the peer has closed, too: a connection that is cut at once may lose the reason.
async fn agree(stream: &mut WebSocketStream) {
    while let Some(Ok(_)) = stream.next().await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_read_from_the_query_only_by_its_name() {
        let token = |uri: &'static str| query_token(&Request::builder().uri_str(uri).finish());
        assert_eq!(token("/?a=b&token=x%2By").as_deref(), Some("x+y"));
        assert_eq!(token("/?tokens=x"), None);
        assert_eq!(token("/"), None);
    }
}
