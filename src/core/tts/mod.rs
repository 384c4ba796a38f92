//! Speech: admit, plan, walk, relay, settle (contract `audio.md`).

pub mod gate;
pub mod plan;
pub mod relay;
pub mod session;
pub mod settle;
pub mod spoken_error;
pub mod streams;
pub mod voices;
pub mod walk;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};

pub use gate::{Gate, InFlight};
pub use settle::Settle;
pub use walk::Walk;

use self::plan::Plan;
use self::relay::Relay;
use self::walk::Routed;
use super::config::Config;
use super::error::{Code, Error};
use super::limits::Limits;
use super::model::config::{DefaultTtsModel, LlmRouterConfig};
use super::model::fact::Fact;
use super::model::ids::{RequestId, UserId};
use super::model::llm::{AUTO_MODEL, RouterConfig};
use super::model::request_log::MODEL_CHARS;
use super::model::tts::{SANDBOX_MODEL, SpeechBody, UnusableBody, units};
use crate::ports::limits::Slots;
use crate::ports::runtime::Clock;
use crate::ports::tts::StreamingSpeech;
use crate::ports::upstream::ByteStream;

/// Speaks texts and bills them.
pub struct Speech {
    /// The alias, the routing document and recommended voices.
    pub config: Arc<Config>,
    /// Who may speak.
    pub gate: Gate,
    /// Finds an upstream that speaks.
    pub walk: Walk,
    /// Bills and logs.
    pub settle: Settle,
    /// How often a socket may be opened.
    pub limits: Arc<Limits>,
    /// How many sockets a user may have at once.
    pub slots: Arc<dyn Slots>,
    /// The streaming upstream.
    pub streaming: Arc<dyn StreamingSpeech>,
    /// Copies of those voices; start with the default.
    pub copies: voices::Copies,
    /// Measures calls.
    pub clock: Arc<dyn Clock>,
}

/// One call of a signed-in user.
#[derive(Clone, Debug)]
pub struct SpeechCall {
    /// Who calls and pays.
    pub user: UserId,
    /// Fresh for every call: the meter takes it once.
    pub request: RequestId,
    /// As received.
    pub body: Bytes,
}

/// What the caller gets.
pub struct Spoken {
    /// Media type of the audio.
    pub content_type: String,
    /// The audio as it arrives. Ends with an `Err` when the connection must be ended abnormally. Dropping it stops the
    /// upstream and settles the call as left by the client.
    pub body: ByteStream,
    /// What the text costs when it is delivered, units of the meter.
    pub units: i64,
    /// From the start of the call to the first byte of audio.
    pub first_audio: Duration,
}

impl std::fmt::Debug for Spoken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spoken").field("content_type", &self.content_type).finish_non_exhaustive()
    }
}

impl Speech {
    /// Speaks a text. Gates in order: price, a balance above zero, body, alias, the exact funds, routing; a caller
    /// without money and with a malformed body is told about the money.
    ///
    /// Safe to drop at any await: a call that reached routing leaves exactly one row, and audio that reached the client
    /// is billed.
    pub async fn speak(&self, call: SpeechCall) -> Result<Spoken, Error> {
        let started = self.clock.elapsed();
        let SpeechCall { user, request, body } = call;
        let tariff = self.gate.tariff().await?;
        let balance = self.gate.solvent(&user).await?;
        let members = SpeechBody::members(&body).map_err(|why| refused(&why))?;
        drop(body);
        let requested = SpeechBody::requested_model(&members);
        let model = self.resolve(&requested).await?;
        let body = SpeechBody::read(members).map_err(|why| refused(&why))?;
        let cost = units(&body.input);
        let logged: String = model.chars().take(MODEL_CHARS).collect();
        self.walk.journal.record(Fact::SpeechRequested {
            request: request.clone(),
            user: user.clone(),
            model: logged.clone(),
            units: cost,
            voice: body.voice.clone(),
        });
        let admission = self.gate.admit(user, request, tariff, balance, cost).await?;
        let mut open = self.settle.open(admission, logged, cost, started);
        let routed = match self.route(&requested, &model, tariff.set, &body).await {
            Ok(routed) => routed,
            Err(error) => {
                open.refuse(&error);
                return Err(error);
            }
        };
        let first_audio = open.answered(&routed);
        let audio = routed.audio;
        let relay = Relay::new(audio.body, move |end, bytes| open.delivered(end, bytes));
        Ok(Spoken { content_type: audio.content_type, body: relay.boxed(), units: cost, first_audio })
    }

    /// Makes shutdown wait until what is returned is dropped.
    pub fn outlive(&self, name: &'static str) -> impl Send + Sync + use<> {
        let (alive, gone) = oneshot::channel::<()>();
        self.settle.tasks.spawn(name, Box::pin(gone.map(|_| ())));
        alive
    }

    /// The logical model id; routing never sees `auto`.
    async fn resolve(&self, requested: &Value) -> Result<String, Error> {
        match requested.as_str() {
            Some(AUTO_MODEL) => {}
            Some(id) => return Ok(id.to_owned()),
            None => return Ok(requested.to_string()),
        }
        if let Some(id) = self.config.optional::<DefaultTtsModel>().await? {
            return Ok(id);
        }
        if self.gate.sandbox && self.config.optional::<LlmRouterConfig>().await?.is_none() {
            return Ok(SANDBOX_MODEL.to_owned());
        }
        self.config.required::<DefaultTtsModel>().await
    }

    async fn route(&self, requested: &Value, model: &str, priced: bool, body: &SpeechBody) -> Result<Routed, Error> {
        let tree = self.tree().await?;
        let entry = tree.as_ref().and_then(|tree| Some((tree.tts.models.get(model)?, &tree.defaults)));
        let plan = match entry {
            Some(_) if !priced => {
                return Err(Error::new(Code::ConfigNotSet).saying("TTS service is not available yet"));
            }
            Some((entry, defaults)) => Plan::new(entry, defaults),
            None if self.gate.sandbox && model == SANDBOX_MODEL => Plan::sandbox(),
            None => return Err(self.unknown(requested, model, tree.as_deref())),
        };
        self.walk.walk(&plan, model, body).await
    }

    /// The routing document; absent is an error where nothing else can speak.
    async fn tree(&self) -> Result<Option<Arc<RouterConfig>>, Error> {
        let tree = self.config.optional::<LlmRouterConfig>().await?;
        if tree.is_none() && !self.gate.sandbox {
            return Err(Error::new(Code::ConfigNotSet).because("LLM_ROUTER_CONFIG is not set"));
        }
        Ok(tree)
    }

    fn unknown(&self, requested: &Value, model: &str, tree: Option<&RouterConfig>) -> Error {
        let mut available: Vec<&str> =
            tree.into_iter().flat_map(|tree| tree.tts.models.keys().map(String::as_str)).collect();
        if self.gate.sandbox && !available.contains(&SANDBOX_MODEL) {
            available.push(SANDBOX_MODEL);
        }
        // What `auto` stands for was not the caller's word, but it is what is missing.
        let requested = if requested == AUTO_MODEL { &Value::from(model) } else { requested };
        let details = json!({ "requested": requested, "available": available });
        Error::new(Code::BadRequest).saying("unknown_model").with_details(details)
    }
}

fn refused(why: &UnusableBody) -> Error {
    match why {
        UnusableBody::NotAnObject => Error::new(Code::InvalidBody).saying(why.to_string()),
        UnusableBody::Members(issues) => {
            let details = issues.iter().map(|issue| json!({ "path": issue.path, "message": issue.message }));
            Error::new(Code::InvalidRequest).with_details(details.collect())
        }
    }
}
