//! Changes of the routing configuration (contract `admin.md` §3).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::trail::Deed;
use super::{Admin, SANDBOX_MODEL, SANDBOX_VOICE, invalid};
use crate::core::error::{Code, Error};
use crate::core::model::admin::{Issue, KeySource, Mode, RouterDocument, Slice, WantedKey};
use crate::core::model::audit::Actor;
use crate::core::model::config::{
    self, ConfigKey, ConfigWrite, DefaultChatModel, DefaultTtsModel, LlmRouterConfig, StreamingTtsUpstream,
    WriteOutcome,
};
use crate::core::model::fact::Fact;
use crate::core::model::ids::KeyEntryId;
use crate::core::model::llm::{KeyEntry, LlmModel, LlmUpstreamEntry, RouterConfig, TtsModel, TtsUpstreamEntry};

/// What a change did, or would do.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterChange {
    /// One per slice, in order.
    pub applied: Vec<AppliedSlice>,
    /// Entries written; none on a dry run.
    pub invalidated_keys: Vec<&'static str>,
    /// The entries as they are to be, by name, with ciphertexts replaced by their lengths.
    pub preview: Map<String, Value>,
    /// Models that are gone, as `llm/<model>` or `tts/<model>`; only a reset removes any.
    pub removed: Vec<String>,
    /// Version of the configuration after the change; absent on a dry run.
    pub version: Option<i64>,
}

/// Where a slice went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedSlice {
    /// As written.
    pub kind: &'static str,
    /// `llm` or `tts`; absent for the streaming upstream.
    pub surface: Option<&'static str>,
    /// Logical id; absent for the streaming upstream.
    pub model: Option<String>,
    /// Its key slots, in order of trial.
    pub key_ids: Vec<KeyEntryId>,
}

/// How often a change is computed anew because somebody else wrote in between.
const TRIES: u32 = 5;

impl Admin {
    /// Checks everything, seals every key, and writes every affected entry at once or none.
    ///
    /// A change is computed from the version it is written over. With `expected_version` anything newer is a
    /// conflict; without, the change is computed anew, since slices replace whole models and disturb no others.
    pub async fn apply_router(
        &self,
        actor: &Actor,
        document: &[u8],
        expected_version: Option<i64>,
    ) -> Result<RouterChange, Error> {
        let mut deed = Deed::new(actor, "config.router");
        let result = self.try_apply(&mut deed, document, expected_version).await;
        if !deed.dry_run {
            self.trail.journal.record(Fact::ConfigWritten { result: label(&result) });
        }
        self.trail.end(&deed, &result).await;
        result
    }

    async fn try_apply(
        &self,
        deed: &mut Deed<'_>,
        document: &[u8],
        expected_version: Option<i64>,
    ) -> Result<RouterChange, Error> {
        let mut document = RouterDocument::read(document, self.policy.addresses)?;
        describe(deed, &document);
        for slice in &mut document.slices {
            slice
                .seal_keys(|plaintext, label, id| self.vault.seal(plaintext, label, id.as_str()))
                .map_err(|why| Error::new(Code::Internal).because(why))?;
        }
        for attempt in 0..TRIES {
            let version = self.store.version().await?;
            if expected_version.is_some_and(|expected| expected != version) {
                return Err(conflict());
            }
            let next = self.next(&document).await?;
            let mut change = next.change(&document);
            if document.dry_run {
                return Ok(change);
            }
            let entries = next.entries()?;
            change.invalidated_keys = entries.iter().map(|(name, _)| *name).collect();
            if attempt == 0 {
                deed.target = change.invalidated_keys.join(",");
                self.trail.begin(deed).await?;
            }
            let write = ConfigWrite { entries, expected_version: Some(version) };
            match self.store.write(&write).await? {
                WriteOutcome::Written(version) => {
                    change.version = Some(version);
                    return Ok(change);
                }
                WriteOutcome::Stale(_) if expected_version.is_some() => return Err(conflict()),
                WriteOutcome::Stale(_) => {}
            }
        }
        Err(conflict())
    }

