//! Characters as clients write them: what they may write, and what they must.

use std::fmt;

use serde_json::{Map, Value};

use super::API_KEY;
use crate::core::model::ids::UserId;
use crate::core::model::validation::{Form, Invalid, read};

/// A character to be stored; the database's clock gives every time in it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCharacter {
    /// Owner and creator.
    pub owner: UserId,
    /// Everything the client wrote.
    pub draft: Draft,
}

/// A character as a client wrote it. Every part has an id, the client's or a fresh one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// The client's or a fresh one.
    pub id: String,
    /// Version of the card.
    pub version: String,
    /// Address of a picture.
    pub cover_url: String,
    /// A free label.
    pub label: String,
    /// Address of a picture.
    pub avatar_url: Option<String>,
    /// What the creator is to it.
    pub creator_role: Option<String>,
    /// Decimal text; `0` when the client wrote none.
    pub price_credit: String,
    /// Pictures.
    pub cover: Option<DraftCover>,
    /// What it can do.
    pub capabilities: Vec<DraftCapability>,
    /// What it looks like.
    pub avatar_models: Vec<DraftAvatarModel>,
    /// In which languages.
    pub locales: Vec<DraftLocale>,
    /// What models are told.
    pub prompts: Vec<DraftPrompt>,
}

/// A [`Cover`] to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftCover {
    /// The client's or a fresh one.
    pub id: String,
    /// Address of a picture.
    pub foreground_url: String,
    /// Address of a picture.
    pub background_url: String,
}

/// A [`Capability`] to be stored.
#[derive(Clone, PartialEq)]
pub struct DraftCapability {
    /// The client's or a fresh one.
    pub id: String,
    /// One of the four words.
    pub kind: &'static str,
    /// With the key in the clear until the use-case seals it.
    pub config: Map<String, Value>,
}

impl fmt::Debug for DraftCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DraftCapability").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// An [`AvatarModel`] to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct DraftAvatarModel {
    /// The client's or a fresh one.
    pub id: String,
    /// A name.
    pub name: String,
    /// One of the two words.
    pub kind: &'static str,
    /// A text.
    pub description: String,
    /// Where the files are.
    pub config: Value,
}

/// A [`Locale`] to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftLocale {
    /// The client's or a fresh one.
    pub id: String,
    /// A language tag.
    pub language: String,
    /// The character's name.
    pub name: String,
    /// One line.
    pub tagline: Option<String>,
    /// A text.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
}

/// A [`Prompt`] to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftPrompt {
    /// The client's or a fresh one.
    pub id: String,
    /// A language tag.
    pub language: String,
    /// One of the three words.
    pub kind: &'static str,
    /// The text.
    pub content: String,
}

/// What an owner changes; absent members stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CharacterChange {
    /// Version of the card.
    pub version: Option<String>,
    /// Address of a picture.
    pub cover_url: Option<String>,
    /// A free label.
    pub label: Option<String>,
    /// Address of a picture.
    pub avatar_url: Option<String>,
    /// What the creator is to it.
    pub creator_role: Option<String>,
    /// Decimal text.
    pub price_credit: Option<String>,
}

/// Reads the body of a creation (A3 with C-4, C-9, C-10). Members that the server owns are ignored. `fresh` makes an id for
/// each part that has none.
pub fn draft(document: &[u8], fresh: &dyn Fn() -> String) -> Result<Draft, Invalid> {
    read(document, |form| {
        let mut draft = form.form("character").map(|form| bare(&form, fresh)).unwrap_or_default();
        draft.cover = form.optional_form("cover").map(|form| cover(&form, fresh));
        draft.capabilities = form.forms("capabilities").iter().map(|form| capability(form, fresh)).collect();
        draft.avatar_models = form.forms("avatarModels").iter().map(|form| avatar_model(form, fresh)).collect();
        draft.locales = form.forms("i18n").iter().map(|form| locale(form, fresh)).collect();
        draft.prompts = form.forms("prompts").iter().map(|form| prompt(form, fresh)).collect();
        draft
    })
}

/// Reads the body of a change (A4 with C-4, C-10). Members that the server owns are ignored.
pub fn change(document: &[u8]) -> Result<CharacterChange, Invalid> {
    read(document, |form| CharacterChange {
        version: form.optional_text("version"),
        cover_url: form.optional_text("coverUrl"),
        label: form.optional_text("characterId"),
        avatar_url: form.optional_text("avatarUrl"),
        creator_role: form.optional_text("creatorRole"),
        price_credit: price(form),
    })
}

