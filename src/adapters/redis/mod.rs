//! (being written)

pub mod balance_cache;
pub mod broadcaster;
pub mod bus;
pub mod config;
pub mod limits;
pub mod slots;
