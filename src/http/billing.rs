//! `/stripe`: packages, purchases and what the payment provider tells us (contract `billing-stripe.md` §6, §8).

use std::sync::Arc;

use poem::http::HeaderMap;
use poem::http::header::{ORIGIN, REFERER};
use poem::web::Data;
use poem::{Endpoint, EndpointExt};
use poem_openapi::OpenApi;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::types::Any;
use serde_json::Value;
use url::Url;

use super::auth::SignedIn;
use super::billing_documents::{CheckoutRequest, Invoice, Order, Package, Receipt, Redirect};
use super::error::{ApiError, PRODUCT_UI};
use super::middleware::cors::TrustedOrigins;
use super::middleware::limit_calls::limit_calls;
use super::payload::{LooseInteger, Raw};
use super::spec::Tag;
use crate::core::App;
use crate::core::model::limits::STRIPE_CHECKOUT;
use crate::core::model::page::Window;

/// Buying flux.
pub(super) struct BillingApi;

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
