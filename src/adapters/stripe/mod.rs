//! Stripe: requests are built by the `async-stripe` family, sent by our own transport, and answers are read tolerantly.
//!
//! The family's own client can neither pin the version of the API nor obey `Retry-After`, and its answer types refuse
//! an object in which any member they know of is missing, after the money has moved.

mod answers;
pub mod signatures;
mod transport;

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use stripe_billing::billing_portal_session::CreateBillingPortalSession;
use stripe_checkout::CheckoutSessionMode;
use stripe_checkout::checkout_session::{
    CreateCheckoutSession, CreateCheckoutSessionCustomerCreation, CreateCheckoutSessionLineItems,
    CreateCheckoutSessionPaymentIntentData, CreateCheckoutSessionSubscriptionData,
};
use stripe_client_core::{IdempotencyKey, RequestBuilder, RequestStrategy, StripeMethod, StripeRequest};
use stripe_product::price::{ListPrice, RetrievePrice};
use stripe_types::Currency;
use url::form_urlencoded::Serializer;

use crate::core::model::billing::{CheckoutOrder, InvoiceLine, OpenedCheckout, PortalOrder, Price};
use crate::core::model::ids::UserId;
use crate::core::model::secret::Secret;
use crate::ports::billing::{PaymentError, PaymentGateway};
use crate::ports::{Fault, FaultKind};
use answers::{Anything, InvoicePayments, Lines, Named, Prices, Session, Subscriptions};
use transport::Transport;

/// How Stripe is reached.
#[derive(Clone, Debug)]
pub struct StripeSettings {
    /// Proves who we are; its prefix tells whether money is real.
    pub secret_key: Secret,
    /// Where the API is, without a path; Stripe itself unless a test says otherwise.
    pub base: String,
}

/// Where Stripe is.
pub const BASE: &str = "https://api.stripe.com";

impl StripeSettings {
    /// Whether this key moves real money; `None` when it does not tell.
    pub fn livemode(&self) -> Option<bool> {
        let kind = self.secret_key.expose().split('_').nth(1)?;
        match kind {
            "live" => Some(true),
            "test" => Some(false),
            _ => None,
        }
    }
}

/// The payment provider.
pub struct StripeGateway {
    transport: Transport,
}

impl StripeGateway {
    /// Opens nothing yet.
    pub fn new(settings: &StripeSettings) -> Result<Self, Fault> {
        Ok(Self { transport: Transport::new(settings)? })
    }

    async fn ask<T: miniserde::Deserialize>(
        &self,
        request: RequestBuilder,
        once: Option<&str>,
    ) -> Result<T, PaymentError> {
        let request = request.customize::<T>();
        let request = match once {
            Some(text) => {
                let key = hex::encode(Sha256::digest(text.as_bytes()));
                let key = IdempotencyKey::new(key).map_err(|error| failed(FaultKind::Corrupt, error))?;
                request.request_strategy(RequestStrategy::Idempotent(key))
            }
            None => request,
        };
        request.send(&self.transport).await.map_err(PaymentError::from)
    }
}

