//! Configuration entries where the reference keeps them.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bb8_redis::redis::{Script, cmd};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde::Deserialize;
use tokio::sync::broadcast;

use super::Redis;
use super::bus::{Bus, Delivery, Subscription};
use crate::core::model::config::{ConfigChange, ConfigEntry, ConfigWrite, WriteOutcome};
use crate::ports::Fault;
use crate::ports::config::ConfigStore;

/// JSON texts under `config:<NAME>`, without an end; `config:version` counts writes, `config:history` keeps what they
/// replaced, `configkv:invalidate` announces them (contracts `gateway.md` §12, `admin.md` §6.1).
///
/// The reference announces its writes, too, without counting them.
pub struct RedisConfig {
    redis: Redis,
    changes: broadcast::Sender<ConfigChange>,
    _subscription: Subscription,
}

/// Changes a listener may leave unread before it is told of a gap instead.
const UNREAD: usize = 64;
/// No announcement is longer; what is longer is none.
const LONGEST_ANNOUNCEMENT: usize = 4 * 1024;

impl RedisConfig {
    /// Listens before it returns, or returns soon while Redis is away; listeners then hear of a gap when it is back.
    pub async fn start(redis: Redis, bus: &Bus) -> Self {
        let (changes, _) = broadcast::channel(UNREAD);
        let told = changes.clone();
        let subscription = bus.listen(
            redis.keys().config_channel(),
            Arc::new(move |delivery| {
                if let Some(change) = change(delivery) {
                    // Fails when nobody listens.
                    let _ = told.send(change);
                }
            }),
        );
        subscription.confirmed().await;
        Self { redis, changes, _subscription: subscription }
    }
}

fn change(delivery: Delivery<'_>) -> Option<ConfigChange> {
    /// All that a receiver may ask for (contract `gateway.md` §12.1).
    #[derive(Deserialize)]
    struct Announcement {
        key: String,
    }
    let Delivery::Message(text) = delivery else { return Some(ConfigChange::Gap) };
    if text.len() > LONGEST_ANNOUNCEMENT {
        tracing::warn!(size_bytes = text.len(), "configuration announcement is too long and was ignored");
        return None;
    }
    match serde_json::from_slice::<Announcement>(text) {
        Ok(announcement) => Some(ConfigChange::Entry(announcement.key)),
        Err(_) => {
            tracing::warn!(size_bytes = text.len(), "configuration announcement is unreadable and was ignored");
            None
        }
    }
}

/// KEYS: version, history, then the entries. ARGV: expected version or nothing, channel, then for each entry its
/// name, whether it is set, and its text. Answers {whether written, version}.
static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"local found = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
           if ARGV[1] ~= '' and tonumber(ARGV[1]) ~= found then return {0, found} end
           local time = redis.call('TIME')
           local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
           for i = 3, #KEYS do
             local at = (i - 3) * 3 + 3
             local name, set, text = ARGV[at], ARGV[at + 1], ARGV[at + 2]
             local before = redis.call('GET', KEYS[i])
             local replaced = cjson.encode({ name = name, value = before or cjson.null })
             redis.call('LPUSH', KEYS[2], string.sub(replaced, 1, -2)
               .. string.format(',"version":%d,"replacedAt":%s}', found, now))
             if set == '1' then redis.call('SET', KEYS[i], text) else redis.call('DEL', KEYS[i]) end
           end
           redis.call('LTRIM', KEYS[2], 0, 999)
           redis.call('SET', KEYS[1], string.format('%d', found + 1))
           for i = 3, #KEYS do
             redis.call('PUBLISH', ARGV[2], '{"key":' .. cjson.encode(ARGV[(i - 3) * 3 + 3])
               .. ',"version":' .. now .. ',"publishedAt":' .. now .. '}')
           end
           return {1, found + 1}"#,
    )
});

#[async_trait]
impl ConfigStore for RedisConfig {
    #[tracing::instrument(name = "redis.config.find", skip_all, err(level = "debug"))]
    async fn find(&self, name: &'static str) -> Result<Option<Arc<ConfigEntry>>, Fault> {
        let mut get = cmd("GET");
        get.arg(self.redis.keys().config(name)?);
        let json: Option<String> = self.redis.query("redis.config.find", &get).await?;
        Ok(json.map(|json| Arc::new(ConfigEntry::new(json))))
    }

    #[tracing::instrument(name = "redis.config.version", skip_all, err(level = "debug"))]
    async fn version(&self) -> Result<i64, Fault> {
        let mut get = cmd("GET");
        get.arg(self.redis.keys().config_version());
        let version: Option<i64> = self.redis.query("redis.config.version", &get).await?;
        Ok(version.unwrap_or(0))
    }

    #[tracing::instrument(name = "redis.config.write", skip_all, err(level = "debug"))]
    async fn write(&self, write: &ConfigWrite) -> Result<WriteOutcome, Fault> {
        let keys = self.redis.keys();
        let mut call = WRITE.prepare_invoke();
        call.key(keys.config_version()).key(keys.config_history());
        call.arg(write.expected_version.map(|version| version.to_string()).unwrap_or_default());
        call.arg(keys.config_channel());
        for (name, json) in &write.entries {
            call.key(keys.config(name)?);
            call.arg(*name).arg(i32::from(json.is_some())).arg(json.as_deref().unwrap_or_default());
        }
        let (written, version): (bool, i64) = self.redis.invoke("redis.config.write", &call).await?;
        Ok(if written { WriteOutcome::Written(version) } else { WriteOutcome::Stale(version) })
    }

    fn changes(&self) -> BoxStream<'static, ConfigChange> {
        stream::unfold(self.changes.subscribe(), |mut changes| async {
            match changes.recv().await {
                Ok(change) => Some((change, changes)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((ConfigChange::Gap, changes)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_of_an_announcement_matters() {
        let heard = |text: &str| change(Delivery::Message(text.as_bytes()));
        assert_eq!(heard(r#"{"key":"A","version":1,"publishedAt":1}"#), Some(ConfigChange::Entry("A".to_owned())));
        assert_eq!(heard(r#"{"key":"A"}"#), Some(ConfigChange::Entry("A".to_owned())));
        for bad in ["", "A", "{}", r#"{"key":1}"#, &format!(r#"{{"key":"{}"}}"#, "A".repeat(LONGEST_ANNOUNCEMENT))] {
            assert_eq!(heard(bad), None);
        }
        assert_eq!(change(Delivery::Gap), Some(ConfigChange::Gap));
    }
}
