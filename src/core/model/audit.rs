//! What an operator did, as a row that outlives the log files (contract `admin.md` §5).

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::accounts::Account;
use super::ids::{RequestId, UserId};

/// Who answers for an operator's action, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The administrator's account; `cli` for the command line.
    pub user: UserId,
    /// Their address at that time; empty for the command line.
    pub email: String,
    /// The HTTP request.
    pub request: Option<RequestId>,
    /// Address of the client.
    pub ip: Option<String>,
    /// Client program.
    pub user_agent: Option<String>,
}

impl Actor {
    /// Whoever has a shell on the machine and its secrets.
    pub fn command_line() -> Self {
        Self { user: UserId::new("cli"), email: String::new(), request: None, ip: None, user_agent: None }
    }
}

impl From<&Account> for Actor {
    fn from(account: &Account) -> Self {
        Self {
            user: account.id.clone(),
            email: account.email.as_str().to_owned(),
            request: None,
            ip: None,
            user_agent: None,
        }
    }
}

/// One row of `admin_audit_log`.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRow {
    /// Row id.
    pub id: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub actor: Actor,
    /// What, e.g. `config.router`.
    pub action: &'static str,
    /// On what, e.g. the entries written.
    pub target: String,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// How it went.
    pub outcome: AuditOutcome,
    /// HTTP status of the answer; 0 while there is none.
    pub status: u16,
    /// What was asked, after redaction: counts, amounts, names of models and key slots. Never a key.
    pub summary: Map<String, Value>,
}

/// How an operator's action went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOutcome {
    /// A change is about to be made; another row of the same request says how it went. Alone, it means that the
    /// process ended in between.
    Begun,
    /// The change was made.
    Applied,
    /// Nothing was to be changed, and nothing was.
    DryRun,
    /// Something was looked at.
    Read,
    /// The request made no sense or collided; nothing was changed.
    Rejected,
    /// Not an administrator.
    Forbidden,
    /// Our side failed.
    Failed,
}

impl AuditOutcome {
    /// The stored word, which is the label of the metric, too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Applied => "applied",
            Self::DryRun => "dry_run",
            Self::Read => "read",
            Self::Rejected => "rejected",
            Self::Forbidden => "forbidden",
            Self::Failed => "failed",
        }
    }
}
