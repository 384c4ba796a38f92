//! Codes, refresh tokens and opaque access tokens: `verification`, `oauth_refresh_token`, `oauth_access_token`.
//!
//! Lock order: the code, then its person, then tokens. `NO KEY UPDATE` on the person serialises changes of families and
//! lets the foreign keys of other rows through.

use async_trait::async_trait;
use chrono::{DateTime, Duration, NaiveDateTime, Utc};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgPool};

use super::fault::{corrupt, fault};
use super::grant_rows::{insert, opaque, refresh};
use super::verification;
use crate::core::model::ids::{SessionId, UserId};
use crate::core::model::oidc::SignIn;
use crate::core::model::oidc::grants::{
    CodeGrant, NewTokens, OpaqueRow, Redemption, RefreshRow, Renewal, Verdict, judge,
};
use crate::core::model::proofs::Verification;
use crate::ports::Fault;
use crate::ports::oidc::GrantRepo;

/// Grants in PostgreSQL.
#[derive(Clone, Debug)]
pub struct PgGrants {
    /// Where the tables are.
    pub pool: PgPool,
}

#[async_trait]
impl GrantRepo for PgGrants {
    #[tracing::instrument(name = "postgres.grants.sign_in_of", skip_all, err(Debug))]
    async fn sign_in_of(&self, session: &SessionId) -> Result<Option<SignIn>, Fault> {
        let found: Option<(String, NaiveDateTime, NaiveDateTime)> =
            sqlx::query_as("SELECT user_id, created_at, expires_at FROM session WHERE id = $1")
                .bind(session.as_str())
                .fetch_optional(&self.pool)
                .await
                .map_err(fault("postgres.grants.sign_in_of"))?;
        Ok(found.map(|(user, at, ends)| SignIn { user: UserId::new(user), at: at.and_utc(), ends: ends.and_utc() }))
    }

    #[tracing::instrument(name = "postgres.grants.save_code", skip_all, err(Debug))]
    async fn save_code(
        &self,
        digest: &str,
        grant: &CodeGrant,
        row_id: &str,
        at: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Result<(), Fault> {
        const OPERATION: &str = "postgres.grants.save_code";
        let value = serde_json::to_string(grant).map_err(|_| corrupt(OPERATION, "verification", "value", row_id))?;
        let (id, identifier) = (row_id.to_owned(), digest.to_owned());
        let row = Verification { id, identifier, value, expires_at, created_at: at };
        verification::insert(&self.pool, &row).await.map_err(fault(OPERATION))
    }

    #[tracing::instrument(name = "postgres.grants.find_code", skip_all, err(Debug))]
    async fn find_code(&self, digest: &str) -> Result<Option<(CodeGrant, DateTime<Utc>)>, Fault> {
        let found: Option<(String, NaiveDateTime)> = sqlx::query_as(
            "SELECT value, expires_at FROM verification WHERE identifier = $1 ORDER BY created_at DESC LIMIT 1",
        )
        .bind(digest)
        .fetch_optional(&self.pool)
        .await
        .map_err(fault("postgres.grants.find_code"))?;
        // Another kind of row under this name is no code.
        Ok(found.and_then(|(value, ends)| Some((serde_json::from_str(&value).ok()?, ends.and_utc()))))
    }

    #[tracing::instrument(name = "postgres.grants.redeem", skip_all, err(Debug))]
    async fn redeem(
        &self,
        digest: &str,
        session: &SessionId,
        tokens: &NewTokens,
        at: DateTime<Utc>,
    ) -> Result<Redemption, Fault> {
        let fault = fault("postgres.grants.redeem");
        let mut tx = self.pool.begin().await.map_err(fault)?;
        if !take_code(&mut tx, digest).await.map_err(fault)? {
            revoke_named(&mut tx, digest, at).await.map_err(fault)?;
            tx.commit().await.map_err(fault)?;
            return Ok(Redemption::Spent);
        }
        let owner: Option<String> = sqlx::query_scalar("SELECT user_id FROM session WHERE id = $1")
            .bind(session.as_str())
            .fetch_optional(&mut *tx)
            .await
            .map_err(fault)?;
        if let Some(owner) = &owner {
            lock(&mut tx, owner).await.map_err(fault)?;
        }
        // Asked again under the lock: a sign-out may have come first.
        let lives: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM session WHERE id = $1 AND expires_at > $2)")
            .bind(session.as_str())
            .bind(at.naive_utc())
            .fetch_one(&mut *tx)
            .await
            .map_err(fault)?;
        if lives {
            insert(&mut tx, tokens, digest).await.map_err(fault)?;
        }
        tx.commit().await.map_err(fault)?;
        Ok(if lives { Redemption::Redeemed } else { Redemption::SessionOver })
    }

