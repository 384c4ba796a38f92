//! What processes tell one another about users' sockets, apart from chat events.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bb8_redis::redis::cmd;
use futures::FutureExt;
use serde::{Deserialize, Serialize};

use super::Redis;
use super::broadcaster::{Relays, locked};
use super::bus::{Bus, Delivery, Subscription};
use crate::core::model::ids::{InstanceId, UserId};
use crate::ports::chats::Broadcaster;
use crate::ports::{Fault, FaultKind};

/// One announcement.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Announcement {
    user_id: UserId,
    what: What,
    origin_instance_id: InstanceId,
}

/// What happened to a user's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum What {
    /// The account is gone.
    Closed,
    /// An event for the user could not be published.
    Missed,
}

/// Hands on what other processes announce. A gap in it needs nothing: sockets ask after their token now and then, and
/// a connection that was away is a gap for every user anyway.
pub(super) fn listen(
    bus: &Bus,
    redis: &Redis,
    instance: InstanceId,
    local: Arc<dyn Broadcaster>,
    relays: Arc<Mutex<Relays>>,
) -> Subscription {
    bus.listen(
        redis.keys().chat_control_channel(),
        Arc::new(move |delivery| {
            let Delivery::Message(text) = delivery else { return };
            match serde_json::from_slice::<Announcement>(text) {
                Ok(announcement) if announcement.origin_instance_id == instance => {}
                // The broadcaster within a process answers at once.
                Ok(Announcement { user_id, what: What::Closed, .. }) => drop(local.close(&user_id).now_or_never()),
                Ok(Announcement { user_id, what: What::Missed, .. }) => {
                    // Dropped outside the lock, which a relay takes when it goes.
                    let relay = locked(&relays).get(&user_id).and_then(Weak::upgrade);
                    if let Some(relay) = relay {
                        relay.tell_of_gap();
                    }
                }
                Err(_) => tracing::warn!(size_bytes = text.len(), "an announcement about sockets is unreadable"),
            }
        }),
    )
}

/// Announces something to the other processes.
pub(super) async fn say(redis: &Redis, instance: &InstanceId, user: &UserId, what: What) -> Result<(), Fault> {
    const OPERATION: &str = "redis.broadcaster.announce";
    let announcement = Announcement { user_id: user.clone(), what, origin_instance_id: instance.clone() };
    let text =
        serde_json::to_string(&announcement).map_err(|error| Fault::new(FaultKind::Corrupt, OPERATION, error))?;
    let mut publish = cmd("PUBLISH");
    publish.arg(redis.keys().chat_control_channel()).arg(text);
    redis.query(OPERATION, &publish).await
}

/// Users for whom an event could not be published. A publisher's trouble shows nowhere else: subscribers whose own
/// connection held would wait for the next event. They are told of a gap as soon as that can be published.
#[derive(Clone)]
pub(super) struct Owed {
    redis: Redis,
    instance: InstanceId,
    debts: Arc<Mutex<Debts>>,
}

#[derive(Default)]
struct Debts {
    users: HashSet<UserId>,
    /// Somebody is trying.
    trying: bool,
}

/// More users than this are not remembered; the next event finds what they miss.
const MOST_USERS: usize = 100_000;
const PAUSE: Duration = Duration::from_millis(500);

impl Owed {
    pub(super) fn new(redis: Redis, instance: InstanceId) -> Self {
        Self { redis, instance, debts: Arc::default() }
    }

    /// Remembers the user and tries until it is done.
    pub(super) fn to(&self, user: &UserId) {
        let mut debts = self.debts();
        if debts.users.len() < MOST_USERS {
            debts.users.insert(user.clone());
        }
        if !std::mem::replace(&mut debts.trying, true) {
            #[expect(clippy::disallowed_methods, reason = "nothing is lost when shutdown cuts it off: devices pull")]
            tokio::spawn(self.clone().pay());
        }
    }

    async fn pay(self) {
        loop {
            tokio::time::sleep(PAUSE).await;
            loop {
                let user = {
                    let mut debts = self.debts();
                    let Some(user) = debts.users.iter().next().cloned() else {
                        debts.trying = false;
                        return;
                    };
                    debts.users.remove(&user);
                    user
                };
                if say(&self.redis, &self.instance, &user, What::Missed).await.is_err() {
                    self.debts().users.insert(user);
                    break;
                }
            }
        }
    }

    fn debts(&self) -> MutexGuard<'_, Debts> {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
