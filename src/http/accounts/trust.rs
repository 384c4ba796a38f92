//! Whom a browser may come from, and where it may be sent (contract `auth.md` §2.5–2.7). Pure functions of headers
//! and texts: an open redirect or a forged form is a question of strings.

use poem::http::HeaderMap;
use poem::http::header::{COOKIE, ORIGIN, REFERER};
use url::Url;

use crate::http::middleware::cors::{TrustedOrigins, origin_of};

/// What the installation trusts whoever asks.
#[derive(Clone, Debug)]
pub struct Trust {
    api: String,
    origins: TrustedOrigins,
}

/// What one request trusts: the installation's list, and the page the request comes from when browsers may call us
/// from there.
#[derive(Clone, Debug)]
pub struct Trusted<'a> {
    trust: &'a Trust,
    caller: Option<String>,
}

/// Why a request is not taken for the browser's owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forged {
    /// Neither `Origin` nor `Referer` says where it comes from.
    NoOrigin,
    /// It comes from a page we do not trust.
    Untrusted,
    /// A page of another site navigated here with a sign-in form.
    CrossSiteSignIn,
}

/// How strictly a request is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scrutiny {
    /// By its cookies.
    Usual,
    /// Also without cookies: a forged sign-in needs none.
    SignIn,
}

impl Trust {
    /// `api` is our own origin.
    pub fn new(api: &str, origins: TrustedOrigins) -> Self {
        Self { api: api.to_owned(), origins }
    }

    /// Our own origin.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// What a request with these headers trusts.
    pub fn of(&self, headers: &HeaderMap) -> Trusted<'_> {
        let browser = |origin: &String| self.origins.trusts(origin);
        let referer = text(headers, &REFERER).and_then(origin_of).filter(browser);
        let caller = referer.or_else(|| text(headers, &ORIGIN).map(str::to_owned).filter(browser));
        Trusted { trust: self, caller }
    }

    /// Judges a state-changing request. Without cookies there is nothing a foreign page could abuse.
    pub fn judge(&self, headers: &HeaderMap, scrutiny: Scrutiny) -> Result<(), Forged> {
        if headers.contains_key(COOKIE) {
            return self.judge_origin(headers);
        }
        let fetch = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let is_browser = headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"));
        if scrutiny == Scrutiny::Usual || !is_browser {
            return Ok(());
        }
        if fetch("sec-fetch-site") == Some("cross-site") && fetch("sec-fetch-mode") == Some("navigate") {
            return Err(Forged::CrossSiteSignIn);
        }
        self.judge_origin(headers)
    }

    /// Judges by the page alone, whatever else the request carries.
    pub fn judge_origin(&self, headers: &HeaderMap) -> Result<(), Forged> {
        let origin = match text(headers, &ORIGIN) {
            Some(origin) => Some(origin.to_owned()),
            None => text(headers, &REFERER).and_then(origin_of),
        };
        let Some(origin) = origin.filter(|origin| origin != "null") else { return Err(Forged::NoOrigin) };
        if self.of(headers).holds(&origin) { Ok(()) } else { Err(Forged::Untrusted) }
    }
}

impl Trusted<'_> {
    /// Whether a browser may be sent to this address.
    pub fn leads_home(&self, address: &str) -> bool {
        if is_plain_path(address) {
            return true;
        }
        // Whatever parsers ignore would be judged by one rule and followed by another.
        if !address.bytes().all(|byte| byte.is_ascii_graphic()) || address.contains('\\') {
            return false;
        }
        let Ok(url) = Url::parse(address) else { return false };
        if !url.username().is_empty() || url.password().is_some() {
            return false;
        }
        if matches!(url.scheme(), "http" | "https") {
            return self.holds(&url.origin().ascii_serialization());
        }
        origin_of(address).is_some_and(|origin| {
            let rest = address.strip_prefix(&origin);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#'])) && self.holds(&origin)
        })
    }

    fn holds(&self, origin: &str) -> bool {
        origin == self.trust.api
            || self.trust.origins.adds(origin)
            || is_loopback_with_port(origin)
            || self.caller.as_deref() == Some(origin)
    }
}

fn is_loopback_with_port(origin: &str) -> bool {
    let host = origin.strip_prefix("http://");
    host.and_then(|host| host.split_once(':'))
        .is_some_and(|(name, port)| matches!(name, "localhost" | "127.0.0.1") && port.parse::<u16>().is_ok())
}

