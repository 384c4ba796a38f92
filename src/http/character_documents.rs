//! Characters as clients write them, for the API description only: the core reads the bodies itself.

use poem_openapi::{Enum, Object};

/// A character to be stored. Members that are not listed here are ignored.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct CharacterDocument {
    /// The character itself.
    character: NewCharacterDocument,
    /// Its cover.
    cover: Option<NewCover>,
    /// What it can do.
    capabilities: Option<Vec<NewCapability>>,
    /// What it looks like.
    avatar_models: Option<Vec<NewAvatarModel>>,
    /// In which languages.
    i18n: Option<Vec<NewLocale>>,
    /// What models are told.
    prompts: Option<Vec<NewPrompt>>,
}

/// The character itself.
#[derive(Object)]
#[oai(rename = "NewCharacter", rename_all = "camelCase")]
struct NewCharacterDocument {
    /// 21 random characters when absent.
    #[oai(validator(min_length = 1, max_length = 255))]
    id: Option<String>,
    /// Version of the card.
    version: String,
    /// Address of a picture.
    cover_url: String,
    /// A free label.
    character_id: String,
    /// Address of a picture.
    avatar_url: Option<String>,
    /// What the creator is to it.
    creator_role: Option<String>,
    /// A number as text; `0` when absent.
    #[oai(validator(pattern = "^[0-9]+([.][0-9]+)?$"))]
    price_credit: Option<String>,
}

/// Changes of a character; members left out stay. Members that are not listed here are ignored.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct CharacterPatch {
    /// Version of the card.
    version: Option<String>,
    /// Address of a picture.
    cover_url: Option<String>,
    /// A free label.
    character_id: Option<String>,
    /// Address of a picture.
    avatar_url: Option<String>,
    /// What the creator is to it.
    creator_role: Option<String>,
    /// A number as text.
    #[oai(validator(pattern = "^[0-9]+([.][0-9]+)?$"))]
    price_credit: Option<String>,
}

/// Pictures behind and in front of a character.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct NewCover {
    /// 21 random characters when absent.
    #[oai(validator(min_length = 1, max_length = 255))]
    id: Option<String>,
    /// Address of a picture.
    foreground_url: String,
    /// Address of a picture.
    background_url: String,
}

/// What a character can do.
#[derive(Object)]
struct NewCapability {
    /// 21 random characters when absent.
    #[oai(validator(min_length = 1, max_length = 255))]
    id: Option<String>,
    /// What it is for.
    r#type: CapabilityType,
    /// With which service. Not checked against the type.
    config: CapabilityConfig,
}

/// What a capability is for.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
enum CapabilityType {
    /// Text.
    Llm,
    /// Speech.
    Tts,
    /// Pictures.
    Vlm,
    /// Hearing.
    Asr,
}

/// With which service a character does something.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct CapabilityConfig {
    /// The key; sealed when stored, shown to the owner alone.
    api_key: String,
    /// Where the service is.
    api_base_url: String,
    /// Of a language model.
    llm: Option<LlmConfig>,
    /// Of a voice.
    tts: Option<TtsConfig>,
    /// Of a vision model.
    vlm: Option<VlmConfig>,
    /// Of a recogniser.
    asr: Option<AsrConfig>,
}

/// Of a language model.
#[derive(Object)]
struct LlmConfig {
    /// How freely it speaks.
    temperature: f64,
    /// Which.
    model: String,
}

/// Of a voice.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct TtsConfig {
    /// A template.
    ssml: String,
    /// Which.
    voice_id: String,
    /// How fast.
    speed: f64,
    /// How high.
    pitch: f64,
}

/// Of a vision model.
#[derive(Object)]
struct VlmConfig {
    /// An address.
    image: String,
}

/// Of a recogniser.
#[derive(Object)]
struct AsrConfig {
    /// An address.
    audio: String,
}

/// What a character looks like.
#[derive(Object)]
struct NewAvatarModel {
    /// 21 random characters when absent.
    #[oai(validator(min_length = 1, max_length = 255))]
    id: Option<String>,
    /// A name.
    name: String,
    /// The format.
    r#type: AvatarType,
    /// A text.
    description: String,
    /// Where the files are. Not checked against the type.
    config: AvatarConfig,
}

/// The format of an avatar.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
enum AvatarType {
    /// VRM.
    Vrm,
    /// Live2D.
    Live2d,
}

/// Where the files of an avatar are.
#[derive(Object)]
pub(super) struct AvatarConfig {
    /// VRM files.
    vrm: Option<AvatarFiles>,
    /// Live2D files.
    live2d: Option<AvatarFiles>,
}

/// Files.
#[derive(Object)]
struct AvatarFiles {
    /// Addresses.
    urls: Vec<String>,
}

/// A character in one language.
#[derive(Object)]
struct NewLocale {
    /// 21 random characters when absent.
    #[oai(validator(min_length = 1, max_length = 255))]
    id: Option<String>,
    /// A language tag.
    language: String,
    /// The character's name.
    name: String,
    /// One line.
    tagline: Option<String>,
    /// A text.
    description: String,
    /// Words to find it by.
    tags: Vec<String>,
}

/// What a model is told.
#[derive(Object)]
struct NewPrompt {
    /// 21 random characters when absent.
    #[oai(validator(min_length = 1, max_length = 255))]
    id: Option<String>,
    /// A language tag.
    language: String,
    /// What it is for.
    r#type: PromptType,
    /// The text.
    content: String,
}

/// What a prompt is for.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
enum PromptType {
    /// Before everything else.
    System,
    /// Who the character is.
    Personality,
    /// How it begins.
    Greetings,
}
