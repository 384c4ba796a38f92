//! Which voices a caller may name (contract `audio.md` §5).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::Value;
use url::Url;

use super::Speech;
use crate::core::error::Error;
use crate::core::model::config::{DefaultTtsVoices, StreamingTtsUpstream};
use crate::core::model::fact::Fact;
use crate::core::model::tts::{SANDBOX_MODEL, TtsProvider, catalogue, compatible, sandbox_voices};

/// How long the streaming upstream is waited for.
const LIMIT: Duration = Duration::from_secs(5);
/// How long its answer is used again.
const FRESH: Duration = Duration::from_secs(60);
/// Models whose voices are kept; callers may ask for anything.
const KEPT: usize = 64;

/// A catalogue of voices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Voices {
    /// The voices, as the provider describes them.
    pub voices: Vec<Value>,
    /// Voice id by locale.
    pub recommended: IndexMap<String, String>,
    /// Whether the provider could not be asked.
    pub degraded: bool,
}

/// Answers of the streaming upstream by model, with their age.
#[derive(Clone, Debug, Default)]
pub struct Copies(Arc<Mutex<HashMap<String, Copy>>>);

/// When an answer came, and the voices it named.
type Copy = (Duration, Vec<Value>);

impl Speech {
    /// The voices of a one-shot model; `auto` when absent or empty. Asks nobody.
    pub async fn voices(&self, model: Option<&str>) -> Result<Voices, Error> {
        let requested =
            Value::from(model.filter(|model| !model.is_empty()).unwrap_or(crate::core::model::llm::AUTO_MODEL));
        let model = self.resolve(&requested).await?;
        let tree = self.tree().await?;
        let recommended = self.recommended(&model).await?;
        let entry = tree.as_ref().and_then(|tree| tree.tts.models.get(&model));
        let voices = match entry {
            Some(entry) => {
                let all = catalogue(entry.provider);
                let speaks = |name| entry.upstreams.iter().filter_map(move |up| up.adapter_params.get(name)?.as_str());
                let variants: Vec<&str> = speaks("model").collect();
                if entry.provider == TtsProvider::DashscopeCosyvoice && !variants.is_empty() {
                    compatible(all, &variants).into_iter().cloned().collect()
                } else {
                    all.to_vec()
                }
            }
            None if self.gate.sandbox && model == SANDBOX_MODEL => sandbox_voices().to_vec(),
            None => return Err(self.unknown(&requested, &model, tree.as_deref())),
        };
        Ok(Voices { voices, recommended, degraded: false })
    }

    /// The voices of the streaming upstream, as it tells them; none when it cannot be asked and never could.
    pub async fn streaming_voices(&self, model: Option<&str>) -> Result<Voices, Error> {
        let model = model.filter(|model| !model.is_empty());
        // Clients strip the part before the slash; a prefixed id means the same.
        let bare = model.map(|model| model.split_once('/').map_or(model, |(_, bare)| bare));
        let upstream = self.config.optional::<StreamingTtsUpstream>().await?.filter(|up| !up.base_url.is_empty());
        let Some(upstream) = upstream else { return Ok(Voices::default()) };
        let recommended = match bare {
            Some(bare) => self.recommended(bare).await?,
            None => IndexMap::new(),
        };
        let slot = format!("{} {}", upstream.base_url, bare.unwrap_or_default());
        if let Some(voices) = self.copies.find(&slot, Some(self.clock.elapsed().saturating_sub(FRESH))) {
            return Ok(Voices { voices, recommended, degraded: false });
        }
        match self.ask(&upstream.base_url, bare).await {
            Ok(voices) => {
                self.copies.keep(slot, self.clock.elapsed(), voices.clone());
                Ok(Voices { voices, recommended, degraded: false })
            }
            Err(cause) => {
                self.walk.journal.record(Fact::Degraded { operation: "speech.voices", cause });
                let voices = self.copies.find(&slot, None).unwrap_or_default();
                Ok(Voices { voices, recommended, degraded: true })
            }
        }
    }

    async fn ask(&self, base_url: &str, model: Option<&str>) -> Result<Vec<Value>, String> {
        let url = address(base_url, model).ok_or("the upstream address is unusable")?;
        let said = self.streaming.voices(&url, LIMIT).await.map_err(|fault| fault.to_string())?;
        let said: Value = serde_json::from_slice(&said).unwrap_or_default();
        Ok(said["voices"].as_array().cloned().unwrap_or_default())
    }

    async fn recommended(&self, model: &str) -> Result<IndexMap<String, String>, Error> {
        let mut all = self.config.required::<DefaultTtsVoices>().await?;
        Ok(all.swap_remove(model).unwrap_or_default())
    }
}

impl Copies {
    fn find(&self, slot: &str, since: Option<Duration>) -> Option<Vec<Value>> {
        let copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, voices) = copies.get(slot)?;
        since.is_none_or(|since| *at >= since).then(|| voices.clone())
    }

    fn keep(&self, slot: String, at: Duration, voices: Vec<Value>) {
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if copies.len() >= KEPT && !copies.contains_key(&slot) {
            copies.clear();
        }
        copies.insert(slot, (at, voices));
    }
}

/// Where the streaming upstream tells its voices.
fn address(base_url: &str, model: Option<&str>) -> Option<String> {
    let mut url = Url::parse(base_url).ok()?;
    let secure = url.scheme() == "wss" || url.scheme() == "https";
    // Changing the scheme in place is refused between kinds of scheme, so the address is spelled anew.
    let rest = url.as_str().split_once("://")?.1.to_owned();
    url = Url::parse(&format!("{}://{rest}", if secure { "https" } else { "http" })).ok()?;
    url.set_path("/api/voices");
    url.set_fragment(None);
    url.query_pairs_mut().clear().append_pair("provider", "volcengine");
    if let Some(model) = model {
        url.query_pairs_mut().append_pair("model", model);
    }
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_voices_is_derived_from_that_of_the_stream() {
        for (base_url, model, expected) in [
            ("wss://s.example/x/y?z=1", None, Some("https://s.example/api/voices?provider=volcengine")),
            (
                "ws://127.0.0.1:9",
                Some("seed tts&2"),
                Some("http://127.0.0.1:9/api/voices?provider=volcengine&model=seed+tts%262"),
            ),
            ("ws://[", None, None),
            ("nonsense", None, None),
        ] {
            assert_eq!(address(base_url, model).as_deref(), expected, "{base_url}");
        }
    }
}
