//! Shared harness.
pub(crate) mod databases;
pub(crate) mod upstream;
