//! OpenAI-compatible upstreams over HTTP (contract `gateway.md` §4.3–4.5, §6.3, §8).

mod addresses;
mod egress;
mod trust;

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, RETRY_AFTER};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, ClientBuilder, Response, redirect};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use tracing::field::Empty;

use crate::core::model::retry_after::retry_after_seconds;
use crate::core::model::secret::Secret;
use crate::ports::llm::{LlmUpstream, UpstreamAnswer, UpstreamCall};
use crate::ports::upstream::{ByteStream, Patience, UpstreamError};
use crate::ports::{Fault, FaultKind};
use addresses::{Reach, Resolver};

pub use egress::{Admit, Connect, tls};

const USER_AGENT: &str = concat!("airi-server/", env!("CARGO_PKG_VERSION"));
/// What an upstream may send of a body before it is read, bytes: audio for a slow listener stays with its provider.
const HTTP2_WINDOW: u32 = 128 * 1024;
/// What is kept of the body of a refusal.
const REFUSAL_BYTES: usize = 16 * 1024;
/// How long the body of a refusal is waited for; the status alone is enough to go on.
const REFUSAL_WAIT: Duration = Duration::from_secs(2);

/// How upstreams are reached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamSettings {
    /// Admits plain `http`, and private and loopback addresses: for tests and private networks. Link-local and
    /// metadata addresses stay refused.
    pub allow_insecure: bool,
    /// Limit of one connection attempt, ms.
    pub connect_timeout_ms: u64,
    /// Idle connections kept per host.
    pub pool_max_idle_per_host: usize,
    /// How long an idle connection is kept, ms.
    pub pool_idle_timeout_ms: u64,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            allow_insecure: false,
            connect_timeout_ms: 10_000,
            pool_max_idle_per_host: 256,
            pool_idle_timeout_ms: 60_000,
        }
    }
}

/// Sends completions over pooled HTTP/1.1 and HTTP/2 connections. Follows no redirect, uses no proxy, keeps no cookie.
pub struct HttpUpstream {
    client: Client,
    reach: Reach,
}

impl HttpUpstream {
    /// Trusts the certificates of the system; where it has none (a bare container), those compiled in.
    pub fn new(settings: &UpstreamSettings) -> Result<Self, Fault> {
        let reach = if settings.allow_insecure { Reach::Anywhere } else { Reach::Public };
        let fault = |error: Box<dyn Error + Send + Sync>| Fault::new(FaultKind::Unavailable, "llm.client", error);
        let client = match configure(settings, reach).build() {
            Ok(client) => client,
            Err(_) => {
                let trusted = trust::compiled_in().map_err(|error| fault(error.into()))?;
                let client = configure(settings, reach).tls_backend_preconfigured(trusted).build();
                client.map_err(|error| fault(error.into()))?
            }
        };
        Ok(Self { client, reach })
    }
}

fn configure(settings: &UpstreamSettings, reach: Reach) -> ClientBuilder {
    Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .tcp_nodelay(true)
        .dns_resolver(Resolver(reach))
        .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
        .pool_max_idle_per_host(settings.pool_max_idle_per_host)
        .pool_idle_timeout(Duration::from_millis(settings.pool_idle_timeout_ms))
        .http2_initial_stream_window_size(HTTP2_WINDOW)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .http2_keep_alive_timeout(Duration::from_secs(10))
}

#[async_trait]
impl LlmUpstream for HttpUpstream {
    #[tracing::instrument(
        name = "airi.gateway.attempt",
        skip_all,
        fields(otel.kind = "client", server.address = Empty, http.response.status_code = Empty, error.type = Empty)
    )]
    async fn send(&self, call: &UpstreamCall) -> Result<UpstreamAnswer, UpstreamError> {
        let answer = self.attempt(call).await;
        let span = tracing::Span::current();
        match &answer {
            Ok(answer) => span.record("http.response.status_code", answer.status),
            Err(UpstreamError::Status { status, .. }) => span.record("http.response.status_code", *status),
            Err(UpstreamError::Timeout) => span.record("error.type", "timeout"),
            Err(UpstreamError::Transport(_)) => span.record("error.type", "transport"),
            Err(UpstreamError::Stalled) => span.record("error.type", "stalled"),
        };
        answer
    }
}

impl HttpUpstream {
    async fn attempt(&self, call: &UpstreamCall) -> Result<UpstreamAnswer, UpstreamError> {
        let limits = Limits::from_now(call.patience);
        let url = addresses::parse(&call.url, self.reach).map_err(|why| UpstreamError::Transport(why.to_string()))?;
        if let Some(host) = url.host_str() {
            tracing::Span::current().record("server.address", host);
        }
        let transport = |error| UpstreamError::Transport(explain(error, &call.authorization));
        let request = self.client.post(url).headers(headers(&call.authorization)?).body(call.body.clone());
        let response =
            timeout_at(limits.head, request.send()).await.map_err(|_| UpstreamError::Timeout)?.map_err(transport)?;

        let status = response.status().as_u16();
        if !response.status().is_success() {
            let retry_after = retry_after(response.headers());
            let until = limits.first_byte.min(Instant::now() + REFUSAL_WAIT);
            return Err(UpstreamError::Status { status, body: beginning(response, until).await, retry_after });
        }
        refuse_encoded(response.headers())?;
        let content_type =
            response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);

