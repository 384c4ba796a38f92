//! One id, one span, one line and two facts per request (contract `observability.md` §3–5).

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use poem::http::header::CONTENT_TYPE;
use poem::http::{HeaderValue, Method};
use poem::{Body, Endpoint, IntoResponse, PathPattern, Request, Response};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, error, info, info_span};

use crate::core::App;
use crate::core::error::Error;
use crate::core::model::fact::Fact;
use crate::core::model::ids::{RequestId, UserId};
use crate::http::middleware::client_address::ClientAddress;

/// What following a request takes.
pub struct Tracer {
    /// Gives ids and durations, and hears about requests.
    pub app: Arc<App>,
    /// Proxies in front of us; any of them may name requests.
    pub trusted_hops: u8,
}

/// Asked every few seconds by machines: neither measured nor traced.
const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// Below these prefixes the request id is the key a debit is written under. A caller who could choose it would make
/// every further call a replay of a paid one.
const PAID_PREFIXES: [&str; 2] = ["/api/v1/openai/", "/api/v1/audio/"];

/// Status of a request whose client left before the answer.
const CLIENT_CLOSED: u16 = 499;

/// Follows a request from its head to the last byte of its answer.
pub async fn trace<E: Endpoint>(next: Arc<E>, mut req: Request, tracer: Arc<Tracer>) -> poem::Result<Response> {
    let id = tracer.request_id(&req);
    req.extensions_mut().insert(id.clone());
    if let Some(address) = ClientAddress::of(&req, tracer.trusted_hops) {
        req.extensions_mut().insert(address);
    }
    let mut line = Line::begin(&tracer, &req, id.clone());
    let span = line.span();
    let mut answer = match next.call(req).instrument(span.clone()).await {
        Ok(answer) => answer.into_response(),
        Err(failure) => failure.into_response(),
    };
    line.answered(&answer, &span);
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        // A repetition of a call is known by the name of the first one.
        let id = answer.headers_mut().entry("airi-request-id").or_insert(id).clone();
        answer.headers_mut().insert("x-request-id", id);
    }
    Ok(if is_stream(&answer) { keep_until_the_end(answer, line) } else { answer })
}

impl Tracer {
    fn request_id(&self, req: &Request) -> RequestId {
        let paid = PAID_PREFIXES.iter().any(|prefix| req.uri().path().starts_with(prefix));
        let offered = self.trusted_hops > 0 && !paid;
        let offered = offered.then(|| req.header("x-request-id")).flatten().filter(|id| is_request_id(id));
        offered.map_or_else(|| RequestId::new(self.app.ids.id()), RequestId::new)
    }
}

fn is_request_id(text: &str) -> bool {
    (8..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Events, and audio that is passed on as it arrives.
fn is_stream(answer: &Response) -> bool {
    answer
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("text/event-stream") || kind.starts_with("audio/"))
}

/// Other bodies are left as they are: a wrapped one would lose its length.
fn keep_until_the_end(mut answer: Response, line: Line) -> Response {
    let body = answer.take_body().into_bytes_stream();
    answer.set_body(Body::from_bytes_stream(body.inspect(move |_| {
        // Naming the line here makes the stream its owner; dropping the stream ends it.
        let _ = &line;
    })));
    answer
}

/// What is known about a request; told once, when this is dropped. A client that leaves drops it too.
struct Line {
    tracer: Arc<Tracer>,
    method: Method,
    path: String,
    id: RequestId,
    begun: Duration,
    route: Option<PathPattern>,
    status: u16,
    user: Option<UserId>,
}

impl Line {
    fn begin(tracer: &Arc<Tracer>, req: &Request, id: RequestId) -> Self {
        let line = Self {
            tracer: tracer.clone(),
            method: req.method().clone(),
            // Queries may hold tokens and are never logged.
            path: req.uri().path().to_owned(),
            id,
            begun: tracer.app.clock.elapsed(),
            route: None,
            status: CLIENT_CLOSED,
            user: None,
        };
        if !line.is_probe() {
            tracer.app.journal.record(Fact::HttpStarted { method: label(&line.method) });
        }
        line
    }

    fn is_probe(&self) -> bool {
        PROBES.contains(&self.path.as_str())
    }

    fn span(&self) -> Span {
        if self.is_probe() {
            return Span::none();
        }
        info_span!(
            "http.request",
            otel.name = Empty,
            otel.kind = "server",
            http.request.method = label(&self.method),
            http.route = Empty,
            http.response.status_code = Empty,
            url.path = self.path,
            request.id = %self.id,
            user.id = Empty,
        )
    }

    fn answered(&mut self, answer: &Response, span: &Span) {
        self.status = answer.status().as_u16();
        self.route = answer.data::<PathPattern>().cloned();
        self.user = answer.data::<UserId>().cloned();
        let route = self.route();
        span.record("otel.name", format!("{} {route}", label(&self.method)));
        span.record("http.route", route);
        span.record("http.response.status_code", self.status);
        if let Some(user) = &self.user {
            span.record("user.id", user.as_str());
        }
        if let Some(refusal) = answer.data::<Arc<Error>>() {
            span.in_scope(|| self.explain(refusal));
        }
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or("unmatched", |route| &route.0)
    }

    /// Says once why a request was refused; anonymous callers are not worth a line.
    fn explain(&self, refusal: &Error) {
        let (id, code, cause) = (&self.id, refusal.code.wire(), causes(refusal));
        match self.status {
            401 => {}
            500.. => error!(request.id = %id, error.code = code, error.cause = cause, "request failed: {refusal}"),
            _ => debug!(request.id = %id, error.code = code, error.cause = cause, "request refused: {refusal}"),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let took_ms = (self.tracer.app.clock.elapsed().saturating_sub(self.begun)).as_secs_f64() * 1e3;
        let (method, path, status) = (label(&self.method), &self.path, self.status);
        if self.is_probe() {
            debug!(method, path, status, took_ms, "{method} {path} {status}");
            return;
        }
        let (id, user) = (&self.id, self.user.as_ref().map(UserId::as_str));
        info!(method, path, status, took_ms, request.id = %id, user.id = user, "{method} {path} {status}");
        let route = self.route().to_owned();
        self.tracer.app.journal.record(Fact::HttpEnded { method, route, status, duration_ms: took_ms });
    }
}

fn causes(refusal: &Error) -> String {
    let mut cause = refusal.source();
    let mut chain = Vec::new();
    while let Some(error) = cause {
        chain.push(error.to_string());
        cause = error.source();
    }
    chain.join(": ")
}

/// Methods outside the standard list would make labels without end.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_accepted() {
        assert!(is_request_id("abcDEF_-"));
        for bad in ["short", "has space", "a".repeat(65).as_str(), "semi;colon", "newline\n1"] {
            assert!(!is_request_id(bad), "{bad:?}");
        }
    }
}
