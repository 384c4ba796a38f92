//! What several processes share: copies of balances, counters, leases, chat events and configuration entries.
//!
//! Commands go through a bounded pool ([`Redis`]); what is published arrives on one connection of its own
//! ([`bus::Bus`]). Names and texts are those of the reference server, so both can run on one Redis.

pub mod balance_cache;
pub mod broadcaster;
mod broadcaster_control;
pub mod bus;
pub mod config;
mod keys;
pub mod limits;
pub mod moved_debt;
mod pool;
pub mod price_cache;
pub mod slots;
pub mod snapshots;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bb8_redis::redis::{
    Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo, ProtocolVersion, RedisError,
    ScriptInvocation, cmd,
};
use serde::{Deserialize, Deserializer};

use crate::core::model::secret::Secret;
use crate::ports::probe::Probe;
use crate::ports::{Fault, FaultKind};
use keys::Keys;
use pool::Pool;

/// Where Redis is and what our names start with there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS.
    #[serde(deserialize_with = "secret")]
    pub url: Secret,
    /// Put in front of every key and channel, as it is; empty by default, as the reference has none.
    #[serde(default)]
    pub namespace: String,
}

impl RedisSettings {
    /// This address, with the names of the reference.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: Secret::new(url), namespace: String::new() }
    }
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    String::deserialize(from).map(Secret::new)
}

/// A handle on one Redis; clones share the pool.
///
/// A call costs at most a few hundred milliseconds, and next to nothing while Redis is known to be gone.
#[derive(Clone)]
pub struct Redis {
    pool: Arc<Pool>,
    info: ConnectionInfo,
    keys: Keys,
}

impl Redis {
    /// Opens nothing yet, so a server starts while Redis is away. Needs a tokio runtime. Refuses an address that
    /// is no Redis URL.
    pub fn new(settings: &RedisSettings) -> Result<Self, Fault> {
        // The parser's message may quote the address with its password: it stays here.
        let info = settings.url.expose().into_connection_info().map_err(|_| {
            Fault::new(FaultKind::Corrupt, "redis.settings", "expected redis://host[:port][/db] or rediss://…")
        })?;
        let pool = Pool::new(info.clone()).map_err(|error| fault("redis.settings", error))?;
        Ok(Self { pool: Arc::new(pool), info, keys: Keys::new(&settings.namespace) })
    }

    async fn query<T: FromRedisValue>(&self, operation: &'static str, cmd: &Cmd) -> Result<T, Fault> {
        let mut link = self.pool.link(operation).await?;
        cmd.query_async(&mut *link).await.map_err(|error| fault(operation, error))
    }

    async fn invoke<T: FromRedisValue>(
        &self,
        operation: &'static str,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, Fault> {
        let mut link = self.pool.link(operation).await?;
        call.invoke_async(&mut *link).await.map_err(|error| fault(operation, error))
    }

    /// A client whose connections push what is published to them.
    fn push_client(&self) -> Result<Client, Fault> {
        let settings = self.info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Client::open(self.info.clone().set_redis_settings(settings)).map_err(|error| fault("redis.settings", error))
    }

    fn keys(&self) -> &Keys {
        &self.keys
    }
}

/// Whether Redis answers `PING`.
pub struct RedisProbe {
    /// Whom to ask.
    pub redis: Redis,
}

/// What the port allows a probe.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

#[async_trait]
impl Probe for RedisProbe {
    async fn check(&self) -> Result<(), Fault> {
        let ping = cmd("PING");
        tokio::time::timeout(PROBE_LIMIT, self.redis.query("redis.probe", &ping))
            .await
            .map_err(|late| Fault::new(FaultKind::Timeout, "redis.probe", late))?
    }
}

fn fault(operation: &'static str, error: RedisError) -> Fault {
    let kind = if error.is_timeout() {
        FaultKind::Timeout
    } else if matches!(error.kind(), ErrorKind::UnexpectedReturnType | ErrorKind::Parse) {
        FaultKind::Corrupt
    } else {
        FaultKind::Unavailable
    };
    Fault::new(kind, operation, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_not_printed() {
        let settings = RedisSettings::at("redis://:hunter2@localhost");
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn unknown_settings_are_refused() {
        let read = |json| serde_json::from_str::<RedisSettings>(json);
        assert_eq!(read(r#"{"url":"redis://x"}"#).unwrap().namespace, "");
        assert!(read(r#"{"url":"redis://x","pool":3}"#).is_err());
    }

    #[tokio::test]
    async fn a_bad_address_is_refused_without_being_quoted() {
        let Err(fault) = Redis::new(&RedisSettings::at("http://:hunter2@localhost")) else { panic!("accepted") };
        let shown = format!("{fault} {fault:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
