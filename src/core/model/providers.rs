//! Provider configurations: named sets of values for one provider the client knows, of a user or of the system
//! (contract `characters-providers.md`, part B).

use std::fmt;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::ids::{ProviderId, UserId};
use super::validation::{Form, Invalid, read};

/// Most live rows of one user (P-10).
pub const MOST_ROWS: u32 = 200;
/// Longest configuration, bytes of JSON without white space (P-5).
const LONGEST_CONFIG: usize = 64 * 1024;
/// Longest definition id and name, characters (P-11).
const LONGEST_NAME: usize = 128;

/// Keys, base URLs, model names and whatever else a client stores; printed by nobody.
#[derive(Clone, Default, PartialEq)]
pub struct ProviderConfig(pub Map<String, Value>);

impl fmt::Debug for ProviderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A live row.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    /// Its id.
    pub id: ProviderId,
    /// Whose it is; `None` for the system's.
    pub owner: Option<UserId>,
    /// The provider, as the client calls it.
    pub definition: String,
    /// A name.
    pub name: String,
    /// Each value sealed, or clear where another server wrote it; nothing for the system's rows (P-1).
    pub config: ProviderConfig,
    /// Whether the client has tried it.
    pub validated: bool,
    /// Whether the user chose not to.
    pub validation_bypassed: bool,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// A row to be stored; the database's clock gives both times.
#[derive(Clone, Debug, PartialEq)]
pub struct NewProvider {
    /// Its id.
    pub id: ProviderId,
    /// Whose it is.
    pub owner: UserId,
    /// The provider, as the client calls it.
    pub definition: String,
    /// A name.
    pub name: String,
    /// Each value sealed.
    pub config: ProviderConfig,
    /// Whether the client has tried it.
    pub validated: bool,
    /// Whether the user chose not to.
    pub validation_bypassed: bool,
}

/// What became of a new row.
#[derive(Clone, Debug, PartialEq)]
pub enum ProviderStored {
    /// It was stored.
    Stored(Box<Provider>),
    /// The id is taken, by a live or a deleted row of a user or of the system.
    Taken,
    /// The user has [`MOST_ROWS`] live rows.
    Full,
}

/// A row as a client wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderDraft {
    /// The client's or a fresh one.
    pub id: String,
    /// The provider, as the client calls it.
    pub definition: String,
    /// A name.
    pub name: String,
    /// In the clear.
    pub config: ProviderConfig,
    /// Whether the client has tried it.
    pub validated: bool,
    /// Whether the user chose not to.
    pub validation_bypassed: bool,
}

/// What an owner changes; absent members stay.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProviderChange {
    /// A name.
    pub name: Option<String>,
    /// Replaces the stored one whole. In the clear until the use-case seals it.
    pub config: Option<ProviderConfig>,
    /// Whether the client has tried it.
    pub validated: Option<bool>,
    /// Whether the user chose not to.
    pub validation_bypassed: Option<bool>,
}

/// Reads the body of a creation (B2 with P-5, P-11). `ownerId` is ignored; `fresh` makes the id when there is none.
pub fn draft(document: &[u8], fresh: &dyn Fn() -> String) -> Result<ProviderDraft, Invalid> {
    read(document, |form| ProviderDraft {
        id: form.optional_id("id").unwrap_or_else(fresh),
        definition: form.name("definitionId", LONGEST_NAME),
        name: form.name("name", LONGEST_NAME),
        config: config(form).unwrap_or_default(),
        validated: form.optional_bool("validated").unwrap_or_default(),
        validation_bypassed: form.optional_bool("validationBypassed").unwrap_or_default(),
    })
}

/// Reads the body of a change (B2 with P-5, P-11). `definitionId` and `ownerId` are ignored.
pub fn change(document: &[u8]) -> Result<ProviderChange, Invalid> {
    read(document, |form| ProviderChange {
        name: form.optional_name("name", LONGEST_NAME),
        config: config(form),
        validated: form.optional_bool("validated"),
        validation_bypassed: form.optional_bool("validationBypassed"),
    })
}

fn config(form: &Form<'_>) -> Option<ProviderConfig> {
    form.optional_members("config", LONGEST_CONFIG).map(ProviderConfig)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fresh() -> String {
        "fresh".to_owned()
    }

    #[test]
    fn every_rule_of_the_table_is_kept() {
        let least = draft(br#"{"definitionId":" openai ","name":"n","ownerId":5}"#, &fresh).unwrap();
        assert_eq!((least.definition.as_str(), least.validated, least.validation_bypassed), ("openai", false, false));
        assert_eq!(least.config, ProviderConfig::default());
        for (member, unusable) in [
            ("id", json!(null)),
            ("definitionId", json!("")),
            ("definitionId", json!("x".repeat(129))),
            ("name", json!("   ")),
            ("name", json!(5)),
            ("config", json!(null)),
            ("config", json!([])),
            ("config", json!({ "a": "x".repeat(64 * 1024) })),
            ("validated", json!("true")),
            ("validationBypassed", json!(null)),
        ] {
            let mut body = json!({ "definitionId": "d", "name": "n" });
            body[member] = unusable.clone();
            draft(body.to_string().as_bytes(), &fresh).unwrap_err();
            let changed = change(json!({ member: unusable }).to_string().as_bytes());
            assert_eq!(changed.is_err(), !["id", "definitionId"].contains(&member), "{member}");
        }
        draft(b"{}", &fresh).unwrap_err();
        assert_eq!(change(b"{}").unwrap(), ProviderChange::default());
    }

    #[test]
    fn values_of_any_sort_are_kept_and_none_is_printed() {
        let body =
            json!({ "definitionId": "d", "name": "n", "config": { "apiKey": "sk-1", "n": 1.5, "o": { "a": [null] } } });
        let read = draft(body.to_string().as_bytes(), &fresh).unwrap();
        assert_eq!(Value::Object(read.config.0.clone()), body["config"]);
        let printed = format!("{read:?}");
        assert!(printed.contains("apiKey") && !printed.contains("sk-1"), "{printed}");
    }
}
