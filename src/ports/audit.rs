//! Who did what as an operator.

use async_trait::async_trait;

use super::Fault;
use crate::core::model::audit::AuditRow;

/// The append-only `admin_audit_log` table (contract `admin.md` §5).
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Appends one row. When this fails, the action it announces MUST NOT happen.
    async fn record(&self, row: &AuditRow) -> Result<(), Fault>;
}
