//! What operators may do.
