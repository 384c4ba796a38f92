//! Sign-in with an account elsewhere (contract `auth.md` §6.5).

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use super::accounts::Email;
use super::ids::{IdentityId, UserId};
use super::secret::Secret;

/// Who else knows people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Google, by OpenID Connect.
    Google,
    /// GitHub, by OAuth and its API.
    GitHub,
}

impl Provider {
    /// All of them, in the order pages show them.
    pub const ALL: [Self; 2] = [Self::Google, Self::GitHub];

    /// The name in addresses, bodies and rows.
    pub const fn wire(self) -> &'static str {
        match self {
            Self::Google => "google",
            Self::GitHub => "github",
        }
    }

    /// The provider with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.wire() == name)
    }
}

/// How long a begun flow may take.
pub const STATE_LIFETIME: Duration = Duration::minutes(10);

/// What a flow remembers between leaving for the provider and coming back: the JSON of its `verification` row, read and
/// written by the reference, too (contract §3.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// Where it leads on success.
    #[serde(rename = "callbackURL")]
    pub callback_url: String,
    /// The PKCE verifier (RFC 7636).
    pub code_verifier: String,
    /// Where it leads on failure.
    #[serde(rename = "errorURL", default, skip_serializing_if = "Option::is_none")]
    pub error_url: Option<String>,
    /// Where it leads when it made an account.
    #[serde(rename = "newUserURL", default, skip_serializing_if = "Option::is_none")]
    pub new_user_url: Option<String>,
    /// Whose account the identity is added to; absent in a sign-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// Ends with the row, epoch ms.
    pub expires_at: i64,
    /// The state again.
    pub oauth_state: String,
    /// Whether the browser that comes back MUST bring the state's cookie: it began on a page of ours, so it has it
    /// (contract F-32). Rows of the reference do not say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cookie_bound: bool,
}

/// Whose account an identity is added to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// The person.
    pub user_id: String,
    /// Their address when they asked.
    pub email: String,
}

/// A person as a provider tells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Their id there.
    pub account_id: String,
    /// Their address, if they let us know it.
    pub email: Option<Email>,
    /// Whether the provider has proved it.
    pub email_verified: bool,
    /// Display name; may be empty.
    pub name: String,
    /// Picture address.
    pub image: Option<String>,
}

/// What a provider granted. Kept in clear, as the reference does (contract F-25).
#[derive(Clone, Debug, Default)]
pub struct ProviderTokens {
    /// For the provider's API.
    pub access: Option<Secret>,
    /// For another of those.
    pub refresh: Option<Secret>,
    /// Who it was.
    pub id: Option<Secret>,
    /// How long the access token lives from its exchange.
    pub access_lifetime: Option<Duration>,
    /// What was granted.
    pub scopes: Vec<String>,
}

/// What an exchanged code says.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Who it is.
    pub profile: Profile,
    /// What was granted.
    pub tokens: ProviderTokens,
}

/// An identity about to be stored.
#[derive(Clone, Debug)]
pub struct SocialIdentity {
    /// Row id, when it is new.
    pub id: IdentityId,
    /// Where.
    pub provider: Provider,
    /// The person's id there.
    pub account_id: String,
    /// What was granted.
    pub tokens: ProviderTokens,
    /// When.
    pub at: DateTime<Utc>,
}

impl SocialIdentity {
    /// End of the access token.
    pub fn access_expires_at(&self) -> Option<DateTime<Utc>> {
        self.tokens.access_lifetime.and_then(|life| self.at.checked_add_signed(life))
    }
}

/// What became of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linking {
    /// It is this person's now.
    Linked,
    /// It was already; its tokens are refreshed.
    Known,
    /// It is somebody else's; nothing was written.
    Foreign(UserId),
    /// Nobody has this id.
    Gone,
}

/// Why a provider told nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It did not take the code, or did not answer.
    InvalidCode,
    /// It took the code and would not say whose it was.
    NoUserInfo,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_read_as_the_reference_writes_it() {
        let text = r#"{"callbackURL":"/","codeVerifier":"v","errorURL":"/e","newUserURL":"/n","link":{"userId":"u","email":"a@b.co"},"requestSignUp":true,"expiresAt":1,"oauthState":"s"}"#;
        let flow: Flow = serde_json::from_str(text).unwrap();
        assert_eq!(flow.link, Some(Link { user_id: "u".into(), email: "a@b.co".into() }));
        assert_eq!((flow.error_url.as_deref(), flow.new_user_url.as_deref()), (Some("/e"), Some("/n")));
        assert!(!flow.cookie_bound);
        let written = serde_json::to_value(&flow).unwrap();
        assert_eq!(written["callbackURL"], "/");
        assert_eq!(written.get("cookieBound"), None);
    }

    #[test]
    fn providers_have_one_name_each() {
        for provider in Provider::ALL {
            assert_eq!(Provider::named(provider.wire()), Some(provider));
        }
        for unknown in ["", "Google", "steam"] {
            assert_eq!(Provider::named(unknown), None, "{unknown}");
        }
    }
}
