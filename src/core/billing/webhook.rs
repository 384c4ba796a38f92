//! What follows from what the provider tells us (contract §8.2–8.5).

use super::{Billing, again};
use crate::core::error::Error;
use crate::core::model::billing::event::{Object, PaymentEvent};
use crate::core::model::billing::mirror::{Age, Checkout, Customer, Saved, Subscription};
use crate::core::model::billing::money::spell_amount;
use crate::core::model::billing::settlement::{Claim, Clawed, Purchase, Settled};
use crate::core::model::billing::whole_flux;
use crate::core::model::fact::Fact;
use crate::core::model::ids::{EntryId, RequestId, UserId};
use crate::core::model::ledger::{Credit, EntryKind, Flux, Standing};

/// How the handling of an event ended: the word in the journal and on the metric.
pub(super) type Outcome = &'static str;
pub(super) const APPLIED: Outcome = "applied";
pub(super) const DUPLICATE: Outcome = "duplicate";
pub(super) const STALE: Outcome = "stale";
pub(super) const REJECTED: Outcome = "rejected";
pub(super) const ORPHAN: Outcome = "orphan";
pub(super) const IGNORED: Outcome = "ignored";
const USER_MISSING: Outcome = "user_missing";
const USER_CLOSED: Outcome = "user_closed";

impl Billing {
    /// What an event means here; each of its steps may be repeated.
    pub(super) async fn handle(&self, event: &PaymentEvent) -> Result<Outcome, Error> {
        match event.kind.as_str() {
            "checkout.session.completed"
            | "checkout.session.async_payment_succeeded"
            | "checkout.session.async_payment_failed"
            | "checkout.session.expired" => self.checkout_changed(event).await,
            "customer.created" | "customer.updated" | "customer.deleted" => self.customer_changed(event).await,
            "customer.subscription.created" | "customer.subscription.updated" | "customer.subscription.deleted" => {
                self.subscription_changed(event).await
            }
            "invoice.created"
            | "invoice.updated"
            | "invoice.paid"
            | "invoice.payment_succeeded"
            | "invoice.payment_failed" => self.invoice_changed(event).await,
            "charge.refunded" => self.charge_refunded(event).await,
            "charge.dispute.created" | "charge.dispute.funds_withdrawn" => self.dispute_opened(event).await,
            "charge.dispute.closed" => self.dispute_closed(event).await,
            kind if kind.starts_with("price.") || kind.starts_with("product.") => {
                self.prices.forget().await.map_err(again)?;
                Ok(APPLIED)
            }
            _ => Ok(IGNORED),
        }
    }

    async fn checkout_changed(&self, event: &PaymentEvent) -> Result<Outcome, Error> {
        let object = &event.object;
        let Some(user) = object.text("metadata/userId").map(UserId::new) else {
            self.alert("checkout without a user", &event.id);
            return Ok(USER_MISSING);
        };
        if !self.exists(&user).await? {
            self.alert("checkout of an unknown user", &event.id);
            return Ok(USER_MISSING);
        }
        let Some(checkout) = read_checkout(object, &user) else {
            self.alert("checkout that cannot be read", &event.id);
            return Ok(REJECTED);
        };
        if let Some(customer) = &checkout.customer {
            let email = object.text("customer_email").or_else(|| object.text("customer_details/email"));
            let customer = Customer { user: user.clone(), customer: customer.clone(), email };
            if self.repo.save_customer(&self.ids.id(), &customer).await.map_err(again)? == Saved::Foreign {
                self.alert("customer of another user", &event.id);
                return Ok(REJECTED);
            }
        }
        let saved = self.repo.save_checkout(&self.ids.id(), &checkout, checkout.age(event.created)).await;
        let saved = saved.map_err(again)?;
        if saved == Saved::Foreign {
            self.alert("checkout session of another user", &event.id);
            return Ok(REJECTED);
        }
        match event.kind.as_str() {
            "checkout.session.async_payment_failed" if saved == Saved::Written => {
                self.journal.record(Fact::PaymentFailed);
            }
            "checkout.session.completed" | "checkout.session.async_payment_succeeded"
                if checkout.mode == "payment" && checkout.is_paid() =>
            {
                return self.checkout_paid(event, checkout).await;
            }
            _ => {}
        }
        Ok(mirrored(saved))
    }

