//! The journal of payment events, and events handled once more (contract `admin.md` §6, `billing-stripe.md` §8.6).

use super::Admin;
use super::trail::Deed;
use crate::core::billing::Billing;
use crate::core::error::Error;
use crate::core::model::audit::Actor;
use crate::core::model::billing::event::HandledEvent;
use crate::core::model::page::Page;

impl Admin {
    /// Payment events, newest first: those that came before the one with the id `before`.
    pub async fn payment_events(
        &self,
        billing: &Billing,
        actor: &Actor,
        limit: u32,
        before: Option<&str>,
    ) -> Result<Page<HandledEvent>, Error> {
        let events = billing.events(limit, before).await?;
        self.trail.seen(&Deed::new(actor, "stripe_events")).await;
        Ok(events)
    }

    /// Handles a payment event once more, as the provider tells it today, and answers how that ended.
    pub async fn replay_payment_event(
        &self,
        billing: &Billing,
        actor: &Actor,
        event: &str,
    ) -> Result<&'static str, Error> {
        let mut deed = Deed::new(actor, "stripe_replay");
        deed.target = event.chars().take(100).collect();
        let result = match self.trail.begin(&deed).await {
            Ok(()) => billing.replay(event).await,
            Err(refused) => Err(refused),
        };
        if let Ok(outcome) = &result {
            deed.note("outcome", *outcome);
        }
        self.trail.end(&deed, &result).await;
        result
    }
}