    /// What the entries are to be, computed from what they are.
    async fn next(&self, document: &RouterDocument) -> Result<Next, Error> {
        let stored = self.stored::<LlmRouterConfig>().await;
        let starts_empty = document.mode == Mode::Reset && document.has_model();
        let (base, former) = match stored {
            // A tree nobody can read is what a reset is for.
            Err(error) if starts_empty && error.code == Code::ConfigInvalid => (RouterConfig::default(), None),
            Err(error) if document.changes_tree() || document.chat_model.is_some() || document.tts_model.is_some() => {
                return Err(error);
            }
            Err(_) | Ok(None) => (RouterConfig::default(), None),
            Ok(Some(tree)) if starts_empty => (RouterConfig::default(), Some(tree)),
            Ok(Some(tree)) => (RouterConfig::clone(&tree), Some(tree)),
        };
        let mut next = Next {
            tree: base,
            streaming: None,
            document_changes_tree: document.changes_tree(),
            former,
            aliases: Vec::new(),
        };
        let mut issues = Vec::new();
        if let Some(defaults) = &document.router_defaults {
            defaults.apply(&mut next.tree.defaults);
        }
        for slice in &document.slices {
            self.place(slice, &mut next, &mut issues);
        }
        let aliases = [
            (DefaultChatModel::NAME, "defaults.chatModel", &document.chat_model),
            (DefaultTtsModel::NAME, "defaults.ttsModel", &document.tts_model),
        ];
        for (name, path, wanted) in aliases {
            let Some(model) = wanted else { continue };
            if !self.exists(name, model, &next.tree) {
                let message = "must be a configured model of its kind after the change".to_owned();
                issues.push(Issue { path: path.to_owned(), message });
            }
            next.aliases.push((name, model.clone()));
        }
        if issues.is_empty() { Ok(next) } else { Err(invalid(&issues)) }
    }

    fn exists(&self, alias: &str, model: &str, tree: &RouterConfig) -> bool {
        if alias == DefaultChatModel::NAME {
            return tree.llm.models.contains_key(model) || (self.policy.sandbox && model == SANDBOX_MODEL);
        }
        tree.tts.models.contains_key(model) || (self.policy.sandbox && model == SANDBOX_VOICE)
    }

    fn place(&self, slice: &Slice, next: &mut Next, issues: &mut Vec<Issue>) {
        match slice {
            Slice::Llm(slice) => {
                let former = next.former.as_ref().and_then(|tree| tree.llm.models.get(&slice.model));
                let mut upstreams = Vec::with_capacity(slice.upstreams.len());
                for (index, upstream) in slice.upstreams.iter().enumerate() {
                    let slots = slots_of(former, index);
                    let keys = self.fill(&slice.model, &upstream.keys, &slots, issues);
                    upstreams.push(LlmUpstreamEntry { keys, ..upstream.entry.clone() });
                }
                let model = LlmModel {
                    upstreams,
                    max_output_tokens: slice.max_output_tokens,
                    fallback_triggers: slice.fallback_triggers.clone(),
                };
                next.tree.llm.models.insert(slice.model.clone(), model);
            }
            Slice::Tts(slice) => {
                let keys = self.fill(&slice.model, &slice.upstream.keys, &[], issues);
                let upstreams = vec![TtsUpstreamEntry { keys, ..slice.upstream.entry.clone() }];
                let model = TtsModel { provider: slice.provider, upstreams, fallback_triggers: None };
                next.tree.tts.models.insert(slice.model.clone(), model);
            }
            Slice::Streaming(slice) => {
                let keys = self.fill("", &slice.upstream.keys, &[], issues);
                next.streaming = Some(TtsUpstreamEntry { keys, ..slice.upstream.entry.clone() });
            }
        }
    }

    fn fill(&self, model: &str, keys: &[WantedKey], slots: &[&KeyEntry], issues: &mut Vec<Issue>) -> Vec<KeyEntry> {
        let mut filled = Vec::with_capacity(keys.len());
        for key in keys {
            let ciphertext = match &key.source {
                KeySource::Sealed(token) => Ok(token.clone()),
                KeySource::Keep(kept) => self.kept(model, &key.id, kept, slots),
                KeySource::Plain(_) => Err("was not sealed"),
            };
            match ciphertext {
                Ok(ciphertext) => filled.push(KeyEntry { id: key.id.clone(), ciphertext }),
                Err(why) => issues.push(Issue { path: format!("{}.keepKeyId", key.path), message: why.to_owned() }),
            }
        }
        filled
    }

    /// The stored token of a slot; sealed anew when the slot gets another name, which it is bound to.
    fn kept(
        &self,
        model: &str,
        id: &KeyEntryId,
        kept: &KeyEntryId,
        slots: &[&KeyEntry],
    ) -> Result<String, &'static str> {
        let slot = slots.iter().find(|slot| slot.id == *kept).ok_or("names no key slot of the stored model")?;
        if id == kept {
            return Ok(slot.ciphertext.clone());
        }
        let opened = self
            .vault
            .open(&slot.ciphertext, model, kept.as_str())
            .map_err(|_| "names a key slot that cannot be opened; write the key again")?;
        self.vault.seal(&opened.plaintext, model, id.as_str()).map_err(|_| "names a key slot that cannot be renamed")
    }

    /// An entry as the store itself has it.
    pub(super) async fn stored<K: ConfigKey>(&self) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.store.find_fresh(K::NAME).await? else { return Ok(None) };
        entry.read::<K>().map(Some).map_err(|why| {
            let name = K::NAME;
            Error::new(Code::ConfigInvalid)
                .saying(format!("the stored {name} is unreadable; write it anew with mode \"reset\""))
                .because(format!("{name}: {why}"))
        })
    }
}

