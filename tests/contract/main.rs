//! Every port over every adapter: one list of cases per port, expanded for each implementation.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod balance_cache;
mod broadcaster;
mod config_cache;
mod limits;
#[cfg(feature = "live")]
mod redis_config;
#[cfg(feature = "live")]
mod redis_outage;
#[cfg(feature = "live")]
mod redis_world;
mod slots;
mod world;
