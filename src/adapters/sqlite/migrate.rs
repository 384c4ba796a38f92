//! Brings the tables of the embedded database up to date.

use sha2::{Digest, Sha256};
use sqlx::sqlite::SqlitePool;

use super::fault::fault;
use crate::ports::{Fault, FaultKind};

const OPERATION: &str = "sqlite.migrate";

/// Number, name and text of each step, in order.
const STEPS: &[(i64, &str, &str)] = &[
    (1, "reference_schema", include_str!("../../../migrations/sqlite/0001_reference_schema.sql")),
    (2, "ledger", include_str!("../../../migrations/sqlite/0002_ledger.sql")),
    (3, "request_log", include_str!("../../../migrations/sqlite/0003_request_log.sql")),
    (4, "config_and_audit", include_str!("../../../migrations/sqlite/0004_config_and_audit.sql")),
    (5, "indexes", include_str!("../../../migrations/sqlite/0005_indexes.sql")),
    (20, "holds", include_str!("../../../migrations/sqlite/0020_holds.sql")),
    (42, "one_cover", include_str!("../../../migrations/sqlite/0042_one_cover.sql")),
    (50, "identity", include_str!("../../../migrations/sqlite/0050_identity.sql")),
    (51, "token_families", include_str!("../../../migrations/sqlite/0051_token_families.sql")),
    (60, "stripe", include_str!("../../../migrations/sqlite/0060_stripe.sql")),
    (70, "chat_identity", include_str!("../../../migrations/sqlite/0070_chat_identity.sql")),
];

const BOOKKEEPING: &str = "CREATE TABLE IF NOT EXISTS airi_migration (
    version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at integer NOT NULL
) STRICT";

/// Applies the steps that are missing, all or none, and tells their names. Refuses a database that a newer or a
/// different version of this program has written.
pub async fn migrate(writer: &SqlitePool) -> Result<Vec<&'static str>, Fault> {
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(fault(OPERATION))?;
    sqlx::query(BOOKKEEPING).execute(&mut *tx).await.map_err(fault(OPERATION))?;
    let found: Vec<(i64, String)> = sqlx::query_as("SELECT version, checksum FROM airi_migration ORDER BY version")
        .fetch_all(&mut *tx)
        .await
        .map_err(fault(OPERATION))?;
    for (at, (version, checksum)) in found.iter().enumerate() {
        let Some((number, name, sql)) = STEPS.get(at) else {
            return Err(refusal(format!("step {version} is unknown; a newer version has used this database")));
        };
        if version != number || *checksum != checksum_of(sql) {
            return Err(refusal(format!("step {version} is not our step {number} ({name})")));
        }
    }
    let missing = STEPS.get(found.len()..).unwrap_or_default();
    for (number, name, sql) in missing {
        sqlx::raw_sql(*sql).execute(&mut *tx).await.map_err(fault(OPERATION))?;
        sqlx::query(
            "INSERT INTO airi_migration (version, name, checksum, applied_at)
             VALUES (?, ?, ?, CAST(round((julianday('now') - 2440587.5) * 86400000) AS integer) * 1000)",
        )
        .bind(number)
        .bind(name)
        .bind(checksum_of(sql))
        .execute(&mut *tx)
        .await
        .map_err(fault(OPERATION))?;
    }
    tx.commit().await.map_err(fault(OPERATION))?;
    Ok(missing.iter().map(|(_, name, _)| *name).collect())
}

fn refusal(why: String) -> Fault {
    Fault::new(FaultKind::Corrupt, OPERATION, why)
}

fn checksum_of(sql: &str) -> String {
    hex::encode(Sha256::digest(sql.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::sqlite::in_memory;

    #[tokio::test]
    async fn a_second_run_finds_nothing_to_do() {
        let db = in_memory().await.unwrap();
        assert_eq!(migrate(&db.writer).await.unwrap(), Vec::<&str>::new());
    }

    #[tokio::test]
    async fn a_database_of_a_newer_version_and_a_changed_step_are_refused() {
        for tamper in [
            "INSERT INTO airi_migration VALUES (99, 'future', '', 0)",
            "UPDATE airi_migration SET checksum = 'x' WHERE version = 2",
        ] {
            let db = in_memory().await.unwrap();
            sqlx::query(tamper).execute(&db.writer).await.unwrap();
            assert_eq!(migrate(&db.writer).await.unwrap_err().kind(), FaultKind::Corrupt);
        }
    }
}
