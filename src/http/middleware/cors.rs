//! Which web pages may call us (contracts `observability.md` §7.2, `billing-stripe.md` §6.6).

use std::collections::BTreeSet;
use std::sync::Arc;

use poem::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ORIGIN, VARY,
};
use poem::http::{HeaderMap, HeaderValue, Method, StatusCode};
use poem::{Endpoint, IntoResponse, Request, Response};
use serde::Deserialize;
use url::Url;

/// Origins that may read our answers.
///
/// Besides the listed ones: `http` and `https` on `localhost` or `127.0.0.1` with any port, and `https` below
/// `kwaa.workers.dev`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TrustedOrigins {
    all: BTreeSet<String>,
    /// Those an operator listed.
    added: BTreeSet<String>,
}

const BUILT_IN: [&str; 3] = ["capacitor://localhost", "ai.moeru.airi-pocket://links", "https://airi.moeru.ai"];

const METHODS: &str = "GET,HEAD,PUT,POST,DELETE,PATCH";

/// What scripts may read of an answer (contract `gateway.md` §9, and what our own answers tell of their price).
const EXPOSED: &str = "RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, X-Request-Id, \
    airi-request-id, airi-flux-charged, airi-max-tokens-clamped";

impl Default for TrustedOrigins {
    fn default() -> Self {
        Self { all: BUILT_IN.map(str::to_owned).into(), added: BTreeSet::new() }
    }
}

impl TryFrom<String> for TrustedOrigins {
    type Error = String;

    /// Reads a comma-separated list of URLs and keeps their origins, besides the built-in ones.
    fn try_from(list: String) -> Result<Self, String> {
        let mut origins = Self::default();
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let origin = origin_of(item).ok_or_else(|| format!("{item} is not a URL with a host"))?;
            origins.added.insert(origin.clone());
            origins.all.insert(origin);
        }
        Ok(origins)
    }
}

/// Scheme, host and port of an absolute address that has a host.
pub(crate) fn origin_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    if url.origin().is_tuple() {
        return Some(url.origin().ascii_serialization());
    }
    Some(format!("{}://{}", url.scheme(), url.host_str().filter(|host| !host.is_empty())?))
}

impl TrustedOrigins {
    /// Whether an operator listed this origin.
    pub fn adds(&self, origin: &str) -> bool {
        self.added.contains(origin)
    }

    /// Whether a page of this origin may read our answers. The text is compared as browsers send it.
    pub fn trusts(&self, origin: &str) -> bool {
        self.all.contains(origin) || is_loopback(origin) || is_preview(origin)
    }
}

fn is_loopback(origin: &str) -> bool {
    let Some(host) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else { return false };
    let (name, port) = host.split_once(':').unwrap_or((host, "0"));
    matches!(name, "localhost" | "127.0.0.1") && port.parse::<u16>().is_ok()
}

/// Without a check of the labels, `https://evil.example/.kwaa.workers.dev` would pass as a text.
fn is_preview(origin: &str) -> bool {
    origin.strip_prefix("https://").and_then(|host| host.strip_suffix(".kwaa.workers.dev")).is_some_and(|labels| {
        labels
            .split('.')
            .all(|label| !label.is_empty() && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')))
    })
}

/// Answers preflights below `/api/` before anybody asks who is calling, and marks the other answers.
pub async fn cors<E: Endpoint>(next: Arc<E>, req: Request, origins: Arc<TrustedOrigins>) -> poem::Result<Response> {
    if !req.uri().path().starts_with("/api/") {
        return next.call(req).await.map(IntoResponse::into_response);
    }
    let trusted =
        req.headers().get(ORIGIN).filter(|origin| origin.to_str().is_ok_and(|origin| origins.trusts(origin))).cloned();
    if req.method() == Method::OPTIONS {
        return Ok(preflight(req.headers(), trusted));
    }
    let mut answer = next.call(req).await?.into_response();
    let headers = answer.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = trusted {
        allow(headers, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    Ok(answer)
}

fn preflight(asked: &HeaderMap, trusted: Option<HeaderValue>) -> Response {
    let mut answer = StatusCode::NO_CONTENT.into_response();
    let headers = answer.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Origin, Access-Control-Request-Headers"));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    if let Some(wanted) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(origin) = trusted {
        allow(headers, origin);
    }
    answer
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_trust_table() {
        let origins = TrustedOrigins::try_from(
            "https://Example.com/path?x, ,my.app://home/x, https://example.com:443".to_owned(),
        )
        .unwrap();
        assert_eq!(origins.all.len(), BUILT_IN.len() + 2);
        for good in [
            "capacitor://localhost",
            "ai.moeru.airi-pocket://links",
            "https://airi.moeru.ai",
            "https://example.com",
            "my.app://home",
            "http://localhost",
            "https://localhost:5173",
            "http://127.0.0.1:1",
            "https://a.kwaa.workers.dev",
            "https://a-1.b.kwaa.workers.dev",
        ] {
            assert!(origins.trusts(good), "{good}");
        }
        for bad in [
            "",
            "null",
            "file://",
            "http://airi.moeru.ai",
            "https://airi.moeru.ai.evil.example",
            "https://airi.moeru.ai:8443",
            "http://localhost.evil.example",
            "http://localhost:port",
            "http://localhost:80/x",
            "http://127.0.0.1:99999",
            "http://127.0.0.2",
            "https://kwaa.workers.dev",
            "https://.kwaa.workers.dev",
            "http://a.kwaa.workers.dev",
            "https://evil.example/.kwaa.workers.dev",
            "https://evil.example#.kwaa.workers.dev",
            "https://u@evil.kwaa.workers.dev",
        ] {
            assert!(!origins.trusts(bad), "{bad}");
        }
    }

    #[test]
    fn a_list_with_something_that_has_no_origin_is_refused() {
        for bad in ["example.com", "https://", "data:text/plain,x"] {
            assert!(TrustedOrigins::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
