//! What `/stripe` answers and takes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use poem_openapi::Object;
use poem_openapi::types::Example;

use super::payload::{iso_millis, iso_millis_if_any};
use crate::core::model::billing::mirror::{Checkout, Invoice as InvoiceCopy, Kept};

/// Something on sale.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct Package {
    /// What to name at the checkout.
    pub(super) stripe_price_id: String,
    /// A short text.
    pub(super) label: String,
    /// Lower-case code of the usual currency.
    pub(super) default_currency: String,
    /// Formatted price by lower-case code of a currency.
    pub(super) currencies: BTreeMap<String, String>,
    /// Whether the operator recommends it.
    pub(super) recommended: bool,
    /// `one_time` or `recurring`.
    pub(super) r#type: String,
    /// How often it is paid; absent when once.
    #[oai(skip_serializing_if_is_none)]
    pub(super) interval: Option<String>,
}

/// A purchase to be begun.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(super) struct CheckoutRequest {
    /// A price id of a package.
    pub(super) stripe_price_id: String,
    /// Code of one of its currencies.
    pub(super) currency: Option<String>,
}

/// Where to send the buyer's browser.
#[derive(Object)]
#[oai(example)]
pub(super) struct Redirect {
    /// A page of the payment provider.
    pub(super) url: String,
}

/// A checkout session.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) user_id: String,
    pub(super) stripe_session_id: String,
    #[oai(nullable)]
    pub(super) stripe_customer_id: Option<String>,
    pub(super) mode: String,
    #[oai(nullable)]
    pub(super) status: Option<String>,
    #[oai(nullable)]
    pub(super) payment_status: Option<String>,
    /// Smallest units of the currency.
    #[oai(nullable)]
    pub(super) amount_total: Option<i64>,
    #[oai(nullable)]
    pub(super) currency: Option<String>,
    #[oai(nullable)]
    pub(super) success_url: Option<String>,
    #[oai(nullable)]
    pub(super) cancel_url: Option<String>,
    #[oai(nullable)]
    pub(super) stripe_payment_intent_id: Option<String>,
    #[oai(nullable)]
    pub(super) stripe_subscription_id: Option<String>,
    /// JSON text.
    #[oai(nullable)]
    pub(super) metadata: Option<String>,
    #[oai(nullable, serialize_with = "iso_millis_if_any")]
    pub(super) expires_at: Option<DateTime<Utc>>,
    #[oai(serialize_with = "iso_millis")]
    pub(super) created_at: DateTime<Utc>,
    #[oai(serialize_with = "iso_millis")]
    pub(super) updated_at: DateTime<Utc>,
    /// Whether its flux was credited.
    pub(super) flux_credited: bool,
    /// Always null here.
    #[oai(nullable)]
    pub(super) deleted_at: Option<String>,
}

/// An invoice.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct Invoice {
    pub(super) id: String,
    pub(super) user_id: String,
    pub(super) stripe_invoice_id: String,
    #[oai(nullable)]
    pub(super) stripe_customer_id: Option<String>,
    #[oai(nullable)]
    pub(super) stripe_subscription_id: Option<String>,
    #[oai(nullable)]
    pub(super) status: Option<String>,
    /// Smallest units of the currency.
    #[oai(nullable)]
    pub(super) amount_due: Option<i64>,
    /// Smallest units of the currency.
    #[oai(nullable)]
    pub(super) amount_paid: Option<i64>,
    #[oai(nullable)]
    pub(super) currency: Option<String>,
    #[oai(nullable)]
    pub(super) invoice_url: Option<String>,
    #[oai(nullable)]
    pub(super) invoice_pdf: Option<String>,
    #[oai(nullable, serialize_with = "iso_millis_if_any")]
    pub(super) period_start: Option<DateTime<Utc>>,
    #[oai(nullable, serialize_with = "iso_millis_if_any")]
    pub(super) period_end: Option<DateTime<Utc>>,
    #[oai(nullable, serialize_with = "iso_millis_if_any")]
    pub(super) paid_at: Option<DateTime<Utc>>,
    /// JSON text.
    #[oai(nullable)]
    pub(super) metadata: Option<String>,
    #[oai(serialize_with = "iso_millis")]
    pub(super) created_at: DateTime<Utc>,
    #[oai(serialize_with = "iso_millis")]
    pub(super) updated_at: DateTime<Utc>,
    /// Whether its flux was credited.
    pub(super) flux_credited: bool,
    /// Always null here.
    #[oai(nullable)]
    pub(super) deleted_at: Option<String>,
}

/// What the payment provider hears.
#[derive(Object)]
#[oai(example)]
pub(super) struct Receipt {
    /// Always true.
    pub(super) received: bool,
}

