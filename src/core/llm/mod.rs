//! Chat completions: admit, plan, walk, meter, settle (contract `gateway.md`).

pub mod allowance;
pub mod events;
pub mod metered;
mod once;
pub mod plan;
pub mod reject;
pub mod reservation;
pub mod sanitise;
pub mod settle;
pub mod usage;
pub mod walk;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde_json::{Value, json};

pub use plan::SANDBOX_MODEL;
pub use settle::{Admission, Settle};
pub use walk::{OnUnreadableKey, RoutingPolicy, UsageRefusals, Walk};

use self::allowance::{Allowance, Bound, prompt_tokens};
use self::metered::Metered;
use self::plan::Plan;
use self::reservation::{Claimant, Reservation};
use self::settle::{Generation, OpenCall};
use self::usage::{TokenCounts, UsageScanner, tokens_of_whole};
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
use super::model::llm::{AUTO_MODEL, ChatBody, Defaults, InvalidBody, Tariff};
use super::model::request_log::MODEL_CHARS;
use crate::ports::idempotency::IdempotencyRepo;
use crate::ports::llm::TokenCounter;
use crate::ports::runtime::Clock;
use crate::ports::upstream::{ByteStream, UpstreamError};

/// The longest answer that is read as a whole, bytes (GW-D06).
const ANSWER_CAP: usize = 32 << 20;

/// A cached balance this many prices near the threshold is not trusted (contract `gateway.md` §7.1).
const TRUSTED_DISTANCE: i64 = 10;

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
    /// Calls named by their callers.
    pub keys: Arc<dyn IdempotencyRepo>,
    /// Counts what no upstream counted.
    pub counter: Arc<dyn TokenCounter>,
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
        /// What it cost; unknown while the database is away.
        charged: Option<Flux>,
        /// The tokens it was limited to, because the balance affords no more.
        clamped: Option<u64>,
    },
    /// A stream whose first byte has arrived.
    Stream {
        /// The upstream's status, 200 to 299.
        status: u16,
        /// The upstream's content type.
        content_type: String,
        /// The tokens it is limited to, because the balance affords no more.
        clamped: Option<u64>,
        /// Ends with an `Err` when the connection must be ended abnormally. Dropping it stops the upstream and
        /// settles the call as left by the client.
        body: ByteStream,
    },
}

