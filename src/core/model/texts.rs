//! What people read on pages and in letters, by language: the files in `locales/`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A language of the catalogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Chinese, simplified.
    Chinese,
}

impl Language {
    /// The first language of an `Accept-Language` list that the catalogue has, in order of preference (RFC 9110
    /// §12.5.4); English when there is none.
    pub fn preferred(accept: &str) -> Self {
        let mut best: Option<(f32, Self)> = None;
        for item in accept.split(',') {
            let (range, parameters) = item.split_once(';').unwrap_or((item, ""));
            let weight = parameters.trim().strip_prefix("q=").map_or(Some(1.0), |text| text.trim().parse().ok());
            let Some(weight) = weight.filter(|weight: &f32| *weight > 0.0) else { continue };
            let Some(language) = Self::of_tag(range.trim()) else { continue };
            if best.is_none_or(|(found, _)| weight > found) {
                best = Some((weight, language));
            }
        }
        best.map_or_else(Self::default, |(_, language)| language)
    }

    /// The language of a tag such as `zh-Hant-TW`.
    pub fn of_tag(tag: &str) -> Option<Self> {
        match tag.split(['-', '_']).next()?.to_ascii_lowercase().as_str() {
            "en" => Some(Self::English),
            "zh" => Some(Self::Chinese),
            _ => None,
        }
    }

    /// Its tag in HTML.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-CN",
        }
    }

    /// The text of this name; the name itself where the catalogue has none, which a test excludes.
    pub fn text(self, name: &str) -> &str {
        self.find(name).unwrap_or_default()
    }

    /// The text of this name, if there is one.
    pub fn find(self, name: &str) -> Option<&'static str> {
        let texts = match self {
            Self::English => &ENGLISH,
            Self::Chinese => &CHINESE,
        };
        texts.get(name).map(String::as_str)
    }
}

static ENGLISH: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| read(include_str!("../../../locales/en.json")));
static CHINESE: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| read(include_str!("../../../locales/zh.json")));

fn read(json: &str) -> BTreeMap<String, String> {
    // A test reads both files.
    serde_json::from_str(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_have_the_same_texts_and_none_is_empty() {
        assert!(ENGLISH.len() > 30, "{}", ENGLISH.len());
        assert_eq!(ENGLISH.keys().collect::<Vec<_>>(), CHINESE.keys().collect::<Vec<_>>());
        assert!(ENGLISH.values().chain(CHINESE.values()).all(|text| !text.trim().is_empty()));
    }

    #[test]
    fn the_preferred_language_is_found() {
        for (accept, expected) in [
            ("", Language::English),
            ("zh", Language::Chinese),
            ("zh-Hant-TW,en;q=0.5", Language::Chinese),
            ("fr, en;q=0.8, zh;q=0.9", Language::Chinese),
            ("zh;q=0, en", Language::English),
            ("de", Language::English),
            ("en, zh", Language::English),
            (";;q=;,zh;q=x", Language::English),
        ] {
            assert_eq!(Language::preferred(accept), expected, "{accept}");
        }
    }
}
