//! `user` and `account`.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::fault::{corrupt, fault, violates_unique};
use super::{Sqlite, micros, passwords, time};
use crate::core::model::accounts::{Account, Creation, Email, NewAccount};
use crate::core::model::identity::{
    Identity, Moving, PasswordChange, PasswordReset, ProfileChange, Proof, Proving, Reset, Unlinking,
};
use crate::core::model::ids::{IdentityId, SessionId, UserId};
use crate::core::model::secret::Secret;
use crate::ports::Fault;
use crate::ports::accounts::AccountRepo;

/// Accounts in the embedded database.
#[derive(Clone, Debug)]
pub struct SqliteAccounts {
    /// Where the tables are.
    pub db: Sqlite,
}

#[async_trait]
impl AccountRepo for SqliteAccounts {
    #[tracing::instrument(name = "sqlite.accounts.create", skip_all, err(Debug))]
    async fn create(&self, new: &NewAccount) -> Result<Creation, Fault> {
        const OPERATION: &str = "sqlite.accounts.create";
        let fault = fault(OPERATION);
        let account = &new.account;
        let mut tx = self.db.begin(OPERATION).await?;
        if insert(&mut tx, account).await.map_err(fault)? == Creation::AddressTaken {
            return Ok(Creation::AddressTaken);
        }
        if let Some(password) = &new.password {
            sqlx::query(
                "INSERT INTO account (id, account_id, provider_id, user_id, password, created_at, updated_at)
                 VALUES (?1, ?2, 'credential', ?2, ?3, ?4, ?4)",
            )
            .bind(password.id.as_str())
            .bind(account.id.as_str())
            .bind(password.hash.expose())
            .bind(micros(account.created_at))
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        }
        tx.commit().await.map_err(fault)?;
        Ok(Creation::Created)
    }

    #[tracing::instrument(name = "sqlite.accounts.find", skip_all, err(Debug))]
    async fn find(&self, id: &UserId) -> Result<Option<Account>, Fault> {
        const OPERATION: &str = "sqlite.accounts.find";
        let row =
            sqlx::query("SELECT id, name, email, email_verified, image, created_at, updated_at FROM user WHERE id = ?")
                .bind(id.as_str())
                .fetch_optional(&self.db.readers)
                .await
                .map_err(fault(OPERATION))?;
        row.map(|row| account(&row, OPERATION)).transpose()
    }

    #[tracing::instrument(name = "sqlite.accounts.find_by_email", skip_all, err(Debug))]
    async fn find_by_email(&self, email: &Email) -> Result<Option<Account>, Fault> {
        const OPERATION: &str = "sqlite.accounts.find_by_email";
        // Of several rows that differ in case only, the exact one, else the oldest.
        let row = sqlx::query(
            "SELECT id, name, email, email_verified, image, created_at, updated_at FROM user
             WHERE lower(email) = lower(?1) ORDER BY (email = ?1) DESC, created_at, id LIMIT 1",
        )
        .bind(email.as_str())
        .fetch_optional(&self.db.readers)
        .await
        .map_err(fault(OPERATION))?;
        row.map(|row| account(&row, OPERATION)).transpose()
    }

    #[tracing::instrument(name = "sqlite.accounts.list_identities", skip_all, err(Debug))]
    async fn list_identities(&self, user: &UserId) -> Result<Vec<Identity>, Fault> {
        const OPERATION: &str = "sqlite.accounts.list_identities";
        let rows = sqlx::query(
            "SELECT id, user_id, provider_id, account_id, scope, created_at, updated_at FROM account
             WHERE user_id = ?1 ORDER BY created_at, id",
        )
        .bind(user.as_str())
        .fetch_all(&self.db.readers)
        .await
        .map_err(fault(OPERATION))?;
        rows.iter().map(|row| identity(row, OPERATION)).collect()
    }

    #[tracing::instrument(name = "sqlite.accounts.find_password", skip_all, err(Debug))]
    async fn find_password(&self, user: &UserId) -> Result<Option<Secret>, Fault> {
        let hash: Option<Option<String>> = sqlx::query_scalar(
            "SELECT password FROM account WHERE user_id = ?1 AND provider_id = 'credential'
             ORDER BY created_at, id LIMIT 1",
        )
        .bind(user.as_str())
        .fetch_optional(&self.db.readers)
        .await
        .map_err(fault("sqlite.accounts.find_password"))?;
        Ok(hash.flatten().map(Secret::new))
    }

    #[tracing::instrument(name = "sqlite.accounts.update", skip_all, err(Debug))]
    async fn update(&self, user: &UserId, change: &ProfileChange, at: DateTime<Utc>) -> Result<(), Fault> {
        sqlx::query(
            "UPDATE user SET name = coalesce(?2, name), image = CASE WHEN ?3 THEN ?4 ELSE image END,
                      updated_at = ?5
               WHERE id = ?1",
        )
        .bind(user.as_str())
        .bind(&change.name)
        .bind(change.image.is_some())
        .bind(change.image.as_ref().and_then(Option::as_ref))
        .bind(micros(at))
        .execute(&self.db.writer)
        .await
        .map(|_| ())
        .map_err(fault("sqlite.accounts.update"))
    }

