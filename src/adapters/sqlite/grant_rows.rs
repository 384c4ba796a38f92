//! Tokens as rows, both ways.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;

use super::{micros, time};
use crate::core::model::ids::{SessionId, UserId};
use crate::core::model::oidc::grants::{NewTokens, OpaqueRow, RefreshRow};

/// Stores what is new, as members of this family.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    tokens: &NewTokens,
    family: &str,
) -> Result<(), sqlx::Error> {
    if let Some(token) = &tokens.refresh {
        // A session that is gone leaves no trace, as its foreign key would have it.
        sqlx::query(
            "INSERT INTO oauth_refresh_token (id, token, client_id, session_id, user_id, expires_at, created_at,
                 auth_time, scopes, family_id)
             VALUES (?1, ?2, ?3, (SELECT id FROM session WHERE id = ?4), ?5, ?6, ?7, ?8, ?9, ?10)",
        )
        .bind(&token.id)
        .bind(&token.digest)
        .bind(&token.client_id)
        .bind(token.session.as_ref().map(SessionId::as_str))
        .bind(token.user.as_str())
        .bind(micros(token.expires_at))
        .bind(micros(token.created_at))
        .bind(token.auth_time.map(micros))
        .bind(Json(&token.scopes))
        .bind(family)
        .execute(&mut *connection)
        .await?;
    }
    if let Some(token) = &tokens.opaque {
        sqlx::query(
            "INSERT INTO oauth_access_token (id, token, client_id, session_id, user_id, refresh_id, expires_at,
                 created_at, scopes, family_id)
             VALUES (?1, ?2, ?3, (SELECT id FROM session WHERE id = ?4), ?5, ?6, ?7, ?8, ?9, ?10)",
        )
        .bind(&token.id)
        .bind(&token.digest)
        .bind(&token.client_id)
        .bind(token.session.as_ref().map(SessionId::as_str))
        .bind(token.user.as_str())
        .bind(tokens.refresh.as_ref().map(|refresh| refresh.id.as_str()))
        .bind(micros(token.expires_at))
        .bind(micros(token.created_at))
        .bind(Json(&token.scopes))
        .bind(family)
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// A time beyond the calendar is long ago: nothing lives by it.
pub(super) fn instant(micros: i64) -> DateTime<Utc> {
    time(micros).unwrap_or_default()
}

/// A row without an end or a beginning has neither: it has ended.
fn present(row: &SqliteRow, column: &str) -> Result<DateTime<Utc>, sqlx::Error> {
    Ok(optional(row, column)?.unwrap_or_default())
}

fn optional(row: &SqliteRow, column: &str) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(instant))
}

pub(super) fn refresh(row: &SqliteRow) -> Result<RefreshRow, sqlx::Error> {
    Ok(RefreshRow {
        id: row.try_get("id")?,
        digest: row.try_get("token")?,
        client_id: row.try_get("client_id")?,
        session: row.try_get::<Option<String>, _>("session_id")?.map(SessionId::new),
        user: UserId::new(row.try_get::<String, _>("user_id")?),
        expires_at: present(row, "expires_at")?,
        created_at: present(row, "created_at")?,
        revoked: optional(row, "revoked")?,
        auth_time: optional(row, "auth_time")?,
        scopes: row.try_get::<Json<Vec<String>>, _>("scopes")?.0,
        family: row.try_get("family_id")?,
    })
}

pub(super) fn opaque(row: &SqliteRow) -> Result<OpaqueRow, sqlx::Error> {
    Ok(OpaqueRow {
        id: row.try_get("id")?,
        digest: row.try_get("token")?,
        client_id: row.try_get("client_id")?,
        session: row.try_get::<Option<String>, _>("session_id")?.map(SessionId::new),
        user: UserId::new(row.try_get::<String, _>("user_id")?),
        expires_at: present(row, "expires_at")?,
        created_at: present(row, "created_at")?,
        scopes: row.try_get::<Json<Vec<String>>, _>("scopes")?.0,
    })
}
