//! airi-server: identity, an exact prepaid credit ledger, and an OpenAI-compatible gateway for AI companions.
//!
//! Four rooms, one rule: every arrow points inward.
//!
//! ```text
//!  REST · WebSocket · Swagger UI                              PostgreSQL · SQLite · Redis · LLM · TTS
//!         │                                                                   ▲
//!         ▼                                                                   │
//!       http ──calls──▶ core ──calls──▶ ports ◀──implement── adapters ────────┘
//!         │               │               │                     │
//!         └───────────────┴──── speak ────┴──── core::model ────┘
//!
//!  compose, alone, knows adapters:   Settings ─▶ Ports ─▶ core::App ─▶ http
//! ```
//!
//! The room says what kind of thing a file is; the file name says which domain it belongs to. Test suites swap one
//! need at a time: build [`ports::Ports`] with a double in it (feature `mocks`).

pub mod adapters;
pub mod compose;
pub mod core;
pub mod http;
pub mod ports;
pub mod settings;
