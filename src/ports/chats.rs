//! Chat events between the devices of a user.

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::Fault;
use crate::core::model::chats::{ChatEvent, Heard};
use crate::core::model::ids::UserId;

/// Publishes to every process and hears what others publish (contract `chats.md` §7).
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Broadcaster: Send + Sync {
    /// Tells every subscriber of `event.user_id`, in this process and in others, once each.
    async fn publish(&self, event: &ChatEvent) -> Result<(), Fault>;

    /// What is published for `user` from now on. Dropping the stream ends the subscription. After an outage of
    /// the transport the stream yields [`Heard::Gap`]. A subscriber that does not read is told of a gap, too,
    /// instead of growing a queue.
    async fn subscribe(&self, user: &UserId) -> Result<BoxStream<'static, Heard>, Fault>;
}
