//! OpenAI's shapes, for the API description only: the gateway carries bodies as they are.
//!
//! Members every client uses are named; all others are allowed and passed on.

use std::collections::BTreeMap;

use poem_openapi::types::{Any, Example};
use poem_openapi::{Enum, Object, Union};
use serde_json::{Value, json};

/// A chat to be continued.
#[derive(Object)]
#[oai(skip_serializing_if_is_none, example)]
pub(super) struct ChatCompletionRequest {
    /// A model id, or `auto` for the operator's choice; `auto` when absent.
    model: Option<String>,
    /// The conversation so far.
    messages: Vec<ChatMessage>,
    /// Whether the answer shall arrive as events.
    stream: Option<bool>,
    /// Options of the event stream.
    stream_options: Option<StreamOptions>,
    /// Sampling temperature.
    temperature: Option<f64>,
    /// Longest answer, tokens.
    max_tokens: Option<i64>,
    /// Everything else a provider understands.
    #[oai(flatten)]
    rest: BTreeMap<String, Any<Value>>,
}

/// Options of an event stream.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct StreamOptions {
    /// Whether a last chunk shall tell the usage.
    include_usage: Option<bool>,
    #[oai(flatten)]
    rest: BTreeMap<String, Any<Value>>,
}

/// One message of a conversation.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct ChatMessage {
    /// Who speaks.
    role: Role,
    /// What is said: text, or parts such as text and images.
    #[oai(nullable)]
    content: Option<MessageContent>,
    #[oai(flatten)]
    rest: BTreeMap<String, Any<Value>>,
}

/// Who speaks.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
enum Role {
    /// Instructions by the application, under their newer name.
    Developer,
    /// Instructions by the application.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// Text, or a list of parts.
#[derive(Union)]
enum MessageContent {
    Text(String),
    Parts(Vec<ContentPart>),
}

/// One part of a message.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct ContentPart {
    /// What sort of part, e.g. `text` or `image_url`.
    r#type: String,
    /// The text of a `text` part.
    text: Option<String>,
    #[oai(flatten)]
    rest: BTreeMap<String, Any<Value>>,
}

/// A whole answer.
#[derive(Object)]
#[oai(skip_serializing_if_is_none, example)]
pub(super) struct ChatCompletion {
    /// The provider's id of the answer.
    id: String,
    /// Always `chat.completion`.
    object: String,
    /// Seconds since 1970.
    created: i64,
    /// The model that answered.
    model: String,
    /// Answers; one unless more were asked for.
    choices: Vec<Choice>,
    /// What it took.
    usage: Option<Usage>,
    #[oai(flatten)]
    rest: BTreeMap<String, Any<Value>>,
}

/// One answer.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct Choice {
    /// Its place.
    index: i64,
    /// What the model says.
    message: ChatMessage,
    /// Why it ends.
    #[oai(nullable)]
    finish_reason: Option<String>,
    #[oai(flatten)]
    rest: BTreeMap<String, Any<Value>>,
}

/// One event of a streamed answer; the data of the last event is `[DONE]`.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(super) struct ChatCompletionChunk {
    /// The provider's id of the answer.
    id: String,
    /// Always `chat.completion.chunk`.
    object: String,
    /// Seconds since 1970.
    created: i64,
    /// The model that answers.
    model: String,
    /// What is new.
    choices: Vec<ChunkChoice>,
    /// What it took; in the last chunk, when asked for.
    usage: Option<Usage>,
    #[oai(flatten)]
    rest: BTreeMap<String, Any<Value>>,
}

/// What is new in one answer.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct ChunkChoice {
    /// Its place.
    index: i64,
    /// The new part of the message.
    delta: Any<BTreeMap<String, Any<Value>>>,
    /// Why it ends, in its last chunk.
    #[oai(nullable)]
    finish_reason: Option<String>,
    #[oai(flatten)]
    rest: BTreeMap<String, Any<Value>>,
}

/// Tokens used.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct Usage {
    /// Tokens read.
    prompt_tokens: i64,
    /// Tokens written.
    completion_tokens: i64,
    /// Both.
    total_tokens: Option<i64>,
    #[oai(flatten)]
    rest: BTreeMap<String, Any<Value>>,
}

/// The models a chat may name.
#[derive(Object)]
#[oai(skip_serializing_if_is_none, example)]
pub(super) struct ModelList {
    /// Always `list`.
    pub(super) object: String,
    /// The models.
    pub(super) data: Vec<Model>,
}

/// A model.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(super) struct Model {
    /// What to put into `model`.
    id: String,
    /// Always `model`.
    object: String,
    /// Always 0: when a model was made is not known here.
    created: i64,
    /// Always `airi`.
    owned_by: String,
}

impl Model {
    /// A model by its id.
    pub(super) fn named(id: String) -> Self {
        Self { id, object: "model".to_owned(), created: 0, owned_by: "airi".to_owned() }
    }
}

impl ChatMessage {
    fn text(role: Role, text: &str) -> Self {
        Self { role, content: Some(MessageContent::Text(text.to_owned())), rest: BTreeMap::new() }
    }
}

impl Example for ChatCompletionRequest {
    fn example() -> Self {
        Self {
            model: Some("auto".to_owned()),
            messages: vec![ChatMessage::text(Role::User, "Say hello.")],
            stream: Some(false),
            stream_options: None,
            temperature: None,
            max_tokens: None,
            rest: BTreeMap::new(),
        }
    }
}

impl Example for ChatCompletion {
    fn example() -> Self {
        Self {
            id: "chatcmpl-1".to_owned(),
            object: "chat.completion".to_owned(),
            created: 1_764_000_000,
            model: "chat-default".to_owned(),
            choices: vec![Choice {
                index: 0,
                message: ChatMessage::text(Role::Assistant, "Hello."),
                finish_reason: Some("stop".to_owned()),
                rest: BTreeMap::from([("logprobs".to_owned(), Any(json!(null)))]),
            }],
            usage: Some(Usage {
                prompt_tokens: 9,
                completion_tokens: 2,
                total_tokens: Some(11),
                rest: BTreeMap::new(),
            }),
            rest: BTreeMap::new(),
        }
    }
}

impl Example for ModelList {
    fn example() -> Self {
        Self { object: "list".to_owned(), data: vec![Model::named("auto".to_owned())] }
    }
}
