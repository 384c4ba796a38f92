//! Brings a database up to date, whoever made it (contract `schema.md` §2).

mod catalog;

use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Error as DriverError};
use thiserror::Error;

use super::fault::fault;
use super::{PostgresSettings, options};
use crate::ports::Fault;

const OPERATION: &str = "postgres.migrate";
/// One key for every version of this server, so that two releases never migrate at once.
const LOCK: i64 = 0x6169_7269_6d69_6772;
const POLL: Duration = Duration::from_millis(100);
/// The last step of the reference's pinned version, ms.
const PINNED_STAMP: i64 = 1_779_100_599_148;

const REFERENCE: Step = Step {
    version: 1,
    name: "reference_schema",
    sql: include_str!("../../../migrations/postgres/0001_reference_schema.sql"),
    how: How::Transaction,
};
const REFERENCE_BOOKKEEPING: &str = include_str!("../../../migrations/postgres/reference_bookkeeping.sql");

/// Additive, applied in order, never edited once released.
const OURS: &[Step] = &[
    Step {
        version: 2,
        name: "ledger",
        sql: include_str!("../../../migrations/postgres/0002_ledger.sql"),
        how: How::Transaction,
    },
    Step {
        version: 3,
        name: "request_log",
        sql: include_str!("../../../migrations/postgres/0003_request_log.sql"),
        how: How::Transaction,
    },
    Step {
        version: 4,
        name: "config_and_audit",
        sql: include_str!("../../../migrations/postgres/0004_config_and_audit.sql"),
        how: How::Transaction,
    },
    Step {
        version: 5,
        name: "indexes",
        sql: include_str!("../../../migrations/postgres/0005_indexes.sql"),
        how: How::OneIndexAtATime,
    },
    Step {
        version: 20,
        name: "holds",
        sql: include_str!("../../../migrations/postgres/0020_holds.sql"),
        how: How::Transaction,
    },
    Step {
        version: 42,
        name: "one_cover",
        sql: include_str!("../../../migrations/postgres/0042_one_cover.sql"),
        how: How::OneIndexAtATime,
    },
    Step {
        version: 50,
        name: "identity",
        sql: include_str!("../../../migrations/postgres/0050_identity.sql"),
        how: How::Transaction,
    },
    Step {
        version: 51,
        name: "token_families",
        sql: include_str!("../../../migrations/postgres/0051_token_families.sql"),
        how: How::Transaction,
    },
    Step {
        version: 60,
        name: "stripe",
        sql: include_str!("../../../migrations/postgres/0060_stripe.sql"),
        how: How::Transaction,
    },
    Step {
        version: 70,
        name: "chat_identity",
        sql: include_str!("../../../migrations/postgres/0070_chat_identity.sql"),
        how: How::OneIndexAtATime,
    },
];

const BOOKKEEPING: &str = "CREATE TABLE IF NOT EXISTS airi_migration (
    version integer CONSTRAINT airi_migration_pkey PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp NOT NULL DEFAULT now()
)";

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Names of the steps applied, in order; empty when nothing was missing.
    pub applied: Vec<&'static str>,
    /// What the data forbids and an operator should look at. Nothing was repaired.
    pub warnings: Vec<String>,
}

/// Why a database is left as it is.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// An older version of the reference made it.
    #[error(
        "the reference has migrated this database up to stamp {found}, and {PINNED_STAMP} is needed; start the \
         reference of the pinned version on it once"
    )]
    Behind {
        /// Greatest stamp in its bookkeeping, ms.
        found: i64,
    },
    /// A newer version of the reference made it.
    #[error(
        "the reference has migrated this database up to stamp {found}, beyond {PINNED_STAMP}; set \
         postgres.allow_newer_schema to run on it all the same"
    )]
    Ahead {
        /// Greatest stamp in its bookkeeping, ms.
        found: i64,
    },
    /// It has tables, and they are not the reference's.
    #[error("this database is not empty and not the reference's: {}", .differences.join("; "))]
    Foreign {
        /// Each table or column that is missing or different.
        differences: Vec<String>,
    },
    /// A step was applied from another text than ours.
    #[error("step {version} ({name}) was applied from a different text")]
    Altered {
        /// Number of the step.
        version: i32,
        /// Its name.
        name: &'static str,
    },
    /// PostgreSQL failed.
    #[error(transparent)]
    Database(#[from] Fault),
}

struct Step {
    version: i32,
    name: &'static str,
    sql: &'static str,
    how: How,
}

