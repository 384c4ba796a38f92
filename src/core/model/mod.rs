//! The vocabulary: nouns every room speaks, and the pure rules that belong to them.
//!
//! Nothing here waits, reads a clock, draws a number or touches a driver. A decision about money,
//! routing or access is a function of its arguments, so it is tested once and holds for every adapter.

pub mod accounts;
pub mod admin;
pub mod audit;
pub mod batch;
pub mod billing;
pub mod characters;
pub mod chats;
pub mod config;
pub mod erasure;
pub mod fact;
pub mod hold;
pub mod idempotency;
pub mod identity;
pub mod ids;
pub mod ledger;
pub mod letters;
pub mod limits;
pub mod llm;
pub mod meter;
pub mod oidc;
pub mod ownership;
pub mod page;
pub mod posting;
pub mod principal;
pub mod proofs;
pub mod providers;
pub mod request_log;
pub mod retry_after;
pub mod sealed;
pub mod secret;
pub mod social;
pub mod stream_end;
pub mod texts;
pub mod tts;
pub mod validation;
pub mod verify;
