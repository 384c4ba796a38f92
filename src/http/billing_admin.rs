//! `/admin/stripe`: what the payment provider told us, for administrators (contract `admin.md` §6).

use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::Request;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};

use super::admin::{actor, counted};
use super::auth::AdminAuth;
use super::error::ApiError;
use super::payload::{LooseInteger, iso_millis, iso_millis_if_any};
use super::spec::Tag;
use crate::core::App;
use crate::core::model::billing::event::HandledEvent;
use crate::core::model::page::{Page, Window};

/// The journal of payment events.
pub(super) struct BillingAdminApi;

/// A part of the journal.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
struct PaymentEvents {
    /// Newest first.
    items: Vec<PaymentEvent>,
    /// Send it as `cursor` for what lies behind; absent at the end.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<String>,
}

/// A verified event of the payment provider.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
struct PaymentEvent {
    /// The provider's id.
    id: String,
    /// The provider's type.
    r#type: String,
    /// When it happened there.
    #[oai(serialize_with = "iso_millis")]
    created: DateTime<Utc>,
    /// Whether money is real.
    livemode: bool,
    /// Smallest units it is about.
    #[oai(nullable)]
    amount: Option<i64>,
    /// When it first came.
    #[oai(serialize_with = "iso_millis")]
    received_at: DateTime<Utc>,
    /// When it had its effect; null while it is due.
    #[oai(nullable, serialize_with = "iso_millis_if_any")]
    processed_at: Option<DateTime<Utc>>,
    /// `applied`, `duplicate`, `stale`, `rejected`, `orphan`, `ignored`, `user_missing` or `user_closed`; null while it
    /// is due.
    #[oai(nullable)]
    outcome: Option<String>,
    /// What went wrong at the last try.
    #[oai(nullable)]
    error: Option<String>,
}

/// How an event ended.
#[derive(Object)]
#[oai(example)]
struct Replayed {
    /// As in the journal.
    outcome: String,
}

#[OpenApi(prefix_path = "/api/admin/stripe", tag = "Tag::Admin")]
impl BillingAdminApi {
    /// List payment events, newest first
    #[oai(path = "/events", method = "get", operation_id = "listPaymentEvents", transform = "counted")]
    async fn events(
        &self,
        app: Data<&Arc<App>>,
        request: &Request,
        caller: AdminAuth,
        /// Events wanted, 1 to 100; 50 when absent.
        limit: Query<Option<LooseInteger>>,
        /// `nextCursor` of the answer before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<PaymentEvents>, ApiError> {
        let window = Window::parse(Some(limit.0.as_ref().map_or("50", LooseInteger::text)), None);
        let actor = actor(request, &caller);
        let page = app.admin.payment_events(&app.billing, &actor, window.limit, cursor.0.as_deref()).await?;
        Ok(Json(PaymentEvents::from(page)))
    }

    /// Handle a payment event once more
    ///
    /// The provider is asked for the event, which it remembers for about a month. Money that was moved before is not
    /// moved again; an event that never came here is handled as if it came.
    #[oai(path = "/events/:id/replay", method = "post", operation_id = "replayPaymentEvent", transform = "counted")]
    async fn replay(
        &self,
        app: Data<&Arc<App>>,
        request: &Request,
        caller: AdminAuth,
        /// The provider's id of the event.
        id: Path<String>,
    ) -> Result<Json<Replayed>, ApiError> {
        let outcome = app.admin.replay_payment_event(&app.billing, &actor(request, &caller), &id.0).await?;
        Ok(Json(Replayed { outcome: outcome.to_owned() }))
    }
}

impl From<Page<HandledEvent>> for PaymentEvents {
    fn from(page: Page<HandledEvent>) -> Self {
        let items: Vec<PaymentEvent> = page.items.into_iter().map(PaymentEvent::from).collect();
        let next_cursor = page.has_more.then(|| items.last().map(|last| last.id.clone())).flatten();
        Self { items, next_cursor }
    }
}

impl From<HandledEvent> for PaymentEvent {
    fn from(handled: HandledEvent) -> Self {
        let HandledEvent { event, processed_at, outcome, error } = handled;
        Self {
            id: event.id,
            r#type: event.kind,
            created: event.created,
            livemode: event.livemode,
            amount: event.amount,
            received_at: event.received_at,
            processed_at,
            outcome,
            error,
        }
    }
}

impl Example for PaymentEvents {
    fn example() -> Self {
        Self { items: vec![PaymentEvent::example()], next_cursor: None }
    }
}

impl Example for PaymentEvent {
    fn example() -> Self {
        Self {
            id: "evt_1".to_owned(),
            r#type: "checkout.session.completed".to_owned(),
            created: DateTime::UNIX_EPOCH,
            livemode: true,
            amount: Some(300),
            received_at: DateTime::UNIX_EPOCH,
            processed_at: Some(DateTime::UNIX_EPOCH),
            outcome: Some("applied".to_owned()),
            error: None,
        }
    }
}

impl Example for Replayed {
    fn example() -> Self {
        Self { outcome: "applied".to_owned() }
    }
}
