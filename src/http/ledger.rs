//! `/flux`: what a user has and how it came about (contract `ledger.md` §1).

use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::types::{Any, Example};
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::{Map, Value, json};

use super::auth::SignedIn;
use super::error::ApiError;
use super::payload::{LooseInteger, iso_millis};
use super::spec::Tag;
use crate::core::App;
use crate::core::model::ids::EntryId;
use crate::core::model::ledger::{Entry, EntryKind};
use crate::core::model::page::Window;

/// Operations on the caller's balance. None of them changes it.
pub(super) struct LedgerApi;

/// What the caller has.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
struct Balance {
    /// The caller.
    user_id: String,
    /// Whole flux.
    flux: i64,
}

/// What a full balance stands for.
#[derive(Object)]
#[oai(example)]
struct Stats {
    /// The balance right after the newest grant or purchase; 0 when there was none.
    capacity: i64,
}

/// A page of ledger entries, newest first.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
struct History {
    /// The entries.
    records: Vec<Record>,
    /// Whether older entries exist.
    has_more: bool,
}

/// One change of the balance.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Record {
    /// Id of the entry; accepted as `before`.
    id: String,
    /// What happened; decides the sign of `amount`.
    r#type: RecordType,
    /// Whole flux, never negative.
    amount: i64,
    /// A short text.
    description: String,
    /// Facts about the entry.
    #[oai(nullable)]
    metadata: Option<Any<Map<String, Value>>>,
    /// When.
    #[oai(serialize_with = "iso_millis")]
    created_at: DateTime<Utc>,
}

/// What happened to a balance.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
enum RecordType {
    /// A purchase.
    Credit,
    /// Use.
    Debit,
    /// The first grant.
    Initial,
    /// Given by an operator.
    Promo,
}

#[OpenApi(prefix_path = "/api/v1/flux", tag = "Tag::Ledger")]
impl LedgerApi {
    /// Read the balance
    ///
    /// The first read of a new account makes the opening grant.
    #[oai(path = "/", method = "get", operation_id = "getFlux")]
    async fn balance(&self, app: Data<&Arc<App>>, caller: SignedIn) -> Result<Json<Balance>, ApiError> {
        let user = caller.0.user();
        let flux = app.ledger.balance(user).await?.get();
        Ok(Json(Balance { user_id: user.to_string(), flux }))
    }

    /// Read what a full balance stands for
    #[oai(path = "/stats", method = "get", operation_id = "getFluxStats")]
    async fn stats(&self, app: Data<&Arc<App>>, caller: SignedIn) -> Result<Json<Stats>, ApiError> {
        Ok(Json(Stats { capacity: app.ledger.capacity(caller.0.user()).await?.get() }))
    }

    /// List ledger entries, newest first
    ///
    /// No parameter ever fails: what cannot be read counts as absent, what is too large or too small is moved to the
    /// nearest accepted value.
    #[oai(path = "/history", method = "get", operation_id = "listFluxHistory")]
    async fn history(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// Entries wanted, 1 to 100; 20 when absent.
        limit: Query<Option<LooseInteger>>,
        /// Entries skipped; ignored with `before`.
        offset: Query<Option<LooseInteger>>,
        /// The page starts right behind this entry.
        before: Query<Option<String>>,
    ) -> Result<Json<History>, ApiError> {
        let window = Window::parse(limit.0.as_ref().map(LooseInteger::text), offset.0.as_ref().map(LooseInteger::text));
        let before = before.0.filter(|id| !id.is_empty()).map(EntryId::new);
        let page = app.ledger.history(caller.0.user(), window, before.as_ref()).await?;
        Ok(Json(History { records: page.items.into_iter().map(Record::from).collect(), has_more: page.has_more }))
    }
}

impl From<Entry> for Record {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id.to_string(),
            r#type: match entry.kind {
                EntryKind::Credit => RecordType::Credit,
                EntryKind::Debit => RecordType::Debit,
                EntryKind::Initial => RecordType::Initial,
                EntryKind::Promo => RecordType::Promo,
            },
            amount: entry.amount.get(),
            description: entry.description,
            metadata: entry.metadata.map(Any),
            created_at: entry.at,
        }
    }
}

impl Example for Balance {
    fn example() -> Self {
        Self { user_id: "2iPnVqXwVSmlnbQjyZBLHvwqKbNKl5Tc".to_owned(), flux: 995 }
    }
}

impl Example for Stats {
    fn example() -> Self {
        Self { capacity: 1_000 }
    }
}

impl Example for History {
    fn example() -> Self {
        let metadata = json!({ "source": "llm.request", "model": "chat-default", "promptTokens": 21 });
        Self {
            records: vec![Record {
                id: "V1StGXR8_Z5jdHi6B-myT".to_owned(),
                r#type: RecordType::Debit,
                amount: 5,
                description: "llm_request".to_owned(),
                metadata: metadata.as_object().cloned().map(Any),
                created_at: DateTime::UNIX_EPOCH,
            }],
            has_more: false,
        }
    }
}
