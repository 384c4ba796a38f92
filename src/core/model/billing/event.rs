//! What the provider tells us, read tolerantly (contract `billing-stripe.md` §8): an absent or odd member is absent.
//!
//! Objects grow and change with the provider's versions; only what we use is read, and nothing else can make an event
//! unreadable.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::InvoiceLine;

/// A verified event.
#[derive(Clone, Debug, PartialEq)]
pub struct PaymentEvent {
    /// The provider's id.
    pub id: String,
    /// The type as the provider spells it.
    pub kind: String,
    /// When it happened there.
    pub created: DateTime<Utc>,
    /// Whether money is real.
    pub livemode: bool,
    /// The object it is about.
    pub object: Object,
}

/// Types with an effect here. Metrics call every other one `other`, so that labels stay few.
const KNOWN: &[&str] = &[
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
    "customer.created",
    "customer.updated",
    "customer.deleted",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "invoice.created",
    "invoice.updated",
    "invoice.paid",
    "invoice.payment_succeeded",
    "invoice.payment_failed",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.closed",
    "price.created",
    "price.updated",
    "price.deleted",
    "product.created",
    "product.updated",
    "product.deleted",
];

impl PaymentEvent {
    /// Reads an event; `None` when the text is no event at all.
    pub fn read(body: &[u8]) -> Option<Self> {
        let event: Value = serde_json::from_slice(body).ok()?;
        let id = event["id"].as_str()?.to_owned();
        let kind = event["type"].as_str()?.to_owned();
        let created = event["created"].as_i64().and_then(|s| DateTime::from_timestamp(s, 0)).unwrap_or_default();
        let livemode = event["livemode"].as_bool().unwrap_or_default();
        let object = Object(event["data"]["object"].clone());
        Some(Self { id, kind, created, livemode, object })
    }

    /// The label metrics give its type.
    pub fn label(&self) -> &'static str {
        KNOWN.iter().copied().find(|known| *known == self.kind).unwrap_or("other")
    }
}

/// An event as the journal knows it (contract §8.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournaledEvent {
    /// The provider's id.
    pub id: String,
    /// The provider's type.
    pub kind: String,
    /// When it happened there.
    pub created: DateTime<Utc>,
    /// Whether money is real.
    pub livemode: bool,
    /// Smallest units it is about; exact here, where a mirror may have no room for it (BS-D01).
    pub amount: Option<i64>,
    /// When it came.
    pub received_at: DateTime<Utc>,
}

/// An event with how it was handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandledEvent {
    /// The event.
    pub event: JournaledEvent,
    /// When it last had its effect; absent while it is due.
    pub processed_at: Option<DateTime<Utc>>,
    /// How.
    pub outcome: Option<String>,
    /// What went wrong, for operators.
    pub error: Option<String>,
}

/// The object of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Object(Value);

impl Object {
    /// A text that is there and not empty.
    pub fn text(&self, path: &str) -> Option<String> {
        self.at(path).as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// A whole number.
    pub fn number(&self, path: &str) -> Option<i64> {
        self.at(path).as_i64()
    }

    /// A yes or no.
    pub fn flag(&self, path: &str) -> Option<bool> {
        self.at(path).as_bool()
    }

    /// A time, told as seconds since 1970.
    pub fn time(&self, path: &str) -> Option<DateTime<Utc>> {
        self.number(path).and_then(|seconds| DateTime::from_timestamp(seconds, 0))
    }

    /// An id of another object, or that object itself.
    pub fn reference(&self, path: &str) -> Option<String> {
        self.text(path).or_else(|| self.text(&format!("{path}/id")))
    }

    /// Whether there is something.
    pub fn has(&self, path: &str) -> bool {
        !self.at(path).is_null()
    }

    /// An object as JSON text.
    pub fn json(&self, path: &str) -> Option<String> {
        let value = self.at(path);
        value.is_object().then(|| value.to_string())
    }

    /// An object whose members are texts.
    pub fn texts(&self, path: &str) -> BTreeMap<String, String> {
        let members = self.at(path).as_object().into_iter().flatten();
        members.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect()
    }

    /// The lines of an invoice, when the event tells all of them.
    pub fn all_lines(&self) -> Option<Vec<InvoiceLine>> {
        let lines = self.at("lines/data").as_array()?;
        if self.flag("lines/has_more").unwrap_or_default() {
            return None;
        }
        Some(lines.iter().map(|line| Self(line.clone()).line()).collect())
    }

    fn line(&self) -> InvoiceLine {
        let item = "parent/subscription_item_details";
        InvoiceLine {
            amount: self.number("amount").unwrap_or_default(),
            quantity: self.number("quantity").unwrap_or(1),
            subscription_item: self.has(item),
            proration: self.flag(&format!("{item}/proration")).unwrap_or_default(),
            price: self.reference("pricing/price_details/price"),
        }
    }

    fn at(&self, path: &str) -> &Value {
        path.split('/').fold(&self.0, |value, part| match part.parse::<usize>() {
            Ok(index) => &value[index],
            Err(_) => &value[part],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_of_the_fixture_can_be_read() {
        let fixture: Value =
            serde_json::from_str(include_str!("../../../../tests/fixtures/stripe-events.json")).unwrap();
        for case in fixture.as_array().unwrap() {
            let event = PaymentEvent::read(case["event"].to_string().as_bytes()).unwrap();
            assert_eq!(event.label() == "other", event.kind == "payment_method.attached", "{}", event.kind);
        }
    }

    #[test]
    fn what_is_no_event_is_none_and_what_is_odd_is_absent() {
        for bad in ["", "null", "[]", "{}", r#"{"id":1,"type":"x"}"#] {
            assert_eq!(PaymentEvent::read(bad.as_bytes()), None, "{bad}");
        }
        let event = PaymentEvent::read(br#"{"id":"e","type":"x","data":{"object":{"customer":{"id":"c"},"items":3}}}"#);
        let object = event.unwrap().object;
        assert_eq!(object.reference("customer").as_deref(), Some("c"));
        assert_eq!(object.text("items/data/0/price/id"), None);
        assert_eq!(object.json("metadata"), None);
        assert_eq!(object.all_lines(), None);
    }
}
