//! PostgreSQL for the truth, Redis for what several processes share.

use std::sync::Arc;

use super::{Coordination, StartError, Storage};
use crate::adapters::fallback_limits::FallbackLimits;
use crate::adapters::memory::broadcaster::MemoryBroadcaster;
use crate::adapters::memory::limits::MemoryLimits;
use crate::adapters::memory::snapshots::MemorySnapshots;
use crate::adapters::postgres::accounts::PgAccounts;
use crate::adapters::postgres::audit::PgAuditLog;
use crate::adapters::postgres::billing::PgBilling;
use crate::adapters::postgres::characters::PgCharacters;
use crate::adapters::postgres::chats::PgChats;
use crate::adapters::postgres::clients::PgClients;
use crate::adapters::postgres::config::PgConfig;
use crate::adapters::postgres::erasure::PgErasures;
use crate::adapters::postgres::grants::PgGrants;
use crate::adapters::postgres::idempotency::PgIdempotency;
use crate::adapters::postgres::ledger::PgLedger;
use crate::adapters::postgres::meter::PgMeter;
use crate::adapters::postgres::providers::PgProviders;
use crate::adapters::postgres::request_log::PgRequestLog;
use crate::adapters::postgres::sessions::PgSessions;
use crate::adapters::postgres::signing_keys::PgSigningKeys;
use crate::adapters::postgres::social::PgSocial;
use crate::adapters::postgres::verification::PgVerifications;
use crate::adapters::postgres::{self, PgProbe, PostgresSettings};
use crate::adapters::redis::balance_cache::RedisBalances;
use crate::adapters::redis::broadcaster::RedisBroadcaster;
use crate::adapters::redis::bus::Bus;
use crate::adapters::redis::config::RedisConfig;
use crate::adapters::redis::limits::RedisLimits;
use crate::adapters::redis::moved_debt::RedisMovedDebt;
use crate::adapters::redis::price_cache::RedisPrices;
use crate::adapters::redis::slots::RedisSlots;
use crate::adapters::redis::snapshots::{DropCopies, RedisSnapshots};
use crate::adapters::redis::{Redis, RedisProbe, RedisSettings};
use crate::core::model::ids::InstanceId;
use crate::ports::journal::Journal;
use crate::ports::ledger::UsageMeter;
use crate::ports::runtime::{Clock, IdSource};

pub(super) async fn storage(settings: &PostgresSettings) -> Result<Storage, StartError> {
    if settings.migrate_on_start {
        let done = postgres::migrate::migrate(settings).await?;
        for warning in done.warnings {
            tracing::warn!("{warning}");
        }
    }
    let pool = postgres::connect(settings).await?;
    let log = PgRequestLog { pool: pool.clone() };
    Ok(Storage {
        accounts: Arc::new(PgAccounts { pool: pool.clone() }),
        sessions: Arc::new(PgSessions { pool: pool.clone() }),
        verifications: Arc::new(PgVerifications { pool: pool.clone() }),
        erasures: Arc::new(PgErasures { pool: pool.clone() }),
        social: Arc::new(PgSocial { pool: pool.clone() }),
        clients: Arc::new(PgClients { pool: pool.clone() }),
        grants: Arc::new(PgGrants { pool: pool.clone() }),
        signing_keys: Arc::new(PgSigningKeys { pool: pool.clone() }),
        ledger: Arc::new(PgLedger::new(pool.clone())),
        meter: Arc::new(PgMeter { pool: pool.clone() }),
        billing: Arc::new(PgBilling { pool: pool.clone() }),
        config: Arc::new(PgConfig { pool: pool.clone(), listeners: postgres::config::listeners() }),
        audit: Arc::new(PgAuditLog { pool: pool.clone() }),
        idempotency: Arc::new(PgIdempotency { pool: pool.clone() }),
        characters: Arc::new(PgCharacters { pool: pool.clone() }),
        providers: Arc::new(PgProviders { pool: pool.clone() }),
        chats: Arc::new(PgChats { pool: pool.clone() }),
        probe: Arc::new(PgProbe { pool: pool.clone() }),
        insert_rows: Box::new(move |rows| {
            let log = log.clone();
            Box::pin(async move { log.insert(&rows).await })
        }),
        close_database: Box::new(move || Box::pin(async move { pool.close().await })),
    })
}

/// What stands behind what is kept in Redis.
pub(super) struct Behind {
    pub(super) people: Arc<MemorySnapshots>,
    pub(super) meter: Arc<dyn UsageMeter>,
}

pub(super) async fn coordination(
    settings: &RedisSettings,
    instance: InstanceId,
    clock: &Arc<dyn Clock>,
    journal: &Arc<dyn Journal>,
    ids: &Arc<dyn IdSource>,
    Behind { people, meter }: Behind,
) -> Result<Coordination, StartError> {
    let redis = Redis::new(settings)?;
    let bus = Bus::start(&redis, journal.clone())?;
    let copies = people.clone();
    let drop_copies: DropCopies = Arc::new(move |user| copies.drop_copies(user));
    Ok(Coordination {
        people: Arc::new(RedisSnapshots::start(people, drop_copies, redis.clone(), &bus).await),
        balances: Arc::new(RedisBalances { redis: redis.clone() }),
        prices: Arc::new(RedisPrices { redis: redis.clone() }),
        limits: Arc::new(FallbackLimits {
            first: Arc::new(RedisLimits { redis: redis.clone() }),
            second: Arc::new(MemoryLimits::new(clock.clone())),
            journal: journal.clone(),
        }),
        meter: Some(Arc::new(RedisMovedDebt {
            redis: redis.clone(),
            meter,
            ids: ids.clone(),
            journal: journal.clone(),
        })),
        slots: Arc::new(RedisSlots { redis: redis.clone() }),
        config: Some(Arc::new(RedisConfig::start(redis.clone(), &bus).await)),
        probe: Some(Arc::new(RedisProbe { redis: redis.clone() })),
        broadcaster: Arc::new(RedisBroadcaster::new(redis, bus, instance, Arc::new(MemoryBroadcaster::new()))),
    })
}
