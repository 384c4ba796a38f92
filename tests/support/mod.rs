//! Shared harness.
pub(crate) mod databases;
