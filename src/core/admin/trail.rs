//! Who did what: an announcement before a change, an outcome after it.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::core::error::{Code, Error, Kind};
use crate::core::model::audit::{Actor, AuditOutcome, AuditRow};
use crate::core::model::fact::Fact;
use crate::ports::audit::AuditLog;
use crate::ports::journal::Journal;
use crate::ports::runtime::{Clock, IdSource};

/// Writes the audit log.
pub struct Trail {
    /// The rows.
    pub log: Arc<dyn AuditLog>,
    /// Counts actions and configuration writes, and hears of rows that could not be written.
    pub journal: Arc<dyn Journal>,
    /// When.
    pub clock: Arc<dyn Clock>,
    /// Ids of rows.
    pub ids: Arc<dyn IdSource>,
}

/// One action, as its rows tell it.
pub(super) struct Deed<'a> {
    pub(super) actor: &'a Actor,
    action: &'static str,
    pub(super) target: String,
    pub(super) dry_run: bool,
    pub(super) summary: Map<String, Value>,
}

impl<'a> Deed<'a> {
    pub(super) fn new(actor: &'a Actor, action: &'static str) -> Self {
        Self { actor, action, target: String::new(), dry_run: false, summary: Map::new() }
    }

    pub(super) fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.summary.insert(name.to_owned(), value.into());
    }
}

impl Trail {
    /// Tells that a caller was turned away.
    pub(super) async fn forbidden(&self, actor: &Actor) {
        let deed = Deed::new(actor, "access");
        self.close(&deed, AuditOutcome::Forbidden, 403).await;
    }

    /// Announces a change. What cannot be announced is not done.
    pub(super) async fn begin(&self, deed: &Deed<'_>) -> Result<(), Error> {
        let row = self.row(deed, AuditOutcome::Begun, 0);
        self.log.record(&row).await.map_err(|fault| {
            Error::new(Code::ServiceUnavailable)
                .saying("the audit log cannot be written, so nothing was changed")
                .because(fault)
        })
    }

    /// Tells how it went.
    pub(super) async fn end<T>(&self, deed: &Deed<'_>, result: &Result<T, Error>) {
        let (outcome, status) = match result {
            Ok(_) if deed.dry_run => (AuditOutcome::DryRun, 200),
            Ok(_) => (AuditOutcome::Applied, 200),
            Err(error) => judged(error),
        };
        self.close(deed, outcome, status).await;
    }

    /// Tells that something was looked at.
    pub(super) async fn seen(&self, deed: &Deed<'_>) {
        self.close(deed, AuditOutcome::Read, 200).await;
    }

    async fn close(&self, deed: &Deed<'_>, outcome: AuditOutcome, status: u16) {
        self.journal.record(Fact::AdminAction {
            action: deed.action,
            actor: deed.actor.user.clone(),
            outcome: outcome.as_str(),
        });
        // Nothing can be undone here: the announcement stays without its outcome.
        if let Err(fault) = self.log.record(&self.row(deed, outcome, status)).await {
            self.journal.record(Fact::Degraded { operation: "audit.record", cause: fault.to_string() });
        }
    }

    fn row(&self, deed: &Deed<'_>, outcome: AuditOutcome, status: u16) -> AuditRow {
        AuditRow {
            id: self.ids.id(),
            at: self.clock.now(),
            actor: deed.actor.clone(),
            action: deed.action,
            target: deed.target.clone(),
            dry_run: deed.dry_run,
            outcome,
            status,
            summary: deed.summary.clone(),
        }
    }
}

/// The row of a refusal; the numbers are the ones the HTTP door answers with.
fn judged(error: &Error) -> (AuditOutcome, u16) {
    match error.code.kind() {
        Kind::Missing => (AuditOutcome::Rejected, 404),
        Kind::Conflict => (AuditOutcome::Rejected, 409),
        Kind::Unavailable => (AuditOutcome::Failed, 503),
        Kind::Internal | Kind::BadUpstream | Kind::UpstreamTimeout => (AuditOutcome::Failed, 500),
        _ => (AuditOutcome::Rejected, 400),
    }
}
