//! Provider configurations of users and of the system (contract `characters-providers.md`, part B).

use std::sync::Arc;

use serde_json::Value;

use super::error::{Code, Error};
use super::model::ids::{ProviderId, UserId};
use super::model::providers::{self, MOST_ROWS, NewProvider, Provider, ProviderConfig, ProviderStored};
use super::model::sealed::Resealed;
use super::sealing::{PAGE, Place, Sealing};
use crate::ports::providers::ProviderRepo;
use crate::ports::runtime::{Clock, IdSource};

/// Column of the sealed values; part of what a sealed value is bound to.
const CONFIG: &str = "user_provider_configs.config";

/// What users do with provider configurations. What is answered is in the clear, and never the system's.
pub struct Providers {
    /// The rows.
    pub repo: Arc<dyn ProviderRepo>,
    /// Seals every value of a configuration.
    pub sealing: Sealing,
    /// When owners change something.
    pub clock: Arc<dyn Clock>,
    /// Ids the client did not choose.
    pub ids: Arc<dyn IdSource>,
}

impl Providers {
    /// The owner's rows, then the system's.
    pub async fn list(&self, owner: &UserId) -> Result<Vec<Provider>, Error> {
        self.repo.list(owner).await?.into_iter().map(|provider| self.opened(provider)).collect()
    }

    /// One row of the owner's, else of the system's.
    pub async fn find(&self, id: &ProviderId, owner: &UserId) -> Result<Provider, Error> {
        if !id.is_storable() {
            return Err(Error::new(Code::NotFound));
        }
        self.opened(self.repo.find(id, owner).await?.ok_or_else(|| Error::new(Code::NotFound))?)
    }

    /// Stores the row of a creation's body.
    pub async fn create(&self, owner: &UserId, body: &[u8]) -> Result<Provider, Error> {
        let draft = providers::draft(body, &|| self.ids.id())?;
        let id = ProviderId::new(draft.id);
        let new = NewProvider {
            config: self.sealed(draft.config, &id, owner)?,
            id,
            owner: owner.clone(),
            definition: draft.definition,
            name: draft.name,
            validated: draft.validated,
            validation_bypassed: draft.validation_bypassed,
        };
        match self.repo.create(&new, MOST_ROWS).await? {
            ProviderStored::Stored(provider) => self.opened(*provider),
            ProviderStored::Taken => Err(Error::new(Code::Conflict)),
            ProviderStored::Full => {
                Err(Error::new(Code::Conflict).saying(format!("At most {MOST_ROWS} provider configurations are kept")))
            }
        }
    }

    /// Changes what a change's body gives.
    pub async fn update(&self, id: &ProviderId, owner: &UserId, body: &[u8]) -> Result<Provider, Error> {
        let mut change = providers::change(body)?;
        if !id.is_storable() {
            return Err(Error::new(Code::NotFound));
        }
        change.config = change.config.map(|config| self.sealed(config, id, owner)).transpose()?;
        self.opened(*self.repo.update(id, owner, &change, self.clock.now()).await?.done()?)
    }

    /// Deletes a row; its id stays taken.
    pub async fn delete(&self, id: &ProviderId, owner: &UserId) -> Result<(), Error> {
        if !id.is_storable() {
            return Err(Error::new(Code::NotFound));
        }
        self.repo.delete(id, owner, self.clock.now()).await?.done()
    }

