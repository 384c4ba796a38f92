//! Sockets: thin drivers of state machines that live in the core.

pub(super) mod speech;
