//! How the needs are met: one folder per technology, none of which sees another. `compose.rs` combines them.

pub mod config_cache;
pub mod crypto;
pub mod fallback_limits;
#[cfg(any(test, feature = "mocks"))]
pub mod frozen;
pub mod journal;
pub mod llm;
pub mod memory;
pub mod postgres;
pub mod redis;
pub mod runtime;
pub mod sandbox;
pub mod sandbox_voice;
pub mod sqlite;
pub mod telemetry;
pub mod tiktoken;
pub mod tts;