enum How {
    Transaction,
    OneIndexAtATime,
}

/// Creates the reference's tables in an empty database, then applies the steps of ours that are missing.
///
/// One migrator works at a time; the others wait for it and find nothing to do. Safe to repeat and to interrupt.
pub async fn migrate(settings: &PostgresSettings) -> Result<Migrated, MigrateError> {
    let mut connection = connect(settings).await?;
    take_lock(&mut connection).await?;
    let mut report = Migrated::default();
    run(&mut connection, settings.allow_newer_schema, &mut report).await?;
    // Ends the session, and with it the lock; so does dropping it on any error above.
    connection.close().await.map_err(fault(OPERATION))?;
    Ok(report)
}

/// A connection of its own: it has no statement limit, since an index on a large table takes its time, and the lock
/// lives exactly as long as it does.
async fn connect(settings: &PostgresSettings) -> Result<PgConnection, Fault> {
    const SESSION: &str = "SET TIME ZONE 'UTC'; SET search_path = public; SET client_min_messages = warning";
    let mut connection = PgConnection::connect_with(&options(settings)?).await.map_err(fault(OPERATION))?;
    sqlx::raw_sql(SESSION).execute(&mut connection).await.map_err(fault(OPERATION))?;
    Ok(connection)
}

/// Polls: a session parked inside the lock call would hold a snapshot that a concurrent index build of the owner
/// waits for, for ever.
async fn take_lock(connection: &mut PgConnection) -> Result<(), Fault> {
    loop {
        let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut *connection)
            .await
            .map_err(fault(OPERATION))?;
        if taken {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn run(connection: &mut PgConnection, allow_newer: bool, report: &mut Migrated) -> Result<(), MigrateError> {
    let is_empty = catalog::is_empty(connection).await?;
    match catalog::reference_stamp(connection).await? {
        Some(found) if found < PINNED_STAMP => return Err(MigrateError::Behind { found }),
        Some(found) if found > PINNED_STAMP && !allow_newer => return Err(MigrateError::Ahead { found }),
        Some(_) => {}
        None if is_empty => {}
        None => {
            let differences = catalog::differences(connection, REFERENCE.sql).await?;
            if !differences.is_empty() {
                return Err(MigrateError::Foreign { differences });
            }
        }
    }
    if is_empty {
        create_reference(connection).await?;
        report.applied.push(REFERENCE.name);
    }
    apply_ours(connection, report).await?;
    validate_checks(connection, report).await?;
    Ok(())
}

async fn create_reference(connection: &mut PgConnection) -> Result<(), Fault> {
    let mut tx = connection.begin().await.map_err(fault(OPERATION))?;
    for sql in [REFERENCE.sql, REFERENCE_BOOKKEEPING, BOOKKEEPING] {
        sqlx::raw_sql(sql).execute(&mut *tx).await.map_err(fault(OPERATION))?;
    }
    record(&mut tx, &REFERENCE).await?;
    tx.commit().await.map_err(fault(OPERATION))
}

async fn apply_ours(connection: &mut PgConnection, report: &mut Migrated) -> Result<(), MigrateError> {
    sqlx::raw_sql(BOOKKEEPING).execute(&mut *connection).await.map_err(fault(OPERATION))?;
    // Steps beyond ours belong to a newer release of this server; they are additive, so an older one may run.
    let recorded: Vec<(i32, String)> = sqlx::query_as("SELECT version, checksum FROM airi_migration")
        .fetch_all(&mut *connection)
        .await
        .map_err(fault(OPERATION))?;
    for step in OURS {
        let found = recorded.iter().find(|(version, _)| *version == step.version);
        match found {
            Some((_, checksum)) if *checksum == checksum_of(step.sql) => continue,
            Some(_) => return Err(MigrateError::Altered { version: step.version, name: step.name }),
            None => {}
        }
        match step.how {
            How::Transaction => apply_in_transaction(connection, step).await?,
            How::OneIndexAtATime => build_indexes(connection, step, report).await?,
        }
        report.applied.push(step.name);
    }
    Ok(())
}

async fn apply_in_transaction(connection: &mut PgConnection, step: &Step) -> Result<(), Fault> {
    let mut tx = connection.begin().await.map_err(fault(OPERATION))?;
    // Whoever queues for an exclusive lock blocks everybody behind it: rather fail and be started again.
    sqlx::raw_sql("SET LOCAL lock_timeout = '10s'").execute(&mut *tx).await.map_err(fault(OPERATION))?;
    sqlx::raw_sql(step.sql).execute(&mut *tx).await.map_err(fault(OPERATION))?;
    record(&mut tx, step).await?;
    tx.commit().await.map_err(fault(OPERATION))
}

async fn record(connection: &mut PgConnection, step: &Step) -> Result<(), Fault> {
    sqlx::query("INSERT INTO airi_migration (version, name, checksum) VALUES ($1, $2, $3)")
        .bind(step.version)
        .bind(step.name)
        .bind(checksum_of(step.sql))
        .execute(connection)
        .await
        .map(|_| ())
        .map_err(fault(OPERATION))
}

fn checksum_of(sql: &str) -> String {
    hex::encode(Sha256::digest(sql.as_bytes()))
}

async fn build_indexes(connection: &mut PgConnection, step: &Step, report: &mut Migrated) -> Result<(), Fault> {
    drop_unfinished_indexes(connection).await?;
    for statement in statements(step.sql) {
        let Err(error) = sqlx::raw_sql(statement).execute(&mut *connection).await else { continue };
        if !is_state(&error, "23505") {
            return Err(fault(OPERATION)(error));
        }
        report.warnings.push(format!("duplicates forbid a unique index, a plain one was built: {statement}"));
        drop_unfinished_indexes(connection).await?;
        let plain = statement.replacen("create unique index", "create index", 1);
        sqlx::raw_sql(AssertSqlSafe(plain)).execute(&mut *connection).await.map_err(fault(OPERATION))?;
    }
    record(connection, step).await
}

/// A concurrent build that failed or was interrupted leaves an index that costs writes and answers nothing, and that
/// `if not exists` takes for the real one.
async fn drop_unfinished_indexes(connection: &mut PgConnection) -> Result<(), Fault> {
    let unfinished: Vec<String> = sqlx::query_scalar(
        "SELECT 'DROP INDEX CONCURRENTLY ' || indexrelid::regclass
         FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
         WHERE NOT indisvalid AND relname LIKE 'airi\\_%' AND relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(fault(OPERATION))?;
    for statement in unfinished {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await.map_err(fault(OPERATION))?;
    }
    Ok(())
}

/// The statements of a file without literals or bodies that hold semicolons; comments stay with what follows them.
fn statements(sql: &'static str) -> impl Iterator<Item = &'static str> {
    sql.split(";\n").map(without_comments).filter(|statement| !statement.is_empty())
}

fn without_comments(statement: &'static str) -> &'static str {
    let mut rest = statement.trim();
    while rest.starts_with("--") {
        rest = rest.split_once('\n').map_or("", |(_, after)| after).trim_start();
    }
    rest
}

/// Checks that old rows kept them back from being valid: tried at every start, since an operator may have mended the
/// rows.
async fn validate_checks(connection: &mut PgConnection, report: &mut Migrated) -> Result<(), Fault> {
    let pending: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT conname::text, conrelid::regclass::text, pg_get_expr(conbin, conrelid)
         FROM pg_constraint
         WHERE contype = 'c' AND NOT convalidated AND conname LIKE 'airi\\_%' ORDER BY conname",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(fault(OPERATION))?;
    for (name, table, rule) in pending {
        let validate = format!("ALTER TABLE {table} VALIDATE CONSTRAINT \"{name}\"");
        let Err(error) = sqlx::raw_sql(AssertSqlSafe(validate)).execute(&mut *connection).await else { continue };
        if !is_state(&error, "23514") {
            return Err(fault(OPERATION)(error));
        }
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table} WHERE NOT ({rule})")))
            .fetch_one(&mut *connection)
            .await
            .map_err(fault(OPERATION))?;
        report.warnings.push(format!("{count} rows of {table} break {rule} ({name}); new rows cannot"));
    }
    Ok(())
}

fn is_state(error: &DriverError, state: &str) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_upwards() {
        assert!(OURS.windows(2).all(|pair| pair[0].version < pair[1].version));
    }

    #[test]
    fn a_file_of_indexes_is_one_statement_per_index() {
        let indexes: Vec<_> = statements(OURS[3].sql).collect();
        assert!(indexes.len() > 30);
        for statement in indexes {
            assert!(statement.starts_with("create "), "{statement}");
            assert!(statement.contains(" concurrently if not exists \"airi_"), "{statement}");
            assert!(!statement.contains(';'), "{statement}");
        }
    }
}
