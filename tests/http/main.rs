//! The whole door side over doubles: what a client sees, byte by byte.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a failed step is a failed test"
)]

#[path = "../support/speech_table.rs"]
mod played;

mod admin;
mod billing;
mod bodies;
mod cases;
mod characters;
mod chat;
mod chats;
mod chats_replayed;
mod cors;
mod doors;
mod flux;
mod headers;
mod health;
mod house;
mod identity;
mod identity_doors;
mod lines;
mod matrix;
mod oidc;
mod people;
mod providers;
mod repeated;
mod social;
mod speech;
mod speech_socket;
mod speech_table;
mod stopping;
mod world;
