//! The whole door side over doubles: what a client sees, byte by byte.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a failed step is a failed test"
)]

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
mod identity;
mod house;
mod lines;
mod matrix;
mod oidc;
mod people;
mod providers;
mod social;
mod speech;
mod speech_socket;
mod stopping;
mod world;
