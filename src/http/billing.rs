//! `/stripe`: packages, purchases and what the payment provider tells us (contract `billing-stripe.md` §6, §8).

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::http::HeaderMap;
use poem::http::header::{ORIGIN, REFERER};
use poem::web::Data;
use poem::{Endpoint, EndpointExt};
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::types::{Any, Example};
use poem_openapi::{Object, OpenApi};
use serde_json::Value;
use url::Url;

use super::auth::SignedIn;
use super::error::{ApiError, PRODUCT_UI};
use super::middleware::cors::TrustedOrigins;
use super::middleware::limit_calls::limit_calls;
use super::payload::{LooseInteger, Raw, iso_millis};
use super::spec::Tag;
use crate::core::App;
use crate::core::model::billing::mirror::{Checkout, Invoice as InvoiceCopy, Kept};
use crate::core::model::limits::STRIPE_CHECKOUT;
use crate::core::model::page::Window;

/// Buying flux.
pub(super) struct BillingApi;

/// Something on sale.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
struct Package {
    /// What to name at the checkout.
    stripe_price_id: String,
    /// A short text.
    label: String,
    /// Lower-case code of the usual currency.
    default_currency: String,
    /// Formatted price by lower-case code of a currency.
    currencies: BTreeMap<String, String>,
    /// Whether the operator recommends it.
    recommended: bool,
    /// `one_time` or `recurring`.
    r#type: String,
    /// How often it is paid; absent when once.
    #[oai(skip_serializing_if_is_none)]
    interval: Option<String>,
}

/// A purchase to be begun.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
struct CheckoutRequest {
    /// A price id of a package.
    stripe_price_id: String,
    /// Code of one of its currencies.
    currency: Option<String>,
}

/// Where to send the buyer's browser.
#[derive(Object)]
#[oai(example)]
struct Redirect {
    /// A page of the payment provider.
    url: String,
}

/// A checkout session.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
struct Order {
    id: String,
    user_id: String,
    stripe_session_id: String,
    #[oai(nullable)]
    stripe_customer_id: Option<String>,
    mode: String,
    #[oai(nullable)]
    status: Option<String>,
    #[oai(nullable)]
    payment_status: Option<String>,
    /// Smallest units of the currency.
    #[oai(nullable)]
    amount_total: Option<i64>,
    #[oai(nullable)]
    currency: Option<String>,
    #[oai(nullable)]
    success_url: Option<String>,
    #[oai(nullable)]
    cancel_url: Option<String>,
    #[oai(nullable)]
    stripe_payment_intent_id: Option<String>,
    #[oai(nullable)]
    stripe_subscription_id: Option<String>,
    /// JSON text.
    #[oai(nullable)]
    metadata: Option<String>,
    #[oai(nullable)]
    expires_at: Option<String>,
    #[oai(serialize_with = "iso_millis")]
    created_at: DateTime<Utc>,
    #[oai(serialize_with = "iso_millis")]
    updated_at: DateTime<Utc>,
    /// Whether its flux was credited.
    flux_credited: bool,
    /// Always null here.
    #[oai(nullable)]
    deleted_at: Option<String>,
}

/// An invoice.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
struct Invoice {
    id: String,
    user_id: String,
    stripe_invoice_id: String,
    #[oai(nullable)]
    stripe_customer_id: Option<String>,
    #[oai(nullable)]
    stripe_subscription_id: Option<String>,
    #[oai(nullable)]
    status: Option<String>,
    /// Smallest units of the currency.
    #[oai(nullable)]
    amount_due: Option<i64>,
    /// Smallest units of the currency.
    #[oai(nullable)]
    amount_paid: Option<i64>,
    #[oai(nullable)]
    currency: Option<String>,
    #[oai(nullable)]
    invoice_url: Option<String>,
    #[oai(nullable)]
    invoice_pdf: Option<String>,
    #[oai(nullable)]
    period_start: Option<String>,
    #[oai(nullable)]
    period_end: Option<String>,
    #[oai(nullable)]
    paid_at: Option<String>,
    /// JSON text.
    #[oai(nullable)]
    metadata: Option<String>,
    #[oai(serialize_with = "iso_millis")]
    created_at: DateTime<Utc>,
    #[oai(serialize_with = "iso_millis")]
    updated_at: DateTime<Utc>,
    /// Whether its flux was credited.
    flux_credited: bool,
    /// Always null here.
    #[oai(nullable)]
    deleted_at: Option<String>,
}

/// What the payment provider hears.
#[derive(Object)]
#[oai(example)]
struct Receipt {
    /// Always true.
    received: bool,
}

#[OpenApi(prefix_path = "/api/v1/stripe", tag = "Tag::Billing")]
impl BillingApi {
    /// List what can be bought, cheapest first
    ///
    /// Empty while nothing is on sale.
    #[oai(path = "/packages", method = "get", operation_id = "listFluxPackages")]
    async fn packages(&self, app: Data<&Arc<App>>) -> Result<Json<Vec<Package>>, ApiError> {
        Ok(Json(app.billing.packages().await?.into_iter().map(Package::from).collect()))
    }

