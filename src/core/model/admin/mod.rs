//! What operators write, read strictly (contract `admin.md` §2, §3).
//!
//! Every fault of a document is named by its path, all at once. A member nobody reads is a fault: a typo must not
//! vanish silently. No text here quotes a value, since any value may be a key pasted into the wrong place.

mod address;
mod environment;
mod fields;
mod grant_document;
mod reading;
mod router_document;
mod slices;

pub use address::{AddressPolicy, check_address};
pub use environment::with_environment;
pub use grant_document::{GrantDocument, SkipReason, is_address};
pub use reading::{Issue, Unusable};
pub use router_document::{Mode, RouterDocument, WantedDefaults};
pub use slices::{KeySource, LlmSlice, Slice, StreamingSlice, TtsSlice, WantedKey, WantedUpstream};

/// The label that stands for a model in envelopes of the streaming speech upstream (contract `gateway.md` §10.3).
pub const STREAMING_LABEL: &str = "streaming-tts";
