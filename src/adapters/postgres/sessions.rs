//! `session`.

use async_trait::async_trait;
use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{PgConnection, Row};

use super::fault::fault;
use super::session_ends;
use crate::core::model::accounts::{Account, Email, Session, SignedIn};
use crate::core::model::identity::Closing;
use crate::core::model::ids::{SessionId, UserId};
use crate::core::model::secret::Secret;
use crate::ports::Fault;
use crate::ports::accounts::SessionRepo;

/// Sessions in PostgreSQL.
#[derive(Clone, Debug)]
pub struct PgSessions {
    /// Where the table is.
    pub pool: PgPool,
}

#[async_trait]
impl SessionRepo for PgSessions {
    #[tracing::instrument(name = "postgres.sessions.open", skip_all, err(Debug))]
    async fn open(&self, session: &Session) -> Result<(), Fault> {
        let fault = fault("postgres.sessions.open");
        let mut tx = self.pool.begin().await.map_err(fault)?;
        // The person's row first: inserting first would hold it shared, and two sign-ins at once would deadlock.
        sqlx::query(
            r#"UPDATE "user" SET last_seen_at = greatest(last_seen_at, $2), updated_at = greatest(updated_at, $2)
               WHERE id = $1"#,
        )
        .bind(session.user.as_str())
        .bind(session.created_at.naive_utc())
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        session_ends::sweep(&mut tx, &session.user, session.created_at).await.map_err(fault)?;
        insert(&mut tx, session).await.map_err(fault)?;
        tx.commit().await.map_err(fault)
    }

    #[tracing::instrument(name = "postgres.sessions.find_by_token", skip_all, err(Debug))]
    async fn find_by_token(&self, token: &str) -> Result<Option<SignedIn>, Fault> {
        let fault = fault("postgres.sessions.find_by_token");
        let row = sqlx::query(
            r#"SELECT session.id, session.token, session.user_id, session.expires_at, session.created_at,
                      session.updated_at, session.ip_address, session.user_agent,
                      person.name, person.email, person.email_verified, person.image,
                      person.created_at AS person_created_at, person.updated_at AS person_updated_at
               FROM session JOIN "user" AS person ON person.id = session.user_id
               WHERE session.token = $1"#,
        )
        .bind(token)
        .fetch_optional(&self.pool)
        .await
        .map_err(fault)?;
        row.as_ref().map(signed_in).transpose().map_err(fault)
    }

    #[tracing::instrument(name = "postgres.sessions.extend", skip_all, err(Debug))]
    async fn extend(&self, id: &SessionId, expires_at: DateTime<Utc>, at: DateTime<Utc>) -> Result<(), Fault> {
        sqlx::query("UPDATE session SET expires_at = $2, updated_at = $3 WHERE id = $1")
            .bind(id.as_str())
            .bind(expires_at.naive_utc())
            .bind(at.naive_utc())
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(fault("postgres.sessions.extend"))
    }

    /// Nothing is copied here.
    async fn touch(&self, _id: &SessionId) {}

    #[tracing::instrument(name = "postgres.sessions.list", skip_all, err(Debug))]
    async fn list(&self, user: &UserId, now: DateTime<Utc>) -> Result<Vec<Session>, Fault> {
        let fault = fault("postgres.sessions.list");
        let rows = sqlx::query(
            "SELECT id, token, user_id, expires_at, created_at, updated_at, ip_address, user_agent FROM session
             WHERE user_id = $1 AND expires_at > $2 ORDER BY created_at DESC, id DESC",
        )
        .bind(user.as_str())
        .bind(now.naive_utc())
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(session).collect::<Result<_, _>>().map_err(fault)
    }

    #[tracing::instrument(name = "postgres.sessions.close", skip_all, err(Debug))]
    async fn close(&self, user: &UserId, which: &Closing, at: DateTime<Utc>) -> Result<Vec<SessionId>, Fault> {
        let fault = fault("postgres.sessions.close");
        let mut tx = self.pool.begin().await.map_err(fault)?;
        let closed = session_ends::close(&mut tx, user, which, at.naive_utc()).await.map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(closed)
    }
}

/// The row alone; [`SessionRepo::open`] also stamps the person.
pub(super) async fn insert(tx: &mut PgConnection, session: &Session) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO session (id, token, user_id, expires_at, created_at, updated_at, ip_address, user_agent)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(session.id.as_str())
    .bind(session.token.expose())
    .bind(session.user.as_str())
    .bind(session.expires_at.naive_utc())
    .bind(session.created_at.naive_utc())
    .bind(session.updated_at.naive_utc())
    .bind(&session.ip_address)
    .bind(&session.user_agent)
    .execute(tx)
    .await
    .map(|_| ())
}

fn session(row: &PgRow) -> Result<Session, sqlx::Error> {
    let at = |column| row.try_get::<NaiveDateTime, _>(column).map(|at| at.and_utc());
    Ok(Session {
        id: SessionId::new(row.try_get::<String, _>("id")?),
        token: Secret::new(row.try_get::<String, _>("token")?),
        user: UserId::new(row.try_get::<String, _>("user_id")?),
        expires_at: at("expires_at")?,
        created_at: at("created_at")?,
        updated_at: at("updated_at")?,
        ip_address: row.try_get("ip_address")?,
        user_agent: row.try_get("user_agent")?,
    })
}

fn signed_in(row: &PgRow) -> Result<SignedIn, sqlx::Error> {
    let at = |column| row.try_get::<NaiveDateTime, _>(column).map(|at| at.and_utc());
    let session = session(row)?;
    let account = Account {
        id: session.user.clone(),
        name: row.try_get("name")?,
        email: Email::stored(row.try_get::<String, _>("email")?),
        email_verified: row.try_get("email_verified")?,
        image: row.try_get("image")?,
        created_at: at("person_created_at")?,
        updated_at: at("person_updated_at")?,
    };
    Ok(SignedIn { session, account })
}
