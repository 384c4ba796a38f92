//! Use-cases over ports. Pure: no clock, no randomness, no driver, no framework.
//!
//! A use-case may hold another that stands earlier in this line, never later:
//! config · accounts · ledger · limits · llm · admin · health.

pub mod accounts;
pub mod admin;
pub mod config;
pub mod error;
pub mod health;
pub mod ledger;
pub mod limits;
pub mod model;
