//! Who may open a speech stream, and what opening one takes (contract `audio.md` §6.1).

use std::sync::Arc;
use std::time::Duration;

use super::session::{Bill, Undialled};
use super::settle::Ending;
use super::{Gate, Settle, Speech};
use crate::core::error::{Code, Error};
use crate::core::model::config::StreamingTtsUpstream;
use crate::core::model::fact::{Fact, StreamEnd};
use crate::core::model::ids::{RequestId, UserId};
use crate::core::model::limits::AUDIO_SOCKETS;
use crate::core::model::llm::TtsUpstreamEntry;
use crate::core::model::request_log::GenerationKind;
use crate::core::model::secret::Secret;
use crate::core::tts::gate::Admission;
use crate::ports::limits::Slots;
use crate::ports::tts::{DialFailure, StreamingSpeech};
use crate::ports::vault::Vault;

pub use crate::ports::tts::SpeechLink;

/// What keys of the streaming upstream are bound to (contract `gateway.md` §10).
const LABEL: &str = "streaming-tts";
/// What a session is assumed to speak until it has.
const ESTIMATE: i64 = 2_000;
/// Sessions of one user at the same time (AU-D22), and how long a process that dies blocks one.
const AT_ONCE: u32 = 4;
const LEASE: Duration = Duration::from_secs(16 * 60);
/// How long the upstream may take to open.
const DIAL: Duration = Duration::from_secs(10);

/// Why a stream was not opened: the close code and its reason, which is the code of the error frame too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// WebSocket close code.
    pub code: u16,
    /// Its reason.
    pub reason: &'static str,
}

const NOT_CONFIGURED: Rejection = Rejection { code: 1008, reason: "streaming_tts_not_configured" };
const NO_FUNDS: Rejection = Rejection { code: 1008, reason: "insufficient_flux" };
const NOT_NOW: Rejection = Rejection { code: 1011, reason: "service_unavailable" };
const UNREADABLE: Rejection = Rejection { code: 1011, reason: "decrypt_failed" };
const NO_CONFIG: Rejection = Rejection { code: 1011, reason: "config_unavailable" };
const TOO_OFTEN: Rejection = Rejection { code: 1013, reason: "rate_limited" };
const TOO_MANY: Rejection = Rejection { code: 1013, reason: "too_many_sessions" };

/// An admitted stream. Holds the caller's place and units until it is dropped.
pub struct OpenStream {
    upstream: Arc<TtsUpstreamEntry>,
    /// The first key in the clear: it is opened before anything is promised.
    first_key: Secret,
    admission: Admission,
    started: Duration,
    vault: Arc<dyn Vault>,
    streaming: Arc<dyn StreamingSpeech>,
    settle: Settle,
    _place: Place,
}

/// Opens the upstream of a stream, apart from the stream: so that a dial can be given up.
#[derive(Clone)]
pub struct Dialler {
    upstream: Arc<TtsUpstreamEntry>,
    first_key: Secret,
    vault: Arc<dyn Vault>,
    streaming: Arc<dyn StreamingSpeech>,
}

impl Speech {
    /// Judges a signed-in caller. Gates in order: how often, configuration, balance, the estimate, how many at once, the
    /// first key. Nothing is dialled.
    pub async fn open_stream(&self, user: UserId, request: RequestId) -> Result<OpenStream, Rejection> {
        let opened = self.judge_stream(user, request).await;
        self.walk.journal.record(match &opened {
            Ok(_) => Fact::SpeechSessionOpened,
            Err(_) => Fact::SpeechSessionRejected,
        });
        opened
    }

    async fn judge_stream(&self, user: UserId, request: RequestId) -> Result<OpenStream, Rejection> {
        if !self.limits.admit(&AUDIO_SOCKETS, &user).await.admitted {
            return Err(TOO_OFTEN);
        }
        let upstream = self.config.optional::<StreamingTtsUpstream>().await.map_err(|_| NO_CONFIG)?;
        let upstream = upstream.filter(|upstream| !upstream.keys.is_empty()).ok_or(NOT_CONFIGURED)?;
        let admission = admit(&self.gate, &user, request).await.map_err(|error| why(&error))?;
        let place = Place::take(self, &admission).await?;
        let first = upstream.keys.first().ok_or(NOT_CONFIGURED)?;
        let opened = self.walk.vault.open(&first.ciphertext, LABEL, first.id.as_str());
        let first_key = opened.map_err(|_| {
            let (provider, key) = (upstream.label(), first.id.clone());
            self.walk.journal.record(Fact::KeyUnreadable { provider, key });
            UNREADABLE
        })?;
        Ok(OpenStream {
            first_key: first_key.plaintext,
            upstream,
            admission,
            started: self.clock.elapsed(),
            vault: self.walk.vault.clone(),
            streaming: self.streaming.clone(),
            settle: self.settle.clone(),
            _place: place,
        })
    }
}

