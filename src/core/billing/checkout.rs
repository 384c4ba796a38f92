//! Buying, and the provider's portal (contract §6.3, §6.5).

use serde_json::{Value, json};

use super::{Billing, refused};
use crate::core::error::{Code, Error};
use crate::core::model::accounts::Account;
use crate::core::model::billing::mirror::{Age, Checkout, Saved};
use crate::core::model::billing::{CheckoutOrder, OpenedCheckout, PortalOrder, Price};
use crate::core::model::config::{StripeFluxProductId, StripePaymentMethodOptions, StripePaymentMethods};
use crate::core::model::fact::Fact;
use crate::core::model::ids::UserId;
use crate::ports::billing::PaymentGateway;

/// What a buyer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CheckoutWish {
    /// A price id.
    price: String,
    /// Lower-case code; the price's own when absent.
    currency: Option<String>,
}

/// Two clicks within this many seconds open one session.
const DOUBLE_CLICK_SECONDS: i64 = 60;

impl Billing {
    /// Opens a checkout session and answers where to pay. `base` is where the buyer's browser came from, when that is
    /// trusted. The checks stand in the order of the contract.
    pub async fn checkout(&self, buyer: &Account, body: &[u8], base: Option<&str>) -> Result<String, Error> {
        let gateway = self.sells()?;
        let product = self
            .config
            .optional::<StripeFluxProductId>()
            .await?
            .ok_or_else(|| Error::new(Code::StripeNotConfigured))?;
        let wish = CheckoutWish::read(body)?;
        let price = self.wanted(gateway, &product, &wish.price).await?;
        if let Some(currency) = &wish.currency
            && !price.takes(currency)
        {
            return Err(unusable("currency", "the price cannot be paid in this currency"));
        }
        let Some(flux) = price.flux() else {
            return Err(invalid_package(&wish.price).saying("Price is missing fluxAmount metadata"));
        };
        let base = base.ok_or_else(|| Error::new(Code::InvalidOrigin))?;
        let recurring = price.interval.is_some();
        if recurring && !self.repo.running_subscriptions(&buyer.id).await?.is_empty() {
            return Err(Error::new(Code::Conflict).saying("Subscription already active"));
        }
        let customer = self.repo.customer_of_user(&buyer.id).await?;
        let bucket = self.clock.now().timestamp().div_euclid(DOUBLE_CLICK_SECONDS);
        let order = CheckoutOrder {
            user: buyer.id.clone(),
            flux,
            recurring,
            email: buyer.email.as_str().to_owned(),
            success_url: format!("{base}/settings/flux?success=true"),
            cancel_url: format!("{base}/settings/flux?canceled=true"),
            payment_methods: self.config.optional::<StripePaymentMethods>().await?.unwrap_or_default(),
            payment_method_options: self.config.optional::<StripePaymentMethodOptions>().await?.unwrap_or_default(),
            // Whatever shapes the session is part of the text: the provider refuses one key for two requests.
            once: format!(
                "checkout|{}|{}|{:?}|{bucket}|{base}|{customer:?}|{flux}",
                buyer.id, wish.price, wish.currency
            ),
            price: wish.price,
            currency: wish.currency,
            customer,
        };
        let opened = gateway.open_checkout(&order).await.map_err(refused)?;
        self.remember(&order, &opened).await;
        self.journal.record(Fact::CheckoutOpened { user: buyer.id.clone() });
        Ok(opened.url)
    }

    /// Opens the provider's portal and answers its address.
    pub async fn portal(&self, user: &UserId, base: Option<&str>) -> Result<String, Error> {
        let gateway = self.sells()?;
        let customer = self.repo.customer_of_user(user).await?.ok_or_else(|| Error::new(Code::NoCustomer))?;
        let base = base.ok_or_else(|| Error::new(Code::InvalidOrigin))?;
        let bucket = self.clock.now().timestamp().div_euclid(DOUBLE_CLICK_SECONDS);
        let order = PortalOrder {
            return_url: format!("{base}/settings/flux"),
            once: format!("portal|{user}|{customer}|{base}|{bucket}"),
            customer,
        };
        gateway.open_portal(&order).await.map_err(refused)
    }

    async fn wanted(&self, gateway: &dyn PaymentGateway, product: &str, id: &str) -> Result<Price, Error> {
        let listed = self.cached(product).await.unwrap_or_default();
        if let Some(price) = listed.into_iter().find(|price| price.id == id) {
            return Ok(price);
        }
        let price = gateway.price(id).await.map_err(|error| invalid_package(id).because(error))?;
        if !price.active || price.product != product {
            return Err(invalid_package(id));
        }
        // A price for sale that the copy lacks: the copy is old.
        if let Err(fault) = self.prices.forget().await {
            self.degraded("price_cache.forget", &fault);
        }
        Ok(price)
    }

    /// The session exists and the buyer is about to pay: a mirror that cannot be written is made by the webhook.
    async fn remember(&self, order: &CheckoutOrder, opened: &OpenedCheckout) {
        let metadata = json!({ "userId": order.user.as_str(), "fluxAmount": order.flux.to_string() });
        let checkout = Checkout {
            user: order.user.clone(),
            session: opened.id.clone(),
            customer: order.customer.clone(),
            mode: opened.mode.clone(),
            status: opened.status.clone(),
            payment_status: opened.payment_status.clone(),
            amount_total: opened.amount_total,
            currency: opened.currency.clone(),
            success_url: Some(order.success_url.clone()),
            cancel_url: Some(order.cancel_url.clone()),
            payment_intent: None,
            subscription: None,
            metadata: Some(metadata.to_string()),
            expires_at: opened.expires_at,
        };
        match self.repo.save_checkout(&self.ids.id(), &checkout, Age::BEFORE_ALL).await {
            Ok(Saved::Written | Saved::Stale) => {}
            Ok(Saved::Foreign) => self.alert("checkout session belongs to another user", &opened.id),
            Err(fault) => self.degraded("billing.save_checkout", &fault),
        }
    }
}

impl CheckoutWish {
    /// Reads a request body.
    fn read(body: &[u8]) -> Result<Self, Error> {
        let body: Value = serde_json::from_slice(body).map_err(|_| Error::new(Code::InvalidBody))?;
        let price = body["stripePriceId"].as_str().filter(|id| !id.is_empty());
        let price = price.ok_or_else(|| unusable("stripePriceId", "expected a price id"))?.to_owned();
        let currency = match &body["currency"] {
            Value::Null => None,
            Value::String(code) if code.len() == 3 && code.bytes().all(|b| b.is_ascii_alphabetic()) => {
                Some(code.to_lowercase())
            }
            _ => return Err(unusable("currency", "expected a code of three letters")),
        };
        Ok(Self { price, currency })
    }
}

fn unusable(path: &str, message: &str) -> Error {
    Error::new(Code::InvalidRequest)
        .saying("Invalid checkout request")
        .with_details(json!([{ "path": path, "message": message }]))
}

fn invalid_package(price: &str) -> Error {
    Error::new(Code::InvalidPackage).with_details(json!({ "stripePriceId": price }))
}
