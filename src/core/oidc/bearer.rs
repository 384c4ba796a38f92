//! A signed access token as a credential (contract `auth.md` §4.5): resolved in memory, nothing is written.

use super::Oidc;
use crate::core::error::Error;
use crate::core::model::oidc::claims::proven;
use crate::core::model::principal::{AccessToken, Credential, Principal};
use crate::core::model::secret::Secret;

impl Oidc {
    /// The person behind a signed access token; nobody when it is anything else, has ended, or the person is gone.
    pub async fn resolve(&self, token: &str) -> Result<Option<Principal>, Error> {
        if !Self::is_for_us(token) {
            return Ok(None);
        }
        let Some(claims) = self.tokens.verify(token, false).await? else { return Ok(None) };
        let Some(proven) = proven(&self.issuer, &claims, self.clock.now()) else { return Ok(None) };
        let Some(account) = self.people.find(&proven.user).await? else { return Ok(None) };
        let token = AccessToken {
            text: Secret::new(token),
            session: proven.session,
            issued_at: proven.issued_at,
            expires_at: proven.expires_at,
        };
        Ok(Some(Principal { account, credential: Credential::Token(token) }))
    }

    /// Whether a bearer text has the form of a signed token, three parts of base64url: it is for [`Oidc::resolve`]
    /// rather than a session's.
    pub fn is_for_us(text: &str) -> bool {
        let mut parts = text.split('.');
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        parts.by_ref().take(3).filter(|part| is_part(part)).count() == 3 && parts.next().is_none()
    }
}
