//! Contract suite: every port over every adapter.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod audit;
mod balance_cache;
mod belongings;
mod billing;
mod books;
mod broadcaster;
mod characters;
mod chats;
mod clients;
mod config;
mod config_cache;
mod grants;
mod holds;
mod idempotency;
mod identity;
mod ledger;
mod letters;
mod limits;
mod llm_upstream;
mod meter;
#[cfg(feature = "live")]
mod migrations;
#[cfg(feature = "live")]
mod moved_debt;
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
mod signing_keys;
mod slots;
mod snapshots;
mod social;
mod social_login;
mod speech;
mod token_counter;
mod token_signer;
mod vault;
mod world;
