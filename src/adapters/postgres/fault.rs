//! What the driver said, as a [`Fault`] that is safe to log.
//!
//! A server's detail line quotes the values that broke a constraint, so the driver's own error never becomes the
//! source of a fault: only its class, its constraint and its primary message do.

use sqlx::Error;
use sqlx::error::DatabaseError;

use crate::ports::{Fault, FaultKind};

/// For `map_err`: the failure of `operation`, e.g. `postgres.ledger.debit`.
pub(super) fn fault(operation: &'static str) -> impl Fn(Error) -> Fault + Copy {
    move |error| Fault::new(kind(&error), operation, told(&error))
}

/// The constraint or unique index a statement ran into, by name.
pub(super) fn violated(error: &Error) -> Option<&str> {
    error.as_database_error().and_then(DatabaseError::constraint)
}

/// A stored value our types cannot express. Names the place, never the value.
pub(super) fn corrupt(operation: &'static str, table: &str, column: &str, key: &str) -> Fault {
    Fault::new(FaultKind::Corrupt, operation, format!("{table}.{column} of row {key} is not readable"))
}

fn kind(error: &Error) -> FaultKind {
    match error {
        Error::Database(error) => kind_of_state(error.code().as_deref().unwrap_or_default()),
        Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => FaultKind::Timeout,
        Error::RowNotFound
        | Error::TypeNotFound { .. }
        | Error::ColumnIndexOutOfBounds { .. }
        | Error::ColumnNotFound(_)
        | Error::ColumnDecode { .. }
        | Error::Encode(_)
        | Error::Decode(_) => FaultKind::Corrupt,
        // A pool also times out while the server refuses connections, so that is not a slow answer.
        _ => FaultKind::Unavailable,
    }
}

/// SQLSTATE classes: 57014 is a cancelled statement, 55P03 a lock not granted in time; 22, 23 and 42 say that data
/// or schema are not what the statement was written for.
fn kind_of_state(state: &str) -> FaultKind {
    match state {
        "57014" | "55P03" => FaultKind::Timeout,
        _ if ["22", "23", "42"].iter().any(|class| state.starts_with(class)) => FaultKind::Corrupt,
        _ => FaultKind::Unavailable,
    }
}

fn told(error: &Error) -> String {
    match error {
        Error::Database(error) => {
            let state = error.code().unwrap_or_default();
            let constraint = error.constraint().map(|name| format!(", constraint {name}")).unwrap_or_default();
            // Messages of class 22 (data exceptions) quote the value.
            let message = if state.starts_with("22") { "data exception" } else { error.message() };
            format!("sqlstate {state}{constraint}: {message}")
        }
        Error::ColumnDecode { index, .. } => format!("column {index} is not readable"),
        Error::Decode(_) => "a value is not readable".to_owned(),
        Error::Encode(_) => "a parameter cannot be sent".to_owned(),
        Error::Configuration(_) => "the connection settings are not usable".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_answer_is_unavailable_and_a_cancelled_statement_timed_out() {
        assert_eq!(fault("postgres.test")(Error::PoolTimedOut).kind(), FaultKind::Unavailable);
        assert_eq!(fault("postgres.test")(Error::RowNotFound).kind(), FaultKind::Corrupt);
        for (state, kind) in [
            ("57014", FaultKind::Timeout),
            ("55P03", FaultKind::Timeout),
            ("57P01", FaultKind::Unavailable),
            ("40P01", FaultKind::Unavailable),
            ("53300", FaultKind::Unavailable),
            ("23505", FaultKind::Corrupt),
            ("42P01", FaultKind::Corrupt),
        ] {
            assert_eq!(kind_of_state(state), kind, "{state}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_is_not_quoted() {
        let error = Error::ColumnDecode { index: "\"token\"".to_owned(), source: "s3cret".into() };
        assert!(!told(&error).contains("s3cret"));
    }
}
