//! What Redis does for several processes, done for one; and copies of sessions, which any process keeps for itself.

pub mod balance_cache;
pub mod broadcaster;
pub mod limits;
pub mod price_cache;
pub mod session_cache;
pub mod slots;
pub mod snapshots;
