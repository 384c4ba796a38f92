//! A client over HTTP/1.1 that holds little of a body nobody has taken yet.
//!
//! The usual client lets its read buffer grow to hundreds of KiB as long as an upstream is faster than we are, and a
//! piece in hand keeps a second one alive. Audio for a slow listener would so cost more than a MiB a call; here it stays
//! with its provider.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use hyper::Uri;
use hyper::header::USER_AGENT;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use reqwest::header::HeaderValue;
use reqwest::{Body, Request, Response};
use tokio::net::TcpStream;

use super::wire::{chain, explain};
use super::{Connect, PRODUCT};

/// What is read ahead of a body, bytes; the longest head of an answer, too.
const READ_AHEAD: usize = 16 * 1024;

/// A pool of such connections.
#[derive(Clone)]
pub struct Bounded(Client<HttpsConnector<Dial>, Body>);

impl Bounded {
    /// Connects as `connect` does, and over `tls` where an address is `https`.
    pub fn new(connect: Connect, tls: Arc<rustls::ClientConfig>) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).http1_max_buf_size(READ_AHEAD);
        Self(builder.build(HttpsConnector::from((Dial(connect), tls))))
    }

    /// Sends a request. Follows nothing, tries nothing again.
    pub(super) async fn send(&self, request: Request) -> Result<Response, Unsent> {
        let mut request = hyper::Request::<Body>::try_from(request).map_err(Unsent::Request)?;
        request.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static(PRODUCT));
        let answer = self.0.request(request).await.map_err(Unsent::Connection)?;
        Ok(answer.map(Body::wrap).into())
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    /// The request cannot be said.
    #[error("the request cannot be built")]
    Request(#[source] reqwest::Error),
    /// The connection failed.
    #[error("the connection failed")]
    Connection(#[source] Error),
}

impl Unsent {
    /// Whether no connection came about.
    pub(super) fn is_connect(&self) -> bool {
        matches!(self, Self::Connection(error) if error.is_connect())
    }

    /// The failure with its causes. Names no address.
    pub(super) fn explain(self) -> String {
        match self {
            Self::Request(error) => explain(error),
            Self::Connection(error) => chain(&error),
        }
    }
}

/// Opens connections to admitted addresses.
#[derive(Clone)]
struct Dial(Connect);

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let host = to.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = to.port_u16().unwrap_or(if to.scheme_str() == Some("http") { 80 } else { 443 });
        let connecting = (self.0)(host, port);
        Box::pin(async move { connecting.await.map(TokioIo::new) })
    }
}
