//! The end of sessions, and of what is tied to them (contract `auth.md` F-05).

use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::PgConnection;

use crate::core::model::identity::Closing;
use crate::core::model::ids::{SessionId, UserId};
use crate::core::model::oidc::grants::TOKENS_KEPT;

/// Revokes refresh tokens first: the foreign key forgets the session of a token when the session goes.
///
/// Holds the person's row, as opening a session does, so that both take their locks in one order.
pub(super) async fn close(
    tx: &mut PgConnection,
    user: &UserId,
    which: &Closing,
    at: NaiveDateTime,
) -> Result<Vec<SessionId>, sqlx::Error> {
    let (id, token, but) = match which {
        Closing::One(id) => (Some(id.as_str()), None, None),
        Closing::Token(token) => (None, Some(token.expose()), None),
        Closing::All => (None, None, None),
        Closing::Others(but) => (None, None, but.as_ref().map(SessionId::as_str)),
    };
    sqlx::query(r#"SELECT FROM "user" WHERE id = $1 FOR UPDATE"#).bind(user.as_str()).execute(&mut *tx).await?;
    let ids: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM session WHERE user_id = $1 AND ($2::text IS NULL OR id = $2)
         AND ($3::text IS NULL OR token = $3) AND ($4::text IS NULL OR id <> $4)",
    )
    .bind(user.as_str())
    .bind(id)
    .bind(token)
    .bind(but)
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query("UPDATE oauth_refresh_token SET revoked = $2 WHERE session_id = ANY($1) AND revoked IS NULL")
        .bind(&ids)
        .bind(at)
        .execute(&mut *tx)
        .await?;
    // Tokens whose session is gone already belong to some other device.
    if matches!(which, Closing::All) || but.is_some() {
        sqlx::query(
            "UPDATE oauth_refresh_token SET revoked = $2
             WHERE user_id = $1 AND revoked IS NULL AND ($3::text IS NULL OR session_id IS DISTINCT FROM $3)",
        )
        .bind(user.as_str())
        .bind(at)
        .bind(but)
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query("DELETE FROM oauth_access_token WHERE session_id = ANY($1)").bind(&ids).execute(&mut *tx).await?;
    sqlx::query("DELETE FROM session WHERE id = ANY($1)").bind(&ids).execute(&mut *tx).await?;
    Ok(ids.into_iter().map(SessionId::new).collect())
}

/// Removes what ended of a person who signs in anew (contract `auth.md` §13), under their row as [`close`] is. An expired
/// session stays while a live refresh token hangs on it: the foreign key would cut them apart.
pub(super) async fn sweep(tx: &mut PgConnection, user: &UserId, at: DateTime<Utc>) -> Result<(), sqlx::Error> {
    for statement in [
        "DELETE FROM oauth_access_token WHERE user_id = $1 AND expires_at < $2",
        "DELETE FROM oauth_refresh_token WHERE user_id = $1 AND expires_at < $2",
    ] {
        sqlx::query(statement).bind(user.as_str()).bind((at - TOKENS_KEPT).naive_utc()).execute(&mut *tx).await?;
    }
    sqlx::query(
        "DELETE FROM session WHERE user_id = $1 AND expires_at <= $2 AND NOT EXISTS (
             SELECT FROM oauth_refresh_token
             WHERE session_id = session.id AND revoked IS NULL AND oauth_refresh_token.expires_at > $2)",
    )
    .bind(user.as_str())
    .bind(at.naive_utc())
    .execute(tx)
    .await
    .map(|_| ())
}
