//! Money that goes back: refunds and disputes (contract §9.3).

use serde_json::{Map, Value};

use super::webhook::{APPLIED, DUPLICATE, IGNORED, ORPHAN, Outcome, REJECTED};
use super::{Billing, again};
use crate::core::error::Error;
use crate::core::model::billing::event::PaymentEvent;
use crate::core::model::billing::money::spell_amount;
use crate::core::model::billing::settlement::{ClawBack, ClawedBack, Reason, Restore, Restored};
use crate::core::model::fact::Fact;
use crate::core::model::ids::{EntryId, RequestId, UserId};
use crate::core::model::ledger::Flux;

impl Billing {
    pub(super) async fn charge_refunded(&self, event: &PaymentEvent) -> Result<Outcome, Error> {
        let object = &event.object;
        let (Some(charge), Some(refunded)) = (object.text("id"), object.number("amount_refunded")) else {
            return Ok(REJECTED);
        };
        let Some(payment_intent) = object.reference("payment_intent") else { return Ok(ORPHAN) };
        let claw = ClawBack {
            request: RequestId::new(format!("stripe-refund:{charge}:{refunded}")),
            reason: Reason::Refund,
            payment_intent,
            amount: refunded,
            of: object.number("amount"),
            entry: EntryId::new(self.ids.id()),
            description: format!("Refund {}", spell_amount(refunded, object.text("currency").as_deref())),
            metadata: facts(event, Some(charge), "stripe.refund"),
        };
        self.take_back(&claw).await
    }

    /// A dispute that takes money. An inquiry (`warning_…`) takes none; should it become a chargeback,
    /// `charge.dispute.funds_withdrawn` tells it (docs.stripe.com/disputes/how-disputes-work).
    pub(super) async fn dispute_opened(&self, event: &PaymentEvent) -> Result<Outcome, Error> {
        let object = &event.object;
        let announced = event.kind == "charge.dispute.created";
        if announced && object.text("status").is_some_and(|status| status.starts_with("warning_")) {
            return Ok(IGNORED);
        }
        let (Some(dispute), Some(amount)) = (object.text("id"), object.number("amount")) else { return Ok(REJECTED) };
        let Some(payment_intent) = object.reference("payment_intent") else { return Ok(ORPHAN) };
        let claw = ClawBack {
            request: opened(&dispute),
            reason: Reason::Dispute,
            payment_intent,
            amount,
            of: None,
            entry: EntryId::new(self.ids.id()),
            description: format!("Dispute {}", spell_amount(amount, object.text("currency").as_deref())),
            metadata: facts(event, object.reference("charge"), "stripe.dispute"),
        };
        self.take_back(&claw).await
    }

    pub(super) async fn dispute_closed(&self, event: &PaymentEvent) -> Result<Outcome, Error> {
        let object = &event.object;
        if object.text("status").as_deref() != Some("won") {
            return Ok(IGNORED);
        }
        let Some(dispute) = object.text("id") else { return Ok(REJECTED) };
        let Some(payment_intent) = object.reference("payment_intent") else { return Ok(ORPHAN) };
        let amount = spell_amount(object.number("amount").unwrap_or_default(), object.text("currency").as_deref());
        let restore = Restore {
            request: RequestId::new(format!("stripe-dispute-won:{dispute}")),
            of: opened(&dispute),
            payment_intent,
            entry: EntryId::new(self.ids.id()),
            owed_entry: EntryId::new(self.ids.id()),
            description: format!("Dispute won {amount}"),
            metadata: facts(event, object.reference("charge"), "stripe.dispute_won"),
        };
        let opening = self.ledger.opening().await?;
        match self.repo.restore(&restore, &opening).await.map_err(again)? {
            Restored::Applied { user, given, balance, closed } => {
                if !given.is_zero() {
                    self.sold(&user, given, "stripe.dispute_won", balance.flux);
                }
                if !closed {
                    self.offer(&user, balance).await;
                }
                Ok(APPLIED)
            }
            Restored::Nothing => Ok(DUPLICATE),
        }
    }

    /// Tells what was taken; what the balance lacked is owed.
    pub(super) fn clawed(&self, user: UserId, request: RequestId, asked: Flux, taken: Flux) {
        let unbilled = asked.saturating_sub(taken);
        self.journal.record(Fact::ClawedBack { user, request, taken, unbilled });
    }

    async fn take_back(&self, claw: &ClawBack) -> Result<Outcome, Error> {
        match self.repo.claw_back(claw).await.map_err(again)? {
            ClawedBack::Applied { user, asked, taken, balance } => {
                if let Some(balance) = balance {
                    self.offer(&user, balance).await;
                }
                self.clawed(user, claw.request.clone(), asked, taken);
                Ok(APPLIED)
            }
            ClawedBack::Replayed => Ok(DUPLICATE),
            // A payment of something else, or one whose credit is on its way and will find the note.
            ClawedBack::Waiting => Ok(ORPHAN),
        }
    }
}

fn opened(dispute: &str) -> RequestId {
    RequestId::new(format!("stripe-dispute:{dispute}"))
}

fn facts(event: &PaymentEvent, charge: Option<String>, source: &str) -> Map<String, Value> {
    let mut facts = Map::new();
    facts.insert("stripeEventId".to_owned(), event.id.as_str().into());
    if let Some(charge) = charge {
        facts.insert("stripeChargeId".to_owned(), charge.into());
    }
    facts.insert("source".to_owned(), source.into());
    facts
}
