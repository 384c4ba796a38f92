//! Secrets of users inside stored JSON: sealed one value at a time, so that everything else stays readable.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::{Code, Error};
use super::model::sealed::{Resealed, SealedRow};
use super::model::secret::Secret;
use crate::ports::vault::{MasterKey, Opened, Unreadable, Vault};

/// Seals single JSON values with the envelope scheme of the router's keys.
pub struct Sealing {
    /// Holds the master keys.
    pub vault: Arc<dyn Vault>,
}

/// Where a value is stored. A sealed value opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Table and column.
    pub column: &'static str,
    /// What names the row, and the member within the column.
    pub keys: &'a [&'a str],
}

impl Sealing {
    /// The text to be stored instead of `value`: the envelope of its JSON text.
    pub fn seal(&self, value: &Value, place: Place<'_>) -> Result<Value, Error> {
        let sealed = self.vault.seal(&Secret::new(value.to_string()), place.column, &place.key());
        sealed.map(Value::String).map_err(|why| Error::new(Code::Internal).because(why))
    }

    /// The value that was stored. What is no envelope is given back as it is: rows of the reference hold clear values.
    pub fn open(&self, stored: Value, place: Place<'_>) -> Result<Value, Error> {
        let Value::String(envelope) = &stored else { return Ok(stored) };
        match self.vault.open(envelope, place.column, &place.key()) {
            Ok(opened) => {
                serde_json::from_str(opened.plaintext.expose()).map_err(|_| unreadable("the sealed text is not JSON"))
            }
            Err(Unreadable::Malformed | Unreadable::Version) => Ok(stored),
            Err(why @ (Unreadable::Refused | Unreadable::AmbiguousSlot)) => Err(unreadable(why)),
        }
    }
}

/// What a stored value is under the master keys of today.
#[derive(Clone, Debug, PartialEq)]
pub enum Seal {
    /// Not sealed.
    Clear,
    /// Sealed with the current key.
    Current,
    /// The same, sealed with the current key instead of the previous one.
    Anew(Value),
    /// Sealed, and no known key opens it here.
    Unreadable,
}

/// Rows read at a time.
pub(super) const PAGE: u32 = 200;

impl Sealing {
    /// Judges one stored value, and seals it anew when its key is the previous one.
    pub fn reseal(&self, stored: &Value, place: Place<'_>) -> Result<Seal, Error> {
        let Value::String(envelope) = stored else { return Ok(Seal::Clear) };
        match self.vault.open(envelope, place.column, &place.key()) {
            Ok(Opened { with: MasterKey::Current, .. }) => Ok(Seal::Current),
            Ok(Opened { plaintext, .. }) => {
                let sealed = self.vault.seal(&plaintext, place.column, &place.key());
                sealed.map(|text| Seal::Anew(text.into())).map_err(|why| Error::new(Code::Internal).because(why))
            }
            Err(Unreadable::Malformed | Unreadable::Version) => Ok(Seal::Clear),
            Err(_) => Ok(Seal::Unreadable),
        }
    }

    /// Judges the members of a row and answers the row's new configuration when one is needed.
    pub fn reseal_row(
        row: &SealedRow,
        report: &mut Resealed,
        judge: impl Fn(&str, &Value) -> Result<Seal, Error>,
    ) -> Result<Option<Map<String, Value>>, Error> {
        let (mut config, mut anew) = (row.config.clone(), 0);
        for (member, value) in &mut config {
            match judge(member, value)? {
                Seal::Clear => continue,
                Seal::Current => report.current += 1,
                Seal::Anew(sealed) => (*value, anew) = (sealed, anew + 1),
                Seal::Unreadable => report.unreadable.push(format!("{} {member}", row.id)),
            }
            report.total += 1;
        }
        report.anew += anew;
        Ok((anew > 0).then_some(config))
    }
}

fn unreadable(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Code::DecryptFailed).saying("Stored credentials are unavailable").because(why)
}

impl Place<'_> {
    /// One text for the keys; no two lists of keys have the same, and none holds the vault's own separator.
    fn key(&self) -> String {
        let plain = |key: &&str| key.replace('%', "%25").replace('|', "%7C").replace('/', "%2F");
        self.keys.iter().map(plain).collect::<Vec<_>>().join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::mocks::MockVault;
    use serde_json::json;

    fn place<'a>(keys: &'a [&'a str]) -> Place<'a> {
        Place { column: "t.c", keys }
    }

    #[test]
    fn places_are_told_apart_whatever_their_names_hold() {
        assert_eq!(place(&["a|b", "c/d%"]).key(), "a%7Cb/c%2Fd%25");
        assert_ne!(place(&["a/b"]).key(), place(&["a", "b"]).key());
        assert_ne!(place(&["a%2Fb"]).key(), place(&["a/b"]).key());
    }

    #[test]
    fn the_json_text_of_a_value_is_sealed_for_its_place() {
        let mut vault = MockVault::new();
        vault
            .expect_seal()
            .withf(|text, column, key| text.expose() == r#"{"a":1}"# && column == "t.c" && key == "row/member")
            .returning(|_, _, _| Ok("v1.x".to_owned()));
        let sealed = Sealing { vault: Arc::new(vault) }.seal(&json!({ "a": 1 }), place(&["row", "member"]));
        assert_eq!(sealed.unwrap(), "v1.x");
    }

    #[test]
    fn an_envelope_is_opened_a_clear_value_passes_and_a_foreign_envelope_is_refused() {
        let opening = |answer: Result<&'static str, Unreadable>| {
            let mut vault = MockVault::new();
            vault.expect_open().returning(move |_, _, _| {
                answer.map(|text| Opened { plaintext: Secret::new(text), with: MasterKey::Previous })
            });
            Sealing { vault: Arc::new(vault) }.open(json!("stored"), place(&["row"]))
        };
        assert_eq!(opening(Ok("[5]")).unwrap(), json!([5]));
        assert_eq!(opening(Err(Unreadable::Malformed)).unwrap(), "stored");
        assert_eq!(opening(Err(Unreadable::Version)).unwrap(), "stored");
        assert_eq!(opening(Err(Unreadable::Refused)).unwrap_err().code, Code::DecryptFailed);
        let clear = Sealing { vault: Arc::new(MockVault::new()) }.open(json!({ "a": 1 }), place(&["row"])).unwrap();
        assert_eq!(clear, json!({ "a": 1 }));
    }
}
