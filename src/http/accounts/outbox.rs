//! `/dev/outbox`: letters that were kept instead of sent. Whoever reads them can act for their recipients, so only
//! somebody on this machine may, and no page or proxy on their behalf; an installation with a public address has none.

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
    let outbox = call.app.outbox.as_ref().filter(|_| is_here(call.keeper.trust.api(), &call.headers, call.peer()));
    let Some(outbox) = outbox else { return Ok(Response::builder().status(StatusCode::NOT_FOUND).finish()) };
    let letters = outbox.letters().into_iter().map(|kept| Shown { subject: kept.subject, letter: kept.letter });
    let html = Page { letters: letters.collect() }.render();
    let html = html.map_err(|error| Error::new(Code::Internal).because(error))?;
    Ok(Response::builder()
        .content_type("text/html; charset=utf-8")
        .header(CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'self'; frame-ancestors 'none'")
        .body(html))
}

/// A loopback peer of a server known by a loopback name that asked for a loopback name, through no proxy: a foreign name
/// would be a page that had its own name point here, and a proxy on this machine need not say that it is one.
fn is_here(api: &str, headers: &HeaderMap, peer: Option<IpAddr>) -> bool {
    let proxied = ["forwarded", "x-forwarded-for", "x-real-ip"].iter().any(|name| headers.contains_key(*name));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = api.split_once("://").map_or(api, |(_, host)| host);
    is_loopback(own) && is_loopback(host) && !proxied && peer.is_some_and(|peer| peer.to_canonical().is_loopback())
}

/// Whether a host, with or without a port, is a name of this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_somebody_on_this_machine_reads_letters() {
        let here = |pairs: &[(&'static str, &str)], peer: &str| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            is_here("http://localhost:3000", &headers, peer.parse().ok())
        };
        assert!(here(&[("host", "localhost:3000")], "127.0.0.1"));
        assert!(here(&[("host", "[::1]:3000")], "::1"));
        assert!(!here(&[("host", "evil.example:3000")], "127.0.0.1"));
        assert!(!here(&[("host", "localhost:3000")], "192.0.2.1"));
        assert!(!here(&[("host", "localhost:3000"), ("x-forwarded-for", "127.0.0.1")], "127.0.0.1"));
        assert!(!here(&[("host", "localhost:3000")], ""));
    }

    #[test]
    fn a_server_with_a_public_name_shows_no_letters() {
        let headers: HeaderMap = [("host".parse().unwrap(), "localhost:3000".parse().unwrap())].into_iter().collect();
        let shown = |api: &str| is_here(api, &headers, "127.0.0.1".parse().ok());
        for api in ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:3000", "https://[::1]"] {
            assert!(shown(api), "{api}");
        }
        for api in ["https://api.example.com", "http://localhost.example.com:3000", "https://192.0.2.1:3000"] {
            assert!(!shown(api), "{api}");
        }
    }
}
