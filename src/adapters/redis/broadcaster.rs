//! Chat events between processes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use bb8_redis::redis::cmd;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use serde_json::{Map, Value};
use tokio::sync::broadcast;

use super::Redis;
use super::broadcaster_control::{self as control, Owed, What};
use super::bus::{Bus, Delivery, Subscription};
use crate::core::model::chats::{ChatEvent, Heard, NewMessages};
use crate::core::model::ids::{ChatId, InstanceId, UserId};
use crate::ports::chats::Broadcaster;
use crate::ports::{Fault, FaultKind};

/// Serves this process through another broadcaster and the other processes through Redis (contract `chats.md` §7).
///
/// Messages carry this process' id, whatever the event says: it is what each process recognises its echo by.
pub struct RedisBroadcaster {
    redis: Redis,
    bus: Bus,
    instance: InstanceId,
    local: Arc<dyn Broadcaster>,
    relays: Arc<Mutex<Relays>>,
    owed: Owed,
    _control: Subscription,
}

pub(super) type Relays = HashMap<UserId, Weak<Relay>>;

impl RedisBroadcaster {
    /// `instance` must differ between processes, or they silence each other. `local` serves the subscribers of
    /// this process and must answer at once, as the in-process broadcaster does.
    pub fn new(redis: Redis, bus: Bus, instance: InstanceId, local: Arc<dyn Broadcaster>) -> Self {
        let relays: Arc<Mutex<Relays>> = Arc::default();
        let control = control::listen(&bus, &redis, instance.clone(), Arc::clone(&local), Arc::clone(&relays));
        let owed = Owed::new(redis.clone(), instance.clone());
        Self { redis, bus, instance, local, relays, owed, _control: control }
    }

    /// The user's relay, shared by the user's subscribers.
    fn relay(&self, user: &UserId) -> Result<Arc<Relay>, Fault> {
        let channel = self.redis.keys().chat_channel(user)?;
        let mut relays = locked(&self.relays);
        if let Some(relay) = relays.get(user).and_then(Weak::upgrade) {
            return Ok(relay);
        }
        let (gaps, _) = broadcast::channel(1);
        let (local, instance, missed) = (Arc::clone(&self.local), self.instance.clone(), gaps.clone());
        let subscription = self.bus.listen(
            channel,
            Arc::new(move |delivery| {
                if let Relayed::Missed = relay(&*local, &instance, delivery) {
                    // Fails when nobody listens, who then misses nothing.
                    let _ = missed.send(());
                }
            }),
        );
        let relay = Arc::new(Relay { user: user.clone(), subscription, gaps, relays: Arc::clone(&self.relays) });
        relays.insert(user.clone(), Arc::downgrade(&relay));
        Ok(relay)
    }
}

/// Hands what other processes say to a user on to the subscribers in this one.
pub(super) struct Relay {
    user: UserId,
    subscription: Subscription,
    gaps: broadcast::Sender<()>,
    relays: Arc<Mutex<Relays>>,
}

impl Relay {
    /// Tells the user's subscribers in this process that they may have missed something.
    pub(super) fn tell_of_gap(&self) {
        // Fails when nobody listens, who then misses nothing.
        let _ = self.gaps.send(());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut relays = locked(&self.relays);
        // A successor may stand here already.
        if relays.get(&self.user).is_some_and(|relay| relay.strong_count() == 0) {
            relays.remove(&self.user);
        }
    }
}

pub(super) fn locked(relays: &Mutex<Relays>) -> MutexGuard<'_, Relays> {
    relays.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Relayed {
    Done,
    Missed,
}

fn relay(local: &dyn Broadcaster, instance: &InstanceId, delivery: Delivery<'_>) -> Relayed {
    let Delivery::Message(text) = delivery else { return Relayed::Missed };
    let event = match parse(text) {
        Ok(event) => event,
        Err(why) => {
            tracing::warn!(size_bytes = text.len(), "{why}");
            return Relayed::Done;
        }
    };
    if event.origin_instance_id == *instance {
        return Relayed::Done;
    }
    match local.publish(&event).now_or_never() {
        Some(Ok(())) => Relayed::Done,
        Some(Err(_)) | None => Relayed::Missed,
    }
}

#[async_trait]
impl Broadcaster for RedisBroadcaster {
    #[tracing::instrument(name = "redis.broadcaster.publish", skip_all, err(level = "debug"))]
    async fn publish(&self, event: &ChatEvent) -> Result<(), Fault> {
        const OPERATION: &str = "redis.broadcaster.publish";
        let event = ChatEvent { origin_instance_id: self.instance.clone(), ..event.clone() };
        let unusable = |why: String| Fault::new(FaultKind::Corrupt, OPERATION, why);
        for (name, text) in [
            ("userId", event.user_id.as_str()),
            ("payload.chatId", event.payload.chat_id.as_str()),
            ("originInstanceId", event.origin_instance_id.as_str()),
        ] {
            non_empty(name, text).map_err(unusable)?;
        }
        let text = serde_json::to_string(&event).map_err(|error| unusable(error.to_string()))?;
        // Own subscribers first: they hear of it however Redis fares.
        self.local.publish(&event).await?;
        let mut publish = cmd("PUBLISH");
        publish.arg(self.redis.keys().chat_channel(&event.user_id)?).arg(text);
        let published = self.redis.query(OPERATION, &publish).await;
        if published.is_err() {
            self.owed.to(&event.user_id);
        }
        published
    }