    #[tracing::instrument(name = "sqlite.accounts.unlink", skip_all, err(Debug))]
    async fn unlink<'a>(&self, user: &UserId, provider: &str, account_id: Option<&'a str>) -> Result<Unlinking, Fault> {
        passwords::unlink(&self.db, user, provider, account_id).await.map_err(fault("sqlite.accounts.unlink"))
    }

    #[tracing::instrument(name = "sqlite.accounts.prove_email", skip_all, err(Debug))]
    async fn prove_email(&self, user: &UserId, proof: Proof, at: DateTime<Utc>) -> Result<Proving, Fault> {
        let at = micros(at);
        passwords::prove(&self.db, user, proof, at).await.map_err(fault("sqlite.accounts.prove_email"))
    }

    #[tracing::instrument(name = "sqlite.accounts.move_email", skip_all, err(Debug))]
    async fn move_email(&self, user: &UserId, from: &Email, to: &Email, at: DateTime<Utc>) -> Result<Moving, Fault> {
        let at = micros(at);
        passwords::move_email(&self.db, user, (from, to), at).await.map_err(fault("sqlite.accounts.move_email"))
    }

    #[tracing::instrument(name = "sqlite.accounts.change_password", skip_all, err(Debug))]
    async fn change_password(&self, change: &PasswordChange) -> Result<Vec<SessionId>, Fault> {
        passwords::change(&self.db, change).await.map_err(fault("sqlite.accounts.change_password"))
    }

    #[tracing::instrument(name = "sqlite.accounts.reset_password", skip_all, err(Debug))]
    async fn reset_password(&self, reset: &PasswordReset) -> Result<Option<Reset>, Fault> {
        passwords::reset(&self.db, reset).await.map_err(fault("sqlite.accounts.reset_password"))
    }
}

/// Stores a person, unless somebody has the address.
pub(super) async fn insert(connection: &mut SqliteConnection, account: &Account) -> Result<Creation, sqlx::Error> {
    // Imported rows may hold the address in another case, which the unique key does not see.
    let is_taken: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM user WHERE lower(email) = lower(?))")
        .bind(account.email.as_str())
        .fetch_one(&mut *connection)
        .await?;
    if is_taken {
        return Ok(Creation::AddressTaken);
    }
    let inserted = sqlx::query(
        "INSERT INTO user (id, name, email, email_verified, image, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(account.id.as_str())
    .bind(&account.name)
    .bind(account.email.as_str())
    .bind(account.email_verified)
    .bind(&account.image)
    .bind(micros(account.created_at))
    .bind(micros(account.updated_at))
    .execute(&mut *connection)
    .await;
    match inserted {
        Ok(_) => Ok(Creation::Created),
        // `lower` knows ASCII only, so the key may still see what the question above did not.
        Err(error) if violates_unique(&error, "user.email") => Ok(Creation::AddressTaken),
        Err(error) => Err(error),
    }
}

fn account(row: &SqliteRow, operation: &'static str) -> Result<Account, Fault> {
    let fault = fault(operation);
    let id: String = row.try_get("id").map_err(fault)?;
    let at = |column| -> Result<DateTime<Utc>, Fault> {
        time(row.try_get(column).map_err(fault)?).ok_or_else(|| corrupt(operation, "user", column, &id))
    };
    Ok(Account {
        created_at: at("created_at")?,
        updated_at: at("updated_at")?,
        id: UserId::new(id),
        name: row.try_get("name").map_err(fault)?,
        email: Email::stored(row.try_get::<String, _>("email").map_err(fault)?),
        email_verified: row.try_get("email_verified").map_err(fault)?,
        image: row.try_get("image").map_err(fault)?,
    })
}

fn identity(row: &SqliteRow, operation: &'static str) -> Result<Identity, Fault> {
    let fault = fault(operation);
    let id: String = row.try_get("id").map_err(fault)?;
    let at = |column| -> Result<DateTime<Utc>, Fault> {
        time(row.try_get(column).map_err(fault)?).ok_or_else(|| corrupt(operation, "account", column, &id))
    };
    let scope: Option<String> = row.try_get("scope").map_err(fault)?;
    let scopes = scope.iter().flat_map(|scope| scope.split(',')).map(str::trim).filter(|scope| !scope.is_empty());
    Ok(Identity {
        created_at: at("created_at")?,
        updated_at: at("updated_at")?,
        id: IdentityId::new(id.as_str()),
        user: UserId::new(row.try_get::<String, _>("user_id").map_err(fault)?),
        provider: row.try_get("provider_id").map_err(fault)?,
        account_id: row.try_get("account_id").map_err(fault)?,
        scopes: scopes.map(str::to_owned).collect(),
    })
}
