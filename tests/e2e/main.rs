//! The built binary on a free port, with real databases, foreign clients and a scripted upstream: what its users see.
//!
//! `scripts/test` brings up what these need; without it they fail and say so.
#![cfg(feature = "live")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

#[path = "../support/upstream/mod.rs"]
mod upstream;

mod books;
mod caller;
mod server;
mod stores;

mod abandoned;
mod crash;
mod foreign_clients;
mod holds;
mod outages;
mod start;
mod upstreams;
