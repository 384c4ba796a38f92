//! A code, or a refresh token, for tokens (contract `auth.md` §7.4).

use chrono::{DateTime, Utc};

use super::mint::Occasion;
use super::{Denied, Oidc, Refusal, invalid, is_text, unproved};
use crate::core::model::accounts::Account;
use crate::core::model::oidc::authorize::is_verifier;
use crate::core::model::oidc::claims::has;
use crate::core::model::oidc::grants::{CodeGrant, Redemption, Renewal, narrowed};
use crate::core::model::secret::Secret;

/// The form of the token endpoint; an empty field is an absent one, `resource` excepted.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    /// What is offered.
    pub grant_type: Option<String>,
    /// Who asks.
    pub client_id: Option<String>,
    /// What proves it.
    pub client_secret: Option<Secret>,
    /// A code.
    pub code: Option<Secret>,
    /// What its challenge was made from.
    pub code_verifier: Option<Secret>,
    /// Where the code went.
    pub redirect_uri: Option<String>,
    /// A refresh token.
    pub refresh_token: Option<Secret>,
    /// For whom the access token is to be.
    pub resource: Option<String>,
    /// Fewer scopes than before.
    pub scope: Option<String>,
}

/// What the token endpoint gives.
#[derive(Clone, Debug)]
pub struct TokenAnswer {
    /// Opens doors.
    pub access_token: Secret,
    /// Its life, s.
    pub expires_in: i64,
    /// Its end, epoch s.
    pub expires_at: i64,
    /// Renews it.
    pub refresh_token: Option<Secret>,
    /// What it allows, space-separated.
    pub scope: String,
    /// Who it is.
    pub id_token: Option<Secret>,
}

impl Oidc {
    /// Gives tokens for what is offered; an unknown kind of offer is `None`.
    pub async fn token(&self, request: &TokenRequest) -> Result<Option<TokenAnswer>, Denied> {
        match request.grant_type.as_deref() {
            Some("authorization_code") => self.redeem_code(request).await.map(Some),
            Some("refresh_token") => self.renew(request).await.map(Some),
            // No client of ours acts for itself (contract F-14).
            Some("client_credentials") => {
                Err(invalid("unauthorized_client", "this client may not use this grant type").into())
            }
            _ => Ok(None),
        }
    }

    async fn redeem_code(&self, request: &TokenRequest) -> Result<TokenAnswer, Denied> {
        let (Some(client_id), Some(code), Some(redirect_uri)) =
            (&request.client_id, &request.code, &request.redirect_uri)
        else {
            return Err(invalid("invalid_request", "client_id, code and redirect_uri are required").into());
        };
        if request.code_verifier.is_none() && request.client_secret.is_none() {
            return Err(invalid("invalid_request", "code_verifier or a client secret is required").into());
        }
        let now = self.clock.now();
        let digest = self.tokens.digest(code.expose());
        let Some((grant, ends)) = self.grants.find_code(&digest).await? else {
            self.grants.spoil(&digest, now).await?;
            return Err(unknown_code().into());
        };
        let checked = match self.check_code(&grant, ends, (client_id, redirect_uri), request).await {
            Ok(checked) => checked,
            Err(denied) => {
                // A code is good for one attempt, also a bad one.
                if matches!(denied, Denied::Refused(_)) {
                    self.grants.spoil(&digest, now).await?;
                }
                return Err(denied);
            }
        };
        let scopes: Vec<String> =
            grant.query.scope.as_deref().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        let readable = match self.is_readable(request.resource.as_deref(), &scopes) {
            Ok(readable) => readable,
            Err(refusal) => {
                self.grants.spoil(&digest, now).await?;
                return Err(refusal.into());
            }
        };
        let occasion = Occasion {
            account: &checked,
            client_id,
            session: Some(&grant.session_id),
            scopes: &scopes,
            auth_time: grant.auth_time.and_then(DateTime::from_timestamp_millis),
            nonce: grant.query.nonce.as_deref(),
            lasting: has(&scopes, "offline_access"),
            readable,
        };
        let (answer, stored) = self.mint(&occasion).await?;
        match self.grants.redeem(&digest, &grant.session_id, &stored, now).await? {
            Redemption::Redeemed => Ok(answer),
            Redemption::Spent => Err(unknown_code().into()),
            Redemption::SessionOver => Err(invalid("invalid_request", "the session no longer exists").into()),
        }
    }

