//! Chat completions: admit, plan, walk, meter, settle (contract `gateway.md`).

pub mod events;
pub mod metered;
pub mod plan;
pub mod reject;
pub mod reservation;
pub mod sanitise;
pub mod settle;
pub mod usage;
pub mod walk;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde_json::{Value, json};

pub use plan::SANDBOX_MODEL;
pub use settle::{Admission, Settle};
pub use walk::{OnUnreadableKey, RoutingPolicy, UsageRefusals, Walk};

use self::metered::Metered;
use self::plan::Plan;
use self::reservation::Reservation;
use self::settle::{Generation, OpenCall};
use self::usage::{TokenCounts, UsageScanner};
use self::walk::Routed;
use super::config::Config;
use super::error::{Code, Error};
use super::health::Liveness;
use super::ledger::Ledger;
use super::model::config::{DefaultChatModel, FluxAdmission, FluxPer1kTokens, FluxPerRequest, LlmRouterConfig};
use super::model::fact::Fact;
use super::model::hold::AdmissionMode;
use super::model::ids::{RequestId, UserId};
use super::model::ledger::Flux;
use super::model::llm::{AUTO_MODEL, ChatBody, InvalidBody, Tariff};
use crate::ports::runtime::Clock;
use crate::ports::upstream::{ByteStream, UpstreamError};

/// The longest answer that is read as a whole, bytes (GW-D06).
const ANSWER_CAP: usize = 32 << 20;

/// A cached balance this many prices near the threshold is not trusted (contract `gateway.md` §7.1).
const TRUSTED_DISTANCE: i64 = 10;

/// Longest model id a row or a metric holds, characters; callers may send anything.
const MODEL_CHARS: usize = 200;

/// Answers chat completions and charges them.
pub struct Completions {
    /// Prices, the alias and the routing document.
    pub config: Arc<Config>,
    /// The gate's balance.
    pub ledger: Arc<Ledger>,
    /// Finds an upstream that answers.
    pub walk: Walk,
    /// Charges and logs.
    pub settle: Settle,
    /// Whether the database can account for what a call costs.
    pub storage: Liveness,
    /// Measures calls.
    pub clock: Arc<dyn Clock>,
}

/// One call of a signed-in user.
#[derive(Clone, Debug)]
pub struct CompletionCall {
    /// Who calls and pays.
    pub user: UserId,
    /// Fresh for every call: the ledger charges it once.
    pub request: RequestId,
    /// As received.
    pub body: Bytes,
}

/// What the caller gets.
pub enum Completion {
    /// A whole answer, status 200, `application/json`.
    Json {
        /// The upstream's JSON text, untouched.
        body: Bytes,
    },
    /// A stream whose first byte has arrived.
    Stream {
        /// The upstream's status, 200 to 299.
        status: u16,
        /// The upstream's content type.
        content_type: String,
        /// Ends with an `Err` when the connection must be ended abnormally. Dropping it stops the upstream and
        /// settles the call as left by the client.
        body: ByteStream,
    },
}

impl std::fmt::Debug for Completion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Json { body } => f.debug_struct("Json").field("size_bytes", &body.len()).finish_non_exhaustive(),
            Self::Stream { status, .. } => f.debug_struct("Stream").field("status", status).finish_non_exhaustive(),
        }
    }
}

impl Completions {
    /// Answers a call. Gates in order: prices, balance, body, alias, routing; an underfunded caller with a malformed
    /// body is told about the money.
    ///
    /// Safe to drop at any await: a call that reached routing leaves exactly one row, and an answered one is charged.
    pub async fn complete(&self, call: CompletionCall) -> Result<Completion, Error> {
        let started = self.clock.elapsed();
        let CompletionCall { user, request, body } = call;
        let admission = self.admit(user, request).await?;
        let parsed = ChatBody::parse(&body).map_err(|why| refused_body(&why))?;
        drop(body);
        let requested = parsed.requested_model();
        let model = self.resolve(&requested).await?;
        let logged: String = model.chars().take(MODEL_CHARS).collect();
        self.walk.journal.record(Fact::GenerationRequested {
            request: admission.request.clone(),
            user: admission.user.clone(),
            model: logged.clone(),
            stream: parsed.streams(),
            messages: parsed.message_count(),
        });
        let generation = Generation {
            model: logged,
            stream: parsed.streams(),
            messages_len: parsed.messages_len(),
            started,
            routing: self.clock.elapsed(),
        };
        let mut open = self.settle.open(admission, generation);
        let routed = match self.route(&requested, &model, &parsed).await {
            Ok(routed) => routed,
            Err(error) => {
                open.refuse(&error);
                return Err(error);
            }
        };
        open.answered(&routed);
        if parsed.streams() {
            return Ok(stream(open, routed, parsed.asks_for_usage()));
        }
        drop(parsed);
        self.whole(open, routed).await
    }

    /// Model ids a caller may name: `auto` first, then the configured ones in their order.
    pub async fn models(&self) -> Result<Vec<String>, Error> {
        let tree = self.config.optional::<LlmRouterConfig>().await?;
        let configured = tree.iter().flat_map(|tree| tree.llm.models.keys().cloned());
        let mut models: Vec<String> = std::iter::once(AUTO_MODEL.to_owned()).chain(configured).collect();
        if self.walk.policy.sandbox && !models.iter().any(|model| model == SANDBOX_MODEL) {
            models.push(SANDBOX_MODEL.to_owned());
        }
        Ok(models)
    }

