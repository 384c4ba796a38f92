//! The end of sessions, and of what is tied to them (contract `auth.md` F-05).

use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;

use super::micros;
use crate::core::model::identity::Closing;
use crate::core::model::ids::{SessionId, UserId};
use crate::core::model::oidc::grants::TOKENS_KEPT;

/// Revokes refresh tokens first: the foreign key forgets the session of a token when the session goes.
pub(super) async fn close(
    tx: &mut SqliteConnection,
    user: &UserId,
    which: &Closing,
    at: i64,
) -> Result<Vec<SessionId>, sqlx::Error> {
    let (id, token, but) = match which {
        Closing::One(id) => (Some(id.as_str()), None, None),
        Closing::Token(token) => (None, Some(token.expose()), None),
        Closing::All => (None, None, None),
        Closing::Others(but) => (None, None, but.as_ref().map(SessionId::as_str)),
    };
    let ids: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM session WHERE user_id = ?1 AND (?2 IS NULL OR id = ?2)
         AND (?3 IS NULL OR token = ?3) AND (?4 IS NULL OR id <> ?4)",
    )
    .bind(user.as_str())
    .bind(id)
    .bind(token)
    .bind(but)
    .fetch_all(&mut *tx)
    .await?;
    for id in &ids {
        sqlx::query("UPDATE oauth_refresh_token SET revoked = ?2 WHERE session_id = ?1 AND revoked IS NULL")
            .bind(id)
            .bind(at)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM oauth_access_token WHERE session_id = ?").bind(id).execute(&mut *tx).await?;
        sqlx::query("DELETE FROM session WHERE id = ?").bind(id).execute(&mut *tx).await?;
    }
    // Tokens whose session is gone already belong to some other device.
    if matches!(which, Closing::All) || but.is_some() {
        sqlx::query(
            "UPDATE oauth_refresh_token SET revoked = ?2
             WHERE user_id = ?1 AND revoked IS NULL AND (?3 IS NULL OR session_id IS NOT ?3)",
        )
        .bind(user.as_str())
        .bind(at)
        .bind(but)
        .execute(&mut *tx)
        .await?;
    }
    Ok(ids.into_iter().map(SessionId::new).collect())
}

/// Removes what ended of a person who signs in anew (contract `auth.md` §13). An expired
/// session stays while a live refresh token hangs on it: the foreign key would cut them apart.
pub(super) async fn sweep(tx: &mut SqliteConnection, user: &UserId, at: DateTime<Utc>) -> Result<(), sqlx::Error> {
    for statement in [
        "DELETE FROM oauth_access_token WHERE user_id = ?1 AND expires_at < ?2",
        "DELETE FROM oauth_refresh_token WHERE user_id = ?1 AND expires_at < ?2",
    ] {
        sqlx::query(statement).bind(user.as_str()).bind(micros(at - TOKENS_KEPT)).execute(&mut *tx).await?;
    }
    sqlx::query(
        "DELETE FROM session WHERE user_id = ?1 AND expires_at <= ?2 AND NOT EXISTS (
             SELECT 1 FROM oauth_refresh_token
             WHERE session_id = session.id AND revoked IS NULL AND oauth_refresh_token.expires_at > ?2)",
    )
    .bind(user.as_str())
    .bind(micros(at))
    .execute(tx)
    .await
    .map(|_| ())
}