fn failed(kind: FaultKind, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PaymentError {
    PaymentError::Failed(Fault::new(kind, "stripe", error))
}

/// Most objects a page may hold.
const PAGE: i64 = 100;
/// Pages after which a list is taken to be without end.
const MOST_PAGES: usize = 50;

#[async_trait]
impl PaymentGateway for StripeGateway {
    #[tracing::instrument(name = "stripe.prices", skip_all)]
    async fn prices(&self, product: &str) -> Result<Vec<Price>, PaymentError> {
        let mut prices: Vec<Price> = Vec::new();
        for _ in 0..MOST_PAGES {
            let mut list = ListPrice::new().product(product).active(true).limit(PAGE);
            list = list.expand(vec!["data.currency_options".to_owned()]);
            if let Some(last) = prices.last() {
                list = list.starting_after(last.id.clone());
            }
            let page: Prices = self.ask(list.build(), None).await?;
            let more = page.has_more && !page.data.is_empty();
            prices.extend(page.data.into_iter().map(Price::from));
            if !more {
                break;
            }
        }
        Ok(prices)
    }

    #[tracing::instrument(name = "stripe.price", skip_all)]
    async fn price(&self, id: &str) -> Result<Price, PaymentError> {
        let request = RetrievePrice::new(plain(id)?).expand(vec!["currency_options".to_owned()]).build();
        let price: answers::PriceAnswer = self.ask(request, None).await?;
        Ok(price.into())
    }

    #[tracing::instrument(name = "stripe.open_checkout", skip_all)]
    async fn open_checkout(&self, order: &CheckoutOrder) -> Result<OpenedCheckout, PaymentError> {
        let mut request = session(order).build();
        let mut body = request.body.take().unwrap_or_default();
        for (name, value) in operators_choice(order) {
            body.push('&');
            body.push_str(&Serializer::new(String::new()).append_pair(&name, &value).finish());
        }
        request.body = Some(body);
        let opened: Session = self.ask(request, Some(&order.once)).await?;
        opened.try_into().map_err(|why: &str| failed(FaultKind::Corrupt, why))
    }

    #[tracing::instrument(name = "stripe.open_portal", skip_all)]
    async fn open_portal(&self, order: &PortalOrder) -> Result<String, PaymentError> {
        let request =
            CreateBillingPortalSession::new().customer(order.customer.clone()).return_url(order.return_url.clone());
        let opened: answers::Portal = self.ask(request.build(), Some(&order.once)).await?;
        Ok(opened.url)
    }

    #[tracing::instrument(name = "stripe.invoice_lines", skip_all)]
    async fn invoice_lines(&self, invoice: &str) -> Result<Vec<InvoiceLine>, PaymentError> {
        let path = format!("/invoices/{}/lines", plain(invoice)?);
        let mut lines = Vec::new();
        let mut last: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let mut query = vec![("limit", PAGE.to_string())];
            query.extend(last.take().map(|id| ("starting_after", id)));
            let mut request = RequestBuilder::new(StripeMethod::Get, &path);
            request.query = Some(Serializer::new(String::new()).extend_pairs(query).finish());
            let page: Lines = self.ask(request, None).await?;
            last = page.data.last().map(|line| line.id.clone());
            lines.extend(page.data.into_iter().map(InvoiceLine::from));
            if !page.has_more || last.is_none() {
                break;
            }
        }
        Ok(lines)
    }

    #[tracing::instrument(name = "stripe.invoice_payments", skip_all)]
    async fn invoice_payments(&self, invoice: &str) -> Result<Vec<String>, PaymentError> {
        let invoice = plain(invoice)?;
        let (mut intents, mut last) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let mut request = RequestBuilder::new(StripeMethod::Get, "/invoice_payments");
            let after = last.map_or_else(String::new, |last: String| format!("&starting_after={last}"));
            request.query = Some(format!("invoice={invoice}&status=paid&limit={PAGE}{after}"));
            let page: InvoicePayments = self.ask(request, None).await?;
            last = page.data.last().map(|payment| payment.id.clone());
            intents.extend(page.data.into_iter().filter_map(|one| one.payment?.payment_intent));
            if !page.has_more || last.is_none() {
                break;
            }
        }
        Ok(intents)
    }

    #[tracing::instrument(name = "stripe.customer_owner", skip_all)]
    async fn customer_owner(&self, customer: &str) -> Result<Option<UserId>, PaymentError> {
        let request = RequestBuilder::new(StripeMethod::Get, format!("/customers/{}", plain(customer)?));
        let customer: Named = self.ask(request, None).await?;
        Ok(customer.metadata.and_then(|mut metadata| metadata.remove("userId")).map(UserId::new))
    }

    #[tracing::instrument(name = "stripe.subscriptions", skip_all)]
    async fn subscriptions(&self, customer: &str) -> Result<Vec<String>, PaymentError> {
        let customer = plain(customer)?;
        let (mut running, mut last) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let mut request = RequestBuilder::new(StripeMethod::Get, "/subscriptions");
            let after = last.map_or_else(String::new, |last: String| format!("&starting_after={last}"));
            request.query = Some(format!("customer={customer}&limit={PAGE}{after}"));
            let page: Subscriptions = match self.ask(request, None).await {
                Err(PaymentError::Missing) => break,
                page => page?,
            };
            last = page.data.last().map(|subscription| subscription.id.clone());
            running.extend(page.data.into_iter().filter(answers::Subscription::runs).map(|running| running.id));
            if !page.has_more || last.is_none() {
                break;
            }
        }
        Ok(running)
    }

    #[tracing::instrument(name = "stripe.expire_checkout", skip_all)]
    async fn expire_checkout(&self, session: &str) -> Result<(), PaymentError> {
        let path = format!("/checkout/sessions/{}/expire", plain(session)?);
        let once = format!("expire|{session}");
        let request = RequestBuilder::new(StripeMethod::Post, path);
        match within(DELETION, self.ask::<Anything>(request, Some(&once))).await {
            // Refused means: not open any more.
            Ok(_) | Err(PaymentError::Missing | PaymentError::Rejected { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    #[tracing::instrument(name = "stripe.event", skip_all)]
    async fn event(&self, id: &str) -> Result<Vec<u8>, PaymentError> {
        let request = RequestBuilder::new(StripeMethod::Get, format!("/events/{}", plain(id)?));
        let event: miniserde::json::Value = self.ask(request, None).await?;
        Ok(miniserde::json::to_string(&event).into_bytes())
    }

    #[tracing::instrument(name = "stripe.cancel_subscription", skip_all)]
    async fn cancel_subscription(&self, subscription: &str) -> Result<(), PaymentError> {
        let mut request = RequestBuilder::new(StripeMethod::Delete, format!("/subscriptions/{}", plain(subscription)?));
        request.query = Some("prorate=false".to_owned());
        match within(DELETION, self.ask::<Anything>(request, None)).await {
            Ok(_) | Err(PaymentError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// How long somebody who deletes an account waits for one step at the provider (BS-D27), repeats included.
const DELETION: Duration = Duration::from_secs(20);

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, PaymentError>>) -> Result<T, PaymentError> {
    let late = |elapsed| Err(failed(FaultKind::Timeout, elapsed));
    tokio::time::timeout(limit, call).await.unwrap_or_else(late)
}

/// An id that can stand in a path: ids come from callers and events, and a slash in one would be another path.
fn plain(id: &str) -> Result<&str, PaymentError> {
    let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    plain.then_some(id).ok_or(PaymentError::Missing)
}

fn session(order: &CheckoutOrder) -> CreateCheckoutSession {
    let mut item = CreateCheckoutSessionLineItems::new();
    item.price = Some(order.price.clone());
    item.quantity = Some(1);
    let user = HashMap::from([("userId".to_owned(), order.user.to_string())]);
    let mut metadata = user.clone();
    metadata.insert("fluxAmount".to_owned(), order.flux.to_string());
    let mut session = CreateCheckoutSession::new()
        .line_items(vec![item])
        .allow_promotion_codes(true)
        .success_url(order.success_url.clone())
        .cancel_url(order.cancel_url.clone())
        .client_reference_id(order.user.to_string())
        .metadata(metadata);
    if let Some(currency) = &order.currency {
        // Cannot fail: an unknown code is kept as it is.
        let Ok(currency) = Currency::from_str(currency);
        session = session.currency(currency);
    }
    session = match &order.customer {
        Some(customer) => session.customer(customer.clone()),
        None => session.customer_email(order.email.clone()),
    };
    if order.recurring {
        let mut data = CreateCheckoutSessionSubscriptionData::new();
        data.metadata = Some(user);
        return session.mode(CheckoutSessionMode::Subscription).subscription_data(data);
    }
    if order.customer.is_none() {
        session = session.customer_creation(CreateCheckoutSessionCustomerCreation::Always);
    }
    let mut data = CreateCheckoutSessionPaymentIntentData::new();
    data.metadata = Some(user);
    session.mode(CheckoutSessionMode::Payment).payment_intent_data(data)
}

/// What an operator wrote about payment methods, as form fields: it is passed on, not understood, so methods newer
/// than this server can be offered.
fn operators_choice(order: &CheckoutOrder) -> Vec<(String, String)> {
    let mut fields: Vec<_> = order
        .payment_methods
        .iter()
        .enumerate()
        .map(|(at, method)| (format!("payment_method_types[{at}]"), method.clone()))
        .collect();
    if !order.recurring {
        for (name, value) in &order.payment_method_options {
            flatten(&format!("payment_method_options[{name}]"), value, &mut fields);
        }
    }
    fields
}

fn flatten(name: &str, value: &serde_json::Value, fields: &mut Vec<(String, String)>) {
    use serde_json::Value;
    match value {
        Value::Null => {}
        Value::String(text) => fields.push((name.to_owned(), text.clone())),
        Value::Bool(_) | Value::Number(_) => fields.push((name.to_owned(), value.to_string())),
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                flatten(&format!("{name}[{at}]"), item, fields);
            }
        }
        Value::Object(members) => {
            for (member, value) in members {
                flatten(&format!("{name}[{member}]"), value, fields);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_whether_money_is_real() {
        let livemode = |key: &str| StripeSettings { secret_key: Secret::new(key), base: BASE.to_owned() }.livemode();
        assert_eq!(livemode("sk_live_1"), Some(true));
        assert_eq!(livemode("rk_test_1"), Some(false));
        assert_eq!(livemode("secret"), None);
    }

    #[test]
    fn an_id_cannot_lead_elsewhere() {
        assert!(plain("price_1-a").is_ok());
        for bad in ["", "a/b", "..", "a?b", "a b", "é"] {
            assert!(plain(bad).is_err(), "{bad}");
        }
    }
}
