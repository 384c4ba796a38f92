//! Every key and channel we use (contracts `gateway.md` §12, `ledger.md` §2, `chats.md` §7).

use std::sync::Arc;

use crate::core::model::ids::UserId;
use crate::ports::{Fault, FaultKind};

/// Builds names; a part that is blank after trimming is refused, or two users could share a key.
#[derive(Clone)]
pub(super) struct Keys {
    namespace: Arc<str>,
}

impl Keys {
    pub(super) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.into() }
    }

    /// The copy of a balance: decimal text.
    pub(super) fn flux(&self, user: &UserId) -> Result<String, Fault> {
        Ok(self.name(format_args!("user:{}:flux", part(user.as_str())?)))
    }

    /// The version of the newest balance the cache was told of.
    pub(super) fn flux_version(&self, user: &UserId) -> Result<String, Fault> {
        Ok(self.name(format_args!("user:{}:flux:v", part(user.as_str())?)))
    }

    /// Units the reference has not settled: decimal text.
    pub(super) fn meter_debt(&self, user: &UserId, meter: &str) -> Result<String, Fault> {
        Ok(self.name(format_args!("user:{}:flux-meter:{}:debt", part(user.as_str())?, part(meter)?)))
    }

    /// Such units on their way into the database.
    pub(super) fn meter_debt_moving(&self, user: &UserId, meter: &str) -> Result<String, Fault> {
        Ok(self.name(format_args!("user:{}:flux-meter:{}:debt:moving", part(user.as_str())?, part(meter)?)))
    }

    /// The calls counted in the current window.
    pub(super) fn rate_limit(&self, route: &str, key: &str) -> Result<String, Fault> {
        Ok(self.name(format_args!("ratelimit:{}:{}", part(route)?, part(key)?)))
    }

    /// The copy of the prices on sale: JSON text.
    pub(super) fn prices(&self) -> String {
        self.name(format_args!("cache:stripe:prices"))
    }

    /// The leases of a pool: holder by end, ms since the epoch.
    pub(super) fn slots(&self, pool: &str) -> Result<String, Fault> {
        Ok(self.name(format_args!("slots:{}", part(pool)?)))
    }

    /// One configuration entry: JSON text.
    pub(super) fn config(&self, name: &str) -> Result<String, Fault> {
        Ok(self.name(format_args!("config:{}", part(name)?)))
    }

    /// The number of configuration writes.
    pub(super) fn config_version(&self) -> String {
        self.name(format_args!("config:version"))
    }

    /// Replaced configuration entries, newest first.
    pub(super) fn config_history(&self) -> String {
        self.name(format_args!("config:history"))
    }

    /// Where configuration writes are announced.
    pub(super) fn config_channel(&self) -> String {
        self.name(format_args!("configkv:invalidate"))
    }

    /// Where chat events for a user are published.
    pub(super) fn chat_channel(&self, user: &UserId) -> Result<String, Fault> {
        Ok(self.name(format_args!("user:{}:chat:broadcast", part(user.as_str())?)))
    }

    /// Where changed accounts are announced: the user's id.
    pub(super) fn account_channel(&self) -> String {
        self.name(format_args!("account:changed"))
    }

    /// Where processes tell one another about users' sockets, apart from chat events.
    pub(super) fn chat_control_channel(&self) -> String {
        self.name(format_args!("chat:control"))
    }

    fn name(&self, name: std::fmt::Arguments<'_>) -> String {
        format!("{}{name}", self.namespace)
    }
}

fn part(text: &str) -> Result<&str, Fault> {
    match text.trim() {
        "" => Err(Fault::new(FaultKind::Corrupt, "redis.key", "a part of a key is blank")),
        part => Ok(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_reference() {
        let fixture: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/fixtures/config-kv.json")).unwrap();
        let spelled = |what: &str| fixture["redisKeys"][what].as_str().unwrap().replace("<userId>", "u1");
        let (keys, user) = (Keys::new(""), UserId::new(" u1 "));
        assert_eq!(keys.flux(&user).unwrap(), spelled("balanceCache"));
        assert_eq!(keys.chat_channel(&user).unwrap(), spelled("chatBroadcastChannel"));
        assert_eq!(keys.meter_debt(&user, "tts").unwrap(), spelled("meterDebt").replace("<meter>", "tts"));
        assert_eq!(keys.config_channel(), spelled("invalidateChannel"));
        assert_eq!(keys.config("FLUX_PER_REQUEST").unwrap(), "config:FLUX_PER_REQUEST");
        assert_eq!(keys.rate_limit("openai.completions", "u1").unwrap(), "ratelimit:openai.completions:u1");
        assert_eq!(Keys::new("test:").flux_version(&user).unwrap(), "test:user:u1:flux:v");
    }

    #[test]
    fn a_blank_part_is_refused() {
        let refused = Keys::new("").flux(&UserId::new(" \t")).unwrap_err();
        assert_eq!(refused.kind(), FaultKind::Corrupt);
    }
}
