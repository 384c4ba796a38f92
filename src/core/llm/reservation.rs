//! Flux set aside for one call, given back unless it was captured (contract `gateway.md` §7.1, GW-D10).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::core::error::{Code, Error};
use crate::core::ledger::Ledger;
use crate::core::model::hold::{Hold, HoldOutcome};
use crate::core::model::ids::{RequestId, UserId};
use crate::core::model::ledger::{Debit, DebitOutcome, Flux};
use crate::ports::runtime::Tasks;

/// A hold of one call. Dropped without a capture, it is released; nothing of that depends on the caller staying.
pub struct Reservation {
    pledge: Arc<Pledge>,
    tasks: Arc<dyn Tasks>,
    open: bool,
}

/// What is held for a call, to be extended while its answer grows.
pub struct Pledge {
    ledger: Arc<Ledger>,
    user: UserId,
    request: RequestId,
    held: AtomicI64,
    lease: Duration,
}

/// For whom flux is set aside, and how long a hold stands that nobody extends: a process that dies leaves nothing set
/// aside for longer.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// Who will pay.
    pub user: UserId,
    /// For what.
    pub request: RequestId,
    /// How long.
    pub lease: Duration,
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").field("held", &self.pledge.held()).finish_non_exhaustive()
    }
}

impl Reservation {
    /// Sets flux aside, from `least` to `most`, and says what is available beside it; refused like a balance that is
    /// too small. A request that was charged before costs nothing more, so nothing is set aside for it.
    pub async fn take(
        ledger: Arc<Ledger>,
        tasks: Arc<dyn Tasks>,
        Claimant { user, request, lease }: Claimant,
        (least, most): (Flux, Flux),
    ) -> Result<(Self, Flux), Error> {
        let pledge = Arc::new(Pledge { ledger, user, request, held: AtomicI64::new(0), lease });
        // Made before the wait: a caller that leaves during it may leave a hold behind.
        let mut reservation = Self { pledge, tasks, open: true };
        let pledge = Arc::clone(&reservation.pledge);
        match pledge.ledger.hold(&pledge.wish(least, most)).await? {
            HoldOutcome::Held { amount, available } => {
                pledge.note(amount);
                Ok((reservation, available))
            }
            HoldOutcome::Settled => {
                pledge.note(most);
                reservation.open = false;
                Ok((reservation, Flux::ZERO))
            }
            HoldOutcome::Refused { .. } | HoldOutcome::Lost => {
                reservation.open = false;
                Err(Error::new(Code::InsufficientFlux))
            }
        }
    }

    /// Whether anything is held; not for a request that was charged before.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// What may be extended beside this.
    pub fn pledge(&self) -> Arc<Pledge> {
        Arc::clone(&self.pledge)
    }

    /// Charges what is held; a price above it is first set aside as far as the balance affords.
    pub async fn capture(&mut self, debit: &Debit) -> Result<DebitOutcome, Error> {
        if debit.amount > self.pledge.held() && self.open {
            self.pledge.extend(Flux::ONE, debit.amount).await?;
        }
        let outcome = self.pledge.ledger.capture(debit).await?;
        self.open = false;
        Ok(outcome)
    }
}

impl Pledge {
    /// What is held.
    pub fn held(&self) -> Flux {
        Flux::saturating(self.held.load(Ordering::Acquire))
    }

    /// How long it stands unless it is extended.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Sets aside from `least` to `most` in all, and begins the lease anew.
    pub async fn extend(&self, least: Flux, most: Flux) -> Result<HoldOutcome, Error> {
        let outcome = self.ledger.extend(&self.wish(least, most)).await?;
        if let HoldOutcome::Held { amount, .. } = outcome {
            self.note(amount);
        }
        Ok(outcome)
    }

    fn note(&self, amount: Flux) {
        self.held.store(amount.get(), Ordering::Release);
    }

    fn wish(&self, least: Flux, most: Flux) -> Hold {
        Hold { user: self.user.clone(), request: self.request.clone(), least, most, lease: self.lease }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let pledge = Arc::clone(&self.pledge);
        let job = async move {
            // What cannot be released now lapses by itself.
            let _released = pledge.ledger.release(&pledge.user, &pledge.request).await;
        };
        self.tasks.spawn("llm.release", Box::pin(job));
    }
}
