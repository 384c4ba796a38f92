//! The socket loop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use poem::http::uri::Scheme;
use poem::listener::Acceptor;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{IntoResponse, Route, Server};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{HttpSettings, routes};
use crate::core::App;

/// Pause after a failed accept. Without it, a process out of file descriptors spins.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers requests until `shutdown` is cancelled; then accepts no more, and returns when every running answer has
/// ended or the grace is over, whichever is first.
pub async fn serve(
    app: Arc<App>,
    settings: &HttpSettings,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let grace = Duration::from_millis(settings.shutdown_grace_ms);
    let endpoint = routes(app, settings, shutdown.clone());
    Server::new_with_acceptor(Prompt { listener, address: LocalAddr(address.into()) })
        .run_with_graceful_shutdown(endpoint, shutdown.cancelled_owned(), Some(grace))
        .await
}

/// Answers `GET /metrics` with what `render` says, in the Prometheus text format, until `shutdown` is cancelled. Meant for
/// a port of its own: it asks nobody who they are.
pub async fn serve_metrics(
    listener: TcpListener,
    render: impl Fn() -> String + Send + Sync + Clone + 'static,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let page = poem::endpoint::make_sync(move |_| render().with_content_type("text/plain; version=0.0.4"));
    Server::new_with_acceptor(Prompt { listener, address: LocalAddr(address.into()) })
        .run_with_graceful_shutdown(Route::new().at("/metrics", poem::get(page)), shutdown.cancelled_owned(), None)
        .await
}

/// Accepts connections that send small writes at once: tokens of a stream must not wait for one another.
struct Prompt {
    listener: TcpListener,
    address: LocalAddr,
}

impl Acceptor for Prompt {
    type Io = TcpStream;

    fn local_addr(&self) -> Vec<LocalAddr> {
        vec![self.address.clone()]
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, LocalAddr, RemoteAddr, Scheme)> {
        match self.listener.accept().await {
            Ok((stream, peer)) => {
                stream.set_nodelay(true)?;
                Ok((stream, self.address.clone(), RemoteAddr(peer.into()), Scheme::HTTP))
            }
            Err(error) => {
                warn!(error = %error, "cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
                Err(error)
            }
        }
    }
}
