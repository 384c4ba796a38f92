//! What only an owner may do.

/// What became of a change that only the owner may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerOnly<T> {
    /// Done.
    Done(T),
    /// There is no such live row.
    Missing,
    /// It is somebody else's.
    Foreign,
}