        let mut rest = response.bytes_stream().boxed();
        let first = loop {
            let read = timeout_at(limits.first_byte, rest.next()).await.map_err(|_| UpstreamError::Timeout)?;
            match read {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => break bytes,
                Some(Err(error)) => return Err(transport(error)),
                None => return Ok(UpstreamAnswer { status, content_type, body: stream::empty().boxed() }),
            }
        };
        let authorization = call.authorization.clone();
        let body = Body { first: Some(first), rest, limits, authorization };
        Ok(UpstreamAnswer { status, content_type, body: body.into_stream() })
    }
}

/// The moments at which [`Patience`] ends.
#[derive(Clone, Copy)]
struct Limits {
    head: Instant,
    first_byte: Instant,
    end: Instant,
    idle: Duration,
}

impl Limits {
    fn from_now(patience: Patience) -> Self {
        let now = Instant::now();
        let end = now + patience.total;
        let first_byte = (now + patience.first_byte).min(end);
        Self { head: (now + patience.head).min(first_byte), first_byte, end, idle: patience.idle }
    }
}

/// An answer under way. Owns the connection: dropping it closes it.
struct Body {
    first: Option<Bytes>,
    rest: stream::BoxStream<'static, Result<Bytes, reqwest::Error>>,
    limits: Limits,
    authorization: Secret,
}

impl Body {
    fn into_stream(self) -> ByteStream {
        stream::unfold(Some(self), |body| async move {
            let mut body = body?;
            let read = body.read().await?;
            // A failure ends the stream and closes the connection at once, not when the reader lets go.
            let next = read.is_ok().then_some(body);
            Some((read, next))
        })
        .boxed()
    }

    async fn read(&mut self) -> Option<Result<Bytes, UpstreamError>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        let now = Instant::now();
        // A timer is asked only when nothing is ready, so an upstream that never pauses needs this check.
        if now >= self.limits.end {
            return Some(Err(UpstreamError::Stalled));
        }
        let until = self.limits.end.min(now + self.limits.idle);
        match timeout_at(until, self.rest.next()).await {
            Err(_) => Some(Err(UpstreamError::Stalled)),
            Ok(read) => {
                read.map(|read| read.map_err(|error| UpstreamError::Transport(explain(error, &self.authorization))))
            }
        }
    }
}

fn headers(authorization: &Secret) -> Result<HeaderMap, UpstreamError> {
    let mut authorization = HeaderValue::from_str(authorization.expose())
        .map_err(|_| UpstreamError::Transport("authorization is not a valid header value".to_owned()))?;
    authorization.set_sensitive(true);
    let plain: [(HeaderName, HeaderValue); 3] = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (ACCEPT, HeaderValue::from_static("*/*")),
        (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    ];
    let mut headers = HeaderMap::from_iter(plain);
    headers.insert(AUTHORIZATION, authorization);
    Ok(headers)
}

/// Compressed bytes would reach the client without the header that says so, and hide usage from the scanner.
fn refuse_encoded(headers: &HeaderMap) -> Result<(), UpstreamError> {
    let encoded = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|value| !value.is_empty() && !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        return Err(UpstreamError::Transport("upstream encoded the body although identity was asked for".to_owned()));
    }
    Ok(())
}

fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    retry_after_seconds(text(RETRY_AFTER)?, text(DATE))
}

/// At most [`REFUSAL_BYTES`] of a refusal; a read that fails or takes too long ends it, and is no second failure.
async fn beginning(response: Response, until: Instant) -> Bytes {
    let mut rest = response.bytes_stream();
    let mut kept = BytesMut::new();
    while kept.len() < REFUSAL_BYTES {
        let Ok(Some(Ok(bytes))) = timeout_at(until, rest.next()).await else { break };
        kept.extend_from_slice(&bytes[..bytes.len().min(REFUSAL_BYTES - kept.len())]);
    }
    kept.freeze()
}

/// The chain of causes on one line, without the address (its query may hold a key) and without the authorization.
fn explain(error: reqwest::Error, authorization: &Secret) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    // The client is not known to print headers; that it never will is not ours to promise.
    for secret in authorization.expose().split_ascii_whitespace().filter(|word| *word != "Bearer") {
        text = text.replace(secret, "<redacted>");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        assert_eq!(retry_after(&with(&[(RETRY_AFTER, "17")])), Some(17));
        let dated = with(&[(RETRY_AFTER, "Wed, 21 Oct 2015 07:28:30 GMT"), (DATE, "Wed, 21 Oct 2015 07:28:00 GMT")]);
        assert_eq!(retry_after(&dated), Some(30));
        for unusable in ["-1", "soon", "", "Wed, 21 Oct 2015 07:28:30 GMT"] {
            assert_eq!(retry_after(&with(&[(RETRY_AFTER, unusable)])), None, "{unusable}");
        }
    }

    #[test]
    fn a_body_in_any_coding_but_identity_is_refused() {
        assert!(refuse_encoded(&with(&[])).is_ok());
        assert!(refuse_encoded(&with(&[(CONTENT_ENCODING, "Identity")])).is_ok());
        for coding in ["gzip", "br", "zstd", "deflate", "identity, gzip"] {
            assert!(refuse_encoded(&with(&[(CONTENT_ENCODING, coding)])).is_err(), "{coding}");
        }
    }

    #[test]
    fn an_authorization_that_no_header_can_carry_is_refused_without_being_told() {
        let refused = headers(&Secret::new("Bearer sk-secret\n")).unwrap_err();
        assert!(!refused.to_string().contains("sk-secret"));
    }
}