impl From<crate::core::billing::Package> for Package {
    fn from(package: crate::core::billing::Package) -> Self {
        Self {
            stripe_price_id: package.price,
            label: package.label,
            default_currency: package.default_currency,
            currencies: package.currencies.into_iter().collect(),
            recommended: package.recommended,
            r#type: if package.interval.is_some() { "recurring" } else { "one_time" }.to_owned(),
            interval: package.interval,
        }
    }
}

impl From<Kept<Checkout>> for Order {
    fn from(kept: Kept<Checkout>) -> Self {
        let copy = kept.copy;
        Self {
            id: kept.id,
            user_id: copy.user.to_string(),
            stripe_session_id: copy.session,
            stripe_customer_id: copy.customer,
            mode: copy.mode,
            status: copy.status,
            payment_status: copy.payment_status,
            amount_total: copy.amount_total,
            currency: copy.currency,
            success_url: copy.success_url,
            cancel_url: copy.cancel_url,
            stripe_payment_intent_id: copy.payment_intent,
            stripe_subscription_id: copy.subscription,
            metadata: copy.metadata,
            expires_at: copy.expires_at,
            created_at: kept.created_at,
            updated_at: kept.updated_at,
            flux_credited: kept.flux_credited,
            deleted_at: None,
        }
    }
}

impl From<Kept<InvoiceCopy>> for Invoice {
    fn from(kept: Kept<InvoiceCopy>) -> Self {
        let copy = kept.copy;
        Self {
            id: kept.id,
            user_id: copy.user.to_string(),
            stripe_invoice_id: copy.invoice,
            stripe_customer_id: copy.customer,
            stripe_subscription_id: copy.subscription,
            status: copy.status,
            amount_due: copy.amount_due,
            amount_paid: copy.amount_paid,
            currency: copy.currency,
            invoice_url: copy.url,
            invoice_pdf: copy.pdf,
            period_start: copy.period_start,
            period_end: copy.period_end,
            paid_at: copy.paid_at,
            metadata: copy.metadata,
            created_at: kept.created_at,
            updated_at: kept.updated_at,
            flux_credited: kept.flux_credited,
            deleted_at: None,
        }
    }
}

impl Example for Package {
    fn example() -> Self {
        Self {
            stripe_price_id: "price_1".to_owned(),
            label: "500 Flux".to_owned(),
            default_currency: "usd".to_owned(),
            currencies: BTreeMap::from([("usd".to_owned(), "$3.00".to_owned())]),
            recommended: false,
            r#type: "one_time".to_owned(),
            interval: None,
        }
    }
}

impl Example for Redirect {
    fn example() -> Self {
        Self { url: "https://checkout.example.test/c/pay/cs_1".to_owned() }
    }
}

impl Example for Receipt {
    fn example() -> Self {
        Self { received: true }
    }
}

impl Example for Order {
    fn example() -> Self {
        Self {
            id: "V1StGXR8_Z5jdHi6B-myT".to_owned(),
            user_id: "2iPnVqXwVSmlnbQjyZBLHvwqKbNKl5Tc".to_owned(),
            stripe_session_id: "cs_1".to_owned(),
            stripe_customer_id: Some("cus_1".to_owned()),
            mode: "payment".to_owned(),
            status: Some("complete".to_owned()),
            payment_status: Some("paid".to_owned()),
            amount_total: Some(300),
            currency: Some("usd".to_owned()),
            success_url: Some("https://airi.moeru.ai/settings/flux?success=true".to_owned()),
            cancel_url: Some("https://airi.moeru.ai/settings/flux?canceled=true".to_owned()),
            stripe_payment_intent_id: Some("pi_1".to_owned()),
            stripe_subscription_id: None,
            metadata: Some("{}".to_owned()),
            expires_at: None,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            flux_credited: true,
            deleted_at: None,
        }
    }
}

impl Example for Invoice {
    fn example() -> Self {
        Self {
            id: "V1StGXR8_Z5jdHi6B-myT".to_owned(),
            user_id: "2iPnVqXwVSmlnbQjyZBLHvwqKbNKl5Tc".to_owned(),
            stripe_invoice_id: "in_1".to_owned(),
            stripe_customer_id: Some("cus_1".to_owned()),
            stripe_subscription_id: Some("sub_1".to_owned()),
            status: Some("paid".to_owned()),
            amount_due: Some(900),
            amount_paid: Some(900),
            currency: Some("usd".to_owned()),
            invoice_url: None,
            invoice_pdf: None,
            period_start: None,
            period_end: None,
            paid_at: None,
            metadata: None,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            flux_credited: true,
            deleted_at: None,
        }
    }
}