/// One `/`, then nothing a browser could take for a host.
fn is_plain_path(address: &str) -> bool {
    let Some(rest) = address.strip_prefix('/') else { return false };
    let lower = rest.to_ascii_lowercase();
    if ["/", "\\", "%2f", "%5c"].iter().any(|begin| lower.starts_with(begin)) {
        return false;
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    path.chars().all(|c| c.is_ascii_alphanumeric() || "_-.+/@".contains(c))
        && query.chars().all(|c| c.is_ascii_alphanumeric() || "_-.+/=&%@".contains(c))
}

fn text<'a>(headers: &'a HeaderMap, name: &poem::http::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust() -> Trust {
        let added = TrustedOrigins::try_from("https://added.example/x,my.app://home".to_owned()).unwrap();
        Trust::new("https://api.example.com", added)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn every_address_a_browser_may_be_sent_to() {
        for address in [
            "/",
            "/a?b=c",
            "/a/b-c_d.e+f@g?x=%2F&y=@/+",
            "https://api.example.com/x",
            "https://api.example.com",
            "https://added.example/y?z#f",
            "my.app://home/x",
            "my.app://home",
            "http://localhost:1/x",
            "http://127.0.0.1:3/x",
        ] {
            assert!(trust().of(&HeaderMap::new()).leads_home(address), "{address}");
        }
    }

    #[test]
    fn every_address_a_browser_must_not_be_sent_to() {
        for address in [
            "",
            "//evil.com",
            "/\\evil",
            "/%2fevil",
            "/%2Fevil",
            "/%5cevil",
            "/a#b",
            "a/b",
            "/a b",
            "/a?b#c",
            "/a?b=<",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "https://localhost:5173/x",
            "http://localhost/x",
            "http://127.0.0.1/x",
            "http://localhost:5173@evil.com/",
            "http://u@localhost:5173/",
            "http://localhost:3199.evil.com/",
            "http://localhost:99999/",
            "https://api.example.com.evil.com/",
            "https://api.example.com:444/",
            "http://api.example.com/",
            "https://api.example.com@evil.com/",
            "https:\\\\api.example.com/",
            "https://api.example.com\\@evil.com/",
            " https://api.example.com/",
            "https://api.example.com/\n",
            "https://airi.moeru.ai/x",
            "capacitor://localhost/x",
            "my.app://home.evil/x",
            "my.app://homeevil",
            "my.app://elsewhere/x",
            "ftp://localhost:1/x",
            "http://[::1]:3000/",
        ] {
            assert!(!trust().of(&HeaderMap::new()).leads_home(address), "{address}");
        }
    }

    #[test]
    fn a_trusted_page_may_be_returned_to() {
        for (origin, address) in [
            ("https://airi.moeru.ai", "https://airi.moeru.ai/x"),
            ("https://localhost", "https://localhost/x"),
            ("https://localhost:5173", "https://localhost:5173/x"),
            ("capacitor://localhost", "capacitor://localhost/auth/callback"),
            ("https://a.kwaa.workers.dev", "https://a.kwaa.workers.dev/"),
        ] {
            let of = headers(&[("origin", origin)]);
            assert!(trust().of(&of).leads_home(address), "{address}");
            assert!(!trust().of(&HeaderMap::new()).leads_home(address), "{address}");
            let referer = format!("{origin}/page?x");
            assert!(trust().of(&headers(&[("referer", &referer)])).leads_home(address), "{referer}");
        }
        let evil = headers(&[("origin", "https://evil.com"), ("referer", "https://evil.com/")]);
        assert!(!trust().of(&evil).leads_home("https://evil.com/"));
        let mixed = headers(&[("origin", "https://evil.com"), ("referer", "https://airi.moeru.ai/")]);
        assert!(!trust().of(&mixed).leads_home("https://evil.com/"));
        let longer = headers(&[("origin", "capacitor://localhost")]);
        assert!(!trust().of(&longer).leads_home("capacitor://localhost.evil/x"));
    }

    #[test]
    fn a_request_with_cookies_must_say_where_it_comes_from() {
        let judge = |pairs: &[(&'static str, &str)]| trust().judge(&headers(pairs), Scrutiny::Usual);
        assert_eq!(judge(&[]), Ok(()));
        assert_eq!(judge(&[("origin", "https://evil.com")]), Ok(()), "nothing to abuse without a cookie");
        for good in
            ["https://api.example.com", "https://added.example", "http://localhost:5173", "https://airi.moeru.ai"]
        {
            assert_eq!(judge(&[("cookie", "a=b"), ("origin", good)]), Ok(()), "{good}");
            assert_eq!(judge(&[("cookie", "a=b"), ("referer", &format!("{good}/x"))]), Ok(()), "{good}");
        }
        assert_eq!(judge(&[("cookie", "")]), Err(Forged::NoOrigin));
        assert_eq!(judge(&[("cookie", "a=b"), ("origin", "null")]), Err(Forged::NoOrigin));
        for bad in ["https://evil.com", "https://api.example.com.evil.com", "http://api.example.com", "file://"] {
            assert_eq!(judge(&[("cookie", "a=b"), ("origin", bad)]), Err(Forged::Untrusted), "{bad}");
        }
        let both = [("cookie", "a=b"), ("origin", "https://evil.com"), ("referer", "https://api.example.com/")];
        assert_eq!(judge(&both), Err(Forged::Untrusted));
    }

    #[test]
    fn a_sign_in_form_is_judged_without_cookies_too() {
        let judge = |pairs: &[(&'static str, &str)]| trust().judge(&headers(pairs), Scrutiny::SignIn);
        assert_eq!(judge(&[]), Ok(()), "not a browser");
        let navigated = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(judge(&navigated), Err(Forged::CrossSiteSignIn));
        assert_eq!(judge(&[("sec-fetch-site", "same-origin")]), Err(Forged::NoOrigin));
        assert_eq!(judge(&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.com")]), Err(Forged::Untrusted));
        let good = [("sec-fetch-site", "same-origin"), ("origin", "https://api.example.com")];
        assert_eq!(judge(&good), Ok(()));
    }
}
