//! Messages of the provider: told from forgeries, noted, handled, and handled again when an operator asks for it
//! (contract §8.1, §8.6).
//!
//! Events come twice, late, in any order, and to several instances at once. The journal spares work; what makes money
//! count once are the claims of [`BillingRepo`](crate::ports::billing::BillingRepo), so a stop between any two steps
//! is mended by the next delivery.

use super::webhook::{DUPLICATE, ORPHAN, Outcome};
use super::{Billing, again, refused};
use crate::core::error::{Code, Error};
use crate::core::model::billing::event::{HandledEvent, JournaledEvent, PaymentEvent};
use crate::core::model::fact::Fact;
use crate::core::model::page::Page;
use crate::ports::billing::{Conclusion, EventStanding, PaymentError};

impl Billing {
    /// Takes in one message of the provider. A refusal says whether it should come again.
    pub async fn receive(&self, signature: Option<&str>, body: &[u8]) -> Result<(), Error> {
        let (Some(_), Some(signatures)) = (&self.gateway, &self.signatures) else {
            return Err(Error::new(Code::StripeNotConfigured));
        };
        let signature = signature.ok_or_else(|| Error::new(Code::MissingSignature))?;
        if !signatures.vouches(signature, body, self.clock.now()) {
            return Err(Error::new(Code::WebhookError));
        }
        let event = self.read(body)?;
        self.journal.record(Fact::PaymentEventReceived { kind: event.label(), event: event.id.clone() });
        if self.note(&event).await? == EventStanding::Done {
            self.ended(&event, DUPLICATE);
            return Ok(());
        }
        self.work(event).await.map(|_| ())
    }

    /// Asks the provider for an event once more and handles it, whatever the journal says of it. Answers how that
    /// ended; money that was moved before is not moved again.
    pub async fn replay(&self, id: &str) -> Result<&'static str, Error> {
        let told = self.sells()?.event(id).await.map_err(|error| match error {
            PaymentError::Missing => Error::new(Code::NotFound).saying("the payment provider knows no such event"),
            error => refused(error),
        })?;
        let event = self.read(&told)?;
        if event.id != id {
            return Err(Error::new(Code::BadGateway).saying("Payment provider error").because("another event came"));
        }
        self.note(&event).await?;
        self.work(event).await
    }

    /// The journal, newest first: events that came before the one with the id `before`.
    pub async fn events(&self, limit: u32, before: Option<&str>) -> Result<Page<HandledEvent>, Error> {
        let rows = self.repo.events(limit.saturating_add(1), before).await?;
        Ok(Page::cut(rows, limit))
    }

    fn read(&self, body: &[u8]) -> Result<PaymentEvent, Error> {
        let Some(event) = PaymentEvent::read(body) else { return Err(Error::new(Code::WebhookError)) };
        if self.policy.livemode.is_some_and(|live| live != event.livemode) {
            return Err(Error::new(Code::WebhookError).because("an event of the other mode"));
        }
        Ok(event)
    }

    async fn note(&self, event: &PaymentEvent) -> Result<EventStanding, Error> {
        let noted = JournaledEvent {
            id: event.id.clone(),
            kind: event.kind.clone(),
            created: event.created,
            livemode: event.livemode,
            amount: ["amount_total", "amount_paid", "amount_refunded", "amount"]
                .into_iter()
                .find_map(|member| event.object.number(member)),
            received_at: self.clock.now(),
        };
        self.repo.receive(&noted).await.map_err(again)
    }

    async fn work(&self, event: PaymentEvent) -> Result<Outcome, Error> {
        let handled = self.handle(&event).await;
        let (outcome, error) = match &handled {
            Ok(outcome) => (Some(*outcome), None),
            Err(error) => (None, Some(error.to_string())),
        };
        self.ended(&event, outcome.unwrap_or("error"));
        let conclusion = Conclusion { event: event.id, outcome, error, at: self.clock.now() };
        let concluded = self.repo.conclude(&conclusion).await;
        let outcome = handled?;
        concluded.map_err(again)?;
        Ok(outcome)
    }

    fn ended(&self, event: &PaymentEvent, outcome: Outcome) {
        if outcome == ORPHAN {
            self.journal.record(Fact::PaymentOrphan { event: event.id.clone() });
        }
        self.journal.record(Fact::PaymentEventEnded { kind: event.label(), event: event.id.clone(), outcome });
    }
}
