//! The vocabulary of the OpenID provider, and its rules (contract `auth.md` §7).

pub mod authorize;
pub mod claims;
pub mod clients;
pub mod grants;
pub mod keys;

use super::ids::UserId;

/// Where this server is on the web, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    origin: String,
}

impl Issuer {
    /// `origin` is the public origin of this server, without a slash behind it.
    pub fn new(origin: impl Into<String>) -> Self {
        Self { origin: origin.into() }
    }

    /// The public origin: the audience of access tokens and the one `resource` that may be asked for.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The `iss` of every token.
    pub fn of_tokens(&self) -> String {
        self.endpoint("")
    }

    /// The issuer as discovery and authorization answers name it: `https` unless the host is this machine
    /// (contract §7.8). The claim in tokens is never rewritten.
    pub fn announced(&self) -> String {
        match self.origin.strip_prefix("http://") {
            Some(host) if !is_this_machine(host) => format!("https://{host}{PREFIX}"),
            _ => self.of_tokens(),
        }
    }

    /// The address of an endpoint: `/oauth2/token` and the like.
    pub fn endpoint(&self, path: &str) -> String {
        format!("{}{PREFIX}{path}", self.origin)
    }

    /// Where the desktop client's browser ends.
    pub fn relay(&self) -> String {
        self.endpoint(RELAY_PATH)
    }

    /// The address that answers claims to access tokens; a second audience of theirs.
    pub fn userinfo(&self) -> String {
        self.endpoint("/oauth2/userinfo")
    }
}

/// Below it lies everything the provider answers.
pub const PREFIX: &str = "/api/auth";
/// The relay page below [`PREFIX`].
pub const RELAY_PATH: &str = "/oidc/electron-callback";

fn is_this_machine(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => authority,
    };
    matches!(host, "localhost" | "127.0.0.1" | "[::1]") || host.ends_with(".localhost")
}

/// When and by whom a session was opened: what a grant made in it remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// Who signed in.
    pub user: UserId,
    /// When.
    pub at: chrono::DateTime<chrono::Utc>,
    /// When the session ends.
    pub ends: chrono::DateTime<chrono::Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_foreign_http_origin_is_announced_as_https() {
        for (origin, announced) in [
            ("https://api.airi.build", "https://api.airi.build/api/auth"),
            ("http://api.airi.build", "https://api.airi.build/api/auth"),
            ("http://localhost:3000", "http://localhost:3000/api/auth"),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000/api/auth"),
            ("http://[::1]:3000", "http://[::1]:3000/api/auth"),
            ("http://localhost.evil.example", "https://localhost.evil.example/api/auth"),
        ] {
            let issuer = Issuer::new(origin);
            assert_eq!(issuer.announced(), announced);
            assert_eq!(issuer.of_tokens(), format!("{origin}/api/auth"));
        }
    }
}
