//! What happens to every request on its way in and to every answer on its way out.

pub mod cors;
pub mod guard;
pub mod limit_body;
pub mod limit_calls;
pub mod trace;
