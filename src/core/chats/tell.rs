//! Telling the devices of everybody in a chat.

use std::sync::Arc;

use futures::future::join_all;
use futures::lock::{Mutex, OwnedMutexGuard};

use crate::core::model::chats::{ChatEvent, Message, NewMessages};
use crate::core::model::fact::Fact;
use crate::core::model::ids::{ChatId, InstanceId, UserId};
use crate::ports::chats::Broadcaster;
use crate::ports::journal::Journal;

/// Publishes what was written (contract `chats.md` §7).
pub struct Teller {
    /// Reaches every device.
    pub broadcaster: Arc<dyn Broadcaster>,
    /// Hears what was told and what could not be.
    pub journal: Arc<dyn Journal>,
    turns: Vec<Arc<Mutex<()>>>,
}

/// Chats share this many turns: enough that two busy ones seldom wait for each other.
const TURNS: usize = 1_024;

impl Teller {
    /// Nobody's turn yet.
    pub fn new(broadcaster: Arc<dyn Broadcaster>, journal: Arc<dyn Journal>) -> Self {
        Self { broadcaster, journal, turns: (0..TURNS).map(|_| Arc::default()).collect() }
    }

    /// Waits for the chat's turn, which ends when the answer is dropped.
    pub(super) async fn turn(&self, chat: &ChatId) -> Option<OwnedMutexGuard<()>> {
        let place = chat.as_str().bytes().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let turn = self.turns.get(place % TURNS)?;
        Some(Arc::clone(turn).lock_owned().await)
    }

    /// Tells every reader, all readers at a time and each in order. What cannot be told is recorded and forgotten:
    /// receivers catch up by pulling.
    pub(super) async fn tell(&self, chat: &ChatId, written: &[Message], readers: &[UserId]) {
        if written.is_empty() || readers.is_empty() {
            return;
        }
        for payload in NewMessages::of(chat, written) {
            let told = readers.iter().map(|reader| self.publish(reader, &payload));
            join_all(told).await;
        }
        self.journal.record(Fact::ChatTold { messages: written.len() });
    }

    async fn publish(&self, reader: &UserId, payload: &NewMessages) {
        let event = ChatEvent {
            user_id: reader.clone(),
            payload: payload.clone(),
            // A broadcaster that crosses processes puts its own name here.
            origin_instance_id: InstanceId::new("here"),
        };
        if self.broadcaster.publish(&event).await.is_err() {
            self.journal.record(Fact::PublishFailed { event: Box::new(event) });
        }
    }
}
