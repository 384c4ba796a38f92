//! Typed reads of configuration entries.

use std::sync::Arc;

use super::error::{Code, Error};
use super::model::config::ConfigKey;
use super::model::fact::Fact;
use crate::ports::config::ConfigStore;
use crate::ports::journal::Journal;

/// Reads entries as the types of their keys; a missing one fails the request that needs it, not the start.
pub struct Config {
    /// Where the entries live.
    pub store: Arc<dyn ConfigStore>,
    /// Hears about unusable entries.
    pub journal: Arc<dyn Journal>,
}

impl Config {
    /// The stored value, else the default, else nothing.
    pub async fn optional<K: ConfigKey>(&self) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.store.find(K::NAME).await? else { return Ok(K::default()) };
        match entry.read::<K>() {
            Ok(value) => Ok(Some(value)),
            Err(why) => {
                self.journal.record(Fact::ConfigInvalid { name: K::NAME, why: why.clone() });
                Err(Error::new(Code::ConfigInvalid).because(format!("{}: {why}", K::NAME)))
            }
        }
    }

    /// The stored value, else the default, else [`Code::ConfigNotSet`].
    pub async fn required<K: ConfigKey>(&self) -> Result<K::Value, Error> {
        self.optional::<K>()
            .await?
            .ok_or_else(|| Error::new(Code::ConfigNotSet).because(format!("{} is not set", K::NAME)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::config::{ConfigEntry, DefaultChatModel, FluxPerRequest};
    use crate::ports::mocks::{MockConfigStore, MockJournal};

    fn config(stored: Option<&'static str>, complaints: usize) -> Config {
        let mut store = MockConfigStore::new();
        store.expect_find().returning(move |_| Ok(stored.map(|json| Arc::new(ConfigEntry::new(json)))));
        let mut journal = MockJournal::new();
        journal.expect_record().times(complaints).return_const(());
        Config { store: Arc::new(store), journal: Arc::new(journal) }
    }

    #[tokio::test]
    async fn absent_entries_default_or_fail_the_request_that_needs_them() {
        assert_eq!(config(None, 0).required::<FluxPerRequest>().await.unwrap().get(), 5);
        assert_eq!(config(None, 0).required::<DefaultChatModel>().await.unwrap_err().code, Code::ConfigNotSet);
        assert_eq!(config(None, 0).optional::<DefaultChatModel>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_unusable_entry_is_reported_and_never_replaced_by_the_default() {
        assert_eq!(config(Some("1.5"), 1).required::<FluxPerRequest>().await.unwrap_err().code, Code::ConfigInvalid);
    }
}
