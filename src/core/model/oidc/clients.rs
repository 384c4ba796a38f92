//! Programs that may ask for tokens, and where their answers may go (contract `auth.md` §7.1, §7.2).

use url::Url;

use super::Issuer;
use crate::core::model::secret::Secret;

/// One row of `oauth_client`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// What it calls itself in requests.
    pub client_id: String,
    /// What people call it.
    pub name: Option<String>,
    /// `web`, `native` or another word.
    pub kind: Option<String>,
    /// Switched off by an operator.
    pub disabled: bool,
    /// Cannot keep a secret.
    pub public: bool,
    /// SHA-256 of its secret, as tokens are stored.
    pub secret: Option<Secret>,
    /// Must prove a verifier.
    pub require_pkce: bool,
    /// Belongs to us: nobody is asked for consent.
    pub skip_consent: bool,
    /// May end sessions.
    pub enable_end_session: bool,
    /// What it may ask for.
    pub scopes: Vec<String>,
    /// Where answers may go, compared as text.
    pub redirect_uris: Vec<String>,
    /// Where a browser may be sent after the end of a session.
    pub post_logout_redirect_uris: Vec<String>,
}

/// AIRI in a browser.
pub const WEB: &str = "airi-stage-web";
/// AIRI on the desktop.
pub const DESKTOP: &str = "airi-stage-electron";
/// AIRI on a phone.
pub const MOBILE: &str = "airi-stage-pocket";

/// Every scope there is.
pub const SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];

const WEB_PATH: &str = "/auth/callback";

/// The clients every database has.
pub fn first_party(issuer: &Issuer) -> [Client; 3] {
    let own_page = format!("{}{WEB_PATH}", issuer.origin());
    [
        ours(
            WEB,
            "AIRI Stage Web",
            "web",
            vec![
                "https://airi.moeru.ai/auth/callback".to_owned(),
                "http://localhost:5173/auth/callback".to_owned(),
                "http://localhost:4173/auth/callback".to_owned(),
                own_page,
            ],
        ),
        ours(DESKTOP, "AIRI Stage Desktop", "native", vec![issuer.relay()]),
        ours(
            MOBILE,
            "AIRI Stage Mobile",
            "native",
            vec![
                "capacitor://localhost/auth/callback".to_owned(),
                "ai.moeru.airi-pocket://links/auth/callback".to_owned(),
            ],
        ),
    ]
}

fn ours(client_id: &str, name: &str, kind: &str, redirect_uris: Vec<String>) -> Client {
    Client {
        client_id: client_id.to_owned(),
        name: Some(name.to_owned()),
        kind: Some(kind.to_owned()),
        disabled: false,
        public: true,
        secret: None,
        require_pkce: true,
        skip_consent: true,
        enable_end_session: true,
        scopes: SCOPES.map(str::to_owned).into(),
        redirect_uris,
        post_logout_redirect_uris: Vec::new(),
    }
}

impl Client {
    /// Whether answers may go to `uri`: a listed one, or, for the web client, the callback page of an origin that
    /// `trusts` accepts. The rule replaces the reference's writing of such addresses into the row.
    pub fn may_answer_to(&self, uri: &str, trusts: impl Fn(&str) -> bool) -> bool {
        if self.redirect_uris.iter().any(|listed| listed == uri) {
            return true;
        }
        self.client_id == WEB && uri.strip_suffix(WEB_PATH).is_some_and(trusts) && is_plain(uri)
    }

    /// Whether a request must bring a challenge (RFC 7636): anything that could be read on its way, or lasts.
    pub fn needs_challenge(&self, scopes: &[String]) -> bool {
        let native = matches!(self.kind.as_deref(), Some("native" | "user-agent-based"));
        self.require_pkce || self.public || native || scopes.iter().any(|scope| scope == "offline_access")
    }

    /// The scopes of a request: those asked for, all of the client's when none are. An unknown one is the error.
    pub fn grantable<'a>(&self, asked: Option<&'a str>) -> Result<Vec<String>, &'a str> {
        let Some(asked) = asked.filter(|text| !text.trim().is_empty()) else { return Ok(self.scopes.clone()) };
        let mut granted: Vec<String> = Vec::new();
        for scope in asked.split_whitespace() {
            if !self.scopes.iter().any(|known| known == scope) {
                return Err(scope);
            }
            if !granted.iter().any(|known| known == scope) {
                granted.push(scope.to_owned());
            }
        }
        Ok(granted)
    }
}

fn is_plain(uri: &str) -> bool {
    Url::parse(uri).is_ok_and(|url| url.username().is_empty() && url.password().is_none() && url.path() == WEB_PATH)
}

