//! `admin_audit_log`: who did what as an operator.

use async_trait::async_trait;
use sqlx::postgres::PgPool;
use sqlx::types::Json;

use super::fault::fault;
use crate::core::model::audit::AuditRow;
use crate::ports::Fault;
use crate::ports::audit::AuditLog;

/// The append-only log. Nothing here changes or removes a row.
#[derive(Clone, Debug)]
pub struct PgAuditLog {
    /// Where the table is.
    pub pool: PgPool,
}

#[async_trait]
impl AuditLog for PgAuditLog {
    #[tracing::instrument(name = "postgres.audit.record", skip_all, err)]
    async fn record(&self, row: &AuditRow) -> Result<(), Fault> {
        sqlx::query(
            "INSERT INTO admin_audit_log (id, at, actor_user_id, actor_email, action, target, request_id, ip, \
             user_agent, dry_run, outcome, status, summary) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(&row.id)
        .bind(row.at.naive_utc())
        .bind(row.actor.user.as_str())
        .bind(&row.actor.email)
        .bind(row.action)
        .bind(&row.target)
        .bind(row.actor.request.as_ref().map(crate::core::model::ids::RequestId::as_str))
        .bind(&row.actor.ip)
        .bind(&row.actor.user_agent)
        .bind(row.dry_run)
        .bind(row.outcome.as_str())
        .bind(i32::from(row.status))
        .bind(Json(&row.summary))
        .execute(&self.pool)
        .await
        .map_err(fault("postgres.audit.record"))?;
        Ok(())
    }
}