    async fn checkout_paid(&self, event: &PaymentEvent, checkout: Checkout) -> Result<Outcome, Error> {
        let flux = event.object.text("metadata/fluxAmount").and_then(|text| whole_flux(&text));
        let (Some(flux), Some(paid)) = (flux, checkout.amount_total) else {
            self.alert("paid checkout without an amount of flux", &event.id);
            return Ok(REJECTED);
        };
        let amount = spell_amount(paid, checkout.currency.as_deref());
        let sale = Sale {
            user: checkout.user,
            flux,
            description: format!("Stripe payment {amount}"),
            facts: [("stripeSessionId", checkout.session.as_str()), ("source", "stripe.checkout.completed")],
            claim: Claim::Checkout(checkout.session.clone()),
            payment_intent: checkout.payment_intent,
            paid: Some(paid),
            currency: checkout.currency,
            source: "checkout",
            label: "stripe.checkout",
        };
        self.sell(event, sale).await
    }

    async fn customer_changed(&self, event: &PaymentEvent) -> Result<Outcome, Error> {
        let object = &event.object;
        let Some(customer) = object.text("id") else { return Ok(REJECTED) };
        let known = if event.kind == "customer.deleted" {
            self.repo.close_customer(&customer, event.created).await.map_err(again)?
        } else if object.flag("deleted").unwrap_or_default() {
            return Ok(IGNORED);
        } else {
            let (email, name) = (object.text("email"), object.text("name"));
            let age = Age::of(0, event.kind == "customer.created", event.created);
            self.repo.rename_customer(&customer, email.as_deref(), name.as_deref(), age).await.map_err(again)?
        };
        Ok(if known { APPLIED } else { ORPHAN })
    }

    async fn subscription_changed(&self, event: &PaymentEvent) -> Result<Outcome, Error> {
        let object = &event.object;
        let customer = object.reference("customer");
        let Some(user) = self.owner(customer.as_deref(), object.text("metadata/userId")).await? else {
            return Ok(ORPHAN);
        };
        let Some(subscription) = read_subscription(object, user, customer) else { return Ok(REJECTED) };
        let change = event.kind.rsplit('.').next().unwrap_or_default();
        let age = subscription.age(change == "created", event.created);
        let saved = self.repo.save_subscription(&self.ids.id(), &subscription, age).await.map_err(again)?;
        if saved == Saved::Written {
            let change = ["created", "updated", "deleted"].into_iter().find(|known| *known == change);
            self.journal.record(Fact::SubscriptionChanged { change: change.unwrap_or("other") });
        }
        if saved == Saved::Foreign {
            self.alert("subscription of another user", &event.id);
            return Ok(REJECTED);
        }
        Ok(mirrored(saved))
    }

    /// The user an object is about: its customer's, else the one its metadata names if there is such an account.
    pub(super) async fn owner(&self, customer: Option<&str>, named: Option<String>) -> Result<Option<UserId>, Error> {
        if let Some(customer) = customer
            && let Some(user) = self.repo.user_of_customer(customer).await.map_err(again)?
        {
            return Ok(Some(user));
        }
        let Some(named) = named.map(UserId::new) else { return Ok(None) };
        Ok(self.exists(&named).await?.then_some(named))
    }

    /// Whether there is an account, or a balance row an account left behind.
    async fn exists(&self, user: &UserId) -> Result<bool, Error> {
        if self.accounts.find(user).await.map_err(again)?.is_some() {
            return Ok(true);
        }
        Ok(self.ledger.repo.find(user).await.map_err(again)? == Standing::Closed)
    }

