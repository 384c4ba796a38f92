//! `/audio`: speech and its voices (contract `audio.md` §1, §2, §5).

use std::io;
use std::sync::Arc;

use futures::TryStreamExt;
use poem::http::HeaderValue;
use poem::web::Data;
use poem::{Body, Endpoint, EndpointExt, IntoResponse, Response};
use poem_openapi::param::Query;
use poem_openapi::payload::{Binary, Json, Payload};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::{Any, Example};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::{Map, Value, json};

use super::auth::SignedIn;
use super::error::ApiError;
use super::middleware::limit_calls::limit_calls;
use super::payload::Raw;
use super::spec::{Tag, header};
use crate::core::App;
use crate::core::model::ids::RequestId;
use crate::core::model::limits::{AUDIO_CATALOG, AUDIO_SPEECH};
use crate::core::tts::voices::Voices;
use crate::core::tts::{SpeechCall, Spoken};

/// Speech and its catalogues. The streaming socket is described in the contract, not here.
pub(super) struct AudioApi;

/// A text to be spoken.
#[derive(Object)]
#[oai(skip_serializing_if_is_none, example)]
struct SpeechRequest {
    /// A speech model id, or `auto` for the operator's choice; `auto` when absent.
    model: Option<String>,
    /// The text: 1 to 4096 characters, not only white space.
    #[oai(validator(min_length = 1, max_length = 4096))]
    input: String,
    /// A voice of the model; the provider's usual one when absent.
    voice: Option<String>,
    /// `mp3`, `opus`, `aac`, `flac`, `wav`, `pcm`, or a code of the provider's own. Not every model knows every one.
    response_format: Option<String>,
    /// Speaking rate, 0.25 to 4; 1 is normal.
    speed: Option<f64>,
}

/// The models a client may show.
#[derive(Object)]
#[oai(example)]
struct SpeechModels {
    /// One entry: which model speaks is the operator's choice.
    models: Vec<SpeechModel>,
}

/// One model.
#[derive(Object)]
struct SpeechModel {
    /// What to send as `model`.
    id: String,
    /// What to show.
    name: String,
}

/// The voices of a model.
#[derive(Object)]
#[oai(skip_serializing_if_is_none, example)]
struct VoiceList {
    /// Each with `id`, `name`, `description`, `languages`, `labels`, `tags`, `compatible_models` and `formats`.
    voices: Vec<Any<Map<String, Value>>>,
    /// Recommended voice ids by locale.
    recommended: Any<Map<String, Value>>,
    /// Present and true when the provider could not be asked and what is shown may be old.
    degraded: Option<bool>,
}

#[OpenApi(prefix_path = "/api/v1/audio", tag = "Tag::Audio")]
impl AudioApi {
    /// Speak a text
    ///
    /// Audio is sent as the provider makes it. Characters accumulate and are charged in whole flux; what is left over is
    /// kept for the next call. Admitted are 60 calls per 60 s and user.
    #[oai(path = "/speech", method = "post", operation_id = "createSpeech", transform = "counted")]
    async fn speak(
        &self,
        app: Data<&Arc<App>>,
        request: Data<&RequestId>,
        caller: SignedIn,
        body: Raw<SpeechRequest>,
    ) -> Result<SpeechAnswer, ApiError> {
        let call = SpeechCall { user: caller.0.user().clone(), request: request.clone(), body: body.bytes };
        Ok(SpeechAnswer(app.speech.speak(call).await?))
    }

    /// List the voices of a speech model
    ///
    /// Admitted are 120 calls of the catalogues per 60 s and user.
    #[oai(path = "/voices", method = "get", operation_id = "listVoices", transform = "catalogued")]
    async fn voices(
        &self,
        app: Data<&Arc<App>>,
        _caller: SignedIn,
        /// A speech model id; `auto` when absent.
        model: Query<Option<String>>,
    ) -> Result<Json<VoiceList>, ApiError> {
        Ok(Json(app.speech.voices(model.0.as_deref()).await?.into()))
    }

