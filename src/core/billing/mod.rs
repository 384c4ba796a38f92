//! Selling flux: what is on sale, how it is bought, what was bought, and what the provider tells us of it
//! (contract `billing-stripe.md`).

mod checkout;
mod closing;
mod invoices;
mod journal;
mod returns;
mod webhook;

use std::sync::Arc;

use futures::lock::Mutex;

use super::config::Config;
use super::error::{Code, Error};
use super::ledger::Ledger;
use super::model::billing::Price;
use super::model::billing::mirror::{Checkout, Invoice, Kept};
use super::model::billing::money::format_price;
use super::model::config::StripeFluxProductId;
use super::model::fact::Fact;
use super::model::ids::UserId;
use super::model::page::Window;
use crate::ports::Fault;
use crate::ports::accounts::AccountRepo;
use crate::ports::billing::{BillingRepo, PaymentError, PaymentGateway, PaymentSignatures, PriceCache};
use crate::ports::journal::Journal;
use crate::ports::runtime::{Clock, IdSource};

/// What a restart decides about billing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether the secret key moves real money; events of the other kind are refused. Absent when the key does not tell.
    pub livemode: Option<bool>,
}

/// The shop.
pub struct Billing {
    /// The provider; absent while no secret key is set.
    pub gateway: Option<Arc<dyn PaymentGateway>>,
    /// Knows the provider's hand; absent while no webhook secret is set.
    pub signatures: Option<Arc<dyn PaymentSignatures>>,
    /// Mirrors and claims.
    pub repo: Arc<dyn BillingRepo>,
    /// Copies of prices.
    pub prices: Arc<dyn PriceCache>,
    /// Who exists.
    pub accounts: Arc<dyn AccountRepo>,
    /// The opening grant, standings and copies of balances.
    pub ledger: Arc<Ledger>,
    /// The product on sale, payment methods.
    pub config: Arc<Config>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids of rows and entries.
    pub ids: Arc<dyn IdSource>,
    /// Hears what was sold.
    pub journal: Arc<dyn Journal>,
    /// What a restart decides.
    pub policy: Policy,
    /// The last prices the provider told this process, and the lock that lets one request ask at a time.
    pub last_good: Mutex<Option<(String, Vec<Price>)>>,
}

/// One thing on sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The provider's id.
    pub price: String,
    /// E.g. `500 Flux`.
    pub label: String,
    /// Lower-case code.
    pub default_currency: String,
    /// Lower-case code and formatted price.
    pub currencies: Vec<(String, String)>,
    /// Whether the operator recommends it.
    pub recommended: bool,
    /// How often it is paid; absent when once.
    pub interval: Option<String>,
}

impl Billing {
    /// What can be bought, cheapest first; nothing while nothing is configured or the provider has never answered.
    pub async fn packages(&self) -> Result<Vec<Package>, Error> {
        let (Some(gateway), Some(product)) = (&self.gateway, self.config.optional::<StripeFluxProductId>().await?)
        else {
            return Ok(Vec::new());
        };
        let mut prices = self.on_sale(gateway.as_ref(), &product).await;
        prices.sort_by_key(|price| price.unit_amount.unwrap_or_default());
        Ok(prices.iter().filter_map(package).collect())
    }

    /// The user's checkout sessions, newest first.
    pub async fn orders(&self, user: &UserId, window: Window) -> Result<Vec<Kept<Checkout>>, Error> {
        Ok(self.repo.orders(user, window).await?)
    }

    /// The user's invoices, newest first.
    pub async fn invoices(&self, user: &UserId, window: Window) -> Result<Vec<Kept<Invoice>>, Error> {
        Ok(self.repo.invoices(user, window).await?)
    }

    /// The prices of the product: the copy, else what the provider says, else what it said last.
    async fn on_sale(&self, gateway: &dyn PaymentGateway, product: &str) -> Vec<Price> {
        if let Some(prices) = self.cached(product).await {
            return prices;
        }
        let mut last_good = self.last_good.lock().await;
        // Whoever waited for the lock finds what the holder fetched.
        if let Some(prices) = self.cached(product).await {
            return prices;
        }
        match gateway.prices(product).await {
            Ok(prices) => {
                if let Err(fault) = self.prices.keep(product, &prices).await {
                    self.degraded("price_cache.keep", &fault);
                }
                *last_good = Some((product.to_owned(), prices.clone()));
                prices
            }
            Err(error) => {
                self.degraded("payments.prices", &error);
                last_good.as_ref().filter(|(of, _)| of == product).map(|(_, prices)| prices.clone()).unwrap_or_default()
            }
        }
    }

    async fn cached(&self, product: &str) -> Option<Vec<Price>> {
        self.prices.find(product).await.unwrap_or_else(|fault| {
            self.degraded("price_cache.find", &fault);
            None
        })
    }

    fn degraded(&self, operation: &'static str, cause: &dyn std::fmt::Display) {
        self.journal.record(Fact::Degraded { operation, cause: cause.to_string() });
    }

    fn sells(&self) -> Result<&dyn PaymentGateway, Error> {
        self.gateway.as_deref().ok_or_else(|| Error::new(Code::StripeNotConfigured))
    }
}

/// A price that cannot be bought is not shown (BS-D10).
fn package(price: &Price) -> Option<Package> {
    let flux = price.flux()?;
    let mut currencies = vec![(price.currency.clone(), format_price(price.unit_amount, &price.currency))];
    for (currency, amount) in &price.currency_options {
        if *currency != price.currency {
            currencies.push((currency.clone(), format_price(*amount, currency)));
        }
    }
    Some(Package {
        price: price.id.clone(),
        label: format!("{flux} Flux"),
        default_currency: price.currency.clone(),
        currencies,
        recommended: price.metadata.get("recommended").is_some_and(|text| text == "true"),
        interval: price.interval.clone(),
    })
}

/// What a caller hears of the provider's failure (BS-D14); the cause goes to the log.
fn refused(error: PaymentError) -> Error {
    match error {
        PaymentError::Rejected { parameter: Some(_), .. } | PaymentError::Missing => {
            Error::new(Code::InvalidRequest).because(error)
        }
        PaymentError::Rejected { .. } | PaymentError::Failed(_) => {
            Error::new(Code::BadGateway).saying("Payment provider error").because(error)
        }
    }
}

/// A failure while an event is handled: the provider shall send it again.
fn again(fault: Fault) -> Error {
    Error::new(Code::Internal).because(fault)
}
