//! How the needs are met: one folder per technology, none of which sees another. `compose.rs` combines them.

pub mod announced_accounts;
pub mod config_cache;
pub mod crypto;
pub mod fallback_limits;
#[cfg(any(test, feature = "mocks"))]
pub mod frozen;
pub mod journal;
pub mod llm;
pub mod mail;
pub mod memory;
pub mod postgres;
pub mod redis;
pub mod runtime;
pub mod sandbox;
pub mod sandbox_voice;
pub mod signatures;
pub mod social;
pub mod sqlite;
pub mod stripe;
pub mod telemetry;
pub mod tiktoken;
pub mod tokens;
pub mod tts;
