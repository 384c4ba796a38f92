//! Selling flux for money: the payment provider, our copies of its objects, and the claims that make money count once.

use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::Fault;
use crate::core::model::billing::event::{HandledEvent, JournaledEvent};
use crate::core::model::billing::mirror::{Age, Checkout, Customer, Invoice, Kept, Saved, Subscription};
use crate::core::model::billing::settlement::{ClawBack, ClawedBack, Purchase, Restore, Restored, Settled};
use crate::core::model::billing::{CheckoutOrder, InvoiceLine, OpenedCheckout, PortalOrder, Price};
use crate::core::model::ids::UserId;
use crate::core::model::ledger::Opening;
use crate::core::model::page::Window;

/// The payment provider. Every call MUST end within a minute or so, repeats included, and a repeated write MUST carry
/// the idempotency key of the first try.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait PaymentGateway: Send + Sync {
    /// Every active price of a product, all pages of them, with currency options.
    async fn prices(&self, product: &str) -> Result<Vec<Price>, PaymentError>;

    /// One price with its currency options.
    async fn price(&self, id: &str) -> Result<Price, PaymentError>;

    /// Opens a checkout session; the same order twice within the provider's memory is one session.
    async fn open_checkout(&self, order: &CheckoutOrder) -> Result<OpenedCheckout, PaymentError>;

    /// Opens the provider's portal and answers its address.
    async fn open_portal(&self, order: &PortalOrder) -> Result<String, PaymentError>;

    /// Every line of an invoice, all pages of them.
    async fn invoice_lines(&self, invoice: &str) -> Result<Vec<InvoiceLine>, PaymentError>;

    /// The payment intents that paid an invoice, all pages of them.
    async fn invoice_payments(&self, invoice: &str) -> Result<Vec<String>, PaymentError>;

    /// The user a customer was made for, as its metadata says.
    async fn customer_owner(&self, customer: &str) -> Result<Option<UserId>, PaymentError>;

    /// Subscriptions of a customer that have not ended, all pages of them; none when there is no such customer.
    async fn subscriptions(&self, customer: &str) -> Result<Vec<String>, PaymentError>;

    /// Closes a checkout session, so that nothing can be paid by it any more. One that is gone, paid or closed already
    /// is a success.
    async fn expire_checkout(&self, session: &str) -> Result<(), PaymentError>;

    /// An event as the provider would send it, while it remembers it.
    async fn event(&self, id: &str) -> Result<Vec<u8>, PaymentError>;

    /// Ends a subscription at once, without proration. One that is gone or ended already is a success (BS-D27).
    async fn cancel_subscription(&self, subscription: &str) -> Result<(), PaymentError>;
}

/// Why the provider did not do what it was asked.
#[derive(Debug)]
pub enum PaymentError {
    /// There is no such object.
    Missing,
    /// It blames what was asked for; `told` is for the log.
    Rejected {
        /// Name of the parameter, when it names one.
        parameter: Option<String>,
        /// Type, code and request id; never a secret.
        told: String,
    },
    /// Anything else.
    Failed(Fault),
}

impl fmt::Display for PaymentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the payment provider knows no such object"),
            Self::Rejected { told, .. } => write!(f, "the payment provider refused: {told}"),
            Self::Failed(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for PaymentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(fault) => Some(fault),
            Self::Missing | Self::Rejected { .. } => None,
        }
    }
}

/// Tells the provider's messages from forgeries (contract §8.1).
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
pub trait PaymentSignatures: Send + Sync {
    /// Whether the header vouches for exactly these bytes and was made within five minutes of `now`. MUST compare in
    /// constant time.
    fn vouches(&self, header: &str, body: &[u8], now: DateTime<Utc>) -> bool;
}

/// Copies of the prices on sale, shared with the reference under `cache:stripe:prices`.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait PriceCache: Send + Sync {
    /// The copy of this product's prices, if there is a readable one.
    async fn find(&self, product: &str) -> Result<Option<Vec<Price>>, Fault>;

    /// Keeps a copy for 300 s.
    async fn keep(&self, product: &str, prices: &[Price]) -> Result<(), Fault>;

    /// Drops the copy.
    async fn forget(&self) -> Result<(), Fault>;
}

