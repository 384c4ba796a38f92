//! Stored JSON in which some values are sealed.

use serde_json::{Map, Value};

/// A row that holds sealed values, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedRow {
    /// The row.
    pub id: String,
    /// What the row belongs to: an owner, a character.
    pub within: String,
    /// The members, sealed ones among them.
    pub config: Map<String, Value>,
}

/// What became of sealed values under a new master key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Sealed values that were looked at.
    pub total: u64,
    /// Sealed with the current key now, or in a rehearsal those that would be.
    pub anew: u64,
    /// Sealed with the current key before.
    pub current: u64,
    /// Rows and members that no known key opens.
    pub unreadable: Vec<String>,
    /// Rows that changed meanwhile; the next run finds them.
    pub changed: Vec<String>,
}

impl Resealed {
    /// Both together.
    pub fn and(mut self, other: Self) -> Self {
        self.total += other.total;
        self.anew += other.anew;
        self.current += other.current;
        self.unreadable.extend(other.unreadable);
        self.changed.extend(other.changed);
        self
    }
}