    /// Begin a purchase
    ///
    /// Answers a page of the payment provider; the flux is credited when the provider says that it was paid. Admitted
    /// are 10 calls per 60 s and user.
    #[oai(path = "/checkout", method = "post", operation_id = "createCheckout", transform = "counted")]
    async fn checkout(
        &self,
        app: Data<&Arc<App>>,
        origins: Data<&Arc<TrustedOrigins>>,
        headers: &HeaderMap,
        caller: SignedIn,
        body: Raw<CheckoutRequest>,
    ) -> Result<Json<Redirect>, ApiError> {
        let base = way_back(&origins, headers);
        let url = app.billing.checkout(&caller.0.account, &body.bytes, base.as_deref()).await?;
        Ok(Json(Redirect { url }))
    }

    /// List the caller's checkout sessions, newest first
    #[oai(path = "/orders", method = "get", operation_id = "listOrders")]
    async fn orders(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// Sessions wanted, 1 to 100; 100 when absent.
        limit: Query<Option<LooseInteger>>,
        /// Sessions skipped.
        offset: Query<Option<LooseInteger>>,
    ) -> Result<Json<Vec<Order>>, ApiError> {
        let orders = app.billing.orders(caller.0.user(), window(&limit, &offset)).await?;
        Ok(Json(orders.into_iter().map(Order::from).collect()))
    }

    /// List the caller's invoices, newest first
    #[oai(path = "/invoices", method = "get", operation_id = "listInvoices")]
    async fn invoices(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// Invoices wanted, 1 to 100; 100 when absent.
        limit: Query<Option<LooseInteger>>,
        /// Invoices skipped.
        offset: Query<Option<LooseInteger>>,
    ) -> Result<Json<Vec<Invoice>>, ApiError> {
        let invoices = app.billing.invoices(caller.0.user(), window(&limit, &offset)).await?;
        Ok(Json(invoices.into_iter().map(Invoice::from).collect()))
    }

    /// Open the payment provider's portal
    ///
    /// There buyers see their payments and end subscriptions. Shares the limit of purchases.
    #[oai(path = "/portal", method = "post", operation_id = "openPortal", transform = "counted")]
    async fn portal(
        &self,
        app: Data<&Arc<App>>,
        origins: Data<&Arc<TrustedOrigins>>,
        headers: &HeaderMap,
        caller: SignedIn,
    ) -> Result<Json<Redirect>, ApiError> {
        let base = way_back(&origins, headers);
        let url = app.billing.portal(caller.0.user(), base.as_deref()).await?;
        Ok(Json(Redirect { url }))
    }

    /// Receive an event of the payment provider
    ///
    /// Only the provider can sign one. Events may come repeatedly and in any order; anything but 200 makes it come again.
    #[oai(path = "/webhook", method = "post", operation_id = "receiveStripeEvent")]
    async fn webhook(
        &self,
        app: Data<&Arc<App>>,
        headers: &HeaderMap,
        body: Raw<Any<Value>>,
    ) -> Result<Json<Receipt>, ApiError> {
        let signature = headers.get("stripe-signature").and_then(|value| value.to_str().ok());
        app.billing.receive(signature, &body.bytes).await?;
        Ok(Json(Receipt { received: true }))
    }
}

fn counted(ep: impl Endpoint + 'static) -> impl Endpoint {
    ep.around(|next, req| limit_calls(next, req, &STRIPE_CHECKOUT))
}

fn window(limit: &Query<Option<LooseInteger>>, offset: &Query<Option<LooseInteger>>) -> Window {
    let limit = limit.0.as_ref().map_or("100", LooseInteger::text);
    Window::parse(Some(limit), offset.0.as_ref().map(LooseInteger::text))
}

/// Where the provider sends the browser back to: the page's origin when trusted, the caller's otherwise. The provider
/// wants a web address, which the origin of a mobile shell is not (BS-D16).
fn way_back(origins: &TrustedOrigins, headers: &HeaderMap) -> Option<String> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let referer = header(REFERER).and_then(|referer| Url::parse(referer).ok()).map(|url| url.origin());
    let referer = referer.filter(url::Origin::is_tuple).map(|origin| origin.ascii_serialization());
    let trusted = referer
        .filter(|origin| origins.trusts(origin))
        .or_else(|| header(ORIGIN).filter(|origin| origins.trusts(origin)).map(str::to_owned))?;
    let web = trusted.starts_with("https://") || trusted.starts_with("http://");
    Some(if web { trusted } else { PRODUCT_UI.to_owned() })
}

fn iso(at: Option<DateTime<Utc>>) -> Option<String> {
    at.and_then(|at| iso_millis(&at)).and_then(|text| text.as_str().map(str::to_owned))
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
            expires_at: iso(copy.expires_at),
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
            period_start: iso(copy.period_start),
            period_end: iso(copy.period_end),
            paid_at: iso(copy.paid_at),
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
