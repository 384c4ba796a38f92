//! Chat events within one process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::broadcast;

use crate::core::model::chats::{ChatEvent, Heard};
use crate::core::model::ids::UserId;
use crate::ports::Fault;
use crate::ports::chats::Broadcaster;

/// One bounded queue per user with subscribers; it answers at once.
#[derive(Default)]
pub struct MemoryBroadcaster {
    users: Arc<Mutex<Users>>,
}

type Users = HashMap<UserId, broadcast::Sender<Arc<Heard>>>;

/// Events a subscriber may leave unread before it is told of a gap instead.
const UNREAD: usize = 64;

impl MemoryBroadcaster {
    /// Nobody listens yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn tell(&self, user: &UserId, heard: impl FnOnce() -> Heard) {
        if let Some(subscribers) = locked(&self.users).get(user) {
            // Fails when nobody listens.
            let _ = subscribers.send(Arc::new(heard()));
        }
    }
}

#[async_trait]
impl Broadcaster for MemoryBroadcaster {
    async fn publish(&self, event: &ChatEvent) -> Result<(), Fault> {
        self.tell(&event.user_id, || Heard::Event(event.clone()));
        Ok(())
    }

    async fn close(&self, user: &UserId) -> Result<(), Fault> {
        self.tell(user, || Heard::Closed);
        Ok(())
    }

    async fn subscribe(&self, user: &UserId) -> Result<BoxStream<'static, Heard>, Fault> {
        let events =
            locked(&self.users).entry(user.clone()).or_insert_with(|| broadcast::channel(UNREAD).0).subscribe();
        let place = Place { users: Arc::clone(&self.users), user: user.clone(), events: Some(events) };
        Ok(stream::unfold(place, |mut place| async {
            let heard = match place.events.as_mut()?.recv().await {
                Ok(heard) => Arc::unwrap_or_clone(heard),
                Err(broadcast::error::RecvError::Lagged(_)) => Heard::Gap,
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            Some((heard, place))
        })
        .boxed())
    }
}

/// One subscriber; the last one of a user takes the queue along.
struct Place {
    users: Arc<Mutex<Users>>,
    user: UserId,
    events: Option<broadcast::Receiver<Arc<Heard>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut users = locked(&self.users);
        // Left under the lock, or two that leave at once would each count the other.
        self.events = None;
        if users.get(&self.user).is_some_and(|subscribers| subscribers.receiver_count() == 0) {
            users.remove(&self.user);
        }
    }
}

fn locked(users: &Mutex<Users>) -> MutexGuard<'_, Users> {
    users.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_kept_for_users_without_subscribers() {
        let broadcaster = MemoryBroadcaster::new();
        let user = UserId::new("u");
        let first = broadcaster.subscribe(&user).await.unwrap();
        let second = broadcaster.subscribe(&user).await.unwrap();
        drop(first);
        assert_eq!(locked(&broadcaster.users).len(), 1);
        drop(second);
        assert_eq!(locked(&broadcaster.users).len(), 0);
    }
}