/// Whether a redirect address is one any client could use: absolute, no script, `http` only to this machine.
pub fn is_usable_redirect(uri: &str) -> bool {
    let Ok(url) = Url::parse(uri) else { return false };
    match url.scheme() {
        "javascript" | "data" | "vbscript" => false,
        "http" => url
            .host_str()
            .is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]") || host.ends_with(".localhost")),
        _ => true,
    }
}

/// `state` of the desktop client: the port its own listener has, and what it sent along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayState {
    /// Port on the user's machine.
    pub port: u16,
    /// The client's own state.
    pub state: String,
}

/// Ports of the user's machine the relay hands codes to.
pub const RELAY_PORTS: std::ops::RangeInclusive<u16> = 19721..=19725;

impl RelayState {
    /// Reads `<port>:<state>`. Anything else would let a made-up state send the code to another host
    /// (contract F-09).
    pub fn parse(text: &str) -> Option<Self> {
        let (port, state) = text.split_once(':')?;
        let plain = !port.starts_with('0') && !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
        let port = plain.then(|| port.parse().ok()).flatten().filter(|port| RELAY_PORTS.contains(port))?;
        (!state.is_empty()).then(|| Self { port, state: state.to_owned() })
    }
}

/// Whether a text can be a code of ours, so that it may stand in an address.
pub fn is_code(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer() -> Issuer {
        Issuer::new("https://api.airi.build")
    }

    fn trusts(origin: &str) -> bool {
        matches!(origin, "https://airi.moeru.ai" | "http://localhost:9999" | "https://a.kwaa.workers.dev")
    }

    #[test]
    fn redirect_addresses_match_as_text() {
        let [web, desktop, mobile] = first_party(&issuer());
        for (client, uri, expected) in [
            (&web, "https://airi.moeru.ai/auth/callback", true),
            (&web, "https://api.airi.build/auth/callback", true),
            (&web, "http://localhost:9999/auth/callback", true),
            (&web, "https://a.kwaa.workers.dev/auth/callback", true),
            (&web, "https://airi.moeru.ai/auth/callback/", false),
            (&web, "https://airi.moeru.ai/auth/callback?x=1", false),
            (&web, "https://airi.moeru.ai/auth/callback#x", false),
            (&web, "https://airi.moeru.ai//auth/callback", false),
            (&web, "https://evil.example/auth/callback", false),
            (&web, "https://evil.example/https://airi.moeru.ai/auth/callback", false),
            (&web, "https://airi.moeru.ai@evil.example/auth/callback", false),
            (&web, "https://AIRI.moeru.ai/auth/callback", false),
            (&desktop, "https://api.airi.build/api/auth/oidc/electron-callback", true),
            (&desktop, "https://airi.moeru.ai/auth/callback", false),
            (&mobile, "capacitor://localhost/auth/callback", true),
            (&mobile, "ai.moeru.airi-pocket://links/auth/callback", true),
            (&mobile, "http://localhost:9999/auth/callback", false),
        ] {
            assert_eq!(client.may_answer_to(uri, trusts), expected, "{} {uri}", client.client_id);
        }
    }

    #[test]
    fn scripts_and_foreign_clear_text_are_no_redirects() {
        for good in
            ["https://x.example/cb", "http://localhost:1/cb", "http://127.0.0.1/cb", "http://[::1]:3/cb", "app:/cb"]
        {
            assert!(is_usable_redirect(good), "{good}");
        }
        for bad in ["", "/cb", "javascript:alert(1)", "data:text/html,x", "vbscript:x", "http://x.example/cb"] {
            assert!(!is_usable_redirect(bad), "{bad}");
        }
    }

    #[test]
    fn scopes_are_those_asked_for_once_each_or_all() {
        let [web, ..] = first_party(&issuer());
        assert_eq!(web.grantable(None).unwrap(), SCOPES);
        assert_eq!(web.grantable(Some("  ")).unwrap(), SCOPES);
        assert_eq!(web.grantable(Some("openid  email openid")).unwrap(), ["openid", "email"]);
        assert_eq!(web.grantable(Some("openid admin")), Err("admin"));
    }

    #[test]
    fn a_relay_state_is_a_port_of_the_desktop_client_and_something() {
        assert_eq!(RelayState::parse("19721:abc:d"), Some(RelayState { port: 19721, state: "abc:d".to_owned() }));
        assert!(RelayState::parse("19725:x").is_some());
        for bad in [
            "",
            "19721",
            "19721:",
            ":x",
            "x@evil.example:1",
            "019721:x",
            "+19721:x",
            "80:x",
            "19720:x",
            "19726:x",
            "99999:x",
            "19721@evil.example:80",
            " 19721:x",
            "１９７２１:x",
        ] {
            assert_eq!(RelayState::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_code_fits_into_an_address() {
        assert!(is_code("Ab9_-"));
        for bad in ["", "a b", "a&b", "a%26", "é"] {
            assert!(!is_code(bad), "{bad}");
        }
    }
}
