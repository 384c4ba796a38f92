//! Configuration entries one by one: prices, what is sold, limits (contract `admin.md` §6.1).

use super::Admin;
use super::trail::Deed;
use crate::core::error::{Code, Error};
use crate::core::model::audit::Actor;
use crate::core::model::config::{
    ConfigKey, ConfigWrite, LlmRouterConfig, NAMES, StreamingTtsUpstream, WriteOutcome, fault,
};

/// Entries that hold sealed keys; they are written as a routing document.
const ROUTING: [&str; 2] = [LlmRouterConfig::NAME, StreamingTtsUpstream::NAME];

impl Admin {
    /// Writes one entry, or puts it back to its default. `value` is JSON; a text that is not counts as a string.
    /// Refuses what the readers of the entry could not use, and the routing entries.
    pub async fn set_entry(&self, actor: &Actor, name: &str, value: Option<&str>) -> Result<(), Error> {
        let mut deed = Deed::new(actor, "config.entry");
        deed.target = name.chars().take(100).collect();
        deed.note("value", value.unwrap_or("default"));
        let result = self.try_set(&deed, name, value).await;
        self.trail.end(&deed, &result).await;
        result
    }

    /// Name and stored JSON of every entry but the routing ones; without JSON when the default holds.
    pub async fn entries(&self) -> Result<Vec<(&'static str, Option<String>)>, Error> {
        let mut entries = Vec::new();
        for name in NAMES.iter().filter(|name| !ROUTING.contains(name)) {
            let stored = self.store.find_fresh(name).await?;
            entries.push((*name, stored.map(|entry| entry.json().to_owned())));
        }
        Ok(entries)
    }

    async fn try_set(&self, deed: &Deed<'_>, name: &str, value: Option<&str>) -> Result<(), Error> {
        let Some(name) = NAMES.iter().copied().find(|known| *known == name) else {
            return Err(Error::new(Code::NotFound).saying("no configuration entry has this name"));
        };
        if ROUTING.contains(&name) {
            return Err(Error::new(Code::InvalidRequest).saying("this entry is written as a routing document"));
        }
        let json = value.map(|text| acceptable(name, text)).transpose()?;
        self.trail.begin(deed).await?;
        let write = ConfigWrite { entries: vec![(name, json)], expected_version: None };
        match self.store.write(&write).await? {
            WriteOutcome::Written(_) => Ok(()),
            WriteOutcome::Stale(_) => Err(Error::new(Code::Conflict)),
        }
    }
}

/// The text itself, or the text as a JSON string, whichever the entry takes.
fn acceptable(name: &str, text: &str) -> Result<String, Error> {
    let Some(why) = fault(name, text) else { return Ok(text.to_owned()) };
    let quoted = serde_json::Value::from(text).to_string();
    if serde_json::from_str::<serde_json::Value>(text).is_err() && fault(name, &quoted).is_none() {
        return Ok(quoted);
    }
    Err(Error::new(Code::InvalidRequest).saying(format!("{name}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_json_and_a_bare_word_counts_as_a_string_where_one_is_wanted() {
        let ok = |name, text| acceptable(name, text).ok();
        assert_eq!(ok("STRIPE_FLUX_PRODUCT_ID", "prod_1").as_deref(), Some(r#""prod_1""#));
        assert_eq!(ok("STRIPE_FLUX_PRODUCT_ID", r#""prod_1""#).as_deref(), Some(r#""prod_1""#));
        assert_eq!(ok("FLUX_ADMISSION", "hold").as_deref(), Some(r#""hold""#));
        assert_eq!(ok("FLUX_PER_REQUEST", "5").as_deref(), Some("5"));
        assert_eq!(ok("FLUX_PER_REQUEST", "five"), None);
        assert_eq!(ok("FLUX_ADMISSION", "holding"), None);
        assert_eq!(ok("STRIPE_PAYMENT_METHODS", r#"["card"]"#).as_deref(), Some(r#"["card"]"#));
    }
}
