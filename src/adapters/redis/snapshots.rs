//! Copies of accounts that every process drops when one of them says so.

use std::sync::Arc;

use async_trait::async_trait;
use bb8_redis::redis::cmd;

use super::Redis;
use super::bus::{Bus, Delivery, Subscription};
use crate::core::model::accounts::Account;
use crate::core::model::ids::UserId;
use crate::ports::Fault;
use crate::ports::oidc::AccountSnapshots;

/// Drops the copy of an account in this process; every copy without a name. MUST NOT block.
pub type DropCopies = Arc<dyn Fn(Option<&UserId>) + Send + Sync>;

/// Copies of this process, dropped also by the word of another.
pub struct RedisSnapshots {
    local: Arc<dyn AccountSnapshots>,
    redis: Redis,
    _subscription: Subscription,
}

impl RedisSnapshots {
    /// Listens before it returns, or returns soon while Redis is away; what was missed drops every copy.
    pub async fn start(local: Arc<dyn AccountSnapshots>, drop: DropCopies, redis: Redis, bus: &Bus) -> Self {
        let sink = move |delivery: Delivery<'_>| match delivery {
            Delivery::Gap => drop(None),
            Delivery::Message(text) => {
                if let Ok(user) = std::str::from_utf8(text) {
                    drop(Some(&UserId::new(user)));
                }
            }
        };
        let subscription = bus.listen(redis.keys().account_channel(), Arc::new(sink));
        subscription.confirmed().await;
        Self { local, redis, _subscription: subscription }
    }
}

#[async_trait]
impl AccountSnapshots for RedisSnapshots {
    async fn find(&self, id: &UserId) -> Result<Option<Account>, Fault> {
        self.local.find(id).await
    }

    async fn forget(&self, id: &UserId) -> Result<(), Fault> {
        // Own copies first: they go however Redis fares.
        self.local.forget(id).await?;
        let mut publish = cmd("PUBLISH");
        publish.arg(self.redis.keys().account_channel()).arg(id.as_str());
        self.redis.query("redis.snapshots.forget", &publish).await
    }
}