    /// Credits what was paid, once.
    pub(super) async fn sell(&self, event: &PaymentEvent, sale: Sale<'_>) -> Result<Outcome, Error> {
        let mut metadata = serde_json::Map::new();
        metadata.insert("stripeEventId".to_owned(), event.id.as_str().into());
        metadata.extend(sale.facts.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())));
        let purchase = Purchase {
            claim: sale.claim,
            payment_intent: sale.payment_intent,
            paid: sale.paid,
            credit: Credit {
                entry: EntryId::new(self.ids.id()),
                user: sale.user.clone(),
                request: Some(RequestId::new(event.id.as_str())),
                amount: sale.flux,
                kind: EntryKind::Credit,
                description: sale.description,
                metadata: Some(metadata),
                opening: self.ledger.opening().await?,
            },
            owed_entry: EntryId::new(self.ids.id()),
        };
        match self.repo.settle(&purchase).await.map_err(again)? {
            Settled::Applied { balance, closed, clawed } => {
                self.sold(&sale.user, sale.flux, sale.label, balance.flux);
                for Clawed { request, asked, taken } in clawed {
                    self.clawed(sale.user.clone(), request, asked, taken);
                }
                if sale.source == "checkout" {
                    self.journal.record(Fact::CheckoutPaid);
                }
                if let (Some(amount), Some(currency)) = (sale.paid.filter(|amount| *amount > 0), sale.currency) {
                    self.journal.record(Fact::Revenue { currency, amount, source: sale.source });
                }
                if closed {
                    self.alert("payment of a closed account, to be refunded by hand", &event.id);
                    return Ok(USER_CLOSED);
                }
                self.offer(&sale.user, balance).await;
                Ok(APPLIED)
            }
            Settled::AlreadyDone => Ok(DUPLICATE),
            Settled::Overflow => {
                self.alert("payment beyond the largest balance", &event.id);
                Ok(REJECTED)
            }
        }
    }

    pub(super) fn sold(&self, user: &UserId, amount: Flux, source: &'static str, balance: Flux) {
        let kind = EntryKind::Credit;
        self.journal.record(Fact::Credited { user: user.clone(), amount, kind, source, balance });
    }

    pub(super) async fn offer(&self, user: &UserId, balance: crate::core::model::ledger::Balance) {
        if let Err(fault) = self.ledger.cache.offer(user, balance).await {
            self.degraded("balance_cache.offer", &fault);
        }
    }

    /// Something an operator has to look at.
    pub(super) fn alert(&self, what: &'static str, about: &str) {
        self.journal.record(Fact::PaymentAlert { what, about: about.to_owned() });
    }
}

/// What was paid for.
pub(super) struct Sale<'a> {
    pub(super) user: UserId,
    pub(super) flux: Flux,
    pub(super) description: String,
    pub(super) facts: [(&'static str, &'a str); 2],
    pub(super) claim: Claim,
    pub(super) payment_intent: Option<String>,
    pub(super) paid: Option<i64>,
    pub(super) currency: Option<String>,
    /// `checkout` or `invoice`: label of the revenue.
    pub(super) source: &'static str,
    /// Label of the credit.
    pub(super) label: &'static str,
}

pub(super) fn mirrored(saved: Saved) -> Outcome {
    match saved {
        Saved::Written => APPLIED,
        Saved::Stale => STALE,
        Saved::Foreign => REJECTED,
    }
}

fn read_checkout(object: &Object, user: &UserId) -> Option<Checkout> {
    Some(Checkout {
        user: user.clone(),
        session: object.text("id")?,
        customer: object.reference("customer"),
        mode: object.text("mode")?,
        status: object.text("status"),
        payment_status: object.text("payment_status"),
        amount_total: object.number("amount_total"),
        currency: object.text("currency"),
        success_url: object.text("success_url"),
        cancel_url: object.text("cancel_url"),
        payment_intent: object.reference("payment_intent"),
        subscription: object.reference("subscription"),
        metadata: object.json("metadata"),
        expires_at: object.time("expires_at"),
    })
}

fn read_subscription(object: &Object, user: UserId, customer: Option<String>) -> Option<Subscription> {
    // The period stands on the item; older versions of the provider had it on the subscription.
    let period = |edge: &str| object.time(&format!("items/data/0/{edge}")).or_else(|| object.time(edge));
    Some(Subscription {
        user,
        subscription: object.text("id")?,
        customer: customer?,
        price: object.text("items/data/0/price/id"),
        status: object.text("status")?,
        current_period_start: period("current_period_start"),
        current_period_end: period("current_period_end"),
        cancel_at_period_end: object.flag("cancel_at_period_end"),
        canceled_at: object.time("canceled_at"),
        ended_at: object.time("ended_at"),
        metadata: object.json("metadata"),
    })
}