    #[tracing::instrument(name = "postgres.grants.spoil", skip_all, err(Debug))]
    async fn spoil(&self, digest: &str, at: DateTime<Utc>) -> Result<(), Fault> {
        let fault = fault("postgres.grants.spoil");
        let mut tx = self.pool.begin().await.map_err(fault)?;
        if !take_code(&mut tx, digest).await.map_err(fault)? {
            revoke_named(&mut tx, digest, at).await.map_err(fault)?;
        }
        tx.commit().await.map_err(fault)
    }

    #[tracing::instrument(name = "postgres.grants.find_refresh", skip_all, err(Debug))]
    async fn find_refresh(&self, digest: &str) -> Result<Option<RefreshRow>, Fault> {
        let fault = fault("postgres.grants.find_refresh");
        let row = sqlx::query(
            "SELECT id, token, client_id, session_id, user_id, expires_at, created_at, revoked, auth_time, scopes,
                    family_id
             FROM oauth_refresh_token WHERE token = $1",
        )
        .bind(digest)
        .fetch_optional(&self.pool)
        .await
        .map_err(fault)?;
        row.as_ref().map(refresh).transpose().map_err(fault)
    }

    #[tracing::instrument(name = "postgres.grants.renew", skip_all, err(Debug))]
    async fn renew(
        &self,
        presented: &RefreshRow,
        tokens: &NewTokens,
        at: DateTime<Utc>,
        grace: Duration,
    ) -> Result<Renewal, Fault> {
        let fault = fault("postgres.grants.renew");
        let mut tx = self.pool.begin().await.map_err(fault)?;
        lock(&mut tx, presented.user.as_str()).await.map_err(fault)?;
        let found = sqlx::query("SELECT revoked, family_id FROM oauth_refresh_token WHERE id = $1")
            .bind(&presented.id)
            .fetch_optional(&mut *tx)
            .await
            .map_err(fault)?;
        let Some(found) = found else { return Ok(Renewal::Dead) };
        let revoked: Option<NaiveDateTime> = found.try_get("revoked").map_err(fault)?;
        let family: Option<String> = found.try_get("family_id").map_err(fault)?;
        let current = RefreshRow { family, ..presented.clone() };
        let alive = is_family_alive(&mut tx, &current, at).await.map_err(fault)?;
        let family = current.family.as_deref().unwrap_or(&current.id);
        let renewal = match judge(revoked.map(|at| at.and_utc()), alive, at, grace) {
            Verdict::Rotate => {
                sqlx::query(
                    "UPDATE oauth_refresh_token SET revoked = $2, family_id = coalesce(family_id, id) WHERE id = $1",
                )
                .bind(&current.id)
                .bind(at.naive_utc())
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
                insert(&mut tx, tokens, family).await.map_err(fault)?;
                Renewal::Rotated
            }
            Verdict::Fork => {
                insert(&mut tx, tokens, family).await.map_err(fault)?;
                Renewal::Forked
            }
            Verdict::Punish => {
                revoke(&mut tx, &current, at).await.map_err(fault)?;
                Renewal::Reused
            }
            Verdict::Refuse => Renewal::Dead,
        };
        tx.commit().await.map_err(fault)?;
        Ok(renewal)
    }