    #[tracing::instrument(name = "redis.broadcaster.subscribe", skip_all, err(level = "debug"))]
    async fn subscribe(&self, user: &UserId) -> Result<BoxStream<'static, Heard>, Fault> {
        let relay = self.relay(user)?;
        let missed = relay.gaps.subscribe();
        let heard = self.local.subscribe(user).await?;
        relay.subscription.confirmed().await;
        let gaps = stream::unfold((missed, relay), |(mut missed, relay)| async {
            match missed.recv().await {
                // Several gaps that nobody read are one.
                Ok(()) | Err(broadcast::error::RecvError::Lagged(_)) => Some((Heard::Gap, (missed, relay))),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        Ok(stream::select(heard, gaps).boxed())
    }

    #[tracing::instrument(name = "redis.broadcaster.close", skip_all, err(level = "debug"))]
    async fn close(&self, user: &UserId) -> Result<(), Fault> {
        self.local.close(user).await?;
        control::say(&self.redis, &self.instance, user, What::Closed).await
    }
}

/// Reads a published message; the refusals are the reference's words. Unknown members are dropped.
fn parse(text: &[u8]) -> Result<ChatEvent, String> {
    let Ok(message) = serde_json::from_slice::<Value>(text) else {
        return Err("chat broadcast message is not valid JSON".to_owned());
    };
    let message = message.as_object().ok_or("chat broadcast message must be an object")?;
    let user_id = string("userId", message.get("userId"))?;
    let payload =
        message.get("payload").and_then(Value::as_object).ok_or("chat broadcast payload must be an object")?;
    let origin = string("originInstanceId", message.get("originInstanceId"))?;
    Ok(ChatEvent {
        user_id: UserId::new(user_id),
        payload: new_messages(payload)?,
        origin_instance_id: InstanceId::new(origin),
    })
}

fn new_messages(payload: &Map<String, Value>) -> Result<NewMessages, String> {
    let chat_id = string("payload.chatId", payload.get("chatId"))?;
    let messages = payload
        .get("messages")
        .and_then(Value::as_array)
        .ok_or("chat broadcast payload.messages must be an array")?
        .clone();
    Ok(NewMessages {
        chat_id: ChatId::new(chat_id),
        messages,
        from_seq: sequence("fromSeq", payload)?,
        to_seq: sequence("toSeq", payload)?,
    })
}

fn string<'a>(name: &str, value: Option<&'a Value>) -> Result<&'a str, String> {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    non_empty(name, text).map(|()| text)
}

fn non_empty(name: &str, text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err(format!("chat broadcast {name} must be a non-empty string"));
    }
    Ok(())
}

/// Any finite number is let in; sequence numbers are whole, so a fraction is cut off.
fn sequence(name: &str, payload: &Map<String, Value>) -> Result<i64, String> {
    let number = payload.get(name);
    number
        .and_then(Value::as_i64)
        .or_else(|| number.and_then(Value::as_f64).filter(|n| n.is_finite()).map(|n| n as i64))
        .ok_or_else(|| format!("chat broadcast payload.{name} must be a finite number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"userId":"u1","payload":{"chatId":"c1","messages":[{"id":"m1","content":"hé\u2028"}],"fromSeq":1,"toSeq":1},"originInstanceId":"i1"}"#;

    #[test]
    fn a_message_of_the_reference_is_read_and_written_alike() {
        let event = parse(GOOD.as_bytes()).unwrap();
        assert_eq!((event.user_id.as_str(), event.payload.from_seq, event.payload.messages.len()), ("u1", 1, 1));
        assert_eq!(serde_json::to_string(&event).unwrap(), GOOD.replace("\\u2028", "\u{2028}"));
    }

    #[test]
    fn unknown_members_are_dropped() {
        let more = GOOD.replacen('{', r#"{"extra":1,"#, 1).replace(r#""chatId""#, r#""more":[],"chatId""#);
        assert_eq!(parse(more.as_bytes()).unwrap(), parse(GOOD.as_bytes()).unwrap());
    }

    #[test]
    fn each_violation_is_told_in_the_words_of_the_reference() {
        for (from, to, text) in [
            ("{", "", "chat broadcast message is not valid JSON"),
            (GOOD, "[]", "chat broadcast message must be an object"),
            (r#""u1""#, r#"" ""#, "chat broadcast userId must be a non-empty string"),
            (r#""userId""#, r#""user""#, "chat broadcast userId must be a non-empty string"),
            (r#""payload""#, r#""load""#, "chat broadcast payload must be an object"),
            (r#""c1""#, "7", "chat broadcast payload.chatId must be a non-empty string"),
            (r#""i1""#, "null", "chat broadcast originInstanceId must be a non-empty string"),
            (r#""messages":["#, r#""messages":7,"m":["#, "chat broadcast payload.messages must be an array"),
            (r#""fromSeq":1"#, r#""fromSeq":"1""#, "chat broadcast payload.fromSeq must be a finite number"),
            (r#""toSeq":1"#, r#""toSeq":null"#, "chat broadcast payload.toSeq must be a finite number"),
        ] {
            assert_eq!(parse(GOOD.replacen(from, to, 1).as_bytes()).unwrap_err(), text);
        }
    }
}
