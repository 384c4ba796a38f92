//! Doors: extract, convert, call one use-case, convert back.

pub mod auth;
pub mod error;
pub mod middleware;
