//! (being written)

pub mod accounts;
pub mod audit;
pub mod config;
pub mod fault;
pub mod ledger;
pub mod meter;
pub mod migrate;
pub mod request_log;
pub mod sessions;
