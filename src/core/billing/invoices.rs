//! Invoices of subscriptions (contract §8.5, §9.2).

use chrono::TimeDelta;

use super::webhook::{ORPHAN, Outcome, REJECTED, Sale, mirrored};
use super::{Billing, again};
use crate::core::error::{Code, Error};
use crate::core::model::billing::event::{Object, PaymentEvent};
use crate::core::model::billing::mirror::{Invoice, Saved};
use crate::core::model::billing::money::spell_amount;
use crate::core::model::billing::settlement::Claim;
use crate::core::model::billing::{InvoiceLine, Price, whole_flux};
use crate::core::model::config::StripeFluxProductId;
use crate::core::model::fact::Fact;
use crate::core::model::ids::UserId;
use crate::core::model::ledger::Flux;
use crate::ports::billing::PaymentError;

/// Where an invoice names its subscription.
const DETAILS: &str = "parent/subscription_details";
/// How long an invoice may wait for the event that makes its buyer known.
const PATIENCE: TimeDelta = TimeDelta::hours(24);

impl Billing {
    pub(super) async fn invoice_changed(&self, event: &PaymentEvent) -> Result<Outcome, Error> {
        let object = &event.object;
        let pays = matches!(event.kind.as_str(), "invoice.paid" | "invoice.payment_succeeded");
        let buys = pays && object.has(DETAILS) && object.text("status").as_deref() == Some("paid");
        let customer = object.reference("customer");
        let named = object.text(&format!("{DETAILS}/metadata/userId"));
        let mut user = self.owner(customer.as_deref(), named).await?;
        if user.is_none()
            && buys
            && let Some(customer) = &customer
        {
            user = self.owner_at_the_provider(customer).await?;
        }
        let Some(user) = user else {
            if buys && self.clock.now() - event.created < PATIENCE {
                // The event that makes the customer known may be on its way.
                return Err(Error::new(Code::Internal).because("an invoice of nobody known yet"));
            }
            if buys {
                self.alert("paid invoice of nobody", &event.id);
            }
            return Ok(ORPHAN);
        };
        let Some(invoice) = read_invoice(object, user, customer) else { return Ok(REJECTED) };
        let age = invoice.age(event.kind == "invoice.created", event.created);
        let saved = self.repo.save_invoice(&self.ids.id(), &invoice, age).await.map_err(again)?;
        if saved == Saved::Foreign {
            self.alert("invoice of another user", &event.id);
            return Ok(REJECTED);
        }
        if event.kind == "invoice.payment_failed" && saved == Saved::Written {
            self.journal.record(Fact::PaymentFailed);
        }
        if !buys {
            return Ok(mirrored(saved));
        }
        let lines = match object.all_lines() {
            Some(lines) => lines,
            None => self.sells()?.invoice_lines(&invoice.invoice).await.map_err(retried)?,
        };
        let flux = self.flux_of(&lines, object).await?;
        if flux.is_zero() {
            return Ok(mirrored(saved));
        }
        let payment_intent = self.payment_of(event, &invoice).await?;
        let amount = spell_amount(invoice.amount_paid.unwrap_or_default(), invoice.currency.as_deref());
        let sale = Sale {
            user: invoice.user,
            flux,
            description: format!("Subscription invoice {amount}"),
            facts: [("stripeInvoiceId", invoice.invoice.as_str()), ("source", "invoice.paid")],
            claim: Claim::Invoice(invoice.invoice.clone()),
            payment_intent,
            paid: invoice.amount_paid,
            currency: invoice.currency,
            source: "invoice",
            label: "stripe.invoice",
        };
        self.sell(event, sale).await
    }

    /// The payment a refund of this invoice will name. Messages do not tell it (`payments` is sent only to those who ask
    /// for it, docs.stripe.com/api/invoices/object), so the provider is asked.
    async fn payment_of(&self, event: &PaymentEvent, invoice: &Invoice) -> Result<Option<String>, Error> {
        if invoice.payment_intent.is_some() || invoice.amount_paid.is_none_or(|paid| paid == 0) {
            return Ok(invoice.payment_intent.clone());
        }
        let payments = match self.sells()?.invoice_payments(&invoice.invoice).await {
            Ok(payments) => payments,
            Err(error @ PaymentError::Failed(_)) => return Err(retried(error)),
            // What was paid is credited all the same.
            Err(PaymentError::Missing | PaymentError::Rejected { .. }) => Vec::new(),
        };
        if payments.len() != 1 {
            self.alert("invoice not paid by exactly one payment, refunds are to be settled by hand", &event.id);
        }
        Ok(payments.into_iter().next())
    }

    async fn owner_at_the_provider(&self, customer: &str) -> Result<Option<UserId>, Error> {
        match self.sells()?.customer_owner(customer).await {
            Ok(named) => self.owner(None, named.map(|user| user.to_string())).await,
            Err(PaymentError::Missing) => Ok(None),
            Err(error) => Err(retried(error)),
        }
    }

    /// What the lines buy; the subscription's own amount when no price of them tells one.
    async fn flux_of(&self, lines: &[InvoiceLine], object: &Object) -> Result<Flux, Error> {
        let mut sum = 0_i64;
        let mut told = false;
        let mut buys = false;
        for line in lines.iter().filter(|line| line.buys()) {
            buys = true;
            let Some(price) = &line.price else { continue };
            let Some(flux) = self.price_of_line(price).await?.and_then(|price| price.flux()) else { continue };
            told = true;
            sum = sum.saturating_add(flux.get().saturating_mul(line.quantity.max(0)));
        }
        if told || !buys {
            return Ok(Flux::saturating(sum));
        }
        let own = object.text(&format!("{DETAILS}/metadata/fluxAmount"));
        Ok(own.and_then(|text| whole_flux(&text)).unwrap_or_default())
    }

    async fn price_of_line(&self, id: &str) -> Result<Option<Price>, Error> {
        if let Some(product) = self.config.optional::<StripeFluxProductId>().await?
            && let Some(price) = self.cached(&product).await.and_then(|all| all.into_iter().find(|one| one.id == id))
        {
            return Ok(Some(price));
        }
        match self.sells()?.price(id).await {
            Ok(price) => Ok(Some(price)),
            Err(PaymentError::Missing) => Ok(None),
            Err(error) => Err(retried(error)),
        }
    }
}

/// The provider could not tell what we need to handle its own event: it shall send it again.
fn retried(error: PaymentError) -> Error {
    Error::new(Code::Internal).because(error)
}

fn read_invoice(object: &Object, user: UserId, customer: Option<String>) -> Option<Invoice> {
    Some(Invoice {
        user,
        invoice: object.text("id")?,
        customer,
        subscription: object.reference(&format!("{DETAILS}/subscription")),
        payment_intent: object
            .reference("payments/data/0/payment/payment_intent")
            .or_else(|| object.reference("payment_intent")),
        status: object.text("status"),
        amount_due: object.number("amount_due"),
        amount_paid: object.number("amount_paid"),
        currency: object.text("currency"),
        url: object.text("hosted_invoice_url"),
        pdf: object.text("invoice_pdf"),
        period_start: object.time("period_start"),
        period_end: object.time("period_end"),
        paid_at: object.time("status_transitions/paid_at"),
        metadata: object.json("metadata"),
    })
}
