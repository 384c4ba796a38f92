//! Signing out by ID token (contract `auth.md` §7.7).

use serde_json::Value;

use super::{Denied, Oidc, Refusal, invalid, unproved};
use crate::core::model::identity::Closing;
use crate::core::model::ids::{SessionId, UserId};
use crate::core::model::oidc::authorize::with_parameters;
use crate::core::model::oidc::claims::is_for;

/// The query of the endpoint.
#[derive(Clone, Debug, Default)]
pub struct EndRequest {
    /// An ID token of the session, however old.
    pub id_token_hint: Option<String>,
    /// Whose ID token it is; its audience when absent.
    pub client_id: Option<String>,
    /// Where the browser wants to go.
    pub post_logout_redirect_uri: Option<String>,
    /// What it wants to take along.
    pub state: Option<String>,
}

impl Oidc {
    /// Ends the session an ID token was made in, with every token that came from it, if it is still there; where the
    /// browser may go, if anywhere.
    pub async fn end_session(&self, request: &EndRequest) -> Result<Option<String>, Denied> {
        let Some(hint) = &request.id_token_hint else {
            return Err(invalid("invalid_request", "id_token_hint is required").into());
        };
        let bad = || unproved("invalid_token", "id_token_hint is not a token of this server");
        // Clients keep the first ID token for the whole login, so its own end does not count.
        let claims = self.tokens.verify(hint, true).await?.ok_or_else(bad)?;
        let audience = claims.get("aud").cloned().unwrap_or_default();
        let Some(client_id) = request.client_id.as_deref().or_else(|| audience.as_str()) else {
            return Err(invalid("invalid_client", "the client is not known").into());
        };
        let client = self.known(client_id).await?;
        if !client.enable_end_session {
            return Err(unproved("invalid_client", "this client may not end sessions").into());
        }
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(&self.issuer.of_tokens()) || !is_for(&audience, client_id) {
            return Err(no_match().into());
        }
        let (Some(user), Some(session)) = (text("sub"), text("sid")) else { return Err(no_match().into()) };
        let (user, session) = (UserId::new(user), Closing::One(SessionId::new(session)));
        self.sessions.close(&user, &session, self.clock.now()).await?;
        let wanted = request.post_logout_redirect_uri.as_deref();
        let target = wanted.filter(|uri| client.post_logout_redirect_uris.iter().any(|known| known == uri));
        let state: Vec<(&str, &str)> = request.state.iter().map(|state| ("state", state.as_str())).collect();
        Ok(target.and_then(|uri| with_parameters(uri, &state)))
    }
}

fn no_match() -> Refusal {
    invalid("invalid_request", "id_token_hint is not an ID token of this client")
}
