//! One walk past everything that can be told.

use serde_json::json;

use crate::core::model::chats::{ChatEvent, NewMessages};
use crate::core::model::fact::{Fact, InterruptionStage, StreamEnd};
use crate::core::model::ids::{ChatId, InstanceId, KeyEntryId, LogId, RequestId, UserId};
use crate::core::model::ledger::{EntryKind, Flux};
use crate::core::model::request_log::{GenerationKind, LoggedRequest};

/// At least one of every fact.
pub(super) fn tour() -> Vec<Fact> {
    let (user, request) = (UserId::new("user-1"), RequestId::new("request-1"));
    let flux = |amount| Flux::new(amount).unwrap();
    let (model, provider) = ("m".to_owned(), "p".to_owned());
    let row = LoggedRequest {
        id: LogId::new("log-1"),
        request: request.clone(),
        user: user.clone(),
        kind: GenerationKind::Chat,
        model: model.clone(),
        status: 200,
        duration_ms: 900,
        first_byte_ms: Some(300),
        charged: flux(5),
        prompt_tokens: Some(11),
        completion_tokens: Some(7),
        upstream: Some(provider.clone()),
        key: Some(KeyEntryId::new("slot-1")),
        fallback_depth: Some(0),
        error: None,
        stream: true,
        at: chrono::DateTime::UNIX_EPOCH,
    };
    let speech = LoggedRequest {
        kind: GenerationKind::Speech,
        model: "v".to_owned(),
        status: 499,
        prompt_tokens: None,
        completion_tokens: None,
        ..row.clone()
    };
    let unbilled = |amount, reason, stage| Fact::Unbilled {
        request: request.clone(),
        user: user.clone(),
        amount: flux(amount),
        reason,
        stage,
        model: model.clone(),
    };
    let payload = NewMessages {
        chat_id: ChatId::new("chat-1"),
        messages: vec![json!({ "content": "a secret line" })],
        from_seq: 1,
        to_seq: 2,
    };
    let event = ChatEvent { user_id: user.clone(), payload, origin_instance_id: InstanceId::new("two") };
    let ended = |route: &str| Fact::HttpEnded { method: "GET", route: route.to_owned(), status: 200, duration_ms: 1.5 };
    vec![
        Fact::GenerationRequested {
            request: request.clone(),
            user: user.clone(),
            model: model.clone(),
            stream: true,
            messages: Some(3),
        },
        Fact::GenerationEnded { row, ended: Some(StreamEnd::Done) },
        Fact::GenerationEnded { row: speech, ended: None },
        Fact::FirstByte { model: model.clone(), after_ms: 250 },
        Fact::StreamInterrupted { model: model.clone(), stage: InterruptionStage::MidStream },
        Fact::UpstreamRefused { provider: provider.clone(), status: 429 },
        Fact::FallbackTaken {
            provider: provider.clone(),
            from_key: KeyEntryId::new("slot-1"),
            reason: "429".to_owned(),
            snippet: Some("slow down".to_owned()),
        },
        Fact::KeysExhausted { provider: provider.clone() },
        Fact::SameStatusExhaustion { provider: provider.clone(), status: 429 },
        Fact::RequestExhausted { surface: "llm" },
        Fact::KeyUnreadable { provider, key: KeyEntryId::new("slot-1") },
        Fact::Debited {
            user: user.clone(),
            request: request.clone(),
            requested: flux(5),
            charged: flux(5),
            balance: flux(95),
            replayed: false,
        },
        Fact::Credited {
            user: user.clone(),
            amount: flux(100),
            kind: EntryKind::Promo,
            source: "admin_promo",
            balance: flux(100),
        },
        Fact::InsufficientBalance,
        Fact::CheckoutOpened { user: user.clone() },
        Fact::PaymentEventReceived { kind: "invoice.paid", event: "evt_secret".to_owned() },
        Fact::PaymentEventEnded { kind: "invoice.paid", event: "evt_secret".to_owned(), outcome: "applied" },
        Fact::PaymentEventEnded { kind: "other", event: "evt_secret".to_owned(), outcome: "error" },
        Fact::CheckoutPaid,
        Fact::PaymentFailed,
        Fact::SubscriptionChanged { change: "deleted" },
        Fact::PaymentOrphan { event: "evt_secret".to_owned() },
        Fact::Revenue { currency: "usd".to_owned(), amount: 300, source: "checkout" },
        Fact::ClawedBack { user: user.clone(), request: request.clone(), taken: flux(10), unbilled: flux(6) },
        Fact::PaymentAlert { what: "checkout without a user", about: "evt_secret".to_owned() },
        unbilled(3, "debit_failed", "streaming"),
        unbilled(1, "partial_debit_drained", "non_streaming"),
        unbilled(4, "upstream_interrupted", "streaming"),
        unbilled(2, "debit_failed", "tts_meter"),
        Fact::RateLimited { route: "openai.completions", key_type: "user", limit: 60 },
        Fact::Degraded { operation: "balance_cache.find", cause: "connection refused".to_owned() },
        Fact::ConfigReloaded { source: "ttl" },
        Fact::ConfigStaleUse,
        Fact::ConfigInvalid { name: "LLM_ROUTER_CONFIG", why: "expected an object".to_owned() },
        Fact::SubscriberState { state: "connected" },
        Fact::SubscriberState { state: "error" },
        Fact::ConfigWritten { result: "success" },
        Fact::AdminAction { action: "flux_grants", actor: user.clone(), outcome: "applied" },
        Fact::UserRegistered { user: user.clone() },
        Fact::SessionOpened { user: user.clone() },
        Fact::AuthAttempted { method: "email" },
        Fact::AuthFailed { method: "email" },
        Fact::LetterSent { template: "verification", failed: None, duration_ms: 250.0 },
        Fact::LetterSent { template: "magic_link", failed: Some("rate_limited".to_owned()), duration_ms: 1.0 },
        Fact::AccountErased { user: user.clone(), reason: "user-requested", counts: vec![("sessions", 2)] },
        Fact::ErasureFailed { user, step: "stripe" },
        Fact::HttpStarted { method: "GET" },
        Fact::HttpStarted { method: "GET" },
        Fact::HttpStarted { method: "GET" },
        ended("/api/v1/flux"),
        ended("/livez"),
        Fact::PublishFailed { event: Box::new(event) },
        Fact::SocketOpened,
        Fact::SocketOpened,
        Fact::SocketClosed,
        Fact::ChatPushed { messages: 3 },
        Fact::ChatTold { messages: 2 },
    ]
}