impl std::fmt::Debug for Completion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Json { body, .. } => f.debug_struct("Json").field("size_bytes", &body.len()).finish_non_exhaustive(),
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
        let tariff = self.gate(&user).await?;
        let mut parsed = ChatBody::parse(&body).map_err(|why| refused_body(&why))?;
        drop(body);
        let requested = parsed.requested_model();
        let model = self.resolve(&requested).await?;
        let Admitted { admission, bound, clamped } = self.admit((user, request), tariff, &parsed, &model).await?;
        if let Some(tokens) = clamped {
            parsed.limit_tokens(tokens);
        }
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
            prompt_tokens: bound.map_or((parsed.messages_len() as u64).div_ceil(4), |bound| bound.prompt()),
            started,
            routing: self.clock.elapsed(),
        };
        let allowance = admission
            .reservation
            .as_ref()
            .filter(|held| held.is_open())
            .zip(bound)
            .map(|(reservation, bound)| Allowance::new(reservation.pledge(), bound, Arc::clone(&self.clock)));
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
            return Ok(self.stream(open, routed, parsed.asks_for_usage(), (allowance, clamped)));
        }
        drop(parsed);
        self.whole(open, routed, clamped).await
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

    /// The gate: against the flat price rather than zero, so that a small remainder does not buy many unpaid calls.
    async fn gate(&self, user: &UserId) -> Result<Tariff, Error> {
        self.storage.require().await?;
        let per_request = self.config.required::<FluxPerRequest>().await?;
        let per_thousand_tokens = self.config.required::<FluxPer1kTokens>().await?;
        let mut balance = self.ledger.balance(user).await?;
        let trusted = per_request.get().saturating_mul(TRUSTED_DISTANCE + 1);
        if balance <= Flux::saturating(trusted) {
            balance = self.ledger.settled(user).await?;
        }
        if balance < per_request {
            return Err(Error::new(Code::InsufficientFlux));
        }
        Ok(Tariff { per_request, per_thousand_tokens })
    }

    /// Sets aside what the call may cost, so that calls at once cannot spend it twice.
    async fn admit(
        &self,
        (user, request): (UserId, RequestId),
        tariff: Tariff,
        body: &ChatBody,
        model: &str,
    ) -> Result<Admitted, Error> {
        if self.config.required::<FluxAdmission>().await? == AdmissionMode::PostDebit {
            let admission = Admission { user, request, tariff, reservation: None };
            return Ok(Admitted { admission, bound: None, clamped: None });
        }
        self.counter.ready().await;
        let tree = self.config.optional::<LlmRouterConfig>().await?;
        let cap = tree.as_ref().and_then(|tree| tree.llm.models.get(model)?.max_output_tokens);
        let bound = Bound::of(body, prompt_tokens(body, self.counter.as_ref()), tariff, cap);
        let limits = tree.as_ref().map(|tree| tree.defaults.clone()).unwrap_or_default();
        let claimant = Claimant { user: user.clone(), request: request.clone(), lease: lease(&limits) };
        let (ledger, tasks) = (Arc::clone(&self.ledger), Arc::clone(&self.settle.tasks));
        let wish = (bound.least(), bound.most());
        let (reservation, available) = Reservation::take(ledger, tasks, claimant, wish).await?;
        let clamped = bound.clamp(reservation.pledge().held(), available);
        let admission = Admission { user, request, tariff, reservation: Some(reservation) };
        Ok(Admitted { admission, bound: Some(bound), clamped })
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

    fn stream(
        &self,
        open: OpenCall,
        routed: Routed,
        asked_for_usage: bool,
        (allowance, clamped): (Option<Allowance>, Option<u64>),
    ) -> Completion {
        let content_type = routed.answer.content_type.unwrap_or_else(|| "text/event-stream".to_owned());
        // Anything but an event stream has no events to withhold, and must not wait for their ends.
        let events = content_type.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
        let scanner = UsageScanner::new(events && !asked_for_usage);
        let allowance = allowance.filter(|_| events);
        let scanner = match allowance {
            Some(_) => scanner.counting(Arc::clone(&self.counter)),
            None => scanner,
        };
        let body = Metered::new(routed.answer.body, scanner, move |delivery| open.deliver_stream(delivery));
        let body = if events { body.within(allowance).with_receipt() } else { body };
        Completion::Stream { status: routed.answer.status, content_type, clamped, body: body.boxed() }
    }

    async fn whole(&self, open: OpenCall, routed: Routed, clamped: Option<u64>) -> Result<Completion, Error> {
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
        let written = match counts.complete() {
            Some(_) => 0,
            None if open.holds() => tokens_of_whole(&body, self.counter.as_ref()),
            None => 0,
        };
        let charged = open.deliver_whole(counts, written).await;
        Ok(Completion::Json { body, charged, clamped })
    }
}

/// A call that may be made.
struct Admitted {
    admission: Admission,
    /// What it may cost, when that is set aside.
    bound: Option<Bound>,
    /// Tokens per answer an upstream is to be asked for instead of what the caller wants.
    clamped: Option<u64>,
}

/// The longest a call goes without a word that would renew it, and a minute.
fn lease(limits: &Defaults) -> Duration {
    let silence = limits.full_chain_timeout_ms.saturating_add(limits.stream_idle_timeout_ms);
    Duration::from_millis(silence).saturating_add(Duration::from_secs(60))
}

fn refused_body(why: &InvalidBody) -> Error {
    let code = match why {
        InvalidBody::NotAnObject => Code::InvalidBody,
        InvalidBody::Member { .. } => Code::InvalidRequest,
    };
    Error::new(code).saying(why.to_string())
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