    #[tracing::instrument(name = "postgres.grants.revoke_family", skip_all, err(Debug))]
    async fn revoke_family(&self, of: &RefreshRow, at: DateTime<Utc>) -> Result<(), Fault> {
        let fault = fault("postgres.grants.revoke_family");
        let mut tx = self.pool.begin().await.map_err(fault)?;
        lock(&mut tx, of.user.as_str()).await.map_err(fault)?;
        revoke(&mut tx, of, at).await.map_err(fault)?;
        tx.commit().await.map_err(fault)
    }

    #[tracing::instrument(name = "postgres.grants.find_opaque", skip_all, err(Debug))]
    async fn find_opaque(&self, digest: &str) -> Result<Option<OpaqueRow>, Fault> {
        let fault = fault("postgres.grants.find_opaque");
        let row = sqlx::query(
            "SELECT id, token, client_id, session_id, user_id, expires_at, created_at, scopes
             FROM oauth_access_token WHERE token = $1 AND user_id IS NOT NULL",
        )
        .bind(digest)
        .fetch_optional(&self.pool)
        .await
        .map_err(fault)?;
        row.as_ref().map(opaque).transpose().map_err(fault)
    }

    #[tracing::instrument(name = "postgres.grants.remove_opaque", skip_all, err(Debug))]
    async fn remove_opaque(&self, digest: &str) -> Result<(), Fault> {
        sqlx::query("DELETE FROM oauth_access_token WHERE token = $1")
            .bind(digest)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(fault("postgres.grants.remove_opaque"))
    }
}

/// Whether this call removed the code.
async fn take_code(connection: &mut PgConnection, digest: &str) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query("DELETE FROM verification WHERE identifier = $1").bind(digest).execute(connection).await?;
    Ok(taken.rows_affected() > 0)
}

async fn lock(connection: &mut PgConnection, user: &str) -> Result<(), sqlx::Error> {
    sqlx::query(r#"SELECT FROM "user" WHERE id = $1 FOR NO KEY UPDATE"#)
        .bind(user)
        .execute(connection)
        .await
        .map(|_| ())
}

/// Revokes what grew out of the code of this digest, if anything did.
async fn revoke_named(connection: &mut PgConnection, family: &str, at: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query(
        r#"SELECT FROM "user" WHERE id IN (SELECT user_id FROM oauth_refresh_token WHERE family_id = $1)
           FOR NO KEY UPDATE"#,
    )
    .bind(family)
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE oauth_refresh_token SET revoked = $2 WHERE family_id = $1 AND revoked IS NULL")
        .bind(family)
        .bind(at.naive_utc())
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM oauth_access_token WHERE family_id = $1")
        .bind(family)
        .execute(connection)
        .await
        .map(|_| ())
}

/// The caller holds the lock.
async fn revoke(connection: &mut PgConnection, of: &RefreshRow, at: DateTime<Utc>) -> Result<(), sqlx::Error> {
    if let Some(family) = &of.family {
        return revoke_named(connection, family, at).await;
    }
    sqlx::query(
        "UPDATE oauth_refresh_token SET revoked = $3 WHERE user_id = $1 AND client_id = $2 AND revoked IS NULL",
    )
    .bind(of.user.as_str())
    .bind(&of.client_id)
    .bind(at.naive_utc())
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM oauth_access_token WHERE user_id = $1 AND client_id = $2")
        .bind(of.user.as_str())
        .bind(&of.client_id)
        .execute(connection)
        .await
        .map(|_| ())
}

async fn is_family_alive(
    connection: &mut PgConnection,
    of: &RefreshRow,
    at: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let query = match of.family {
        Some(_) => {
            "SELECT EXISTS (SELECT FROM oauth_refresh_token
             WHERE family_id = $1 AND user_id = $2 AND client_id = $3 AND revoked IS NULL AND expires_at > $4)"
        }
        None => {
            "SELECT EXISTS (SELECT FROM oauth_refresh_token
             WHERE $1::text IS NULL AND user_id = $2 AND client_id = $3 AND revoked IS NULL AND expires_at > $4)"
        }
    };
    sqlx::query_scalar(query)
        .bind(&of.family)
        .bind(of.user.as_str())
        .bind(&of.client_id)
        .bind(at.naive_utc())
        .fetch_one(connection)
        .await
}