/// The price must be an operator's: there is no built-in stream.
async fn admit(gate: &Gate, user: &UserId, request: RequestId) -> Result<Admission, Error> {
    let balance = gate.solvent(user).await?;
    let tariff = gate.tariff().await?;
    if !tariff.set {
        return Err(Error::new(Code::ConfigNotSet));
    }
    gate.admit(user.clone(), request, tariff, balance, ESTIMATE).await
}

/// AU-D12: money, configuration and faults are told apart.
fn why(error: &Error) -> Rejection {
    match error.code {
        Code::InsufficientFlux => NO_FUNDS,
        Code::ConfigNotSet => NOT_CONFIGURED,
        Code::ConfigInvalid => NO_CONFIG,
        _ => NOT_NOW,
    }
}

impl OpenStream {
    /// How many keys there are to dial with, at least one.
    pub fn keys(&self) -> usize {
        self.upstream.keys.len()
    }

    /// Dials for this stream.
    pub fn dialler(&self) -> Dialler {
        Dialler {
            upstream: self.upstream.clone(),
            first_key: self.first_key.clone(),
            vault: self.vault.clone(),
            streaming: self.streaming.clone(),
        }
    }

    /// Audio came for the first time, `after` the first text.
    pub fn first_audio(&self, model: &str, after: Duration) {
        let after_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        self.settle.journal.record(Fact::FirstAudio { model: model.to_owned(), after_ms });
    }

    /// Settles a stream that ended; does not wait for it.
    pub fn end(self, bill: Option<Bill>, outcome: &'static str) {
        self.settle.journal.record(Fact::SpeechSessionEnded { outcome });
        let Some(bill) = bill else { return };
        let ended = match outcome {
            "finished" => StreamEnd::Done,
            "timeout" => StreamEnd::IdleTimeout,
            "client_closed" => StreamEnd::ClientClosed,
            _ => StreamEnd::UpstreamError,
        };
        let ending = Ending {
            model: bill.model,
            kind: GenerationKind::SpeechStream,
            started: self.started,
            first_byte_ms: None,
            status: bill.status,
            error: bill.error,
            units: bill.units,
            forgiven: bill.forgiven,
            ended: Some(ended),
            upstream: Some(self.upstream.label()),
            key: None,
            depth: None,
        };
        self.settle.end(self.admission, ending);
    }
}

impl Dialler {
    /// Opens the upstream with the key at `position`.
    pub async fn dial(&self, position: usize) -> Result<SpeechLink, Undialled> {
        let key = if position == 0 {
            self.first_key.clone()
        } else {
            let entry = self.upstream.keys.get(position).ok_or(Undialled::Refused)?;
            let opened = self.vault.open(&entry.ciphertext, LABEL, entry.id.as_str());
            opened.map_err(|_| Undialled::Refused)?.plaintext
        };
        self.streaming.dial(&self.upstream.base_url, &key, DIAL).await.map_err(|failure| match failure {
            DialFailure::Unusable(_) => Undialled::Unusable,
            DialFailure::Refused(_) => Undialled::Refused,
            DialFailure::Timeout => Undialled::Timeout,
        })
    }
}

/// One of the places a user has, given back when dropped.
struct Place {
    slots: Arc<dyn Slots>,
    settle: Settle,
    pool: String,
    holder: String,
}

impl Place {
    /// A store of places that cannot be reached admits: money is guarded elsewhere.
    async fn take(speech: &Speech, admission: &Admission) -> Result<Self, Rejection> {
        let (pool, holder) = (format!("speech:{}", admission.user), admission.request.to_string());
        match speech.slots.acquire(&pool, &holder, AT_ONCE, LEASE).await {
            Ok(true) => {}
            Ok(false) => return Err(TOO_MANY),
            Err(fault) => {
                let fact = Fact::Degraded { operation: "slots.acquire", cause: fault.to_string() };
                speech.walk.journal.record(fact);
            }
        }
        Ok(Self { slots: speech.slots.clone(), settle: speech.settle.clone(), pool, holder })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (slots, pool, holder) =
            (self.slots.clone(), std::mem::take(&mut self.pool), std::mem::take(&mut self.holder));
        // A release that fails ends with the lease.
        let job = async move { drop(slots.release(&pool, &holder).await) };
        self.settle.tasks.spawn("speech.place", Box::pin(job));
    }
}