    /// Whether the code is this client's to redeem, and whom it is about.
    async fn check_code(
        &self,
        grant: &CodeGrant,
        ends: DateTime<Utc>,
        (client_id, redirect_uri): (&str, &str),
        request: &TokenRequest,
    ) -> Result<Account, Denied> {
        if ends <= self.clock.now() {
            return Err(unknown_code().into());
        }
        if grant.query.client_id != client_id {
            return Err(unproved("invalid_client", "the code was given to another client").into());
        }
        if grant.query.redirect_uri.as_deref() != Some(redirect_uri) {
            return Err(invalid("invalid_request", "redirect_uri is not the one the code was sent to").into());
        }
        self.authenticated(client_id, request.client_secret.as_ref()).await?;
        self.check_proof(grant.query.code_challenge.as_deref(), request.code_verifier.as_ref())?;
        let account = self.accounts.find(&grant.user_id).await?;
        account.ok_or_else(|| invalid("invalid_user", "the user no longer exists").into())
    }

    /// RFC 7636 §4.6, and both ways: a verifier without a challenge is as wrong as the reverse.
    fn check_proof(&self, challenge: Option<&str>, verifier: Option<&Secret>) -> Result<(), Refusal> {
        let is_proved = match (challenge, verifier.map(Secret::expose)) {
            (None, None) => true,
            (Some(challenge), Some(verifier)) => is_verifier(verifier) && self.tokens.digest(verifier) == challenge,
            _ => false,
        };
        if is_proved { Ok(()) } else { Err(unproved("invalid_request", "code_verifier does not match the challenge")) }
    }

    async fn renew(&self, request: &TokenRequest) -> Result<TokenAnswer, Denied> {
        let (Some(client_id), Some(token)) = (&request.client_id, &request.refresh_token) else {
            return Err(invalid("invalid_grant", "client_id and refresh_token are required").into());
        };
        let now = self.clock.now();
        let Some(row) = self.grants.find_refresh(&self.tokens.digest(token.expose())).await? else {
            return Err(dead().into());
        };
        if row.client_id != *client_id {
            return Err(invalid("invalid_client", "the refresh token was given to another client").into());
        }
        self.authenticated(client_id, request.client_secret.as_ref()).await?;
        if row.expires_at <= now {
            return Err(dead().into());
        }
        let scopes = narrowed(&row.scopes, request.scope.as_deref())
            .ok_or_else(|| invalid("invalid_scope", "a scope was not granted before"))?;
        let readable = self.is_readable(request.resource.as_deref(), &scopes)?;
        let account = self.accounts.find(&row.user).await?;
        let account = account.ok_or_else(|| invalid("invalid_request", "the user no longer exists"))?;
        let occasion = Occasion {
            account: &account,
            client_id,
            session: row.session.as_ref(),
            scopes: &scopes,
            auth_time: row.auth_time,
            nonce: None,
            lasting: has(&row.scopes, "offline_access") || has(&scopes, "offline_access"),
            readable,
        };
        let (answer, stored) = self.mint(&occasion).await?;
        match self.grants.renew(&row, &stored, now, self.policy.refresh_grace).await? {
            Renewal::Rotated | Renewal::Forked => Ok(answer),
            Renewal::Reused | Renewal::Dead => Err(dead().into()),
        }
    }
}

fn unknown_code() -> Refusal {
    unproved("invalid_verification", "the code is unknown, used or expired")
}

fn dead() -> Refusal {
    invalid("invalid_grant", "the refresh token is unknown, used, revoked or expired")
}

impl TokenRequest {
    /// Reads one field of the form; of repeated fields the last one counts.
    pub fn set(&mut self, name: &str, value: String) {
        let text = || is_text(&value).then(|| value.clone());
        let secret = || text().map(Secret::new);
        match name {
            "grant_type" => self.grant_type = text(),
            "client_id" => self.client_id = text(),
            "client_secret" => self.client_secret = secret(),
            "code" => self.code = secret(),
            "code_verifier" => self.code_verifier = secret(),
            "redirect_uri" => self.redirect_uri = text(),
            "refresh_token" => self.refresh_token = secret(),
            "scope" => self.scope = text(),
            "resource" => self.resource = Some(value),
            _ => {}
        }
    }
}
