//! Scenarios of the gateway, over scripted doubles.
