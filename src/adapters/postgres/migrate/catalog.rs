//! What a database holds before we touch it.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Error as DriverError};

use super::{OPERATION, fault};
use crate::ports::Fault;

/// Whether `public` has no table, those of extensions aside.
pub(super) async fn is_empty(connection: &mut PgConnection) -> Result<bool, Fault> {
    sqlx::query_scalar(
        "SELECT NOT EXISTS (
             SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
             AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid
                             AND deptype = 'e'))",
    )
    .fetch_one(connection)
    .await
    .map_err(fault(OPERATION))
}

/// The greatest stamp of the reference's bookkeeping, ms; nothing when it keeps none here.
pub(super) async fn reference_stamp(connection: &mut PgConnection) -> Result<Option<i64>, Fault> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('drizzle.__drizzle_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(fault(OPERATION))?;
    if !exists {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT max(created_at) FROM drizzle.__drizzle_migrations")
        .fetch_one(connection)
        .await
        .map_err(fault(OPERATION))
}

/// What `public` lacks of the tables that `schema` makes: each missing table, missing column, wrong type and wrong
/// nullability. What it has beyond them does not matter.
///
/// The yardstick is built beside it, in a transaction that is rolled back, so there is no second list to keep.
pub(super) async fn differences(connection: &mut PgConnection, schema: &'static str) -> Result<Vec<String>, Fault> {
    compare(connection, schema).await.map_err(fault(OPERATION))
}

async fn compare(connection: &mut PgConnection, schema: &'static str) -> Result<Vec<String>, DriverError> {
    let found = tables(connection, "public").await?;
    let mut tx = connection.begin().await?;
    sqlx::raw_sql("CREATE SCHEMA airi_yardstick; SET LOCAL search_path = airi_yardstick").execute(&mut *tx).await?;
    sqlx::raw_sql(schema).execute(&mut *tx).await?;
    let wanted = tables(&mut tx, "airi_yardstick").await?;
    tx.rollback().await?;

    let mut differences = Vec::new();
    for (table, columns) in wanted {
        let Some(present) = found.get(&table) else {
            differences.push(format!("table {table} is missing"));
            continue;
        };
        for (column, wanted) in columns {
            match present.get(&column) {
                None => differences.push(format!("{table}.{column} is missing")),
                Some(found) if *found != wanted => {
                    differences.push(format!("{table}.{column} is {found}, expected {wanted}"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(differences)
}

/// Table → column → its type with its nullability, in words.
type Tables = BTreeMap<String, BTreeMap<String, String>>;

async fn tables(connection: &mut PgConnection, schema: &'static str) -> Result<Tables, DriverError> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT relname::text, attname::text,
                format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' not null' ELSE '' END
         FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
         WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped",
    )
    .bind(schema)
    .fetch_all(connection)
    .await?;
    let mut tables = Tables::new();
    for (table, column, kind) in rows {
        tables.entry(table).or_default().insert(column, kind);
    }
    Ok(tables)
}
