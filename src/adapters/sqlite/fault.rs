//! What the driver said, as a [`Fault`] that is safe to log.

use sqlx::Error;

use crate::ports::{Fault, FaultKind};

/// For `map_err`: the failure of `operation`, e.g. `sqlite.ledger.debit`.
pub(super) fn fault(operation: &'static str) -> impl Fn(Error) -> Fault + Copy {
    move |error| Fault::new(kind(&error), operation, told(&error))
}

/// Whether a statement ran into the unique key over these columns, written `table.column, table.column`. SQLite
/// names the columns of a constraint, or the index when it is one over expressions.
pub(super) fn violates_unique(error: &Error, columns: &str) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    error.is_unique_violation() && error.message().strip_prefix("UNIQUE constraint failed: ") == Some(columns)
}

/// A stored value our types cannot express. Names the place, never the value.
pub(super) fn corrupt(operation: &'static str, table: &str, column: &str, key: &str) -> Fault {
    Fault::new(FaultKind::Corrupt, operation, format!("{table}.{column} of row {key} is not readable"))
}

fn kind(error: &Error) -> FaultKind {
    match error {
        Error::Database(error) => kind_of_code(error.code().and_then(|code| code.parse().ok()).unwrap_or_default()),
        Error::PoolTimedOut => FaultKind::Timeout,
        Error::RowNotFound
        | Error::TypeNotFound { .. }
        | Error::ColumnIndexOutOfBounds { .. }
        | Error::ColumnNotFound(_)
        | Error::ColumnDecode { .. }
        | Error::Encode(_)
        | Error::Decode(_) => FaultKind::Corrupt,
        _ => FaultKind::Unavailable,
    }
}

/// The low byte is the primary result code (sqlite.org/rescode.html): 5 busy, 6 locked, 9 interrupted; 1 error,
/// 11 corrupt, 19 constraint, 20 mismatch, 26 not a database.
fn kind_of_code(code: u32) -> FaultKind {
    match code & 0xff {
        5 | 6 | 9 => FaultKind::Timeout,
        1 | 11 | 19 | 20 | 26 => FaultKind::Corrupt,
        _ => FaultKind::Unavailable,
    }
}

fn told(error: &Error) -> String {
    match error {
        Error::Database(error) => format!("sqlite {}: {}", error.code().unwrap_or_default(), error.message()),
        Error::ColumnDecode { index, .. } => format!("column {index} is not readable"),
        Error::Decode(_) => "a value is not readable".to_owned(),
        Error::Encode(_) => "a parameter cannot be sent".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_writer_is_a_timeout_and_a_broken_constraint_is_not() {
        for (code, kind) in [
            (5, FaultKind::Timeout),
            (517, FaultKind::Timeout),
            (2067, FaultKind::Corrupt),
            (11, FaultKind::Corrupt),
            (13, FaultKind::Unavailable),
        ] {
            assert_eq!(kind_of_code(code), kind, "{code}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_is_not_quoted() {
        let error = Error::ColumnDecode { index: "\"token\"".to_owned(), source: "s3cret".into() };
        assert!(!told(&error).contains("s3cret"));
    }
}
