//! Shared harness.
pub mod upstream;
