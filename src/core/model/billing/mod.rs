//! What is sold for money, and what the payment provider tells us about it (contract `billing-stripe.md`).

pub mod event;
pub mod mirror;
pub mod money;
pub mod settlement;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use indexmap::IndexMap;
use rust_decimal::Decimal;
use serde_json::{Map, Value};

use super::ids::UserId;
use super::ledger::Flux;

/// A price of the provider, as far as we use it.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// The provider's id.
    pub id: String,
    /// Smallest units of `currency`; absent when the provider has no fixed amount.
    pub unit_amount: Option<i64>,
    /// Lower-case code of the usual currency.
    pub currency: String,
    /// The product it belongs to.
    pub product: String,
    /// Whether it can be bought.
    pub active: bool,
    /// `fluxAmount`, `recommended` and whatever else the operator wrote there.
    pub metadata: BTreeMap<String, String>,
    /// Amount per currency it can be paid in, smallest units, in the provider's order.
    pub currency_options: IndexMap<String, Option<i64>>,
    /// How often it is paid (`month`, …); absent when once.
    pub interval: Option<String>,
}

impl Price {
    /// The flux one unit buys: `metadata.fluxAmount`, when that is a positive whole number (BS-D13).
    pub fn flux(&self) -> Option<Flux> {
        self.metadata.get("fluxAmount").and_then(|text| whole_flux(text))
    }

    /// Whether the price can be paid in this lower-case currency.
    pub fn takes(&self, currency: &str) -> bool {
        self.currency == currency || self.currency_options.contains_key(currency)
    }
}

/// Reads a positive whole amount of flux; `500` and `500.0` are, `7.5`, `0` and `abc` are not.
pub fn whole_flux(text: &str) -> Option<Flux> {
    let number: Decimal = text.trim().parse().ok()?;
    let whole: i64 = if number.is_integer() { number.try_into().ok()? } else { return None };
    Flux::new(whole).filter(|flux| !flux.is_zero())
}

/// A purchase to be begun at the provider.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckoutOrder {
    /// Who buys.
    pub user: UserId,
    /// What: a price id.
    pub price: String,
    /// How much flux it buys; repeated in the metadata, because prices can change before they are paid.
    pub flux: Flux,
    /// Lower-case code; the price's own when absent.
    pub currency: Option<String>,
    /// Whether it is paid again and again.
    pub recurring: bool,
    /// The provider's customer, when there is one already.
    pub customer: Option<String>,
    /// Address of the buyer, when there is no customer yet.
    pub email: String,
    /// Where the browser goes afterwards.
    pub success_url: String,
    /// Where it goes when the buyer turns back.
    pub cancel_url: String,
    /// Kinds of payment offered; empty lets the provider decide.
    pub payment_methods: Vec<String>,
    /// Options of those, passed on as the operator wrote them.
    pub payment_method_options: Map<String, Value>,
    /// Two orders with this text within the provider's memory are one. Hashed before it is sent.
    pub once: String,
}

/// A session the provider opened for an order.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenedCheckout {
    /// The provider's id.
    pub id: String,
    /// Where the buyer pays.
    pub url: String,
    /// `payment` or `subscription`.
    pub mode: String,
    /// Usually `open`.
    pub status: Option<String>,
    /// Usually `unpaid`.
    pub payment_status: Option<String>,
    /// Smallest units.
    pub amount_total: Option<i64>,
    /// Lower-case code.
    pub currency: Option<String>,
    /// When the provider closes it.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A visit of the provider's portal to be begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalOrder {
    /// Whose portal.
    pub customer: String,
    /// Where the browser goes afterwards.
    pub return_url: String,
    /// As in [`CheckoutOrder`].
    pub once: String,
}

/// One line of an invoice, as far as it decides about flux.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceLine {
    /// Smallest units; negative for what is given back.
    pub amount: i64,
    /// How many; one when the provider does not say.
    pub quantity: i64,
    /// Whether it is an item of a subscription.
    pub subscription_item: bool,
    /// Whether it evens out a change within a period.
    pub proration: bool,
    /// The price, when there is one.
    pub price: Option<String>,
}

impl InvoiceLine {
    /// Whether it buys flux: a full item of a subscription that is not free (contract §9.2). A trial has no amount,
    /// and a change in mid-period is evened out by the next full invoice.
    pub fn buys(&self) -> bool {
        self.subscription_item && !self.proration && self.amount > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positive_whole_numbers_buy_flux() {
        assert_eq!(whole_flux("500"), Flux::new(500));
        assert_eq!(whole_flux(" 500.0 "), Flux::new(500));
        for bad in ["", "abc", "7.5", "0", "-3", "9007199254740993", "NaN"] {
            assert_eq!(whole_flux(bad), None, "{bad}");
        }
    }
}
