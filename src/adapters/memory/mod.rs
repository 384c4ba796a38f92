//! What Redis does for several processes, done for one.

pub mod balance_cache;
pub mod broadcaster;
pub mod limits;
pub mod session_cache;
pub mod slots;
