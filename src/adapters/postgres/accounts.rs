//! `user` and `account`.

use async_trait::async_trait;
use chrono::NaiveDateTime;
use sqlx::Row;
use sqlx::postgres::{PgPool, PgRow};

use super::fault::{fault, violated};
use crate::core::model::accounts::{Account, Creation, Email, NewAccount};
use crate::core::model::ids::UserId;
use crate::ports::Fault;
use crate::ports::accounts::AccountRepo;

/// Accounts in PostgreSQL.
#[derive(Clone, Debug)]
pub struct PgAccounts {
    /// Where the tables are.
    pub pool: PgPool,
}

#[async_trait]
impl AccountRepo for PgAccounts {
    #[tracing::instrument(name = "postgres.accounts.create", skip_all, err(Debug))]
    async fn create(&self, new: &NewAccount) -> Result<Creation, Fault> {
        let fault = fault("postgres.accounts.create");
        let account = &new.account;
        let mut tx = self.pool.begin().await.map_err(fault)?;
        // Rows of the reference may hold the address in another case, which its unique key does not see.
        let is_taken: bool = sqlx::query_scalar(r#"SELECT EXISTS (SELECT FROM "user" WHERE lower(email) = lower($1))"#)
            .bind(account.email.as_str())
            .fetch_one(&mut *tx)
            .await
            .map_err(fault)?;
        if is_taken {
            return Ok(Creation::AddressTaken);
        }
        let inserted = sqlx::query(
            r#"INSERT INTO "user" (id, name, email, email_verified, image, created_at, updated_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7)"#,
        )
        .bind(account.id.as_str())
        .bind(&account.name)
        .bind(account.email.as_str())
        .bind(account.email_verified)
        .bind(&account.image)
        .bind(account.created_at.naive_utc())
        .bind(account.updated_at.naive_utc())
        .execute(&mut *tx)
        .await;
        match inserted {
            Ok(_) => {}
            Err(error) if violated(&error) == Some("user_email_unique") => return Ok(Creation::AddressTaken),
            Err(error) => return Err(fault(error)),
        }
        if let Some(password) = &new.password {
            sqlx::query(
                "INSERT INTO account (id, account_id, provider_id, user_id, password, created_at, updated_at)
                 VALUES ($1, $2, 'credential', $2, $3, $4, $4)",
            )
            .bind(password.id.as_str())
            .bind(account.id.as_str())
            .bind(password.hash.expose())
            .bind(account.created_at.naive_utc())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        }
        tx.commit().await.map_err(fault)?;
        Ok(Creation::Created)
    }

    #[tracing::instrument(name = "postgres.accounts.find", skip_all, err(Debug))]
    async fn find(&self, id: &UserId) -> Result<Option<Account>, Fault> {
        let fault = fault("postgres.accounts.find");
        let row = sqlx::query(
            r#"SELECT id, name, email, email_verified, image, created_at, updated_at FROM "user" WHERE id = $1"#,
        )
        .bind(id.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(fault)?;
        row.as_ref().map(account).transpose().map_err(fault)
    }

    #[tracing::instrument(name = "postgres.accounts.find_by_email", skip_all, err(Debug))]
    async fn find_by_email(&self, email: &Email) -> Result<Option<Account>, Fault> {
        let fault = fault("postgres.accounts.find_by_email");
        // Of several rows that differ in case only, the exact one, else the oldest.
        let row = sqlx::query(
            r#"SELECT id, name, email, email_verified, image, created_at, updated_at FROM "user"
               WHERE lower(email) = lower($1) ORDER BY (email = $1) DESC, created_at, id LIMIT 1"#,
        )
        .bind(email.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(fault)?;
        row.as_ref().map(account).transpose().map_err(fault)
    }
}

fn account(row: &PgRow) -> Result<Account, sqlx::Error> {
    Ok(Account {
        id: UserId::new(row.try_get::<String, _>("id")?),
        name: row.try_get("name")?,
        email: Email::stored(row.try_get::<String, _>("email")?),
        email_verified: row.try_get("email_verified")?,
        image: row.try_get("image")?,
        created_at: row.try_get::<NaiveDateTime, _>("created_at")?.and_utc(),
        updated_at: row.try_get::<NaiveDateTime, _>("updated_at")?.and_utc(),
    })
}
