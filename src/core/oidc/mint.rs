//! New tokens (contract `auth.md` §7.4, §7.5).

use chrono::{DateTime, Utc};

use super::redeem::TokenAnswer;
use super::{Oidc, Refusal, invalid};
use crate::core::model::accounts::Account;
use crate::core::model::ids::SessionId;
use crate::core::model::oidc::claims::{self, AccessFor, IdFor, has};
use crate::core::model::oidc::grants::{ACCESS_LIFETIME, NewTokens, OpaqueRow, REFRESH_LIFETIME, RefreshRow};
use crate::core::model::secret::Secret;
use crate::ports::Fault;

/// What tokens are made for.
pub(super) struct Occasion<'a> {
    pub(super) account: &'a Account,
    pub(super) client_id: &'a str,
    pub(super) session: Option<&'a SessionId>,
    pub(super) scopes: &'a [String],
    pub(super) auth_time: Option<DateTime<Utc>>,
    pub(super) nonce: Option<&'a str>,
    /// A refresh token is wanted.
    pub(super) lasting: bool,
    /// The access token is for a named resource, and so can be read.
    pub(super) readable: bool,
}

impl Oidc {
    /// Makes the tokens; nothing is stored yet.
    pub(super) async fn mint(&self, occasion: &Occasion<'_>) -> Result<(TokenAnswer, NewTokens), Fault> {
        let now = self.clock.now();
        let Occasion { account, client_id, session, scopes, .. } = *occasion;
        let mut stored = NewTokens::default();
        let refresh_token = occasion.lasting.then(|| self.ids.token());
        if let Some(token) = &refresh_token {
            stored.refresh = Some(RefreshRow {
                id: self.ids.token(),
                digest: self.tokens.digest(token),
                client_id: client_id.to_owned(),
                session: session.cloned(),
                user: account.id.clone(),
                expires_at: now + REFRESH_LIFETIME,
                created_at: now,
                revoked: None,
                auth_time: occasion.auth_time,
                scopes: scopes.to_vec(),
                family: None,
            });
        }
        let access_token = if occasion.readable {
            let token = AccessFor { user: &account.id, client_id, scopes, session };
            self.tokens.sign(&claims::access(&self.issuer, token, now)).await?
        } else {
            let token = self.ids.token();
            stored.opaque = Some(OpaqueRow {
                id: self.ids.token(),
                digest: self.tokens.digest(&token),
                client_id: client_id.to_owned(),
                session: session.cloned(),
                user: account.id.clone(),
                expires_at: now + ACCESS_LIFETIME,
                created_at: now,
                scopes: scopes.to_vec(),
            });
            Secret::new(token)
        };
        let id_token = if has(scopes, "openid") {
            let token =
                IdFor { account, client_id, scopes, session, auth_time: occasion.auth_time, nonce: occasion.nonce };
            Some(self.tokens.sign(&claims::id(&self.issuer, token, now)).await?)
        } else {
            None
        };
        let answer = TokenAnswer {
            access_token,
            expires_in: ACCESS_LIFETIME.num_seconds(),
            expires_at: (now + ACCESS_LIFETIME).timestamp(),
            refresh_token: refresh_token.map(Secret::new),
            scope: scopes.join(" "),
            id_token,
        };
        Ok((answer, stored))
    }

    /// Whether the access token is for a named resource: ours, character by character, or the userinfo endpoint.
    pub(super) fn is_readable(&self, resource: Option<&str>, scopes: &[String]) -> Result<bool, Refusal> {
        match resource {
            None => Ok(false),
            Some(resource) if resource == self.issuer.origin() => Ok(true),
            Some(resource) if has(scopes, "openid") && resource == self.issuer.userinfo() => Ok(true),
            Some(_) => Err(invalid("invalid_request", "resource is not this server")),
        }
    }
}
