//! The socket loop.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use poem::http::uri::Scheme;
use poem::listener::Acceptor;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{IntoResponse, Route, Server};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{HttpSettings, routes};
use crate::core::App;

/// Pause after a failed accept. Without it, a process out of file descriptors spins.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a new connection may take to send its first request head.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long a connection may be silent in both directions: longer than any answer takes to begin or a stream to go
/// on, so that only dead peers and forgotten connections are closed.
const IDLE_TIME: Duration = Duration::from_secs(20 * 60);

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
        .idle_timeout(IDLE_TIME)
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
    type Io = Patient;

    fn local_addr(&self) -> Vec<LocalAddr> {
        vec![self.address.clone()]
    }

    async fn accept(&mut self) -> io::Result<(Patient, LocalAddr, RemoteAddr, Scheme)> {
        match self.listener.accept().await {
            Ok((stream, peer)) => {
                stream.set_nodelay(true)?;
                Ok((Patient::new(stream), self.address.clone(), RemoteAddr(peer.into()), Scheme::HTTP))
            }
            Err(error) => {
                warn!(error = %error, "cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
                Err(error)
            }
        }
    }
}

/// A connection that fails when its first request head does not arrive in time: opening connections and saying
/// nothing must not be free. The framework has no such limit.
struct Patient {
    stream: TcpStream,
    awaited: Option<Head>,
}

/// A request head that has not ended yet.
struct Head {
    deadline: Pin<Box<Sleep>>,
    matched: usize,
}

/// Ends the head of HTTP/1 and the preface of HTTP/2 alike.
const HEAD_END: &[u8] = b"\r\n\r\n";

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self { stream, awaited: Some(Head { deadline: Box::pin(sleep(HEAD_TIME)), matched: 0 }) }
    }
}

impl Head {
    fn ends_within(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().any(|byte| {
            self.matched = match HEAD_END.get(self.matched) {
                Some(expected) if expected == byte => self.matched + 1,
                _ => usize::from(HEAD_END.first() == Some(byte)),
            };
            self.matched == HEAD_END.len()
        })
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let Some(head) = self.awaited.as_mut() else { return read };
        if read.is_pending() {
            ready!(head.deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if head.ends_within(buf.filled().get(before..).unwrap_or_default()) {
            self.awaited = None;
        }
        read
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_head_ends_at_the_empty_line_however_it_is_split() {
        let head = || Head { deadline: Box::pin(sleep(HEAD_TIME)), matched: 0 };
        assert!(head().ends_within(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"));
        assert!(head().ends_within(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        assert!(head().ends_within(b"a\r\r\n\r\n"));
        assert!(!head().ends_within(b"a\r\nb\r\nc\n\n"));
        let mut split = head();
        assert!(!split.ends_within(b"GET / HTTP/1.1\r\n\r"));
        assert!(split.ends_within(b"\n"));
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut patient = Patient::new(listener.accept().await.unwrap().0);
        patient.awaited = Some(Head { deadline: Box::pin(sleep(Duration::from_millis(20))), matched: 0 });
        silent.write_all(b"GET / HT").await.unwrap();
        let mut heard = [0; 64];
        assert_eq!(patient.read(&mut heard).await.unwrap(), 8);
        assert_eq!(patient.read(&mut heard).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