    /// List the voices of the streaming socket
    ///
    /// Empty while no streaming upstream is configured.
    #[oai(path = "/voices/streaming", method = "get", operation_id = "listStreamingVoices", transform = "catalogued")]
    async fn streaming_voices(
        &self,
        app: Data<&Arc<App>>,
        _caller: SignedIn,
        /// A model id of the streaming upstream, with or without the part before the slash.
        model: Query<Option<String>>,
    ) -> Result<Json<VoiceList>, ApiError> {
        Ok(Json(app.speech.streaming_voices(model.0.as_deref()).await?.into()))
    }

    /// List the speech models a client may show
    #[oai(path = "/models", method = "get", operation_id = "listSpeechModels", transform = "catalogued")]
    async fn models(&self, _caller: SignedIn) -> Result<Json<SpeechModels>, ApiError> {
        Ok(Json(SpeechModels::example()))
    }
}

fn counted(ep: impl Endpoint + 'static) -> impl Endpoint {
    ep.around(|next, req| limit_calls(next, req, &AUDIO_SPEECH))
}

fn catalogued(ep: impl Endpoint + 'static) -> impl Endpoint {
    ep.around(|next, req| limit_calls(next, req, &AUDIO_CATALOG))
}

/// Audio on its way.
struct SpeechAnswer(Spoken);

impl IntoResponse for SpeechAnswer {
    fn into_response(self) -> Response {
        let Spoken { content_type, body, units, first_audio } = self.0;
        let body = Body::from_bytes_stream(body.map_err(io::Error::other));
        let mut answer = Response::builder().content_type(content_type).body(body);
        let timing = format!("ttfa;dur={:.1}", first_audio.as_secs_f64() * 1e3);
        if let Ok(timing) = HeaderValue::from_str(&timing) {
            answer.headers_mut().insert("server-timing", timing);
        }
        answer.headers_mut().insert("x-airi-billed-units", HeaderValue::from(units));
        answer.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        answer
    }
}

impl ApiResponse for SpeechAnswer {
    fn meta() -> MetaResponses {
        let media = |content_type| MetaMediaType { content_type, schema: Binary::<Body>::schema_ref() };
        MetaResponses {
            responses: vec![MetaResponse {
                description: "The audio, as it is made. Its type follows the format and the provider.",
                status: Some(200),
                status_range: None,
                content: vec![media("audio/mpeg"), media("audio/wav"), media("audio/ogg")],
                headers: vec![
                    header::<String>(
                        "X-Request-Id",
                        "Names this call in the ledger, in the request log and to support.",
                    ),
                    header::<i64>(
                        "X-Airi-Billed-Units",
                        "Characters this call adds to the meter when it is delivered.",
                    ),
                    header::<String>("Server-Timing", "`ttfa;dur=` and the ms until the provider's first audio."),
                ],
            }],
        }
    }

    fn register(_registry: &mut Registry) {}
}

impl From<Voices> for VoiceList {
    fn from(found: Voices) -> Self {
        let object = |voice| match voice {
            Value::Object(members) => Some(Any(members)),
            // Clients read members; what has none would break them.
            _ => None,
        };
        let recommended = found.recommended.into_iter().map(|(locale, voice)| (locale, Value::from(voice))).collect();
        Self {
            voices: found.voices.into_iter().filter_map(object).collect(),
            recommended: Any(recommended),
            degraded: found.degraded.then_some(true),
        }
    }
}

impl Example for SpeechRequest {
    fn example() -> Self {
        Self {
            model: Some("auto".to_owned()),
            input: "Hello there.".to_owned(),
            voice: None,
            response_format: Some("mp3".to_owned()),
            speed: None,
        }
    }
}

impl Example for SpeechModels {
    fn example() -> Self {
        Self { models: vec![SpeechModel { id: "auto".to_owned(), name: "Auto".to_owned() }] }
    }
}

impl Example for VoiceList {
    fn example() -> Self {
        let voice = json!({
            "id": "en-US-AvaMultilingualNeural",
            "name": "Ava (Multilingual Neural)",
            "languages": [{ "code": "en-US", "title": "English (US)" }],
            "labels": { "gender": "Female" },
        });
        let recommended = json!({ "en-US": "en-US-AvaMultilingualNeural" });
        Self {
            voices: voice.as_object().cloned().map(Any).into_iter().collect(),
            recommended: Any(recommended.as_object().cloned().unwrap_or_default()),
            degraded: None,
        }
    }
}
