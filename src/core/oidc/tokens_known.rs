//! What a token says, and taking it back (contract `auth.md` §7.6).

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{Denied, Oidc, invalid, is_text, unproved};
use crate::core::model::ids::{SessionId, UserId};
use crate::core::model::oidc::claims::{Claims, has, person, proven};
use crate::core::model::secret::Secret;

impl Oidc {
    /// What an access token allows to tell about its person.
    pub async fn userinfo(&self, token: Option<&str>) -> Result<Claims, Denied> {
        let Some(token) = token else { return Err(unproved("invalid_request", "an access token is required").into()) };
        let now = self.clock.now();
        let bad = || unproved("invalid_token", "the access token is not good");
        let (user, scopes) = if Self::is_for_us(token) {
            let claims = self.tokens.verify(token, false).await?.ok_or_else(bad)?;
            let proven = proven(&self.issuer, &claims, now).ok_or_else(bad)?;
            (proven.user, proven.scopes)
        } else {
            let found = self.grants.find_opaque(&self.tokens.digest(token)).await?;
            let found = found.filter(|found| found.expires_at > now);
            let found = found.ok_or_else(|| invalid("invalid_request", "the access token is not known"))?;
            (found.user, found.scopes)
        };
        if !has(&scopes, "openid") {
            return Err(invalid("invalid_scope", "the access token has no openid scope").into());
        }
        let account = self.people.find(&user).await?.ok_or_else(bad)?;
        Ok(person(&account, &scopes))
    }

    /// Tells a client that can keep a secret whether a token is good (RFC 7662).
    pub async fn introspect(
        &self,
        client_id: Option<&str>,
        secret: Option<&Secret>,
        token: Option<&str>,
    ) -> Result<Value, Denied> {
        let (Some(client_id), Some(secret)) = (client_id, secret) else {
            return Err(unproved("invalid_client", "a client secret is required").into());
        };
        self.authenticated(client_id, Some(secret)).await?;
        let Some(token) = token.filter(|token| is_text(token)) else {
            return Err(invalid("invalid_request", "token is required").into());
        };
        let now = self.clock.now();
        if Self::is_for_us(token) {
            let Some(claims) = self.tokens.verify(token, false).await? else { return Ok(inactive()) };
            if proven(&self.issuer, &claims, now).is_none() {
                return Ok(inactive());
            }
            let mut told = Claims::clone(&claims);
            let client = told.get("azp").cloned().unwrap_or_default();
            told.insert("active".to_owned(), true.into());
            told.insert("client_id".to_owned(), client);
            return Ok(Value::Object(told));
        }
        let digest = self.tokens.digest(token);
        if let Some(row) = self.grants.find_opaque(&digest).await?.filter(|row| row.expires_at > now) {
            let ends = (row.created_at, row.expires_at);
            return Ok(self.active(&row.client_id, &row.user, row.session.as_ref(), ends, &row.scopes));
        }
        let row = self.grants.find_refresh(&digest).await?;
        let Some(row) = row.filter(|row| row.expires_at > now && row.revoked.is_none()) else { return Ok(inactive()) };
        let ends = (row.created_at, row.expires_at);
        Ok(self.active(&row.client_id, &row.user, row.session.as_ref(), ends, &row.scopes))
    }

    fn active(
        &self,
        client_id: &str,
        user: &UserId,
        session: Option<&SessionId>,
        (made, ends): (DateTime<Utc>, DateTime<Utc>),
        scopes: &[String],
    ) -> Value {
        json!({
            "active": true,
            "iss": self.issuer.of_tokens(),
            "client_id": client_id,
            "sub": user,
            "sid": session,
            "exp": ends.timestamp(),
            "iat": made.timestamp(),
            "scope": scopes.join(" "),
        })
    }

    /// Takes a token of this client back (RFC 7009); a token nobody knows is as good as taken back.
    pub async fn revoke(
        &self,
        client_id: Option<&str>,
        secret: Option<&Secret>,
        token: Option<&str>,
    ) -> Result<(), Denied> {
        let Some(client_id) = client_id else {
            return Err(unproved("invalid_client", "client_id is required").into());
        };
        self.authenticated(client_id, secret).await?;
        let Some(token) = token.filter(|token| is_text(token)) else {
            return Err(invalid("invalid_request", "token is required").into());
        };
        if Self::is_for_us(token) {
            return Ok(());
        }
        let digest = self.tokens.digest(token);
        if let Some(row) = self.grants.find_opaque(&digest).await? {
            if row.client_id == client_id {
                self.grants.remove_opaque(&digest).await?;
            }
            return Ok(());
        }
        let Some(row) = self.grants.find_refresh(&digest).await?.filter(|row| row.client_id == client_id) else {
            return Ok(());
        };
        self.grants.revoke_family(&row, self.clock.now()).await?;
        match row.revoked {
            // It was replaced or taken back before: somebody holds a copy.
            Some(_) => Err(invalid("invalid_request", "the refresh token was revoked before").into()),
            None => Ok(()),
        }
    }
}

fn inactive() -> Value {
    json!({ "active": false })
}
