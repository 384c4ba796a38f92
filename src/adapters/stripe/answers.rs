//! Stripe's answers, as far as we use them: members may be absent, and unknown ones are skipped.

use std::collections::BTreeMap;

use chrono::DateTime;
use miniserde::Deserialize;

use crate::core::model::billing::{InvoiceLine, OpenedCheckout, Price};

/// A page of prices.
#[derive(Deserialize)]
pub(super) struct Prices {
    pub(super) data: Vec<PriceAnswer>,
    pub(super) has_more: bool,
}

/// A price.
#[derive(Deserialize)]
pub(super) struct PriceAnswer {
    id: String,
    active: Option<bool>,
    unit_amount: Option<i64>,
    currency: Option<String>,
    product: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    currency_options: Option<BTreeMap<String, CurrencyOption>>,
    recurring: Option<Recurring>,
}

#[derive(Deserialize)]
struct CurrencyOption {
    unit_amount: Option<i64>,
}

#[derive(Deserialize)]
struct Recurring {
    interval: Option<String>,
}

impl From<PriceAnswer> for Price {
    fn from(price: PriceAnswer) -> Self {
        let options = price.currency_options.unwrap_or_default();
        Self {
            id: price.id,
            unit_amount: price.unit_amount,
            currency: price.currency.unwrap_or_default(),
            product: price.product.unwrap_or_default(),
            active: price.active.unwrap_or_default(),
            metadata: price.metadata.unwrap_or_default(),
            currency_options: options.into_iter().map(|(code, option)| (code, option.unit_amount)).collect(),
            interval: price.recurring.and_then(|recurring| recurring.interval),
        }
    }
}

/// A checkout session.
#[derive(Deserialize)]
pub(super) struct Session {
    id: String,
    url: Option<String>,
    mode: Option<String>,
    status: Option<String>,
    payment_status: Option<String>,
    amount_total: Option<i64>,
    currency: Option<String>,
    expires_at: Option<i64>,
}

impl TryFrom<Session> for OpenedCheckout {
    type Error = &'static str;

    fn try_from(session: Session) -> Result<Self, Self::Error> {
        Ok(Self {
            id: session.id,
            url: session.url.ok_or("a checkout session without an address")?,
            mode: session.mode.ok_or("a checkout session without a mode")?,
            status: session.status,
            payment_status: session.payment_status,
            amount_total: session.amount_total,
            currency: session.currency,
            expires_at: session.expires_at.and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
        })
    }
}

/// A portal session.
#[derive(Deserialize)]
pub(super) struct Portal {
    pub(super) url: String,
}

/// Something with metadata.
#[derive(Deserialize)]
pub(super) struct Named {
    pub(super) metadata: Option<BTreeMap<String, String>>,
}

/// Whatever it is.
#[derive(Deserialize)]
pub(super) struct Anything {}

/// A page of subscriptions.
#[derive(Deserialize)]
pub(super) struct Subscriptions {
    pub(super) data: Vec<Subscription>,
    pub(super) has_more: bool,
}

/// A subscription.
#[derive(Deserialize)]
pub(super) struct Subscription {
    pub(super) id: String,
    status: Option<String>,
}

impl Subscription {
    pub(super) fn runs(&self) -> bool {
        !matches!(self.status.as_deref(), Some("canceled" | "incomplete_expired"))
    }
}

/// A page of invoice lines.
#[derive(Deserialize)]
pub(super) struct Lines {
    pub(super) data: Vec<Line>,
    pub(super) has_more: bool,
}

/// An invoice line.
#[derive(Deserialize)]
pub(super) struct Line {
    pub(super) id: String,
    amount: Option<i64>,
    quantity: Option<i64>,
    parent: Option<Parent>,
    pricing: Option<Pricing>,
}

#[derive(Deserialize)]
struct Parent {
    subscription_item_details: Option<Item>,
}

#[derive(Deserialize)]
struct Item {
    proration: Option<bool>,
}

#[derive(Deserialize)]
struct Pricing {
    price_details: Option<PriceDetails>,
}

#[derive(Deserialize)]
struct PriceDetails {
    price: Option<String>,
}

impl From<Line> for InvoiceLine {
    fn from(line: Line) -> Self {
        let item = line.parent.and_then(|parent| parent.subscription_item_details);
        Self {
            amount: line.amount.unwrap_or_default(),
            quantity: line.quantity.unwrap_or(1),
            subscription_item: item.is_some(),
            proration: item.and_then(|item| item.proration).unwrap_or_default(),
            price: line.pricing.and_then(|pricing| pricing.price_details).and_then(|details| details.price),
        }
    }
}

/// A page of payments of an invoice.
#[derive(Deserialize)]
pub(super) struct InvoicePayments {
    pub(super) data: Vec<InvoicePayment>,
    pub(super) has_more: bool,
}

/// What paid an invoice, or a part of it.
#[derive(Deserialize)]
pub(super) struct InvoicePayment {
    pub(super) id: String,
    pub(super) payment: Option<Paying>,
}

/// A payment intent, or something else.
#[derive(Deserialize)]
pub(super) struct Paying {
    pub(super) payment_intent: Option<String>,
}

/// What a refusal says.
#[derive(Deserialize)]
pub(super) struct Refusal {
    pub(super) error: RefusalDetails,
}

#[derive(Deserialize)]
pub(super) struct RefusalDetails {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) code: Option<String>,
    pub(super) param: Option<String>,
}
