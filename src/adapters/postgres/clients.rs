//! `oauth_client`.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::{PgPool, PgRow};

use super::fault::fault;
use crate::core::model::oidc::clients::Client;
use crate::core::model::secret::Secret;
use crate::ports::Fault;
use crate::ports::oidc::ClientRepo;

/// OAuth clients in PostgreSQL.
#[derive(Clone, Debug)]
pub struct PgClients {
    /// Where the table is.
    pub pool: PgPool,
}

#[async_trait]
impl ClientRepo for PgClients {
    #[tracing::instrument(name = "postgres.clients.find", skip_all, err(Debug))]
    async fn find(&self, client_id: &str) -> Result<Option<Client>, Fault> {
        let fault = fault("postgres.clients.find");
        let row = sqlx::query(
            "SELECT client_id, name, type, disabled, public, client_secret, require_pkce, skip_consent,
                    enable_end_session, scopes, redirect_uris, post_logout_redirect_uris
             FROM oauth_client WHERE client_id = $1",
        )
        .bind(client_id)
        .fetch_optional(&self.pool)
        .await
        .map_err(fault)?;
        row.as_ref().map(client).transpose().map_err(fault)
    }

    #[tracing::instrument(name = "postgres.clients.seed", skip_all, err(Debug))]
    async fn seed(&self, client: &Client, row_id: &str, at: DateTime<Utc>) -> Result<(), Fault> {
        sqlx::query(
            "INSERT INTO oauth_client (id, client_id, name, type, public, client_secret, require_pkce, skip_consent,
                 enable_end_session, scopes, redirect_uris, disabled, created_at, updated_at,
                 token_endpoint_auth_method, grant_types, response_types)
             VALUES ($1, $2, $3, $4, $5, NULL, $6, $7, $8, $9, $10, false, $11, $11,
                 'none', ARRAY['authorization_code', 'refresh_token'], ARRAY['code'])
             ON CONFLICT (client_id) DO UPDATE SET name = excluded.name, type = excluded.type, public = excluded.public,
                 client_secret = NULL, require_pkce = excluded.require_pkce, skip_consent = excluded.skip_consent,
                 enable_end_session = excluded.enable_end_session, scopes = excluded.scopes,
                 redirect_uris = excluded.redirect_uris, updated_at = excluded.updated_at,
                 token_endpoint_auth_method = excluded.token_endpoint_auth_method,
                 grant_types = excluded.grant_types, response_types = excluded.response_types",
        )
        .bind(row_id)
        .bind(&client.client_id)
        .bind(&client.name)
        .bind(&client.kind)
        .bind(client.public)
        .bind(client.require_pkce)
        .bind(client.skip_consent)
        .bind(client.enable_end_session)
        .bind(&client.scopes)
        .bind(&client.redirect_uris)
        .bind(at.naive_utc())
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(fault("postgres.clients.seed"))
    }
}

fn client(row: &PgRow) -> Result<Client, sqlx::Error> {
    let flag = |column| row.try_get::<Option<bool>, _>(column).map(Option::unwrap_or_default);
    let list = |column| row.try_get::<Option<Vec<String>>, _>(column).map(Option::unwrap_or_default);
    Ok(Client {
        client_id: row.try_get("client_id")?,
        name: row.try_get("name")?,
        kind: row.try_get("type")?,
        disabled: flag("disabled")?,
        public: flag("public")?,
        secret: row.try_get::<Option<String>, _>("client_secret")?.map(Secret::new),
        require_pkce: flag("require_pkce")?,
        skip_consent: flag("skip_consent")?,
        enable_end_session: flag("enable_end_session")?,
        scopes: list("scopes")?,
        redirect_uris: list("redirect_uris")?,
        post_logout_redirect_uris: list("post_logout_redirect_uris")?,
    })
}
