//! Characters: made by one, seen, liked and bookmarked by all (contract `characters-providers.md`, part A).

use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::{Code, Error};
use super::model::characters::draft::{self, NewCharacter};
use super::model::characters::{API_KEY, Mark, Selection, Sheet, Stored};
use super::model::fact::Fact;
use super::model::ids::{CharacterId, UserId};
use super::model::sealed::Resealed;
use super::sealing::{PAGE, Place, Seal, Sealing};
use crate::ports::characters::CharacterRepo;
use crate::ports::journal::Journal;
use crate::ports::runtime::{Clock, IdSource};

/// Column of the sealed keys; part of what a sealed key is bound to.
const CONFIG: &str = "character_capabilities.config";

/// What users do with characters. Keys of capabilities are shown to the owner alone.
pub struct Characters {
    /// The rows.
    pub repo: Arc<dyn CharacterRepo>,
    /// Seals the keys of capabilities.
    pub sealing: Sealing,
    /// When owners change something.
    pub clock: Arc<dyn Clock>,
    /// Ids the client did not choose.
    pub ids: Arc<dyn IdSource>,
    /// Hears what was done.
    pub journal: Arc<dyn Journal>,
}

impl Characters {
    /// The selected characters as `viewer` may see them.
    pub async fn list(&self, selection: &Selection, viewer: &UserId) -> Result<Vec<Sheet>, Error> {
        let sheets = self.repo.list(selection, viewer).await?;
        sheets.into_iter().map(|sheet| self.shown(sheet, viewer)).collect()
    }

    /// One character as `viewer` may see it.
    pub async fn find(&self, id: &CharacterId, viewer: &UserId) -> Result<Sheet, Error> {
        if !id.is_storable() {
            return Err(Error::new(Code::NotFound));
        }
        let sheet = self.repo.find(id, viewer).await?.ok_or_else(|| Error::new(Code::NotFound))?;
        self.shown(sheet, viewer)
    }

    /// Stores the character of a creation's body for its owner.
    pub async fn create(&self, owner: &UserId, body: &[u8]) -> Result<Sheet, Error> {
        let mut draft = draft::draft(body, &|| self.ids.id())?;
        for capability in &mut draft.capabilities {
            let place = Place { column: CONFIG, keys: &[&draft.id, &capability.id, API_KEY] };
            change_key(&mut capability.config, |key| self.sealing.seal(&key, place))?;
        }
        let new = NewCharacter { owner: owner.clone(), draft };
        match self.repo.create(&new).await? {
            Stored::Stored => self.journal.record(Fact::CharacterCreated),
            Stored::Taken => return Err(Error::new(Code::Conflict)),
        }
        self.find(&CharacterId::new(new.draft.id), owner).await
    }

    /// Changes what a change's body gives.
    pub async fn update(&self, id: &CharacterId, owner: &UserId, body: &[u8]) -> Result<Sheet, Error> {
        let change = draft::change(body)?;
        if !id.is_storable() {
            return Err(Error::new(Code::NotFound));
        }
        self.repo.update(id, owner, &change, self.clock.now()).await?.done()?;
        self.find(id, owner).await
    }

    /// Deletes a character; likes and bookmarks of it stay where they are.
    pub async fn delete(&self, id: &CharacterId, owner: &UserId) -> Result<(), Error> {
        if !id.is_storable() {
            return Err(Error::new(Code::NotFound));
        }
        self.repo.delete(id, owner, self.clock.now()).await?.done()?;
        self.journal.record(Fact::CharacterDeleted);
        Ok(())
    }

    /// Puts the user's mark on a character or takes it away, and answers whether it is there now.
    pub async fn toggle(&self, id: &CharacterId, user: &UserId, mark: Mark) -> Result<bool, Error> {
        if !id.is_storable() {
            return Err(Error::new(Code::NotFound));
        }
        let set = self.repo.toggle(id, user, mark).await?.ok_or_else(|| Error::new(Code::NotFound))?;
        self.journal.record(Fact::CharacterEngaged { action: mark.action(set) });
        Ok(set)
    }

    /// Sets every counter to the number of live marks and answers how many characters were wrong.
    pub async fn recount(&self) -> Result<u64, Error> {
        Ok(self.repo.recount().await?)
    }

    /// Seals with the current master key what the previous one sealed; `rehearse` only counts. Safe to repeat.
    pub async fn reseal(&self, rehearse: bool) -> Result<Resealed, Error> {
        let (mut report, mut after) = (Resealed::default(), None);
        loop {
            let rows = self.repo.list_sealed(after.as_deref(), PAGE).await?;
            for row in &rows {
                let judge = |member: &str, value: &Value| {
                    if member != API_KEY {
                        return Ok(Seal::Clear);
                    }
                    self.sealing.reseal(value, Place { column: CONFIG, keys: &[&row.within, &row.id, API_KEY] })
                };
                let config = Sealing::reseal_row(row, &mut report, judge)?;
                if let Some(config) = config.filter(|_| !rehearse)
                    && !self.repo.reseal(row, &config).await?
                {
                    report.changed.push(row.id.clone());
                }
            }
            let Some(last) = rows.last() else { return Ok(report) };
            after = Some(last.id.clone());
        }
    }

    /// Keys in the clear for the owner, and empty for everybody else.
    fn shown(&self, mut sheet: Sheet, viewer: &UserId) -> Result<Sheet, Error> {
        let character = &sheet.character;
        for capability in &mut sheet.capabilities {
            let place = Place { column: CONFIG, keys: &[character.id.as_str(), &capability.id, API_KEY] };
            if character.owner == *viewer {
                change_key(&mut capability.config, |key| self.sealing.open(key, place))?;
            } else {
                capability.config.insert(API_KEY.to_owned(), Value::String(String::new()));
            }
        }
        Ok(sheet)
    }
}

