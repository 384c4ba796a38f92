//! Flux set aside for one call, given back unless it was captured (contract `gateway.md` §7.1, GW-D10).

use std::sync::Arc;
use std::time::Duration;

use crate::core::error::{Code, Error};
use crate::core::ledger::Ledger;
use crate::core::model::hold::{Hold, HoldOutcome};
use crate::core::model::ids::{RequestId, UserId};
use crate::core::model::ledger::{Debit, DebitOutcome, Flux};
use crate::ports::runtime::Tasks;

/// The longest chain and the longest stream the default limits allow, and a minute; a process that dies leaves nothing
/// set aside for longer.
const LEASE: Duration = Duration::from_secs(60 + 900 + 60);

/// A hold of one call. Dropped without a capture, it is released; nothing of that depends on the caller staying.
pub struct Reservation {
    ledger: Arc<Ledger>,
    tasks: Arc<dyn Tasks>,
    user: UserId,
    request: RequestId,
    amount: Flux,
    open: bool,
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").field("amount", &self.amount).finish_non_exhaustive()
    }
}

impl Reservation {
    /// Sets `amount` aside; refused like a balance that is too small.
    pub async fn take(
        ledger: Arc<Ledger>,
        tasks: Arc<dyn Tasks>,
        (user, request): (UserId, RequestId),
        amount: Flux,
    ) -> Result<Self, Error> {
        // Made before the wait: a caller that leaves during it may leave a hold behind.
        let mut reservation = Self { ledger, tasks, user, request, amount: Flux::ZERO, open: true };
        match reservation.ledger.hold(&reservation.wish(amount, amount)).await? {
            HoldOutcome::Held { amount, .. } => {
                reservation.amount = amount;
                Ok(reservation)
            }
            refused => {
                reservation.open = false;
                Err(match refused {
                    HoldOutcome::Settled => Error::new(Code::Conflict).because("the request was charged before"),
                    _ => Error::new(Code::InsufficientFlux),
                })
            }
        }
    }

    /// Charges what is held; a price above it is first set aside as far as the balance affords.
    pub async fn capture(&mut self, debit: &Debit) -> Result<DebitOutcome, Error> {
        if debit.amount > self.amount
            && let HoldOutcome::Held { amount, .. } = self.ledger.extend(&self.wish(Flux::ONE, debit.amount)).await?
        {
            self.amount = amount;
        }
        let outcome = self.ledger.capture(debit).await?;
        self.open = false;
        Ok(outcome)
    }

    fn wish(&self, least: Flux, most: Flux) -> Hold {
        Hold { user: self.user.clone(), request: self.request.clone(), least, most, lease: LEASE }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let (ledger, user, request) = (Arc::clone(&self.ledger), self.user.clone(), self.request.clone());
        let job = async move {
            // What cannot be released now lapses by itself.
            let _released = ledger.release(&user, &request).await;
        };
        self.tasks.spawn("llm.release", Box::pin(job));
    }
}
