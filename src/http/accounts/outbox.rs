//! `/dev/outbox`: letters that were kept instead of sent. Whoever reads them can act for their recipients, so only
//! somebody on this machine may, and no page or proxy on their behalf.

use std::net::IpAddr;

use askama::Template;
use poem::Response;
use poem::http::header::{CONTENT_SECURITY_POLICY, HOST};
use poem::http::{HeaderMap, StatusCode};

use super::call::Call;
use super::refused::Refused;
use crate::core::error::{Code, Error};
use crate::core::model::letters::Letter;

#[derive(Template)]
#[template(path = "dev/outbox.html")]
struct Page {
    letters: Vec<Shown>,
}

struct Shown {
    subject: String,
    letter: Letter,
}

pub(super) async fn show(call: Call) -> Result<Response, Refused> {
    let outbox = call.app.outbox.as_ref().filter(|_| is_here(&call.headers, call.peer()));
    let Some(outbox) = outbox else { return Ok(Response::builder().status(StatusCode::NOT_FOUND).finish()) };
    let letters = outbox.letters().into_iter().map(|kept| Shown { subject: kept.subject, letter: kept.letter });
    let html = Page { letters: letters.collect() }.render();
    let html = html.map_err(|error| Error::new(Code::Internal).because(error))?;
    Ok(Response::builder()
        .content_type("text/html; charset=utf-8")
        .header(CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'self'; frame-ancestors 'none'")
        .body(html))
}

/// A loopback peer that asked for a loopback name, through no proxy: a foreign name would be a page that had its own
/// name point here.
fn is_here(headers: &HeaderMap, peer: Option<IpAddr>) -> bool {
    let proxied = ["forwarded", "x-forwarded-for", "x-real-ip"].iter().any(|name| headers.contains_key(*name));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let local = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
    local && !proxied && peer.is_some_and(|peer| peer.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_somebody_on_this_machine_reads_letters() {
        let here = |pairs: &[(&'static str, &str)], peer: &str| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            is_here(&headers, peer.parse().ok())
        };
        assert!(here(&[("host", "localhost:3000")], "127.0.0.1"));
        assert!(here(&[("host", "[::1]:3000")], "::1"));
        assert!(!here(&[("host", "evil.example:3000")], "127.0.0.1"));
        assert!(!here(&[("host", "localhost:3000")], "192.0.2.1"));
        assert!(!here(&[("host", "localhost:3000"), ("x-forwarded-for", "127.0.0.1")], "127.0.0.1"));
        assert!(!here(&[("host", "localhost:3000")], ""));
    }
}
