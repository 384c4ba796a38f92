//! Which voices there are: the catalogues of the providers, part of the binary (contract `audio.md` §5).

use std::sync::OnceLock;

use serde_json::Value;

use super::TtsProvider;

/// Every voice of a provider, in the order of its catalogue.
pub fn catalogue(provider: TtsProvider) -> &'static [Value] {
    static AZURE: OnceLock<Vec<Value>> = OnceLock::new();
    static COSYVOICE: OnceLock<Vec<Value>> = OnceLock::new();
    static VOLCENGINE: OnceLock<Vec<Value>> = OnceLock::new();
    match provider {
        TtsProvider::Azure => voices(&AZURE, include_str!("catalogue/azure.json")),
        TtsProvider::DashscopeCosyvoice => voices(&COSYVOICE, include_str!("catalogue/dashscope-cosyvoice.json")),
        TtsProvider::Volcengine => voices(&VOLCENGINE, include_str!("catalogue/volcengine.json")),
    }
}

/// The voices of the built-in engine.
pub fn sandbox_voices() -> &'static [Value] {
    static SANDBOX: OnceLock<Vec<Value>> = OnceLock::new();
    voices(&SANDBOX, include_str!("catalogue/sandbox.json"))
}

/// The voices that speak one of `models`; all of them when none does, because a stale catalogue must not leave a
/// client without any (AU-D11).
pub fn compatible<'a>(voices: &'a [Value], models: &[&str]) -> Vec<&'a Value> {
    let speaks = |voice: &Value| {
        let known = voice["compatible_models"].as_array().into_iter().flatten();
        known.filter_map(Value::as_str).any(|model| models.contains(&model))
    };
    let found: Vec<_> = voices.iter().filter(|voice| speaks(voice)).collect();
    if found.is_empty() { voices.iter().collect() } else { found }
}

/// The files are part of the binary and read by a test, so an unreadable one cannot ship.
fn voices(read: &'static OnceLock<Vec<Value>>, json: &str) -> &'static [Value] {
    read.get_or_init(|| serde_json::from_str(json).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_catalogue_is_readable_and_its_voices_are_complete() {
        let all = [
            (catalogue(TtsProvider::Azure), 2),
            (catalogue(TtsProvider::DashscopeCosyvoice), 18),
            (catalogue(TtsProvider::Volcengine), 2),
            (sandbox_voices(), 1),
        ];
        for (voices, count) in all {
            assert_eq!(voices.len(), count);
            for voice in voices {
                assert!(voice["id"].as_str().is_some_and(|id| !id.is_empty()), "{voice}");
                for member in ["name", "languages", "labels", "tags", "compatible_models", "formats"] {
                    assert!(!voice[member].is_null(), "{member} of {voice}");
                }
            }
        }
    }

    #[test]
    fn voices_of_another_variant_are_left_out_unless_nothing_would_be_left() {
        let voices = catalogue(TtsProvider::DashscopeCosyvoice);
        let v2 = compatible(voices, &["cosyvoice-v2"]);
        assert!(!v2.is_empty() && v2.iter().all(|voice| voice["compatible_models"].to_string().contains("v2\"")));
        assert_eq!(compatible(voices, &["cosyvoice-v99"]).len(), voices.len());
    }
}
