//! Sockets: counted, so that a leaving server can say goodbye to each, and limited.

mod chat;
mod outbox;
pub(super) mod speech;

use std::time::Duration;

use poem::web::websocket::WebSocketConfig;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
fn config(largest_frame: usize) -> WebSocketConfig {
    const READ_BUFFER: usize = 2 * 1024;
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(largest_frame))
        .max_frame_size(Some(largest_frame))
}
