//! The socket loop.
//!
//! Connections are driven here and not by the framework's server: that one polls a connection again after its answer
//! broke off, and so ends a truncated stream with the sign of a complete one. It has no limit on the time a request
//! head may take either.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use poem::http::uri::Scheme;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Endpoint, EndpointExt, IntoResponse, Response, Route};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::ws::Sockets;
use super::{HttpSettings, routes_with};
use crate::core::App;

/// Pause after a failed accept. Without it, a process out of file descriptors spins.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a request head may take, from the moment the connection could carry one: opening connections and saying
/// nothing must not be free.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// What a connection holds at most of what its peer has not taken yet, bytes; the longest head of a request, too.
const HTTP1_BUFFER: usize = 64 * 1024;
/// How often an HTTP/2 peer without traffic is asked whether it is still there.
const PEER_CHECK: Duration = Duration::from_secs(60);

/// Answers requests until `shutdown` is cancelled; then accepts no more, and returns when every running answer has
/// ended or the grace is over, whichever is first.
pub async fn serve(
    app: Arc<App>,
    settings: &HttpSettings,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let grace = Duration::from_millis(settings.shutdown_grace_ms);
    let sockets = Sockets::new(shutdown.clone());
    let endpoint = routes_with(app, settings, shutdown.clone(), sockets.clone());
    drive(listener, endpoint, shutdown, grace).await?;
    sockets.closed(grace).await;
    Ok(())
}

/// Answers `GET /metrics` with what `render` says, in the Prometheus text format, until `shutdown` is cancelled. Meant
/// for a port of its own: it asks nobody who they are.
pub async fn serve_metrics(
    listener: TcpListener,
    render: impl Fn() -> String + Send + Sync + Clone + 'static,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let page = poem::endpoint::make_sync(move |_| render().with_content_type("text/plain; version=0.0.4"));
    let pages = Route::new().at("/metrics", poem::get(page));
    drive(listener, pages.map_to_response(), shutdown, ACCEPT_PAUSE).await
}

async fn drive(
    listener: TcpListener,
    endpoint: impl Endpoint<Output = Response> + 'static,
    shutdown: CancellationToken,
    grace: Duration,
) -> io::Result<()> {
    let endpoint = Arc::new(endpoint);
    let local = LocalAddr(listener.local_addr()?.into());
    let connections = TaskTracker::new();
    let given_up = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let endpoint = Arc::clone(&endpoint);
                let (local, shutdown, given_up) = (local.clone(), shutdown.clone(), given_up.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = given_up.cancelled() => {}
                        () = connection(stream, endpoint, (local, RemoteAddr(peer.into())), shutdown) => {}
                    }
                });
            }
            Err(error) => {
                warn!(error = %error, "cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if timeout(grace, connections.wait()).await.is_err() {
        given_up.cancel();
        connections.wait().await;
    }
    Ok(())
}

async fn connection(
    stream: TcpStream,
    endpoint: Arc<impl Endpoint<Output = Response> + 'static>,
    (local, remote): (LocalAddr, RemoteAddr),
    shutdown: CancellationToken,
) {
    // Tokens of a stream are small writes and must not wait for one another.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let endpoint = Arc::clone(&endpoint);
        let request = (request, local.clone(), remote.clone(), Scheme::HTTP).into();
        async move { Ok::<hyper::Response<_>, Infallible>(endpoint.get_response(request).await.into()) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HTTP1_BUFFER);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PEER_CHECK);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    tokio::select! {
        // Ended or broken: either way it must not be polled again.
        _ = connection.as_mut() => return,
        () = shutdown.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(connection.await);
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::watch;

    use super::*;
    use crate::http::payload::EventBytes;

    async fn listening(endpoint: impl Endpoint<Output = Response> + 'static) -> (TcpStream, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let shutdown = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "ends with the test")]
        tokio::spawn(drive(listener, endpoint, shutdown.clone(), Duration::from_secs(5)));
        (client, shutdown)
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_heard_to_its_last_event_and_does_not_look_complete() {
        let broken = poem::endpoint::make_sync(|_| {
            let parts = [Ok(bytes::Bytes::from_static(b"data: 1\n\n")), Err(io::Error::other("the upstream broke"))];
            EventBytes::<String>::new("text/event-stream".to_owned(), stream::iter(parts)).into_response()
        });
        let (mut client, _serving) = listening(broken).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut heard = Vec::new();
        // A reset is as good as an end here: what counts is that the last chunk never came.
        drop(client.read_to_end(&mut heard).await);
        let heard = String::from_utf8_lossy(&heard);
        assert!(heard.contains("data: 1"), "{heard}");
        assert!(!heard.ends_with("0\r\n\r\n"), "{heard}");
    }

    #[tokio::test]
    async fn a_signal_lets_a_running_answer_finish_and_closes_the_door() {
        let (release, held) = watch::channel(false);
        let (entered, mut inside) = watch::channel(false);
        let slow = poem::endpoint::make(move |_| {
            let (mut held, entered) = (held.clone(), entered.clone());
            async move {
                entered.send_replace(true);
                drop(held.wait_for(|released| *released).await);
                Ok::<_, poem::Error>("done")
            }
        });
        let (mut client, shutdown) = listening(slow.map_to_response()).await;
        let address = client.peer_addr().unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        inside.wait_for(|inside| *inside).await.unwrap();
        shutdown.cancel();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        release.send(true).unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert!(heard.ends_with("done"), "{heard}");
    }
}
