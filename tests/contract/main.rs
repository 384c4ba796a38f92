//! Contract suite: every port over every adapter.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![cfg_attr(feature = "live", expect(clippy::expect_used, reason = "a failed step is a failed test"))]

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod audit;
mod config;
#[cfg(feature = "live")]
mod migrations;
#[cfg(feature = "live")]
mod postgres_pool;
mod request_log;
mod sessions;
