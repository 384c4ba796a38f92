//! The whole door side over doubles: what a client sees, byte by byte.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

mod bodies;
mod cases;
mod cors;
mod doors;
mod flux;
mod headers;
mod health;
mod stopping;
mod world;