/// Whether an event has had its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventStanding {
    /// Not yet, as far as the journal knows.
    Due,
    /// Yes.
    Done,
}

/// How the handling of an event ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// The event.
    pub event: String,
    /// A fixed word; absent when it failed and is to come again.
    pub outcome: Option<&'static str>,
    /// What went wrong, for operators.
    pub error: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
}

/// `stripe_*`, `flux_owed`, and the ledger as far as payments move it.
///
/// Every method is one transaction. Those that move money MUST first serialise on the payment, then lock the balance
/// row, then look for what was done before, decide with `core::model::billing::settlement`, and write balance,
/// entries, debt and claim together. Mirrors MUST keep the greater [`Age`] and never change their owner.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait BillingRepo: Send + Sync {
    /// Notes an event unless it is noted, and says whether it has had its effect.
    async fn receive(&self, event: &JournaledEvent) -> Result<EventStanding, Fault>;

    /// Notes how an event ended. A duplicate's conclusion never replaces another outcome, a failure's replaces none.
    async fn conclude(&self, conclusion: &Conclusion) -> Result<(), Fault>;

    /// The journal, newest first: events that came before the one with the id `before`, at most `limit`.
    async fn events<'a>(&self, limit: u32, before: Option<&'a str>) -> Result<Vec<HandledEvent>, Fault>;

    /// Stores a customer unless it is known, fills in an address it lacks, and links it to a live balance row while it is
    /// not deleted.
    async fn save_customer(&self, id: &str, customer: &Customer) -> Result<Saved, Fault>;

    /// Replaces address and name of a known customer, deleted or not; `false` when it is unknown.
    async fn rename_customer<'a>(
        &self,
        customer: &str,
        email: Option<&'a str>,
        name: Option<&'a str>,
        age: Age,
    ) -> Result<bool, Fault>;

    /// Marks a customer deleted and unlinks it from balance rows; `false` when it is unknown.
    async fn close_customer(&self, customer: &str, at: DateTime<Utc>) -> Result<bool, Fault>;

    /// Whose customer this is, deleted ones included.
    async fn user_of_customer(&self, customer: &str) -> Result<Option<UserId>, Fault>;

    /// The user's newest live customer.
    async fn customer_of_user(&self, user: &UserId) -> Result<Option<String>, Fault>;

    /// Stores a copy of a session.
    async fn save_checkout(&self, id: &str, checkout: &Checkout, age: Age) -> Result<Saved, Fault>;

    /// Stores a copy of a subscription.
    async fn save_subscription(&self, id: &str, subscription: &Subscription, age: Age) -> Result<Saved, Fault>;

    /// Stores a copy of an invoice.
    async fn save_invoice(&self, id: &str, invoice: &Invoice, age: Age) -> Result<Saved, Fault>;

    /// The user's live sessions, newest first.
    async fn orders(&self, user: &UserId, window: Window) -> Result<Vec<Kept<Checkout>>, Fault>;

    /// The user's live invoices, newest first.
    async fn invoices(&self, user: &UserId, window: Window) -> Result<Vec<Kept<Invoice>>, Fault>;

    /// Subscriptions of the user that have not ended, by the provider's id.
    async fn running_subscriptions(&self, user: &UserId) -> Result<Vec<String>, Fault>;

    /// Checkout sessions of the user that may still be paid, by the provider's id.
    async fn open_checkouts(&self, user: &UserId) -> Result<Vec<String>, Fault>;

    /// Claims a payment and credits it, once, whatever the number of events that mean it. A user without a balance row
    /// gets the opening grant first; a closed row is credited and stays closed. What was taken back of the payment
    /// before, and what the user owes, is taken at once.
    async fn settle(&self, purchase: &Purchase) -> Result<Settled, Fault>;

    /// Takes back flux of a refunded or disputed payment, once per request, or notes it until the payment is credited.
    async fn claw_back(&self, claw: &ClawBack) -> Result<ClawedBack, Fault>;

    /// Undoes what a dispute took, once, but for what refunds of the same payment are due beside it, or notes that it
    /// shall take nothing.
    async fn restore(&self, restore: &Restore, opening: &Opening) -> Result<Restored, Fault>;
}
