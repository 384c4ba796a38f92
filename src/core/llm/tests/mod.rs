//! The gateway as a whole, over scripted doubles that give way at every await.

mod doubles;
mod dropping;
mod gates;
mod holding;
mod money;
mod scenarios;
mod stand_ins;
mod streams;