/// An empty key is no secret and stays as it is.
fn change_key(
    config: &mut Map<String, Value>,
    change: impl FnOnce(Value) -> Result<Value, Error>,
) -> Result<(), Error> {
    if let Some(key) = config.get_mut(API_KEY)
        && *key != ""
    {
        *key = change(key.take())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::characters::{Capability, Character, Counters};
    use crate::core::model::ownership::OwnerOnly;
    use crate::ports::mocks::{MockCharacterRepo, MockClock, MockIdSource, MockJournal, MockVault};
    use crate::ports::vault::Unreadable;
    use chrono::DateTime;
    use serde_json::json;

    fn characters(repo: MockCharacterRepo, vault: MockVault, facts: Vec<Fact>) -> Characters {
        let mut clock = MockClock::new();
        clock.expect_now().return_const(DateTime::UNIX_EPOCH);
        let mut ids = MockIdSource::new();
        ids.expect_id().returning(|| "fresh".to_owned());
        let mut journal = MockJournal::new();
        for fact in facts {
            journal.expect_record().withf(move |told| *told == fact).times(1).return_const(());
        }
        Characters {
            repo: Arc::new(repo),
            sealing: Sealing { vault: Arc::new(vault) },
            clock: Arc::new(clock),
            ids: Arc::new(ids),
            journal: Arc::new(journal),
        }
    }

    fn sheet(key: &str) -> Sheet {
        let Value::Object(config) = json!({ "apiKey": key, "apiBaseUrl": "u" }) else { unreachable!() };
        Sheet {
            character: Character {
                id: CharacterId::new("c1"),
                version: String::new(),
                cover_url: String::new(),
                creator: UserId::new("owner"),
                owner: UserId::new("owner"),
                label: String::new(),
                avatar_url: None,
                creator_role: None,
                price_credit: "0".to_owned(),
                counters: Counters::default(),
                created_at: DateTime::UNIX_EPOCH,
                updated_at: DateTime::UNIX_EPOCH,
            },
            capabilities: vec![Capability { id: "cap".to_owned(), kind: "llm".to_owned(), config }],
            avatar_models: None,
            locales: Vec::new(),
            prompts: None,
            liked_at: None,
            bookmarked_at: None,
            cover: None,
        }
    }

    fn finding(key: &'static str) -> MockCharacterRepo {
        let mut repo = MockCharacterRepo::new();
        repo.expect_find().returning(move |_, _| Ok(Some(sheet(key))));
        repo
    }

    #[tokio::test]
    async fn a_stranger_gets_an_empty_key_without_anything_being_opened() {
        let shown = characters(finding("v1.sealed"), MockVault::new(), vec![]);
        let seen = shown.find(&CharacterId::new("c1"), &UserId::new("stranger")).await.unwrap();
        assert_eq!(seen.capabilities[0].config[API_KEY], "");
    }

    #[tokio::test]
    async fn the_owner_gets_the_key_bound_to_its_capability() {
        let mut vault = MockVault::new();
        vault
            .expect_open()
            .withf(|token, column, key| token == "plain" && column == CONFIG && key == "c1/cap/apiKey")
            .returning(|_, _, _| Err(Unreadable::Malformed));
        let shown = characters(finding("plain"), vault, vec![]);
        let seen = shown.find(&CharacterId::new("c1"), &UserId::new("owner")).await.unwrap();
        assert_eq!(seen.capabilities[0].config[API_KEY], "plain");
    }

    #[tokio::test]
    async fn a_key_is_sealed_before_it_is_stored() {
        let mut repo = finding("");
        repo.expect_create().times(1).returning(|new| {
            assert_eq!(new.draft.capabilities[0].config[API_KEY], "sealed");
            assert_eq!(new.draft.id, "fresh");
            Ok(Stored::Stored)
        });
        let mut vault = MockVault::new();
        vault.expect_seal().times(1).returning(|_, _, _| Ok("sealed".to_owned()));
        let body = json!({
            "character": { "version": "", "coverUrl": "", "characterId": "" },
            "capabilities": [{ "type": "llm", "config": { "apiKey": "sk", "apiBaseUrl": "" } }],
        });
        let owner = UserId::new("owner");
        let created = characters(repo, vault, vec![Fact::CharacterCreated]);
        created.create(&owner, body.to_string().as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn what_did_not_happen_is_not_told() {
        let user = UserId::new("u");
        let id = CharacterId::new("c1");
        let mut repo = MockCharacterRepo::new();
        repo.expect_delete().returning(|_, _, _| Ok(OwnerOnly::Foreign));
        repo.expect_update().returning(|_, _, _, _| Ok(OwnerOnly::Missing));
        repo.expect_toggle().returning(|_, _, _| Ok(None));
        repo.expect_create().returning(|_| Ok(Stored::Taken));
        let characters = characters(repo, MockVault::new(), vec![]);
        assert_eq!(characters.delete(&id, &user).await.unwrap_err().code, Code::Forbidden);
        assert_eq!(characters.update(&id, &user, b"{}").await.unwrap_err().code, Code::NotFound);
        assert_eq!(characters.update(&id, &user, b"[]").await.unwrap_err().code, Code::InvalidRequest);
        assert_eq!(characters.toggle(&id, &user, Mark::Like).await.unwrap_err().code, Code::NotFound);
        let body = br#"{"character":{"version":"","coverUrl":"","characterId":""}}"#;
        assert_eq!(characters.create(&user, body).await.unwrap_err().code, Code::Conflict);
        let unstorable = CharacterId::new("\0");
        assert_eq!(characters.find(&unstorable, &user).await.unwrap_err().code, Code::NotFound);
    }
}