    /// The gate: against the flat price rather than zero, so that a small remainder does not buy many unpaid calls; the
    /// flat price is set aside, so that calls at once cannot spend it twice.
    async fn admit(&self, user: UserId, request: RequestId) -> Result<Admission, Error> {
        self.storage.require().await?;
        let per_request = self.config.required::<FluxPerRequest>().await?;
        let per_thousand_tokens = self.config.required::<FluxPer1kTokens>().await?;
        let mut balance = self.ledger.balance(&user).await?;
        let trusted = per_request.get().saturating_mul(TRUSTED_DISTANCE + 1);
        if balance <= Flux::saturating(trusted) {
            balance = self.ledger.settled(&user).await?;
        }
        if balance < per_request {
            return Err(Error::new(Code::InsufficientFlux));
        }
        let reservation = match self.config.required::<FluxAdmission>().await? {
            AdmissionMode::PostDebit => None,
            AdmissionMode::Hold => {
                let (ledger, tasks) = (Arc::clone(&self.ledger), Arc::clone(&self.settle.tasks));
                Some(Reservation::take(ledger, tasks, (user.clone(), request.clone()), per_request).await?)
            }
        };
        Ok(Admission { user, request, tariff: Tariff { per_request, per_thousand_tokens }, reservation })
    }

    /// The logical model id; routing never sees `auto`.
    async fn resolve(&self, requested: &Value) -> Result<String, Error> {
        match requested.as_str() {
            Some(AUTO_MODEL) => {}
            Some(id) => return Ok(id.to_owned()),
            None => return Ok(requested.to_string()),
        }
        if let Some(id) = self.config.optional::<DefaultChatModel>().await? {
            return Ok(id);
        }
        if self.walk.policy.sandbox && self.config.optional::<LlmRouterConfig>().await?.is_none() {
            return Ok(SANDBOX_MODEL.to_owned());
        }
        self.config.required::<DefaultChatModel>().await
    }

    async fn route(&self, requested: &Value, model: &str, body: &ChatBody) -> Result<Routed, Error> {
        let sandbox = self.walk.policy.sandbox;
        let tree = self.config.optional::<LlmRouterConfig>().await?;
        if tree.is_none() && !sandbox {
            return Err(Error::new(Code::ConfigNotSet).saying("LLM_ROUTER_CONFIG not set"));
        }
        let entry = tree.as_ref().and_then(|tree| Some((tree.llm.models.get(model)?, &tree.defaults)));
        let plan = match entry {
            Some((entry, defaults)) => Plan::new(model, entry, defaults),
            None if sandbox && model == SANDBOX_MODEL => Plan::sandbox(),
            None => {
                let mut available = self.models().await?;
                available.retain(|id| id != AUTO_MODEL);
                // What `auto` stands for was not the caller's word, but it is what is missing.
                let requested = if requested == AUTO_MODEL { &Value::from(model) } else { requested };
                let details = json!({ "requested": requested, "available": available });
                return Err(Error::new(Code::BadRequest).saying("unknown_model").with_details(details));
            }
        };
        self.walk.walk(&plan, model, body).await
    }

    async fn whole(&self, open: OpenCall, routed: Routed) -> Result<Completion, Error> {
        let status = routed.answer.status;
        let read = collect(routed.answer.body).await;
        let parsed = read.and_then(|body| match TokenCounts::of_whole(&body) {
            Some(counts) => Ok((body, counts)),
            None => Err(Unusable::Unreadable),
        });
        let (body, counts) = match parsed {
            Ok(parsed) => parsed,
            Err(why) => {
                let error = why.told(&routed.provider, status);
                if matches!(why, Unusable::Unreadable) {
                    self.walk.journal.record(Fact::UpstreamRefused { provider: routed.provider, status });
                }
                open.refuse(&error);
                return Err(error);
            }
        };
        open.deliver_whole(counts).await;
        Ok(Completion::Json { body })
    }
}

fn refused_body(why: &InvalidBody) -> Error {
    let code = match why {
        InvalidBody::NotAnObject => Code::InvalidBody,
        InvalidBody::Member { .. } => Code::InvalidRequest,
    };
    Error::new(code).saying(why.to_string())
}

fn stream(open: OpenCall, routed: Routed, asked_for_usage: bool) -> Completion {
    let content_type = routed.answer.content_type.unwrap_or_else(|| "text/event-stream".to_owned());
    // Anything but an event stream has no events to withhold, and must not wait for their ends.
    let events = content_type.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
    let scanner = UsageScanner::new(events && !asked_for_usage);
    let body = Metered::new(routed.answer.body, scanner, move |delivery| open.deliver_stream(delivery));
    Completion::Stream { status: routed.answer.status, content_type, body: body.boxed() }
}

/// Why a success cannot be delivered.
enum Unusable {
    /// Not JSON, or too long.
    Unreadable,
    /// It broke off or took too long.
    CutShort,
}

impl Unusable {
    fn told(&self, provider: &str, status: u16) -> Error {
        match self {
            Self::Unreadable => {
                let cause = format!("{provider} answered {status} with a body that is no JSON of at most 32 MiB");
                Error::new(Code::BadGateway).because(cause)
            }
            Self::CutShort => Error::new(Code::GatewayTimeout).because(format!("{provider} broke off its answer")),
        }
    }
}

async fn collect(mut body: ByteStream) -> Result<Bytes, Unusable> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_: UpstreamError| Unusable::CutShort)?;
        if whole.len().saturating_add(chunk.len()) > ANSWER_CAP {
            return Err(Unusable::Unreadable);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests;