    /// Seals with the current master key what the previous one sealed; `rehearse` only counts. Safe to repeat.
    pub async fn reseal(&self, rehearse: bool) -> Result<Resealed, Error> {
        let (mut report, mut after) = (Resealed::default(), None);
        loop {
            let rows = self.repo.list_sealed(after.as_deref(), PAGE).await?;
            for row in &rows {
                let judge =
                    |member: &str, value: &Value| self.sealing.reseal(value, place(&[&row.within, &row.id, member]));
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

    fn sealed(&self, config: ProviderConfig, id: &ProviderId, owner: &UserId) -> Result<ProviderConfig, Error> {
        each(config, |member, value| self.sealing.seal(&value, place(&[owner.as_str(), id.as_str(), member])))
    }

    fn opened(&self, mut provider: Provider) -> Result<Provider, Error> {
        let config = std::mem::take(&mut provider.config);
        // An operator's row is not for users, whatever the repository has read.
        if let Some(owner) = &provider.owner {
            let keys = (owner.as_str(), provider.id.as_str());
            provider.config = each(config, |member, value| self.sealing.open(value, place(&[keys.0, keys.1, member])))?;
        }
        Ok(provider)
    }
}

fn place<'a>(keys: &'a [&'a str]) -> Place<'a> {
    Place { column: CONFIG, keys }
}

fn each(config: ProviderConfig, change: impl Fn(&str, Value) -> Result<Value, Error>) -> Result<ProviderConfig, Error> {
    let members = config.0.into_iter().map(|(member, value)| {
        let changed = change(&member, value)?;
        Ok((member, changed))
    });
    members.collect::<Result<_, _>>().map(ProviderConfig)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::ownership::OwnerOnly;
    use crate::core::model::sealed::SealedRow;
    use crate::core::model::secret::Secret;
    use crate::ports::mocks::{MockClock, MockIdSource, MockProviderRepo, MockVault};
    use crate::ports::vault::{MasterKey, Opened, Unreadable};
    use chrono::DateTime;
    use serde_json::json;

    fn providers(repo: MockProviderRepo) -> Providers {
        let mut clock = MockClock::new();
        clock.expect_now().return_const(DateTime::UNIX_EPOCH);
        let mut ids = MockIdSource::new();
        ids.expect_id().returning(|| "fresh".to_owned());
        let mut vault = MockVault::new();
        vault.expect_seal().returning(|text, column, key| Ok(format!("{column}|{key}|{}", text.expose())));
        vault.expect_open().returning(|token, column, key| {
            let text = token.strip_prefix(&format!("{column}|{key}|"));
            text.map(|text| Opened { plaintext: Secret::new(text), with: MasterKey::Current })
                .ok_or(Unreadable::Refused)
        });
        Providers {
            repo: Arc::new(repo),
            sealing: Sealing { vault: Arc::new(vault) },
            clock: Arc::new(clock),
            ids: Arc::new(ids),
        }
    }

    fn stored(owner: Option<&str>, config: &Value) -> Provider {
        Provider {
            id: ProviderId::new("p1"),
            owner: owner.map(UserId::new),
            definition: "d".to_owned(),
            name: "n".to_owned(),
            config: ProviderConfig(config.as_object().unwrap().clone()),
            validated: false,
            validation_bypassed: false,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn every_value_is_sealed_for_its_owner_row_and_member_and_answered_in_the_clear() {
        let mut repo = MockProviderRepo::new();
        repo.expect_create().times(1).returning(|new, most| {
            assert_eq!(most, 200);
            assert_eq!(new.config.0["n"], r"user_provider_configs.config|u/fresh/n|{}");
            let kept = Provider { id: new.id.clone(), config: new.config.clone(), ..stored(Some("u"), &json!({})) };
            Ok(ProviderStored::Stored(Box::new(kept)))
        });
        let body = json!({ "definitionId": "d", "name": "n", "config": { "key": "sk", "n": {} } });
        let created = providers(repo).create(&UserId::new("u"), body.to_string().as_bytes()).await.unwrap();
        assert_eq!(Value::Object(created.config.0), body["config"]);
    }

    #[tokio::test]
    async fn a_value_moved_from_another_row_does_not_open() {
        let mut repo = MockProviderRepo::new();
        let moved = json!({ "key": "user_provider_configs.config|u/p2/key|\"sk\"" });
        repo.expect_find().returning(move |_, _| Ok(Some(stored(Some("u"), &moved))));
        let refused = providers(repo).find(&ProviderId::new("p1"), &UserId::new("u")).await.unwrap_err();
        assert_eq!(refused.code, Code::DecryptFailed);
    }

    #[tokio::test]
    async fn nothing_of_the_systems_configuration_is_shown() {
        let mut repo = MockProviderRepo::new();
        repo.expect_list().returning(|_| Ok(vec![stored(None, &json!({ "key": "sk" }))]));
        let listed = providers(repo).list(&UserId::new("u")).await.unwrap();
        assert_eq!(listed[0].config, ProviderConfig::default());
    }

    #[tokio::test]
    async fn what_cannot_be_stored_or_changed_is_refused() {
        let user = UserId::new("u");
        let id = ProviderId::new("p1");
        let body = br#"{"definitionId":"d","name":"n"}"#;
        for outcome in [ProviderStored::Taken, ProviderStored::Full] {
            let mut repo = MockProviderRepo::new();
            repo.expect_create().return_once(|_, _| Ok(outcome));
            assert_eq!(providers(repo).create(&user, body).await.unwrap_err().code, Code::Conflict);
        }
        let mut repo = MockProviderRepo::new();
        repo.expect_update().returning(|_, _, _, _| Ok(OwnerOnly::Foreign));
        repo.expect_delete().returning(|_, _, _| Ok(OwnerOnly::Missing));
        let providers = providers(repo);
        assert_eq!(providers.update(&id, &user, b"{}").await.unwrap_err().code, Code::Forbidden);
        assert_eq!(providers.update(&id, &user, b"5").await.unwrap_err().code, Code::InvalidRequest);
        assert_eq!(providers.delete(&id, &user).await.unwrap_err().code, Code::NotFound);
        assert_eq!(providers.find(&ProviderId::new("\0"), &user).await.unwrap_err().code, Code::NotFound);
    }

    #[tokio::test]
    async fn what_the_previous_key_sealed_is_sealed_anew_and_a_rehearsal_only_counts() {
        for rehearse in [true, false] {
            let mut repo = MockProviderRepo::new();
            let config =
                json!({ "old": "previous|1", "new": "current|2", "lost": "broken|3", "clear": "text", "n": 5 });
            let config = config.as_object().unwrap().clone();
            let row = SealedRow { id: "p1".to_owned(), within: "u".to_owned(), config: config.clone() };
            repo.expect_list_sealed()
                .returning(move |after, _| Ok(if after.is_none() { vec![row.clone()] } else { vec![] }));
            repo.expect_reseal().times(usize::from(!rehearse)).returning(move |_, anew| {
                let mut wanted = config.clone();
                wanted["old"] = json!("user_provider_configs.config|u/p1/old|1");
                assert_eq!(*anew, wanted);
                Ok(false)
            });
            let mut providers = providers(repo);
            let mut vault = MockVault::new();
            vault.expect_seal().returning(|text, column, key| Ok(format!("{column}|{key}|{}", text.expose())));
            vault.expect_open().returning(|token, _, _| {
                let with = match token.split_once('|') {
                    Some(("previous", _)) => MasterKey::Previous,
                    Some(("current", _)) => MasterKey::Current,
                    Some(_) => return Err(Unreadable::Refused),
                    None => return Err(Unreadable::Malformed),
                };
                Ok(Opened { plaintext: Secret::new(token.rsplit('|').next().unwrap()), with })
            });
            providers.sealing = Sealing { vault: Arc::new(vault) };
            let report = providers.reseal(rehearse).await.unwrap();
            let changed = if rehearse { vec![] } else { vec!["p1".to_owned()] };
            let unreadable = vec!["p1 lost".to_owned()];
            assert_eq!(report, Resealed { total: 3, anew: 1, current: 1, unreadable, changed });
        }
    }
}
