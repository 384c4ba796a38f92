//! The embedded database: one file in the data directory, one process per directory.
//!
//! Durable: write-ahead log, full sync. One connection writes, through `BEGIN IMMEDIATE`, so a read inside a write
//! transaction sees what it will write over; a few others read. Times are microseconds since 1970 UTC.

pub mod accounts;
pub mod audit;
pub mod billing;
mod billing_mirrors;
mod billing_money;
mod character_rows;
pub mod characters;
mod chat_rows;
pub mod chats;
pub mod clients;
pub mod config;
pub mod erasure;
pub mod fault;
mod grant_rows;
pub mod grants;
pub mod idempotency;
pub mod ledger;
mod ledger_batch;
mod ledger_rows;
mod ledger_walk;
pub mod meter;
pub mod migrate;
mod passwords;
pub mod providers;
pub mod request_log;
mod session_ends;
pub mod sessions;
pub mod signing_keys;
pub mod social;
pub mod verification;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite as Driver, Transaction};
use thiserror::Error;

use crate::ports::probe::Probe;
use crate::ports::{Fault, FaultKind};
use fault::fault;

/// Name of the database file in a data directory.
pub const DATABASE_FILE: &str = "airi.db";
const LOCK_FILE: &str = "airi.lock";
const READERS: u32 = 4;
/// A writer waits its turn this long; the reader pool waits as long for a free connection.
const PATIENCE: Duration = Duration::from_secs(5);
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// Where the embedded database lives.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqliteSettings {
    /// Directory of the database file and its lock; made when absent.
    pub data_dir: PathBuf,
}

impl Default for SqliteSettings {
    fn default() -> Self {
        Self { data_dir: PathBuf::from("./data") }
    }
}

/// An open embedded database. Clones share its connections and its hold on the directory.
#[derive(Clone, Debug)]
pub struct Sqlite {
    /// The one connection that writes. Begin with [`Sqlite::begin`].
    pub writer: SqlitePool,
    /// Connections that see what was committed.
    pub readers: SqlitePool,
    /// Names of the migration steps this opening applied.
    pub applied: Vec<&'static str>,
    // Released by the system when the last clone is gone, or the process is, however it ended.
    _lock: Option<Arc<File>>,
}

/// Why the embedded database could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// One process per directory.
    #[error("data directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The directory or a file in it cannot be made or read.
    #[error("data directory {} is not usable", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    /// The file is there and SQLite cannot work with it.
    #[error(transparent)]
    Database(#[from] Fault),
}

/// What a process claims of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// It serves from it: refused while another process owns it.
    Sole,
    /// It runs one command: it owns the directory when nobody does, else works beside the owner, whose tables it finds
    /// up to date. SQLite serialises the two writers.
    Beside,
}

/// Opens the database in `directory`, making both when absent, and brings its tables up to date.
///
/// Directory and files are readable by their owner only.
pub async fn open(directory: &Path, ownership: Ownership) -> Result<Sqlite, OpenError> {
    let unusable = |error| OpenError::Directory(directory.to_owned(), error);
    make_private_directory(directory).map_err(unusable)?;
    let lock = open_private_file(&directory.join(LOCK_FILE)).map_err(unusable)?;
    let owns = match lock.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) if ownership == Ownership::Beside => false,
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(directory.to_owned())),
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    };
    let file = directory.join(DATABASE_FILE);
    // SQLite gives the log and its index the mode of the database file, so it must exist before it is opened.
    open_private_file(&file).map_err(unusable)?;

    let options = SqliteConnectOptions::new()
        .filename(&file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(PATIENCE);
    let writer = pool(1, options.clone()).await?;
    let applied = if owns { migrate::migrate(&writer).await? } else { Vec::new() };
    let readers = pool(READERS, options.pragma("query_only", "on")).await?;
    Ok(Sqlite { writer, readers, applied, _lock: owns.then(|| Arc::new(lock)) })
}

/// A database that lives as long as its handle, complete with tables. Everything goes through one connection.
pub async fn in_memory() -> Result<Sqlite, Fault> {
    let options = SqliteConnectOptions::new().in_memory(true).foreign_keys(true);
    let only = pool(1, options).await?;
    let applied = migrate::migrate(&only).await?;
    Ok(Sqlite { writer: only.clone(), readers: only, applied, _lock: None })
}

async fn pool(size: u32, options: SqliteConnectOptions) -> Result<SqlitePool, Fault> {
    SqlitePoolOptions::new()
        .max_connections(size)
        .min_connections(1)
        // A connection that is closed takes an in-memory database with it, and there is nothing to reconnect to.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .acquire_timeout(PATIENCE)
        .connect_with(options)
        .await
        .map_err(fault("sqlite.open"))
}

