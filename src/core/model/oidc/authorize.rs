//! An authorization request, read and judged (contract `auth.md` §7.3).

use serde::{Deserialize, Serialize};
use url::Url;

use super::clients::is_usable_redirect;

/// The parameters that count; everything else a request carries is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Always `code`.
    #[serde(default)]
    pub response_type: String,
    /// Who asks.
    #[serde(default)]
    pub client_id: String,
    /// Where the answer goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_uri: Option<String>,
    /// What is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Comes back with the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// SHA-256 of the verifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_challenge: Option<String>,
    /// Always `S256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_challenge_method: Option<String>,
    /// Comes back in the ID token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// How the person is to be involved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
}

const PROMPTS: [&str; 7] =
    ["none", "consent", "login", "create", "select_account", "login consent", "select_account consent"];

/// A parameter that is missing or means nothing; its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unusable(pub &'static str);

impl Accepted {
    /// Reads a query; of repeated parameters the last one counts.
    pub fn parse<'a>(pairs: impl Iterator<Item = (std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>)>) -> Self {
        let mut read = Self::default();
        for (name, value) in pairs {
            let value = value.into_owned();
            match name.as_ref() {
                "response_type" => read.response_type = value,
                "client_id" => read.client_id = value,
                "redirect_uri" => read.redirect_uri = Some(value),
                "scope" => read.scope = Some(value),
                "state" => read.state = Some(value),
                "code_challenge" => read.code_challenge = Some(value),
                "code_challenge_method" => read.code_challenge_method = Some(value),
                "nonce" => read.nonce = Some(value),
                "prompt" => read.prompt = Some(value),
                _ => {}
            }
        }
        read
    }

    /// The first check: every parameter means something.
    pub fn check(&self) -> Result<(), Unusable> {
        if self.response_type != "code" {
            return Err(Unusable("response_type"));
        }
        if self.client_id.is_empty() {
            return Err(Unusable("client_id"));
        }
        if self.redirect_uri.as_deref().is_some_and(|uri| !is_usable_redirect(uri)) {
            return Err(Unusable("redirect_uri"));
        }
        if self.code_challenge_method.as_deref().is_some_and(|method| method != "S256") {
            return Err(Unusable("code_challenge_method"));
        }
        // SHA-256 in unpadded base64url has 43 characters (RFC 7636 §4.2).
        if self.code_challenge.as_deref().is_some_and(|challenge| challenge.len() != 43 || !is_base64url(challenge)) {
            return Err(Unusable("code_challenge"));
        }
        if self.prompt.as_deref().is_some_and(|prompt| !PROMPTS.contains(&prompt)) {
            return Err(Unusable("prompt"));
        }
        // What a database refuses to store must not become its failure.
        let texts = [&self.scope, &self.state, &self.nonce];
        if texts.into_iter().flatten().any(|text| text.contains('\0')) || self.client_id.contains('\0') {
            return Err(Unusable("state"));
        }
        Ok(())
    }

    /// Whether the request asks for this prompt.
    pub fn prompts(&self, word: &str) -> bool {
        self.prompt.as_deref().is_some_and(|prompt| prompt.split(' ').any(|asked| asked == word))
    }

    /// The parameters as a query, for the sign-in page that will rebuild this request.
    pub fn to_query(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("response_type", &self.response_type).append_pair("client_id", &self.client_id);
        for (name, value) in [
            ("redirect_uri", &self.redirect_uri),
            ("scope", &self.scope),
            ("state", &self.state),
            ("code_challenge", &self.code_challenge),
            ("code_challenge_method", &self.code_challenge_method),
            ("nonce", &self.nonce),
            ("prompt", &self.prompt),
        ] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.finish()
    }
}

fn is_base64url(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// The form a verifier has (RFC 7636 §4.1): 43 to 128 unreserved characters.
pub fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

/// Puts parameters on an address, which keeps those it has; `None` when it is no address. A parameter of the same name
/// that stands there already is replaced.
pub fn with_parameters(uri: &str, parameters: &[(&str, &str)]) -> Option<String> {
    let mut url = Url::parse(uri).ok()?;
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| !parameters.iter().any(|(ours, _)| ours == name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    url.query_pairs_mut().clear().extend_pairs(kept).extend_pairs(parameters);
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "response_type=code&client_id=c&redirect_uri=https%3A%2F%2Fx.example%2Fcb&scope=openid&state=s&\
        code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256&nonce=n&prompt=login";

    fn read(query: &str) -> Accepted {
        Accepted::parse(url::form_urlencoded::parse(query.as_bytes()))
    }

    #[test]
    fn a_request_survives_the_way_to_the_sign_in_page_and_back() {
        let request = read(&format!("{GOOD}&resource=x&provider=google&exp=1&sig=2"));
        assert_eq!(request.check(), Ok(()));
        assert_eq!(request.to_query(), GOOD);
        assert_eq!(read(&request.to_query()), request);
    }

    #[test]
    fn what_means_nothing_is_named() {
        for (part, other, named) in [
            ("response_type=code", "response_type=token", "response_type"),
            ("client_id=c", "client_id=", "client_id"),
            ("https%3A%2F%2Fx.example%2Fcb", "javascript:alert(1)", "redirect_uri"),
            ("https%3A%2F%2Fx.example%2Fcb", "%2Fcb", "redirect_uri"),
            ("S256", "plain", "code_challenge_method"),
            ("E9Mel", "longer", "code_challenge"),
            ("E9Mel", "", "code_challenge"),
            ("E9Mel", "E9M%20l", "code_challenge"),
            ("prompt=login", "prompt=admin", "prompt"),
            ("state=s", "state=%00", "state"),
        ] {
            let request = read(&GOOD.replace(part, other));
            assert_eq!(request.check(), Err(Unusable(named)), "{other}");
        }
        assert_eq!(read("").check(), Err(Unusable("response_type")));
    }

    #[test]
    fn prompts_are_words() {
        assert!(read("prompt=login+consent").prompts("consent"));
        assert!(!read("prompt=login").prompts("consent"));
        assert!(!read("").prompts("none"));
    }

    #[test]
    fn verifiers_have_a_form() {
        assert!(is_verifier("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
        assert!(is_verifier(&"~".repeat(128)));
        for bad in ["", "short", &"a".repeat(42), &"a".repeat(129), &"ä".repeat(30), &" ".repeat(50)] {
            assert!(!is_verifier(bad), "{bad}");
        }
    }

    #[test]
    fn answers_are_put_on_any_scheme() {
        let answer = [("code", "a b"), ("state", "x&y")];
        for (uri, expected) in [
            ("https://x.example/cb", "https://x.example/cb?code=a+b&state=x%26y"),
            ("https://x.example/cb?tenant=1&code=old", "https://x.example/cb?tenant=1&code=a+b&state=x%26y"),
            ("capacitor://localhost/auth/callback", "capacitor://localhost/auth/callback?code=a+b&state=x%26y"),
            (
                "ai.moeru.airi-pocket://links/auth/callback",
                "ai.moeru.airi-pocket://links/auth/callback?code=a+b&state=x%26y",
            ),
        ] {
            assert_eq!(with_parameters(uri, &answer).unwrap(), expected);
        }
        assert_eq!(with_parameters("nonsense", &answer), None);
    }
}
