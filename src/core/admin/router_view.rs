//! The routing configuration as operators may see it: key slots by fingerprint (contract `admin.md` §4).

use serde_json::{Value, json};

use super::Admin;
use super::trail::Deed;
use crate::core::error::Error;
use crate::core::model::admin::STREAMING_LABEL;
use crate::core::model::audit::Actor;
use crate::core::model::config::{DefaultChatModel, DefaultTtsModel, LlmRouterConfig, StreamingTtsUpstream};
use crate::core::model::llm::KeyEntry;
use crate::ports::vault::MasterKey;

/// The routing configuration without anything secret.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterView {
    /// The version it was read at, or a newer one by the time the entries were read.
    pub version: i64,
    /// The tree; per model also `upstreamCount`, `keyCount` and `aliases`.
    pub router: Option<Value>,
    /// The streaming speech upstream.
    pub streaming: Option<Value>,
    /// What `auto` means for chat.
    pub chat_model: Option<String>,
    /// What `auto` means for speech.
    pub tts_model: Option<String>,
}

impl Admin {
    /// The stored routing configuration, key slots shown as `{id, keyId, ciphertextFingerprint, encryptedWith}`.
    pub async fn show_router(&self, actor: &Actor) -> Result<RouterView, Error> {
        // The version first: whoever writes with it learns of a change made while the entries were read.
        let version = self.store.version().await?;
        let tree = self.stored::<LlmRouterConfig>().await?;
        let streaming = self.stored::<StreamingTtsUpstream>().await?;
        let chat_model = self.stored::<DefaultChatModel>().await?;
        let tts_model = self.stored::<DefaultTtsModel>().await?;
        let router = tree.map(|tree| {
            let mut shown = json!(*tree);
            for (name, model) in &tree.llm.models {
                let keys: Vec<_> = model.upstreams.iter().map(|upstream| self.slots(name, &upstream.keys)).collect();
                annotate(&mut shown["llm"]["models"][name], keys, chat_model.as_deref() == Some(name));
            }
            for (name, model) in &tree.tts.models {
                let keys: Vec<_> = model.upstreams.iter().map(|upstream| self.slots(name, &upstream.keys)).collect();
                annotate(&mut shown["tts"]["models"][name], keys, tts_model.as_deref() == Some(name));
            }
            shown
        });
        let streaming = streaming.map(|upstream| {
            let mut shown = json!(*upstream);
            shown["keys"] = Value::Array(self.slots(STREAMING_LABEL, &upstream.keys));
            shown
        });
        self.trail.seen(&Deed::new(actor, "config.router.show")).await;
        Ok(RouterView { version, router, streaming, chat_model, tts_model })
    }

    fn slots(&self, label: &str, keys: &[KeyEntry]) -> Vec<Value> {
        keys.iter().map(|key| self.slot(label, key)).collect()
    }

    fn slot(&self, label: &str, key: &KeyEntry) -> Value {
        let (key_id, with) = match self.vault.open(&key.ciphertext, label, key.id.as_str()) {
            Ok(opened) => {
                let with = if opened.with == MasterKey::Current { "current" } else { "previous" };
                (Some(self.vault.fingerprint(opened.plaintext.expose())), with)
            }
            Err(_) => (None, "unreadable"),
        };
        json!({
            "id": key.id,
            "keyId": key_id,
            "ciphertextFingerprint": self.vault.fingerprint(&key.ciphertext),
            "encryptedWith": with,
        })
    }
}

fn annotate(model: &mut Value, keys: Vec<Vec<Value>>, is_auto: bool) {
    model["upstreamCount"] = json!(keys.len());
    model["keyCount"] = json!(keys.iter().map(Vec::len).sum::<usize>());
    model["aliases"] = if is_auto { json!(["auto"]) } else { json!([]) };
    for (index, slots) in keys.into_iter().enumerate() {
        model["upstreams"][index]["keys"] = Value::Array(slots);
    }
}
