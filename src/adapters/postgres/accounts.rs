//! `user` and `account`.

use async_trait::async_trait;
use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::PgConnection;
use sqlx::Row;
use sqlx::postgres::{PgPool, PgRow};

use super::fault::{fault, violated};
use super::passwords;
use crate::core::model::accounts::{Account, Creation, Email, NewAccount};
use crate::core::model::identity::{
    Identity, Moving, PasswordChange, PasswordReset, ProfileChange, Proof, Proving, Reset, Unlinking,
};
use crate::core::model::ids::{IdentityId, SessionId, UserId};
use crate::core::model::secret::Secret;
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
        if insert(&mut tx, account).await.map_err(fault)? == Creation::AddressTaken {
            return Ok(Creation::AddressTaken);
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

    #[tracing::instrument(name = "postgres.accounts.list_identities", skip_all, err(Debug))]
    async fn list_identities(&self, user: &UserId) -> Result<Vec<Identity>, Fault> {
        let fault = fault("postgres.accounts.list_identities");
        let rows = sqlx::query(
            "SELECT id, user_id, provider_id, account_id, scope, created_at, updated_at FROM account
             WHERE user_id = $1 ORDER BY created_at, id",
        )
        .bind(user.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(identity).collect::<Result<_, _>>().map_err(fault)
    }

    #[tracing::instrument(name = "postgres.accounts.find_password", skip_all, err(Debug))]
    async fn find_password(&self, user: &UserId) -> Result<Option<Secret>, Fault> {
        let hash: Option<Option<String>> = sqlx::query_scalar(
            "SELECT password FROM account WHERE user_id = $1 AND provider_id = 'credential'
             ORDER BY created_at, id LIMIT 1",
        )
        .bind(user.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(fault("postgres.accounts.find_password"))?;
        Ok(hash.flatten().map(Secret::new))
    }

    #[tracing::instrument(name = "postgres.accounts.update", skip_all, err(Debug))]
    async fn update(&self, user: &UserId, change: &ProfileChange, at: DateTime<Utc>) -> Result<(), Fault> {
        sqlx::query(
            r#"UPDATE "user" SET name = coalesce($2, name), image = CASE WHEN $3 THEN $4 ELSE image END,
                      updated_at = $5
               WHERE id = $1"#,
        )
        .bind(user.as_str())
        .bind(&change.name)
        .bind(change.image.is_some())
        .bind(change.image.as_ref().and_then(Option::as_ref))
        .bind(at.naive_utc())
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(fault("postgres.accounts.update"))
    }

    #[tracing::instrument(name = "postgres.accounts.unlink", skip_all, err(Debug))]
    async fn unlink<'a>(&self, user: &UserId, provider: &str, account_id: Option<&'a str>) -> Result<Unlinking, Fault> {
        passwords::unlink(&self.pool, user, provider, account_id).await.map_err(fault("postgres.accounts.unlink"))
    }

    #[tracing::instrument(name = "postgres.accounts.prove_email", skip_all, err(Debug))]
    async fn prove_email(&self, user: &UserId, proof: Proof, at: DateTime<Utc>) -> Result<Proving, Fault> {
        let at = at.naive_utc();
        passwords::prove(&self.pool, user, proof, at).await.map_err(fault("postgres.accounts.prove_email"))
    }

    #[tracing::instrument(name = "postgres.accounts.move_email", skip_all, err(Debug))]
    async fn move_email(&self, user: &UserId, from: &Email, to: &Email, at: DateTime<Utc>) -> Result<Moving, Fault> {
        let at = at.naive_utc();
        passwords::move_email(&self.pool, user, (from, to), at).await.map_err(fault("postgres.accounts.move_email"))
    }

    #[tracing::instrument(name = "postgres.accounts.change_password", skip_all, err(Debug))]
    async fn change_password(&self, change: &PasswordChange) -> Result<Vec<SessionId>, Fault> {
        passwords::change(&self.pool, change).await.map_err(fault("postgres.accounts.change_password"))
    }

    #[tracing::instrument(name = "postgres.accounts.reset_password", skip_all, err(Debug))]
    async fn reset_password(&self, reset: &PasswordReset) -> Result<Option<Reset>, Fault> {
        passwords::reset(&self.pool, reset).await.map_err(fault("postgres.accounts.reset_password"))
    }
}

/// Stores a person, unless somebody has the address.
pub(super) async fn insert(connection: &mut PgConnection, account: &Account) -> Result<Creation, sqlx::Error> {
    // Rows of the reference may hold the address in another case, which its unique key does not see.
    let is_taken: bool = sqlx::query_scalar(r#"SELECT EXISTS (SELECT FROM "user" WHERE lower(email) = lower($1))"#)
        .bind(account.email.as_str())
        .fetch_one(&mut *connection)
        .await?;
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
    .execute(&mut *connection)
    .await;
    match inserted {
        Ok(_) => Ok(Creation::Created),
        Err(error) if violated(&error) == Some("user_email_unique") => Ok(Creation::AddressTaken),
        Err(error) => Err(error),
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

fn identity(row: &PgRow) -> Result<Identity, sqlx::Error> {
    let scope: Option<String> = row.try_get("scope")?;
    let scopes = scope.iter().flat_map(|scope| scope.split(',')).map(str::trim).filter(|scope| !scope.is_empty());
    Ok(Identity {
        id: IdentityId::new(row.try_get::<String, _>("id")?),
        user: UserId::new(row.try_get::<String, _>("user_id")?),
        provider: row.try_get("provider_id")?,
        account_id: row.try_get("account_id")?,
        scopes: scopes.map(str::to_owned).collect(),
        created_at: row.try_get::<NaiveDateTime, _>("created_at")?.and_utc(),
        updated_at: row.try_get::<NaiveDateTime, _>("updated_at")?.and_utc(),
    })
}
