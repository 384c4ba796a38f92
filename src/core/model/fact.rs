//! Everything worth counting or logging, as data (contract `observability.md` §3–5).
//!
//! The core records a fact; one adapter turns it into metrics, log lines and rows. Tests assert facts.

use super::chats::ChatEvent;
use super::ids::{KeyEntryId, RequestId, UserId};
use super::ledger::{EntryKind, Flux};
use super::request_log::LoggedRequest;
pub use super::stream_end::{InterruptionStage, StreamEnd};

/// One thing that happened. Never holds a prompt, an answer, a key, a token or an address.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A chat completion passed its gates and is about to be routed.
    GenerationRequested {
        /// The call.
        request: RequestId,
        /// The caller.
        user: UserId,
        /// Resolved logical model id.
        model: String,
        /// Whether a stream was asked for.
        stream: bool,
        /// Number of messages, when the body has a list of them.
        messages: Option<usize>,
    },
    /// A speech call passed its gates and is about to be routed. Never holds the text.
    SpeechRequested {
        /// The call.
        request: RequestId,
        /// The caller.
        user: UserId,
        /// Resolved logical model id.
        model: String,
        /// Length of the text, units of the meter.
        units: i64,
        /// The voice asked for.
        voice: Option<String>,
    },
    /// Units were added to a meter.
    UnitsMetered {
        /// The meter, e.g. `tts`.
        meter: &'static str,
        /// Resolved logical model id.
        model: String,
        /// How many.
        units: i64,
    },
    /// A call was refused because the balance does not afford its units.
    PreflightRejected {
        /// The meter.
        meter: &'static str,
    },
    /// The stored configuration of an upstream lacks something it needs; it was passed over.
    UpstreamMisconfigured {
        /// Upstream label.
        provider: String,
        /// What is missing; never a value.
        what: String,
    },
    /// A speech socket passed its gates.
    SpeechSessionOpened,
    /// A speech socket ended. Exactly one follows each [`Fact::SpeechSessionOpened`].
    SpeechSessionEnded {
        /// `finished`, `client_closed`, `upstream_error` or `timeout`.
        outcome: &'static str,
    },
    /// A speech socket was refused.
    SpeechSessionRejected,
    /// The first audio of a speech socket arrived.
    FirstAudio {
        /// The model named by the client.
        model: String,
        /// Since the first text, ms.
        after_ms: i64,
    },
    /// A call that reached routing ended, one way or another. Becomes a row, metrics and a line.
    GenerationEnded {
        /// The row.
        row: LoggedRequest,
        /// How a stream ended; absent for non-streamed calls.
        ended: Option<StreamEnd>,
    },
    /// The first byte of a streamed answer arrived.
    FirstByte {
        /// Resolved logical model id.
        model: String,
        /// Since just before routing, ms.
        after_ms: i64,
    },
    /// A stream broke.
    StreamInterrupted {
        /// Resolved logical model id.
        model: String,
        /// Whether anything had been delivered.
        stage: InterruptionStage,
    },
    /// An upstream answered a failure status.
    UpstreamRefused {
        /// Upstream label.
        provider: String,
        /// Its status.
        status: u16,
    },
    /// An attempt failed and another one follows.
    FallbackTaken {
        /// Upstream label.
        provider: String,
        /// The key slot that failed.
        from_key: KeyEntryId,
        /// Status text, or `timeout`.
        reason: String,
        /// Sanitised text of the failure, at most 256 bytes; for the log line only.
        snippet: Option<String>,
    },
    /// Every key of an upstream failed.
    KeysExhausted {
        /// Upstream label.
        provider: String,
    },
    /// The whole chain failed with one status: an account-wide limit that more keys do not cure.
    SameStatusExhaustion {
        /// Upstream label.
        provider: String,
        /// The status.
        status: u16,
    },
    /// A request got no upstream at all.
    RequestExhausted {
        /// `llm` or `tts`.
        surface: &'static str,
    },
    /// A stored key could not be opened.
    KeyUnreadable {
        /// Upstream label.
        provider: String,
        /// The slot.
        key: KeyEntryId,
    },
    /// Flux was taken.
    Debited {
        /// Who paid.
        user: UserId,
        /// For what.
        request: RequestId,
        /// Asked.
        requested: Flux,
        /// Taken.
        charged: Flux,
        /// Remains.
        balance: Flux,
        /// Whether it had been taken before.
        replayed: bool,
    },
    /// Flux was added.
    Credited {
        /// Who received.
        user: UserId,
        /// How much.
        amount: Flux,
        /// `credit`, `initial` or `promo`.
        kind: EntryKind,
        /// Metric label, e.g. `admin_promo`.
        source: &'static str,
        /// Remains.
        balance: Flux,
    },
    /// A debit was refused or took less than asked.
    InsufficientBalance,
    /// The balance did not afford what a call would have set aside.
    HoldRefused {
        /// Who asked.
        user: UserId,
        /// The least that would have done.
        asked: Flux,
    },
    /// All the books were walked. Operators page on drifts.
    LedgerVerified {
        /// Entries walked.
        entries: u64,
        /// What does not add up.
        drifts: u64,
    },
    /// Flux was owed and not collected. Operators page on this.
    Unbilled {
        /// The call.
        request: RequestId,
        /// Who owes.
        user: UserId,
        /// How much.
        amount: Flux,
        /// Fixed reason code, e.g. `debit_failed`.
        reason: &'static str,
        /// `streaming` or `non_streaming`.
        stage: &'static str,
        /// Resolved logical model id.
        model: String,
    },
    /// A limiter refused a call.
    RateLimited {
        /// The limiter.
        route: &'static str,
        /// `user` or `ip`.
        key_type: &'static str,
        /// Its size.
        limit: u32,
    },
    /// A limiter, cache or bus could not be reached and the request went on without it.
    Degraded {
        /// What was attempted, e.g. `balance_cache.find`.
        operation: &'static str,
        /// The cause, for the log.
        cause: String,
    },
    /// The routing document was dropped or reloaded.
    ConfigReloaded {
        /// `pubsub`, `ttl` or `manual`.
        source: &'static str,
    },
    /// An expired copy of a configuration entry was used because the store was unreachable.
    ConfigStaleUse,
    /// A stored configuration entry is unusable; the value is never told.
    ConfigInvalid {
        /// The entry.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The connection that hears about changes came, went or failed.
    SubscriberState {
        /// `connected`, `reconnecting` or `error`.
        state: &'static str,
    },
    /// An operator's configuration write ended.
    ConfigWritten {
        /// `success`, `4xx` or `5xx`.
        result: &'static str,
    },
    /// An operator did something.
    AdminAction {
        /// What, e.g. `flux_grants`.
        action: &'static str,
        /// Who.
        actor: UserId,
        /// `applied`, `dry_run`, `rejected`, `forbidden` or `failed`.
        outcome: &'static str,
    },
    /// A user row was made.
    UserRegistered {
        /// The user.
        user: UserId,
    },
    /// A session row was made.
    SessionOpened {
        /// Whose.
        user: UserId,
    },
    /// Somebody tried to sign in or up.
    AuthAttempted {
        /// Last segment of the path, e.g. `email`.
        method: &'static str,
    },
    /// Such an attempt was refused or failed.
    AuthFailed {
        /// As in [`Fact::AuthAttempted`].
        method: &'static str,
    },
    /// A letter was handed over, or was not.
    LetterSent {
        /// Which one.
        template: &'static str,
        /// The provider's name for the failure, if it failed.
        failed: Option<String>,
        /// How long it took, ms.
        duration_ms: f64,
    },
    /// An account came to its end.
    AccountErased {
        /// Whose.
        user: UserId,
        /// Why.
        reason: &'static str,
        /// Rows touched, by what they are.
        counts: Vec<(&'static str, u64)>,
    },
    /// An account could not be erased and is as it was.
    ErasureFailed {
        /// Whose.
        user: UserId,
        /// Which step failed.
        step: &'static str,
    },
    /// A request arrived. Exactly one [`Fact::HttpEnded`] with the same method MUST follow, also when the client leaves.
    HttpStarted {
        /// Upper-case method; `_OTHER` for one outside the standard list, so that labels stay few.
        method: &'static str,
    },
    /// The answer to a request was sent, or will never be.
    HttpEnded {
        /// As in [`Fact::HttpStarted`].
        method: &'static str,
        /// Route pattern, e.g. `/api/v1/flux`, or `unmatched`; never the path. `/livez` and `/readyz` are not measured.
        route: String,
        /// Status answered; 499 when the client left before.
        status: u16,
        /// From the request head to the end, ms; the fraction counts, most requests take less than one.
        duration_ms: f64,
    },
    /// A checkout session was opened.
    CheckoutOpened {
        /// For whom.
        user: UserId,
    },
    /// A verified event of the payment provider arrived.
    PaymentEventReceived {
        /// Its type, or `other`.
        kind: &'static str,
        /// Its id.
        event: String,
    },
    /// The handling of an event ended.
    PaymentEventEnded {
        /// Its type, or `other`.
        kind: &'static str,
        /// Its id.
        event: String,
        /// A fixed word, e.g. `applied`.
        outcome: &'static str,
    },
    /// A one-time payment was credited.
    CheckoutPaid,
    /// A payment did not succeed.
    PaymentFailed,
    /// A copy of a subscription changed.
    SubscriptionChanged {
        /// `created`, `updated` or `deleted`.
        change: &'static str,
    },
    /// An event is about nobody we know.
    PaymentOrphan {
        /// Its id.
        event: String,
    },
    /// Money came in and was credited.
    Revenue {
        /// Lower-case code.
        currency: String,
        /// Smallest units.
        amount: i64,
        /// `checkout` or `invoice`.
        source: &'static str,
    },
    /// Flux of a payment that went back was taken back.
    ClawedBack {
        /// From whom.
        user: UserId,
        /// Which return.
        request: RequestId,
        /// Taken.
        taken: Flux,
        /// Owed, because the balance was short.
        unbilled: Flux,
    },
    /// Something about a payment needs an operator.
    PaymentAlert {
        /// What.
        what: &'static str,
        /// The provider's id of the object or event.
        about: String,
    },
    /// Messages were pushed into a chat.
    ChatPushed {
        /// How many the caller sent.
        messages: usize,
    },
    /// Messages were told to the devices of a chat's members, once however many these are.
    ChatTold {
        /// How many.
        messages: usize,
    },
    /// A chat socket was opened by somebody known.
    SocketOpened,
    /// A chat socket that was opened ended.
    SocketClosed,
    /// A chat event could not be published; receivers catch up by pulling.
    PublishFailed {
        /// The event, without its contents in any log.
        event: Box<ChatEvent>,
    },
    /// A character was stored.
    CharacterCreated,
    /// A character was deleted.
    CharacterDeleted,
    /// A user put a mark on a character or took it away.
    CharacterEngaged {
        /// `like`, `unlike`, `bookmark` or `unbookmark`.
        action: &'static str,
    },
}
