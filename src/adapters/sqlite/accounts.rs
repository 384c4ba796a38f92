//! `user` and `account`.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::fault::{corrupt, fault, violates_unique};
use super::{Sqlite, micros, time};
use crate::core::model::accounts::{Account, Creation, Email, NewAccount};
use crate::core::model::ids::UserId;
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
        // Imported rows may hold the address in another case, which the unique key does not see.
        let is_taken: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM user WHERE lower(email) = lower(?))")
            .bind(account.email.as_str())
            .fetch_one(&mut *tx)
            .await
            .map_err(fault)?;
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
        .execute(&mut *tx)
        .await;
        match inserted {
            Ok(_) => {}
            // `lower` knows ASCII only, so the key may still see what the question above did not.
            Err(error) if violates_unique(&error, "user.email") => return Ok(Creation::AddressTaken),
            Err(error) => return Err(fault(error)),
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
