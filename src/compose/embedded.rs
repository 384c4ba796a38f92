//! Nothing installed: SQLite in the data directory, everything else in process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Coordination, StartError, Storage};
use crate::adapters::memory::balance_cache::MemoryBalances;
use crate::adapters::memory::broadcaster::MemoryBroadcaster;
use crate::adapters::memory::limits::MemoryLimits;
use crate::adapters::memory::price_cache::MemoryPrices;
use crate::adapters::memory::slots::MemorySlots;
use crate::adapters::memory::snapshots::MemorySnapshots;
use crate::adapters::sqlite::accounts::SqliteAccounts;
use crate::adapters::sqlite::audit::SqliteAuditLog;
use crate::adapters::sqlite::billing::SqliteBilling;
use crate::adapters::sqlite::characters::SqliteCharacters;
use crate::adapters::sqlite::chats::SqliteChats;
use crate::adapters::sqlite::clients::SqliteClients;
use crate::adapters::sqlite::config::SqliteConfig;
use crate::adapters::sqlite::erasure::SqliteErasures;
use crate::adapters::sqlite::grants::SqliteGrants;
use crate::adapters::sqlite::idempotency::SqliteIdempotency;
use crate::adapters::sqlite::ledger::SqliteLedger;
use crate::adapters::sqlite::meter::SqliteMeter;
use crate::adapters::sqlite::providers::SqliteProviders;
use crate::adapters::sqlite::request_log::SqliteRequestLog;
use crate::adapters::sqlite::sessions::SqliteSessions;
use crate::adapters::sqlite::signing_keys::SqliteSigningKeys;
use crate::adapters::sqlite::social::SqliteSocial;
use crate::adapters::sqlite::verification::SqliteVerifications;
use crate::adapters::sqlite::{self, Ownership, Sqlite, SqliteProbe};
use crate::ports::Fault;
use crate::ports::runtime::Clock;

/// What this process does to the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It serves from it: nobody else may at the same time.
    Serve,
    /// It runs one command, beside a serving process if need be.
    Visit,
}

pub(super) async fn storage(directory: &Path, hold: Hold) -> Result<Storage, StartError> {
    let ownership = match hold {
        Hold::Serve => Ownership::Sole,
        Hold::Visit => Ownership::Beside,
    };
    Ok(of(sqlite::open(directory, ownership).await?))
}

pub(super) fn of(db: Sqlite) -> Storage {
    let log = SqliteRequestLog { db: db.clone() };
    Storage {
        accounts: Arc::new(SqliteAccounts { db: db.clone() }),
        sessions: Arc::new(SqliteSessions { db: db.clone() }),
        verifications: Arc::new(SqliteVerifications { db: db.clone() }),
        erasures: Arc::new(SqliteErasures { db: db.clone() }),
        social: Arc::new(SqliteSocial { db: db.clone() }),
        clients: Arc::new(SqliteClients { db: db.clone() }),
        grants: Arc::new(SqliteGrants { db: db.clone() }),
        signing_keys: Arc::new(SqliteSigningKeys { db: db.clone() }),
        ledger: Arc::new(SqliteLedger::new(db.clone())),
        meter: Arc::new(SqliteMeter { db: db.clone() }),
        billing: Arc::new(SqliteBilling { db: db.clone() }),
        config: Arc::new(SqliteConfig { db: db.clone(), listeners: sqlite::config::listeners() }),
        audit: Arc::new(SqliteAuditLog { db: db.clone() }),
        idempotency: Arc::new(SqliteIdempotency { db: db.clone() }),
        characters: Arc::new(SqliteCharacters { db: db.clone() }),
        providers: Arc::new(SqliteProviders { db: db.clone() }),
        chats: Arc::new(SqliteChats { db: db.clone() }),
        probe: Arc::new(SqliteProbe { db: db.clone() }),
        insert_rows: Box::new(move |rows| {
            let log = log.clone();
            Box::pin(async move { log.insert(&rows).await })
        }),
        close_database: Box::new(move || Box::pin(async move { db.close().await })),
    }
}

/// A command beside the server, `flux grant` say, cannot tell it: what it wrote is seen after this long.
const BALANCE_COPY: Duration = Duration::from_secs(1);

pub(super) fn coordination(clock: &Arc<dyn Clock>, people: Arc<MemorySnapshots>) -> Coordination {
    Coordination {
        meter: None,
        balances: Arc::new(MemoryBalances::lasting(clock.clone(), BALANCE_COPY)),
        prices: Arc::new(MemoryPrices::new(clock.clone())),
        limits: Arc::new(MemoryLimits::new(clock.clone())),
        slots: Arc::new(MemorySlots::new(clock.clone())),
        broadcaster: Arc::new(MemoryBroadcaster::new()),
        people,
        config: None,
        probe: None,
    }
}

pub(super) async fn migrate(directory: &Path) -> Result<Vec<&'static str>, StartError> {
    let db = sqlite::open(directory, Ownership::Sole).await?;
    let applied = db.applied.clone();
    db.close().await;
    Ok(applied)
}

/// Writes a consistent copy of the embedded database of `directory` to `file`, while a server works on it or not.
pub async fn backup(directory: &Path, file: &Path) -> Result<(), StartError> {
    let db = sqlite::open(directory, Ownership::Beside).await?;
    let copied: Result<(), Fault> = db.backup_to(file).await;
    db.close().await;
    Ok(copied?)
}
