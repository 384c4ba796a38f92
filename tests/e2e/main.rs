//! The built binary on a free port, with real databases, foreign clients and a scripted upstream: what its users see.
//!
//! `scripts/test` brings up what these need; without it they fail and say so.
#![cfg(feature = "live")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

#[path = "../support/speech_table.rs"]
mod speech_table;
#[path = "../support/upstream/mod.rs"]
mod upstream;

mod books;
mod caller;
mod provider;
mod server;
mod stores;

mod abandoned;
mod chats;
mod chats_storm;
mod crash;
mod foreign_clients;
mod holds;
mod identity_clients;
mod outages;
mod payments;
mod speech;
mod speech_socket;
mod start;
mod takeover;
mod upstreams;
