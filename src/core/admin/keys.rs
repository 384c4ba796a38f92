//! Re-encryption of upstream keys after the master key was changed (contract `admin.md` §6.3).

use std::sync::Arc;

use serde_json::json;

use super::Admin;
use super::router::{conflict, entry, label};
use super::trail::Deed;
use crate::core::error::{Code, Error};
use crate::core::model::admin::STREAMING_LABEL;
use crate::core::model::audit::Actor;
use crate::core::model::config::{ConfigWrite, LlmRouterConfig, StreamingTtsUpstream, WriteOutcome};
use crate::core::model::fact::Fact;
use crate::core::model::llm::{KeyEntry, RouterConfig, TtsUpstreamEntry};
use crate::ports::vault::{MasterKey, Vault};

/// What became of the key slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reencryption {
    /// Slots there are.
    pub total: usize,
    /// Sealed anew, or to be on a dry run.
    pub reencrypted: usize,
    /// Sealed with the current master key before.
    pub already_current: usize,
    /// Opened by neither key and left alone, as `<surface>/<model>/<upstream>/<slot>`.
    pub unreadable: Vec<String>,
}

/// How often the work is done anew because somebody else wrote in between.
const TRIES: u32 = 5;

impl Admin {
    /// Seals every slot with the current master key, in one write. Safe to repeat; a slot that opens with neither
    /// key is reported and left alone.
    pub async fn reencrypt_keys(&self, actor: &Actor, dry_run: bool) -> Result<Reencryption, Error> {
        let mut deed = Deed::new(actor, "keys.reencrypt");
        deed.dry_run = dry_run;
        let result = self.try_reencrypt(&mut deed).await;
        if let Ok(report) = &result {
            deed.note("total", report.total);
            deed.note("reencrypted", report.reencrypted);
            deed.note("unreadable", report.unreadable.clone());
        }
        if !dry_run {
            self.trail.journal.record(Fact::ConfigWritten { result: label(&result) });
        }
        self.trail.end(&deed, &result).await;
        result
    }

    async fn try_reencrypt(&self, deed: &mut Deed<'_>) -> Result<Reencryption, Error> {
        for attempt in 0..TRIES {
            let version = self.store.version().await?;
            let tree = self.stored::<LlmRouterConfig>().await?;
            let streaming = self.stored::<StreamingTtsUpstream>().await?;
            let mut sweep = Sweep { vault: &self.vault, report: Reencryption::default() };
            let mut entries = Vec::new();
            if let Some(tree) = sweep.tree(tree.as_deref())? {
                entries.push(entry::<LlmRouterConfig>(json!(tree).to_string())?);
            }
            if let Some(upstream) = sweep.streaming(streaming.as_deref())? {
                entries.push(entry::<StreamingTtsUpstream>(json!(upstream).to_string())?);
            }
            if deed.dry_run || entries.is_empty() {
                return Ok(sweep.report);
            }
            if attempt == 0 {
                deed.target = entries.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",");
                self.trail.begin(deed).await?;
            }
            let write = ConfigWrite { entries, expected_version: Some(version) };
            if let WriteOutcome::Written(_) = self.store.write(&write).await? {
                return Ok(sweep.report);
            }
        }
        Err(conflict())
    }
}

struct Sweep<'a> {
    vault: &'a Arc<dyn Vault>,
    report: Reencryption,
}

impl Sweep<'_> {
    /// The tree with its slots sealed anew; nothing when none had to be.
    fn tree(&mut self, tree: Option<&RouterConfig>) -> Result<Option<RouterConfig>, Error> {
        let Some(mut tree) = tree.cloned() else { return Ok(None) };
        let before = self.report.reencrypted;
        for (model, entry) in &mut tree.llm.models {
            for (index, upstream) in entry.upstreams.iter_mut().enumerate() {
                self.slots(model, &format!("llm/{model}/{index}"), &mut upstream.keys)?;
            }
        }
        for (model, entry) in &mut tree.tts.models {
            for (index, upstream) in entry.upstreams.iter_mut().enumerate() {
                self.slots(model, &format!("tts/{model}/{index}"), &mut upstream.keys)?;
            }
        }
        Ok((self.report.reencrypted > before).then_some(tree))
    }

    fn streaming(&mut self, upstream: Option<&TtsUpstreamEntry>) -> Result<Option<TtsUpstreamEntry>, Error> {
        let Some(mut upstream) = upstream.cloned() else { return Ok(None) };
        let before = self.report.reencrypted;
        self.slots(STREAMING_LABEL, STREAMING_LABEL, &mut upstream.keys)?;
        Ok((self.report.reencrypted > before).then_some(upstream))
    }

    fn slots(&mut self, label: &str, place: &str, keys: &mut [KeyEntry]) -> Result<(), Error> {
        for key in keys {
            self.report.total += 1;
            match self.vault.open(&key.ciphertext, label, key.id.as_str()) {
                Err(_) => self.report.unreadable.push(format!("{place}/{}", key.id)),
                Ok(opened) if opened.with == MasterKey::Current => self.report.already_current += 1,
                Ok(opened) => {
                    let sealed = self.vault.seal(&opened.plaintext, label, key.id.as_str());
                    key.ciphertext = sealed.map_err(|why| Error::new(Code::Internal).because(why))?;
                    self.report.reencrypted += 1;
                }
            }
        }
        Ok(())
    }
}
