//! Identities of other providers.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::accounts;
use super::fault::fault;
use super::{Sqlite, micros};
use crate::core::model::accounts::{Account, Creation};
use crate::core::model::ids::UserId;
use crate::core::model::secret::Secret;
use crate::core::model::social::{Linking, Provider, SocialIdentity};
use crate::ports::Fault;
use crate::ports::social::SocialRepo;

/// Identities in the embedded database.
#[derive(Clone, Debug)]
pub struct SqliteSocial {
    /// Where the tables are.
    pub db: Sqlite,
}

#[async_trait]
impl SocialRepo for SqliteSocial {
    #[tracing::instrument(name = "sqlite.social.find_owner", skip_all, err(Debug))]
    async fn find_owner(&self, provider: Provider, account_id: &str) -> Result<Option<UserId>, Fault> {
        let fault = fault("sqlite.social.find_owner");
        let mut connection = self.db.readers.acquire().await.map_err(fault)?;
        owner(&mut connection, provider, account_id).await.map_err(fault)
    }

    #[tracing::instrument(name = "sqlite.social.create_with", skip_all, err(Debug))]
    async fn create_with(&self, account: &Account, identity: &SocialIdentity) -> Result<Creation, Fault> {
        const OPERATION: &str = "sqlite.social.create_with";
        let fault = fault(OPERATION);
        // One writer at a time: nobody comes between looking and storing.
        let mut tx = self.db.begin(OPERATION).await?;
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

    #[tracing::instrument(name = "sqlite.social.link", skip_all, err(Debug))]
    async fn link(&self, user: &UserId, identity: &SocialIdentity) -> Result<Linking, Fault> {
        const OPERATION: &str = "sqlite.social.link";
        let fault = fault(OPERATION);
        let mut tx = self.db.begin(OPERATION).await?;
        let there: Option<String> = sqlx::query_scalar("SELECT id FROM user WHERE id = ?1")
            .bind(user.as_str())
            .fetch_optional(&mut *tx)
            .await
            .map_err(fault)?;
        if there.is_none() {
            return Ok(Linking::Gone);
        }
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

async fn owner(
    connection: &mut SqliteConnection,
    provider: Provider,
    account_id: &str,
) -> Result<Option<UserId>, sqlx::Error> {
    let user: Option<String> = sqlx::query_scalar(
        "SELECT user_id FROM account WHERE provider_id = ?1 AND account_id = ?2 ORDER BY created_at, id LIMIT 1",
    )
    .bind(provider.wire())
    .bind(account_id)
    .fetch_optional(connection)
    .await?;
    Ok(user.map(UserId::new))
}

async fn insert(
    connection: &mut SqliteConnection,
    user: &UserId,
    identity: &SocialIdentity,
) -> Result<(), sqlx::Error> {
    let tokens = &identity.tokens;
    sqlx::query(
        "INSERT INTO account (id, account_id, provider_id, user_id, access_token, refresh_token, id_token,
                              access_token_expires_at, scope, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
    )
    .bind(identity.id.as_str())
    .bind(&identity.account_id)
    .bind(identity.provider.wire())
    .bind(user.as_str())
    .bind(tokens.access.as_ref().map(Secret::expose))
    .bind(tokens.refresh.as_ref().map(Secret::expose))
    .bind(tokens.id.as_ref().map(Secret::expose))
    .bind(identity.access_expires_at().map(micros))
    .bind(tokens.scopes.join(","))
    .bind(micros(identity.at))
    .execute(connection)
    .await
    .map(|_| ())
}

/// What was not granted again stays: Google gives a refresh token the first time only.
async fn refresh(
    connection: &mut SqliteConnection,
    user: &UserId,
    identity: &SocialIdentity,
) -> Result<(), sqlx::Error> {
    let tokens = &identity.tokens;
    let expires_at = identity.access_expires_at().map(micros);
    sqlx::query(
        "UPDATE account SET access_token = coalesce(?4, access_token), refresh_token = coalesce(?5, refresh_token),
                id_token = coalesce(?6, id_token), access_token_expires_at = coalesce(?7, access_token_expires_at),
                scope = CASE WHEN ?8 = '' THEN scope ELSE ?8 END, updated_at = ?9
         WHERE user_id = ?1 AND provider_id = ?2 AND account_id = ?3",
    )
    .bind(user.as_str())
    .bind(identity.provider.wire())
    .bind(&identity.account_id)
    .bind(tokens.access.as_ref().map(Secret::expose))
    .bind(tokens.refresh.as_ref().map(Secret::expose))
    .bind(tokens.id.as_ref().map(Secret::expose))
    .bind(expires_at)
    .bind(tokens.scopes.join(","))
    .bind(micros(identity.at))
    .execute(connection)
    .await
    .map(|_| ())
}