/// Stored slots of a model: those of the upstream at the same place first, because ids repeat between upstreams.
fn slots_of(former: Option<&LlmModel>, index: usize) -> Vec<&KeyEntry> {
    let Some(model) = former else { return Vec::new() };
    let same = model.upstreams.get(index).into_iter();
    same.chain(&model.upstreams).flat_map(|upstream| &upstream.keys).collect()
}

/// The entries as they are to be.
struct Next {
    tree: RouterConfig,
    former: Option<Arc<RouterConfig>>,
    document_changes_tree: bool,
    streaming: Option<TtsUpstreamEntry>,
    aliases: Vec<(&'static str, String)>,
}

impl Next {
    fn entries(&self) -> Result<Vec<(&'static str, Option<String>)>, Error> {
        let mut entries = Vec::new();
        if self.document_changes_tree {
            entries.push(entry::<LlmRouterConfig>(json!(self.tree).to_string())?);
        }
        if let Some(streaming) = &self.streaming {
            entries.push(entry::<StreamingTtsUpstream>(json!(streaming).to_string())?);
        }
        for (name, model) in &self.aliases {
            entries.push((*name, Some(json!(model).to_string())));
        }
        Ok(entries)
    }

    fn change(&self, document: &RouterDocument) -> RouterChange {
        let mut preview = Map::new();
        if self.document_changes_tree {
            let mut tree = self.tree.clone();
            let llm =
                tree.llm.models.values_mut().flat_map(|model| &mut model.upstreams).map(|upstream| &mut upstream.keys);
            let tts =
                tree.tts.models.values_mut().flat_map(|model| &mut model.upstreams).map(|upstream| &mut upstream.keys);
            llm.chain(tts).for_each(|keys| mask(keys));
            preview.insert(LlmRouterConfig::NAME.to_owned(), json!(tree));
        }
        if let Some(mut streaming) = self.streaming.clone() {
            mask(&mut streaming.keys);
            preview.insert(StreamingTtsUpstream::NAME.to_owned(), json!(streaming));
        }
        for (name, model) in &self.aliases {
            preview.insert((*name).to_owned(), json!(model));
        }
        let applied = document.slices.iter().map(applied).collect();
        RouterChange { applied, invalidated_keys: Vec::new(), preview, removed: self.removed(), version: None }
    }

    fn removed(&self) -> Vec<String> {
        let Some(former) = self.former.as_ref().filter(|_| self.document_changes_tree) else { return Vec::new() };
        let llm = former.llm.models.keys().filter(|model| !self.tree.llm.models.contains_key(*model));
        let tts = former.tts.models.keys().filter(|model| !self.tree.tts.models.contains_key(*model));
        llm.map(|model| format!("llm/{model}")).chain(tts.map(|model| format!("tts/{model}"))).collect()
    }
}

/// What is written must be readable by everybody else; the same reader judges it.
pub(super) fn entry<K: ConfigKey>(json: String) -> Result<(&'static str, Option<String>), Error> {
    match config::fault(K::NAME, &json) {
        None => Ok((K::NAME, Some(json))),
        Some(why) => Err(Error::new(Code::Internal).because(format!("{}: {why}", K::NAME))),
    }
}

fn mask(keys: &mut [KeyEntry]) {
    for key in keys {
        key.ciphertext = format!("<ciphertext: {} chars>", key.ciphertext.chars().count());
    }
}

fn applied(slice: &Slice) -> AppliedSlice {
    let surface = match slice {
        Slice::Llm(_) => Some("llm"),
        Slice::Tts(_) => Some("tts"),
        Slice::Streaming(_) => None,
    };
    let key_ids = slice.keys().into_iter().map(|key| key.id.clone()).collect();
    AppliedSlice { kind: slice.kind(), surface, model: slice.model().map(str::to_owned), key_ids }
}

fn describe(deed: &mut Deed<'_>, document: &RouterDocument) {
    deed.dry_run = document.dry_run;
    deed.note("mode", if document.mode == Mode::Reset { "reset" } else { "merge" });
    let slices = document.slices.iter().map(applied).map(|slice| {
        let keys: Vec<_> = slice.key_ids.iter().map(KeyEntryId::as_str).collect();
        json!({"kind": slice.kind, "model": slice.model, "keys": keys})
    });
    deed.note("slices", slices.collect::<Vec<_>>());
    deed.note("chatModel", document.chat_model.clone());
    deed.note("ttsModel", document.tts_model.clone());
    deed.note("routerDefaults", document.router_defaults.is_some());
}

pub(super) fn conflict() -> Error {
    Error::new(Code::Conflict).saying("the configuration was changed by somebody else; look at it and try again")
}

pub(super) fn label<T>(result: &Result<T, Error>) -> &'static str {
    use crate::core::error::Kind::{BadUpstream, Internal, Unavailable, UpstreamTimeout};
    match result {
        Ok(_) => "success",
        Err(error) if matches!(error.code.kind(), Internal | BadUpstream | Unavailable | UpstreamTimeout) => "5xx",
        Err(_) => "4xx",
    }
}
