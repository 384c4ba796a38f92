//! Use-cases over ports. Pure: no clock, no randomness, no driver, no framework.
//!
//! A use-case may hold another that stands earlier in this line, never later:
//! config · accounts · ledger · limits · llm · admin · health.

pub mod accounts;
pub mod admin;
pub mod config;
pub mod error;
pub mod health;
pub mod ledger;
pub mod limits;
pub mod llm;
pub mod model;

use std::sync::Arc;

use crate::ports::journal::Journal;
use crate::ports::runtime::{Clock, IdSource};

/// Every use-case, assembled: what a door is given.
pub struct App {
    /// Typed configuration entries.
    pub config: Arc<config::Config>,
    /// Accounts and sessions.
    pub accounts: Arc<accounts::Accounts>,
    /// Balances and entries.
    pub ledger: Arc<ledger::Ledger>,
    /// Call limits.
    pub limits: Arc<limits::Limits>,
    /// Chat completions.
    pub completions: Arc<llm::Completions>,
    /// What operators may do.
    pub admin: Arc<admin::Admin>,
    /// Readiness.
    pub health: Arc<health::Health>,
    /// Where the doors record facts.
    pub journal: Arc<dyn Journal>,
    /// Ids of requests.
    pub ids: Arc<dyn IdSource>,
    /// Durations of requests.
    pub clock: Arc<dyn Clock>,
}
