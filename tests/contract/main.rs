//! Contract suite: every port over every adapter.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod audit;
mod balance_cache;
mod books;
mod broadcaster;
mod characters;
mod config;
mod config_cache;
mod holds;
mod ledger;
mod limits;
mod llm_upstream;
mod meter;
#[cfg(feature = "live")]
mod migrations;
#[cfg(feature = "live")]
mod postgres_pool;
mod providers;
#[cfg(feature = "live")]
mod redis_config;
#[cfg(feature = "live")]
mod redis_outage;
#[cfg(feature = "live")]
mod redis_world;
mod request_log;
mod sessions;
mod slots;
mod speech;
mod token_counter;
mod vault;
mod world;
