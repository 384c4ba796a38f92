//! Changes of passwords and addresses, each one transaction.

use sqlx::SqliteConnection;

use super::fault::violates_unique;
use super::session_ends::close;
use super::sessions::insert;
use super::{Sqlite, micros};
use crate::core::model::accounts::{Email, PasswordIdentity};
use crate::core::model::identity::{
    Afterwards, Closing, Moving, PasswordChange, PasswordReset, Proof, Proving, Reset, Unlinking,
};
use crate::core::model::ids::{SessionId, UserId};

pub(super) async fn change(db: &Sqlite, change: &PasswordChange) -> Result<Vec<SessionId>, sqlx::Error> {
    let (user, at) = (&change.user, micros(change.at));
    let mut tx = db.writer.begin_with("BEGIN IMMEDIATE").await?;
    if !is_there(&mut tx, user).await? {
        return Ok(Vec::new());
    }
    store(&mut tx, user, &change.password, at).await?;
    let closed = match &change.sessions {
        Afterwards::Leave => Vec::new(),
        Afterwards::KeepOnly(kept) => close(&mut tx, user, &Closing::Others(kept.clone()), at).await?,
        Afterwards::Replace { old, new } => {
            insert(&mut tx, new).await?;
            sqlx::query("UPDATE oauth_refresh_token SET session_id = ?3 WHERE user_id = ?1 AND session_id = ?2")
                .bind(user.as_str())
                .bind(old.as_str())
                .bind(new.id.as_str())
                .execute(&mut *tx)
                .await?;
            close(&mut tx, user, &Closing::Others(Some(new.id.clone())), at).await?
        }
    };
    tx.commit().await?;
    Ok(closed)
}

pub(super) async fn reset(db: &Sqlite, reset: &PasswordReset) -> Result<Option<Reset>, sqlx::Error> {
    let at = micros(reset.at);
    let mut tx = db.writer.begin_with("BEGIN IMMEDIATE").await?;
    let user: Option<String> =
        sqlx::query_scalar("DELETE FROM verification WHERE identifier = ?1 AND expires_at > ?2 RETURNING value")
            .bind(&reset.identifier)
            .bind(at)
            .fetch_optional(&mut *tx)
            .await?;
    let Some(user) = user.map(UserId::new) else { return Ok(None) };
    if !is_there(&mut tx, &user).await? {
        return Ok(None);
    }
    store(&mut tx, &user, &reset.password, at).await?;
    sqlx::query("UPDATE user SET email_verified = true, updated_at = ?2 WHERE id = ?1")
        .bind(user.as_str())
        .bind(at)
        .execute(&mut *tx)
        .await?;
    let closed = close(&mut tx, &user, &Closing::All, at).await?;
    tx.commit().await?;
    Ok(Some(Reset { user, closed }))
}

pub(super) async fn prove(db: &Sqlite, user: &UserId, proof: Proof, at: i64) -> Result<Proving, sqlx::Error> {
    let mut tx = db.writer.begin_with("BEGIN IMMEDIATE").await?;
    let verified: Option<bool> = sqlx::query_scalar("SELECT email_verified FROM user WHERE id = ?1")
        .bind(user.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    match verified {
        None => return Ok(Proving::Gone),
        Some(true) => return Ok(Proving::Already),
        Some(false) => {}
    }
    sqlx::query("UPDATE user SET email_verified = true, updated_at = ?2 WHERE id = ?1")
        .bind(user.as_str())
        .bind(at)
        .execute(&mut *tx)
        .await?;
    let mut closed = Vec::new();
    if proof == Proof::Elsewhere {
        sqlx::query("DELETE FROM account WHERE user_id = ?1 AND provider_id = 'credential'")
            .bind(user.as_str())
            .execute(&mut *tx)
            .await?;
        closed = close(&mut tx, user, &Closing::All, at).await?;
    }
    tx.commit().await?;
    Ok(Proving::Newly(closed))
}

pub(super) async fn move_email(
    db: &Sqlite,
    user: &UserId,
    (from, to): (&Email, &Email),
    at: i64,
) -> Result<Moving, sqlx::Error> {
    let mut tx = db.writer.begin_with("BEGIN IMMEDIATE").await?;
    let taken: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM user WHERE lower(email) = lower(?2) AND id <> ?1)")
            .bind(user.as_str())
            .bind(to.as_str())
            .fetch_one(&mut *tx)
            .await?;
    if taken {
        return Ok(Moving::AddressTaken);
    }
    let moved = sqlx::query(
        "UPDATE user SET email = ?3, email_verified = true, updated_at = ?4
           WHERE id = ?1 AND lower(email) = lower(?2)",
    )
    .bind(user.as_str())
    .bind(from.as_str())
    .bind(to.as_str())
    .bind(at)
    .execute(&mut *tx)
    .await;
    let moved = match moved {
        Ok(done) => done.rows_affected() > 0,
        Err(error) if violates_unique(&error, "user.email") => return Ok(Moving::AddressTaken),
        Err(error) => return Err(error),
    };
    tx.commit().await?;
    Ok(if moved { Moving::Moved } else { Moving::Gone })
}

pub(super) async fn unlink(
    db: &Sqlite,
    user: &UserId,
    provider: &str,
    account_id: Option<&str>,
) -> Result<Unlinking, sqlx::Error> {
    let mut tx = db.writer.begin_with("BEGIN IMMEDIATE").await?;
    if !is_there(&mut tx, user).await? {
        return Ok(Unlinking::Missing);
    }
    let count: i64 = sqlx::query_scalar("SELECT count(id) FROM account WHERE user_id = ?1")
        .bind(user.as_str())
        .fetch_one(&mut *tx)
        .await?;
    if count <= 1 {
        return Ok(Unlinking::LastOne);
    }
    let removed = sqlx::query(
        "DELETE FROM account WHERE id = (
             SELECT id FROM account WHERE user_id = ?1 AND provider_id = ?2 AND (?3 IS NULL OR account_id = ?3)
             ORDER BY created_at, id LIMIT 1)",
    )
    .bind(user.as_str())
    .bind(provider)
    .bind(account_id)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(if removed.rows_affected() > 0 { Unlinking::Unlinked } else { Unlinking::Missing })
}

/// Whether the person exists.
async fn is_there(tx: &mut SqliteConnection, user: &UserId) -> Result<bool, sqlx::Error> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT id FROM user WHERE id = ?1").bind(user.as_str()).fetch_optional(tx).await?;
    Ok(found.is_some())
}

async fn store(
    tx: &mut SqliteConnection,
    user: &UserId,
    password: &PasswordIdentity,
    at: i64,
) -> Result<(), sqlx::Error> {
    let updated = sqlx::query(
        "UPDATE account SET password = ?2, updated_at = ?3 WHERE user_id = ?1 AND provider_id = 'credential'",
    )
    .bind(user.as_str())
    .bind(password.hash.expose())
    .bind(at)
    .execute(&mut *tx)
    .await?;
    if updated.rows_affected() > 0 {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO account (id, account_id, provider_id, user_id, password, created_at, updated_at)
         VALUES (?1, ?2, 'credential', ?2, ?3, ?4, ?4)",
    )
    .bind(password.id.as_str())
    .bind(user.as_str())
    .bind(password.hash.expose())
    .bind(at)
    .execute(tx)
    .await
    .map(|_| ())
}
