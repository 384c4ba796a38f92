//! The socket loop: what a signal to stop does.

use std::sync::Arc;
use std::time::Duration;

use airi_server::http::{HttpSettings, serve};
use airi_server::ports::Fault;
use airi_server::ports::probe::Probe;
use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::world::World;

/// A dependency that tells when it is asked and answers when it may: a request that takes as long as we like.
#[derive(Clone)]
struct Gate {
    asked: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

#[async_trait]
impl Probe for Gate {
    async fn check(&self) -> Result<(), Fault> {
        self.asked.add_permits(1);
        self.open.acquire().await.unwrap().forget();
        Ok(())
    }
}

struct Running {
    gate: Gate,
    stop: CancellationToken,
    connection: TcpStream,
    address: std::net::SocketAddr,
    server: JoinHandle<std::io::Result<()>>,
}

/// A server in the middle of one slow request.
async fn running(grace_ms: u64) -> Running {
    let gate = Gate { asked: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) };
    let settings = HttpSettings { shutdown_grace_ms: grace_ms, ..HttpSettings::default() };
    let app = World { probes: vec![("db", Arc::new(gate.clone()))], ..World::default() }.app();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::task::spawn({
        let stop = stop.clone();
        async move { serve(app, &settings, listener, stop).await }
    });
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    gate.asked.acquire().await.unwrap().forget();
    Running { gate, stop, connection, address, server }
}

#[tokio::test]
async fn a_running_answer_finishes_and_nothing_new_begins() {
    let Running { gate, stop, mut connection, address, server } = running(20_000).await;
    stop.cancel();
    // The listener is closed by the server task; until then a connection may still be taken in by the kernel.
    timeout(Duration::from_secs(10), async { while TcpStream::connect(address).await.is_ok() {} }).await.unwrap();
    gate.open.add_permits(1);
    let mut answer = String::new();
    timeout(Duration::from_secs(10), connection.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with(r#"{"status":"not_ready","checks":{"db":"ok"}}"#), "{answer}");
    timeout(Duration::from_secs(10), server).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_that_outlasts_the_grace_is_cut() {
    let Running { stop, mut connection, server, .. } = running(50).await;
    stop.cancel();
    timeout(Duration::from_secs(10), server).await.unwrap().unwrap().unwrap();
    let mut answer = Vec::new();
    let ended = timeout(Duration::from_secs(10), connection.read_to_end(&mut answer)).await.unwrap();
    assert!(ended.is_err() || answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}