impl Sqlite {
    /// A write transaction. Dropping it, at any await, rolls back and hands the connection to the next writer.
    pub(in crate::adapters::sqlite) async fn begin(
        &self,
        operation: &'static str,
    ) -> Result<Transaction<'static, Driver>, Fault> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(fault(operation))
    }

    /// Writes a consistent copy of the whole database to `file`, which MUST NOT exist, while work goes on.
    pub async fn backup_to(&self, file: &Path) -> Result<(), Fault> {
        const OPERATION: &str = "sqlite.backup";
        let Some(name) = file.to_str() else {
            return Err(Fault::new(FaultKind::Unavailable, OPERATION, "the file name is not readable text"));
        };
        // SQLite fills an empty file, and only an empty one, so the copy is private from its first byte.
        new_private_file(file).map_err(|error| Fault::new(FaultKind::Unavailable, OPERATION, error))?;
        sqlx::query("VACUUM INTO ?").bind(name).execute(&self.writer).await.map_err(fault(OPERATION))?;
        Ok(())
    }

    /// Finishes what is running and closes every connection, which folds the log into the database file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Whether the embedded database answers.
#[derive(Clone, Debug)]
pub struct SqliteProbe {
    /// The database to ask.
    pub db: Sqlite,
}

#[async_trait]
impl Probe for SqliteProbe {
    async fn check(&self) -> Result<(), Fault> {
        const OPERATION: &str = "sqlite.probe";
        let asked = sqlx::query("SELECT 1").execute(&self.db.readers);
        match tokio::time::timeout(PROBE_LIMIT, asked).await {
            Ok(answer) => answer.map(|_| ()).map_err(fault(OPERATION)),
            Err(late) => Err(Fault::new(FaultKind::Timeout, OPERATION, late)),
        }
    }
}

/// The stored form of a time.
pub(in crate::adapters::sqlite) fn micros(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros()
}

/// The time a stored form stands for; nothing when it is beyond the calendar.
pub(in crate::adapters::sqlite) fn time(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
}

fn make_private_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

fn open_private_file(file: &Path) -> io::Result<File> {
    private(OpenOptions::new().read(true).write(true).create(true).truncate(false)).open(file)
}

fn new_private_file(file: &Path) -> io::Result<File> {
    private(OpenOptions::new().write(true).create_new(true)).open(file)
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn users(db: &Sqlite) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM user").fetch_one(&db.readers).await.unwrap()
    }

    const INSERT: &str = "INSERT INTO user (id, name, email) VALUES ('u1', '', 'a@b.co')";

    #[tokio::test]
    async fn a_directory_belongs_to_one_process_and_the_refusal_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let db = open(&data, Ownership::Sole).await.unwrap();
        let refusal = open(&data, Ownership::Sole).await.unwrap_err();
        assert!(matches!(&refusal, OpenError::InUse(named) if *named == data), "{refusal}");
        assert!(refusal.to_string().contains("data"));
        db.close().await;
        drop(db);
        open(&data, Ownership::Sole).await.unwrap();
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_but_the_owner_may_read_the_files() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let db = open(&data, Ownership::Sole).await.unwrap();
        sqlx::query(INSERT).execute(&db.writer).await.unwrap();
        db.backup_to(&data.join("copy.db")).await.unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data), 0o700);
        let files: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 4, "{files:?}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }

    #[tokio::test]
    async fn what_was_committed_is_there_after_a_restart_and_in_a_backup() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path(), Ownership::Sole).await.unwrap();
        sqlx::query(INSERT).execute(&db.writer).await.unwrap();
        assert_eq!(users(&db).await, 1);
        let copy = dir.path().join("elsewhere");
        fs::create_dir(&copy).unwrap();
        db.backup_to(&copy.join(DATABASE_FILE)).await.unwrap();
        db.backup_to(&copy.join(DATABASE_FILE)).await.unwrap_err();
        db.close().await;
        drop(db);
        assert_eq!(users(&open(dir.path(), Ownership::Sole).await.unwrap()).await, 1);
        assert_eq!(users(&open(&copy, Ownership::Sole).await.unwrap()).await, 1);
    }

    #[tokio::test]
    async fn settings_of_durability_hold_on_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path(), Ownership::Sole).await.unwrap();
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&db.writer).await.unwrap();
        let sync: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&db.writer).await.unwrap();
        let keys: i64 = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(&db.writer).await.unwrap();
        assert_eq!((mode.as_str(), sync, keys), ("wal", 2, 1));
        sqlx::query(INSERT).execute(&db.readers).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_transaction_dropped_half_way_is_rolled_back_and_the_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        for db in [open(dir.path(), Ownership::Sole).await.unwrap(), in_memory().await.unwrap()] {
            let inserted = tokio::sync::Notify::new();
            let half = async {
                let mut tx = db.begin("sqlite.test").await.unwrap();
                sqlx::query(INSERT).execute(&mut *tx).await.unwrap();
                inserted.notify_one();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = half => {}
                () = inserted.notified() => {}
            }
            assert_eq!(users(&db).await, 0);
            let mut tx = db.begin("sqlite.test").await.unwrap();
            sqlx::query(INSERT).execute(&mut *tx).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(users(&db).await, 1);
        }
    }

    #[tokio::test]
    async fn the_probe_tells_an_open_database_from_a_closed_one() {
        let db = in_memory().await.unwrap();
        let probe = SqliteProbe { db: db.clone() };
        probe.check().await.unwrap();
        db.close().await;
        assert_eq!(probe.check().await.unwrap_err().kind(), FaultKind::Unavailable);
    }
}
