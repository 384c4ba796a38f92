//! Identities of other providers.

use async_trait::async_trait;
use chrono::NaiveDateTime;
use sqlx::{PgConnection, PgPool};

use super::accounts;
use super::fault::fault;
use crate::core::model::accounts::{Account, Creation};
use crate::core::model::ids::UserId;
use crate::core::model::secret::Secret;
use crate::core::model::social::{Linking, Provider, SocialIdentity};
use crate::ports::Fault;
use crate::ports::social::SocialRepo;

/// Identities in PostgreSQL.
#[derive(Clone)]
pub struct PgSocial {
    /// Where.
    pub pool: PgPool,
}

#[async_trait]
impl SocialRepo for PgSocial {
    #[tracing::instrument(name = "postgres.social.find_owner", skip_all, err(Debug))]
    async fn find_owner(&self, provider: Provider, account_id: &str) -> Result<Option<UserId>, Fault> {
        let fault = fault("postgres.social.find_owner");
        let mut connection = self.pool.acquire().await.map_err(fault)?;
        owner(&mut connection, provider, account_id).await.map_err(fault)
    }

    #[tracing::instrument(name = "postgres.social.create_with", skip_all, err(Debug))]
    async fn create_with(&self, account: &Account, identity: &SocialIdentity) -> Result<Creation, Fault> {
        let fault = fault("postgres.social.create_with");
        let mut tx = self.pool.begin().await.map_err(fault)?;
        lock(&mut tx, identity).await.map_err(fault)?;
        // Somebody else's browser was faster with the same identity: the next look finds its owner.
        if owner(&mut tx, identity.provider, &identity.account_id).await.map_err(fault)?.is_some() {
            return Ok(Creation::AddressTaken);
        }
        if accounts::insert(&mut tx, account).await.map_err(fault)? == Creation::AddressTaken {
            return Ok(Creation::AddressTaken);
        }
        insert(&mut tx, &account.id, identity).await.map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(Creation::Created)
    }

    #[tracing::instrument(name = "postgres.social.link", skip_all, err(Debug))]
    async fn link(&self, user: &UserId, identity: &SocialIdentity) -> Result<Linking, Fault> {
        let fault = fault("postgres.social.link");
        let mut tx = self.pool.begin().await.map_err(fault)?;
        let there: Option<String> = sqlx::query_scalar(r#"SELECT id FROM "user" WHERE id = $1 FOR UPDATE"#)
            .bind(user.as_str())
            .fetch_optional(&mut *tx)
            .await
            .map_err(fault)?;
        if there.is_none() {
            return Ok(Linking::Gone);
        }
        lock(&mut tx, identity).await.map_err(fault)?;
        let done = match owner(&mut tx, identity.provider, &identity.account_id).await.map_err(fault)? {
            Some(other) if other != *user => return Ok(Linking::Foreign(other)),
            Some(_) => {
                refresh(&mut tx, user, identity).await.map_err(fault)?;
                Linking::Known
            }
            None => {
                insert(&mut tx, user, identity).await.map_err(fault)?;
                Linking::Linked
            }
        };
        tx.commit().await.map_err(fault)?;
        Ok(done)
    }
}

/// One identity at a time: its table has no constraint that would keep two owners apart.
async fn lock(connection: &mut PgConnection, identity: &SocialIdentity) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext($1), hashtext($2))")
        .bind(identity.provider.wire())
        .bind(&identity.account_id)
        .execute(connection)
        .await
        .map(|_| ())
}

async fn owner(
    connection: &mut PgConnection,
    provider: Provider,
    account_id: &str,
) -> Result<Option<UserId>, sqlx::Error> {
    let user: Option<String> = sqlx::query_scalar(
        "SELECT user_id FROM account WHERE provider_id = $1 AND account_id = $2 ORDER BY created_at, id LIMIT 1",
    )
    .bind(provider.wire())
    .bind(account_id)
    .fetch_optional(connection)
    .await?;
    Ok(user.map(UserId::new))
}

async fn insert(connection: &mut PgConnection, user: &UserId, identity: &SocialIdentity) -> Result<(), sqlx::Error> {
    let tokens = &identity.tokens;
    sqlx::query(
        "INSERT INTO account (id, account_id, provider_id, user_id, access_token, refresh_token, id_token,
                              access_token_expires_at, scope, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)",
    )
    .bind(identity.id.as_str())
    .bind(&identity.account_id)
    .bind(identity.provider.wire())
    .bind(user.as_str())
    .bind(tokens.access.as_ref().map(Secret::expose))
    .bind(tokens.refresh.as_ref().map(Secret::expose))
    .bind(tokens.id.as_ref().map(Secret::expose))
    .bind(identity.access_expires_at().map(|at| at.naive_utc()))
    .bind(tokens.scopes.join(","))
    .bind(identity.at.naive_utc())
    .execute(connection)
    .await
    .map(|_| ())
}

/// What was not granted again stays: Google gives a refresh token the first time only.
async fn refresh(connection: &mut PgConnection, user: &UserId, identity: &SocialIdentity) -> Result<(), sqlx::Error> {
    let tokens = &identity.tokens;
    let expires_at: Option<NaiveDateTime> = identity.access_expires_at().map(|at| at.naive_utc());
    sqlx::query(
        "UPDATE account SET access_token = coalesce($4, access_token), refresh_token = coalesce($5, refresh_token),
                id_token = coalesce($6, id_token), access_token_expires_at = coalesce($7, access_token_expires_at),
                scope = CASE WHEN $8 = '' THEN scope ELSE $8 END, updated_at = $9
         WHERE user_id = $1 AND provider_id = $2 AND account_id = $3",
    )
    .bind(user.as_str())
    .bind(identity.provider.wire())
    .bind(&identity.account_id)
    .bind(tokens.access.as_ref().map(Secret::expose))
    .bind(tokens.refresh.as_ref().map(Secret::expose))
    .bind(tokens.id.as_ref().map(Secret::expose))
    .bind(expires_at)
    .bind(tokens.scopes.join(","))
    .bind(identity.at.naive_utc())
    .execute(connection)
    .await
    .map(|_| ())
}