fn bare(form: &Form<'_>, fresh: &dyn Fn() -> String) -> Draft {
    Draft {
        id: form.optional_id("id").unwrap_or_else(fresh),
        version: form.text("version"),
        cover_url: form.text("coverUrl"),
        label: form.text("characterId"),
        avatar_url: form.optional_text("avatarUrl"),
        creator_role: form.optional_text("creatorRole"),
        price_credit: price(form).unwrap_or_else(|| "0".to_owned()),
        ..Draft::default()
    }
}

/// Digits with an optional fraction (C-10).
fn price(form: &Form<'_>) -> Option<String> {
    let price = form.optional_text("priceCredit")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = price.split_once('.').map_or((price.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    if !digits(whole) || !fraction.is_none_or(digits) {
        form.refuse("priceCredit", "decimal", "digits with an optional fraction");
    }
    Some(price)
}

fn cover(form: &Form<'_>, fresh: &dyn Fn() -> String) -> DraftCover {
    DraftCover {
        id: form.optional_id("id").unwrap_or_else(fresh),
        foreground_url: form.text("foregroundUrl"),
        background_url: form.text("backgroundUrl"),
    }
}

fn capability(form: &Form<'_>, fresh: &dyn Fn() -> String) -> DraftCapability {
    const KINDS: [(&str, &str); 4] = [("llm", "llm"), ("tts", "tts"), ("vlm", "vlm"), ("asr", "asr")];
    DraftCapability {
        id: form.optional_id("id").unwrap_or_else(fresh),
        kind: form.word("type", &KINDS).unwrap_or_default(),
        config: form.form("config").map(|form| capability_config(&form)).unwrap_or_default(),
    }
}

/// Not checked against the kind; members nobody knows are dropped.
fn capability_config(form: &Form<'_>) -> Map<String, Value> {
    let mut config = Map::new();
    let part = |name: &str, texts: &[&str], numbers: &[&str]| {
        let part = form.optional_form(name)?;
        let texts = texts.iter().map(|key| ((*key).to_owned(), Value::String(part.text(key))));
        let numbers = numbers.iter().map(|key| ((*key).to_owned(), part.number(key)));
        Some(Value::Object(texts.chain(numbers).collect()))
    };
    config.insert(API_KEY.to_owned(), Value::String(form.text(API_KEY)));
    config.insert("apiBaseUrl".to_owned(), Value::String(form.text("apiBaseUrl")));
    for (name, texts, numbers) in [
        ("llm", &["model"][..], &["temperature"][..]),
        ("tts", &["ssml", "voiceId"], &["speed", "pitch"]),
        ("vlm", &["image"], &[]),
        ("asr", &["audio"], &[]),
    ] {
        if let Some(part) = part(name, texts, numbers) {
            config.insert(name.to_owned(), part);
        }
    }
    config
}

fn avatar_model(form: &Form<'_>, fresh: &dyn Fn() -> String) -> DraftAvatarModel {
    const KINDS: [(&str, &str); 2] = [("vrm", "vrm"), ("live2d", "live2d")];
    let config = form.form("config").map(|config| {
        let files = |kind: &str| {
            let urls = config.optional_form(kind)?.texts("urls").into_iter().map(Value::String).collect();
            Some((kind.to_owned(), Value::Object(Map::from_iter([("urls".to_owned(), Value::Array(urls))]))))
        };
        ["vrm", "live2d"].into_iter().filter_map(files).collect()
    });
    DraftAvatarModel {
        id: form.optional_id("id").unwrap_or_else(fresh),
        name: form.text("name"),
        kind: form.word("type", &KINDS).unwrap_or_default(),
        description: form.text("description"),
        config: Value::Object(config.unwrap_or_default()),
    }
}

fn locale(form: &Form<'_>, fresh: &dyn Fn() -> String) -> DraftLocale {
    DraftLocale {
        id: form.optional_id("id").unwrap_or_else(fresh),
        language: form.text("language"),
        name: form.text("name"),
        tagline: form.optional_text("tagline"),
        description: form.text("description"),
        tags: form.texts("tags"),
    }
}

fn prompt(form: &Form<'_>, fresh: &dyn Fn() -> String) -> DraftPrompt {
    const KINDS: [(&str, &str); 3] = [("system", "system"), ("personality", "personality"), ("greetings", "greetings")];
    DraftPrompt {
        id: form.optional_id("id").unwrap_or_else(fresh),
        language: form.text("language"),
        kind: form.word("type", &KINDS).unwrap_or_default(),
        content: form.text("content"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fresh() -> String {
        "fresh".to_owned()
    }

    fn whole() -> Value {
        json!({
            "character": {
                "id": "c1", "version": "1", "coverUrl": "", "characterId": "label", "avatarUrl": "a",
                "creatorRole": "r", "priceCredit": "1.50", "ownerId": "thief", "likesCount": 9, "deletedAt": "x",
            },
            "cover": { "foregroundUrl": "f", "backgroundUrl": "b", "characterId": "other" },
            "capabilities": [{ "type": "llm", "config": {
                "apiKey": "sk-1", "apiBaseUrl": "", "llm": { "temperature": 0.5, "model": "m", "x": 1 }, "y": 2,
            } }],
            "avatarModels": [{ "name": "n", "type": "vrm", "description": "d", "config": { "vrm": { "urls": ["u"] }, "z": 1 } }],
            "i18n": [{ "language": "en", "name": "n", "description": "d", "tags": ["t"] }],
            "prompts": [{ "language": "en", "type": "system", "content": "c" }],
        })
    }

    fn refused_at(change: impl Fn(&mut Value)) -> Option<String> {
        let mut document = whole();
        change(&mut document);
        let details = draft(document.to_string().as_bytes(), &fresh).err()?.details();
        let keys = details[0]["path"].as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap().to_owned());
        Some(keys.collect::<Vec<_>>().join("/"))
    }

    #[test]
    fn a_draft_keeps_what_the_client_may_write_and_drops_the_rest() {
        let read = draft(whole().to_string().as_bytes(), &fresh).unwrap();
        assert_eq!((read.id.as_str(), read.price_credit.as_str()), ("c1", "1.50"));
        let config = json!({ "apiKey": "sk-1", "apiBaseUrl": "", "llm": { "temperature": 0.5, "model": "m" } });
        assert_eq!(Value::Object(read.capabilities[0].config.clone()), config);
        assert_eq!(read.avatar_models[0].config, json!({ "vrm": { "urls": ["u"] } }));
        assert!(!format!("{read:?}").contains("sk-1"));
        let least = draft(br#"{"character":{"version":"","coverUrl":"","characterId":""}}"#, &fresh).unwrap();
        assert_eq!((least.id.as_str(), least.price_credit.as_str(), least.capabilities.len()), ("fresh", "0", 0));
    }

    #[test]
    fn every_rule_of_the_table_is_kept() {
        assert_eq!(refused_at(|_| ()), None);
        for (place, value, refused) in [
            ("/character", Value::Null, "character"),
            ("/character/version", json!(1), "character/version"),
            ("/character/id", json!(""), "character/id"),
            ("/character/avatarUrl", Value::Null, "character/avatarUrl"),
            ("/character/priceCredit", json!("1."), "character/priceCredit"),
            ("/character/priceCredit", json!("-1"), "character/priceCredit"),
            ("/character/priceCredit", json!(""), "character/priceCredit"),
            ("/cover", json!([]), "cover"),
            ("/cover/foregroundUrl", Value::Null, "cover/foregroundUrl"),
            ("/capabilities", json!({}), "capabilities"),
            ("/capabilities/0/type", json!("LLM"), "capabilities/0/type"),
            ("/capabilities/0/config", Value::Null, "capabilities/0/config"),
            ("/capabilities/0/config/apiKey", json!(5), "capabilities/0/config/apiKey"),
            ("/capabilities/0/config/llm", json!({ "model": "m" }), "capabilities/0/config/llm/temperature"),
            ("/avatarModels/0/type", json!("png"), "avatarModels/0/type"),
            ("/avatarModels/0/config/vrm", json!({ "urls": [5] }), "avatarModels/0/config/vrm/urls/0"),
            ("/i18n/0/tags", json!("t"), "i18n/0/tags"),
            ("/prompts/0/type", json!("poem"), "prompts/0/type"),
        ] {
            let change = |document: &mut Value| *document.pointer_mut(place).unwrap() = value.clone();
            assert_eq!(refused_at(change).as_deref(), Some(refused), "{place}");
        }
    }

    #[test]
    fn a_change_takes_six_members_and_ignores_those_of_the_server() {
        assert_eq!(change(b"{}").unwrap(), CharacterChange::default());
        let read = change(br#"{"id":"x","ownerId":"y","likesCount":"z","createdAt":1,"version":"2"}"#).unwrap();
        assert_eq!(read, CharacterChange { version: Some("2".to_owned()), ..CharacterChange::default() });
        change(br#"{"avatarUrl":null}"#).unwrap_err();
        change(br#"{"priceCredit":"free"}"#).unwrap_err();
    }
}
