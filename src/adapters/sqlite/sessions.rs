//! `session`.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::fault::{corrupt, fault};
use super::{Sqlite, micros, session_ends, time};
use crate::core::model::accounts::{Account, Email, Session, SignedIn};
use crate::core::model::identity::Closing;
use crate::core::model::ids::{SessionId, UserId};
use crate::core::model::secret::Secret;
use crate::ports::Fault;
use crate::ports::accounts::SessionRepo;

/// Sessions in the embedded database.
#[derive(Clone, Debug)]
pub struct SqliteSessions {
    /// Where the table is.
    pub db: Sqlite,
}

#[async_trait]
impl SessionRepo for SqliteSessions {
    #[tracing::instrument(name = "sqlite.sessions.open", skip_all, err(Debug))]
    async fn open(&self, session: &Session) -> Result<(), Fault> {
        const OPERATION: &str = "sqlite.sessions.open";
        let fault = fault(OPERATION);
        let mut tx = self.db.begin(OPERATION).await?;
        sqlx::query(
            "UPDATE user SET last_seen_at = max(coalesce(last_seen_at, ?2), ?2), updated_at = max(updated_at, ?2)
             WHERE id = ?1",
        )
        .bind(session.user.as_str())
        .bind(micros(session.created_at))
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        session_ends::sweep(&mut tx, &session.user, session.created_at).await.map_err(fault)?;
        insert(&mut tx, session).await.map_err(fault)?;
        tx.commit().await.map_err(fault)
    }

    #[tracing::instrument(name = "sqlite.sessions.find_by_token", skip_all, err(Debug))]
    async fn find_by_token(&self, token: &str) -> Result<Option<SignedIn>, Fault> {
        const OPERATION: &str = "sqlite.sessions.find_by_token";
        let row = sqlx::query(
            "SELECT session.id, session.token, session.user_id, session.expires_at, session.created_at,
                    session.updated_at, session.ip_address, session.user_agent,
                    person.name, person.email, person.email_verified, person.image,
                    person.created_at AS person_created_at, person.updated_at AS person_updated_at
             FROM session JOIN user AS person ON person.id = session.user_id
             WHERE session.token = ?",
        )
        .bind(token)
        .fetch_optional(&self.db.readers)
        .await
        .map_err(fault(OPERATION))?;
        row.map(|row| signed_in(&row, OPERATION)).transpose()
    }

    #[tracing::instrument(name = "sqlite.sessions.extend", skip_all, err(Debug))]
    async fn extend(&self, id: &SessionId, expires_at: DateTime<Utc>, at: DateTime<Utc>) -> Result<(), Fault> {
        sqlx::query("UPDATE session SET expires_at = ?2, updated_at = ?3 WHERE id = ?1")
            .bind(id.as_str())
            .bind(micros(expires_at))
            .bind(micros(at))
            .execute(&self.db.writer)
            .await
            .map(|_| ())
            .map_err(fault("sqlite.sessions.extend"))
    }

    /// Nothing is copied here.
    async fn touch(&self, _id: &SessionId) {}

    #[tracing::instrument(name = "sqlite.sessions.list", skip_all, err(Debug))]
    async fn list(&self, user: &UserId, now: DateTime<Utc>) -> Result<Vec<Session>, Fault> {
        const OPERATION: &str = "sqlite.sessions.list";
        let rows = sqlx::query(
            "SELECT id, token, user_id, expires_at, created_at, updated_at, ip_address, user_agent FROM session
             WHERE user_id = ?1 AND expires_at > ?2 ORDER BY created_at DESC, id DESC",
        )
        .bind(user.as_str())
        .bind(micros(now))
        .fetch_all(&self.db.readers)
        .await
        .map_err(fault(OPERATION))?;
        rows.iter().map(|row| session(row, OPERATION)).collect()
    }

    #[tracing::instrument(name = "sqlite.sessions.close", skip_all, err(Debug))]
    async fn close(&self, user: &UserId, which: &Closing, at: DateTime<Utc>) -> Result<Vec<SessionId>, Fault> {
        const OPERATION: &str = "sqlite.sessions.close";
        let fault = fault(OPERATION);
        let mut tx = self.db.begin(OPERATION).await?;
        let closed = session_ends::close(&mut tx, user, which, micros(at)).await.map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(closed)
    }
}

/// The row alone; [`SessionRepo::open`] also stamps the person.
pub(super) async fn insert(tx: &mut SqliteConnection, session: &Session) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO session (id, token, user_id, expires_at, created_at, updated_at, ip_address, user_agent)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(session.id.as_str())
    .bind(session.token.expose())
    .bind(session.user.as_str())
    .bind(micros(session.expires_at))
    .bind(micros(session.created_at))
    .bind(micros(session.updated_at))
    .bind(&session.ip_address)
    .bind(&session.user_agent)
    .execute(tx)
    .await
    .map(|_| ())
}

fn session(row: &SqliteRow, operation: &'static str) -> Result<Session, Fault> {
    let fault = fault(operation);
    let id: String = row.try_get("id").map_err(fault)?;
    let at = |column| -> Result<DateTime<Utc>, Fault> {
        time(row.try_get(column).map_err(fault)?).ok_or_else(|| corrupt(operation, "session", column, &id))
    };
    Ok(Session {
        expires_at: at("expires_at")?,
        created_at: at("created_at")?,
        updated_at: at("updated_at")?,
        id: SessionId::new(id.as_str()),
        token: Secret::new(row.try_get::<String, _>("token").map_err(fault)?),
        user: UserId::new(row.try_get::<String, _>("user_id").map_err(fault)?),
        ip_address: row.try_get("ip_address").map_err(fault)?,
        user_agent: row.try_get("user_agent").map_err(fault)?,
    })
}

fn signed_in(row: &SqliteRow, operation: &'static str) -> Result<SignedIn, Fault> {
    let fault = fault(operation);
    let session = session(row, operation)?;
    let at = |column| -> Result<DateTime<Utc>, Fault> {
        time(row.try_get(column).map_err(fault)?)
            .ok_or_else(|| corrupt(operation, "user", column, session.user.as_str()))
    };
    let account = Account {
        created_at: at("person_created_at")?,
        updated_at: at("person_updated_at")?,
        id: session.user.clone(),
        name: row.try_get("name").map_err(fault)?,
        email: Email::stored(row.try_get::<String, _>("email").map_err(fault)?),
        email_verified: row.try_get("email_verified").map_err(fault)?,
        image: row.try_get("image").map_err(fault)?,
    };
    Ok(SignedIn { session, account })
}
