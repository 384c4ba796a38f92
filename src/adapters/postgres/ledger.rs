//! `LedgerRepo` on PostgreSQL.

use async_trait::async_trait;
use chrono::NaiveDateTime;
use futures::future::join_all;
use sqlx::PgPool;

use super::fault::fault;
pub use super::ledger_batch::Batching;
use super::ledger_batch::Queue;
use super::ledger_rows::{self, BalanceRow, EntryRow, amount};
use super::ledger_walk;
use crate::core::model::batch::{Operation, Outcome};
use crate::core::model::hold::{Hold, HoldOutcome};
use crate::core::model::ids::{EntryId, RequestId, UserId};
use crate::core::model::ledger::{
    Credit, CreditOutcome, Debit, DebitOutcome, Entry, Flux, OpenOutcome, Opening, Standing,
};
use crate::core::model::page::{Page, Window};
use crate::core::model::verify::Verified;
use crate::ports::Fault;
use crate::ports::ledger::LedgerRepo;

/// Balances and entries in `user_flux` and `flux_transaction`, beside a reference server that may write them too.
pub struct PgLedger {
    pool: PgPool,
    queue: Queue,
}

impl PgLedger {
    /// A ledger with the usual batches. MUST be called inside a runtime: operations are done by its tasks, which end
    /// when the ledger is dropped and its queue is drained.
    pub fn new(pool: PgPool) -> Self {
        Self::with_batching(pool, Batching::default())
    }

    /// A ledger that puts operations together as told; otherwise as [`new`](Self::new).
    pub fn with_batching(pool: PgPool, batching: Batching) -> Self {
        let queue = Queue::start(&pool, batching);
        Self { pool, queue }
    }
}

#[async_trait]
impl LedgerRepo for PgLedger {
    #[tracing::instrument(name = "postgres.ledger.find", skip_all)]
    async fn find(&self, user: &UserId) -> Result<Standing, Fault> {
        standing(&self.pool, user, "postgres.ledger.find").await
    }

    #[tracing::instrument(name = "postgres.ledger.open", skip_all)]
    async fn open(&self, user: &UserId, opening: &Opening) -> Result<OpenOutcome, Fault> {
        const OPERATION: &str = "postgres.ledger.open";
        if let Some(found) = found(standing(&self.pool, user, OPERATION).await?) {
            return Ok(found);
        }
        if let Some(opened) = ledger_rows::open(&self.pool, user, opening, OPERATION).await? {
            return Ok(OpenOutcome::Opened(opened.balance()));
        }
        found(standing(&self.pool, user, OPERATION).await?).ok_or_else(|| vanished(OPERATION))
    }

    #[tracing::instrument(name = "postgres.ledger.debit", skip_all)]
    async fn debit(&self, debit: &Debit) -> Result<DebitOutcome, Fault> {
        self.debited(Operation::Debit(debit.clone())).await
    }

    #[tracing::instrument(name = "postgres.ledger.hold", skip_all)]
    async fn hold(&self, hold: &Hold) -> Result<HoldOutcome, Fault> {
        self.held(Operation::Hold(hold.clone())).await
    }

    #[tracing::instrument(name = "postgres.ledger.extend", skip_all)]
    async fn extend(&self, hold: &Hold) -> Result<HoldOutcome, Fault> {
        self.held(Operation::Extend(hold.clone())).await
    }

    #[tracing::instrument(name = "postgres.ledger.capture", skip_all)]
    async fn capture(&self, debit: &Debit) -> Result<DebitOutcome, Fault> {
        self.debited(Operation::Capture(debit.clone())).await
    }

    #[tracing::instrument(name = "postgres.ledger.release", skip_all)]
    async fn release(&self, user: &UserId, request: &RequestId) -> Result<Flux, Fault> {
        match self.queue.perform(Operation::Release(user.clone(), request.clone())).await? {
            Outcome::Released(amount) => Ok(amount),
            other => Err(mistaken(&other)),
        }
    }

    #[tracing::instrument(name = "postgres.ledger.expire", skip_all)]
    async fn expire(&self, users: u32) -> Result<u64, Fault> {
        let lapsed = ledger_walk::lapsed(&self.pool, users).await?;
        // Together, so that they share transactions.
        let swept = join_all(lapsed.into_iter().map(|user| self.queue.perform(Operation::Sweep(user)))).await;
        swept.into_iter().try_fold(0_u64, |voided, outcome| match outcome? {
            Outcome::Swept(holds) => Ok(voided.saturating_add(holds)),
            other => Err(mistaken(&other)),
        })
    }

    #[tracing::instrument(name = "postgres.ledger.verify", skip_all)]
    async fn verify(&self) -> Result<Verified, Fault> {
        ledger_walk::verify(&self.pool).await
    }

    #[tracing::instrument(name = "postgres.ledger.credit", skip_all)]
    async fn credit(&self, credit: &Credit) -> Result<CreditOutcome, Fault> {
        const OPERATION: &str = "postgres.ledger.credit";
        let mut tx = ledger_rows::begin(&self.pool).await.map_err(fault(OPERATION))?;
        let mut row = match ledger_rows::lock(&mut tx, &credit.user, OPERATION).await? {
            Some(row) => row,
            None => match ledger_rows::open(&mut *tx, &credit.user, &credit.opening, OPERATION).await? {
                Some(opened) => opened,
                // Somebody opened it in between.
                None => {
                    ledger_rows::lock(&mut tx, &credit.user, OPERATION).await?.ok_or_else(|| vanished(OPERATION))?
                }
            },
        };
        if let Some(request) = &credit.request
            && let Some(entry) = ledger_rows::find_entry(&mut *tx, &credit.user, request, OPERATION).await?
        {
            return Ok(CreditOutcome::Replayed { entry: Box::new(entry) });
        }
        if row.closed {
            return Ok(CreditOutcome::Closed);
        }
        let clock = ledger_rows::clock(&mut tx, OPERATION).await?;
        let Some(entry) = row.credit(credit, clock) else {
            return Ok(CreditOutcome::Overflow);
        };
        let balance = row.balance();
        let rows = [(credit.user.clone(), row)];
        let entries = [(credit.user.clone(), entry)];
        ledger_rows::write(&mut tx, &rows, &entries, &[]).await.map_err(fault(OPERATION))?;
        tx.commit().await.map_err(fault(OPERATION))?;
        Ok(CreditOutcome::Credited { entry: credit.entry.clone(), balance })
    }

    #[tracing::instrument(name = "postgres.ledger.find_entry", skip_all)]
    async fn find_entry(&self, user: &UserId, request: &RequestId) -> Result<Option<Entry>, Fault> {
        ledger_rows::find_entry(&self.pool, user, request, "postgres.ledger.find_entry").await
    }

    #[tracing::instrument(name = "postgres.ledger.list", skip_all)]
    async fn list<'a>(&self, user: &UserId, window: Window, before: Option<&'a EntryId>) -> Result<Page<Entry>, Fault> {
        const OPERATION: &str = "postgres.ledger.list";
        let anchor = match before {
            Some(before) => self.time_of(user, before, OPERATION).await?.map(|at| (at, before)),
            None => None,
        };
        let rows: Vec<EntryRow> = match anchor {
            Some((at, before)) => {
                sqlx::query_as(
                    "select id, type, amount, balance_before, balance_after, request_id, description, metadata, \
                     created_at \
                     from flux_transaction where user_id = $1 and (created_at, id) < ($2, $3) \
                     order by created_at desc, id desc limit $4",
                )
                .bind(user.as_str())
                .bind(at)
                .bind(before.as_str())
                .bind(i64::from(window.limit) + 1)
                .fetch_all(&self.pool)
                .await
            }
            None => {
                sqlx::query_as(
                    "select id, type, amount, balance_before, balance_after, request_id, description, metadata, \
                     created_at \
                     from flux_transaction where user_id = $1 \
                     order by created_at desc, id desc limit $2 offset $3",
                )
                .bind(user.as_str())
                .bind(i64::from(window.limit) + 1)
                .bind(i64::from(window.offset))
                .fetch_all(&self.pool)
                .await
            }
        }
        .map_err(fault(OPERATION))?;
        let entries = rows.into_iter().map(|row| ledger_rows::entry(row, OPERATION)).collect::<Result<_, _>>()?;
        Ok(Page::cut(entries, window.limit))
    }

    #[tracing::instrument(name = "postgres.ledger.capacity", skip_all)]
    async fn capacity(&self, user: &UserId) -> Result<Flux, Fault> {
        const OPERATION: &str = "postgres.ledger.capacity";
        let after: Option<i64> = sqlx::query_scalar(
            "select balance_after from flux_transaction \
             where user_id = $1 and type in ('credit', 'initial', 'promo') order by created_at desc, id desc limit 1",
        )
        .bind(user.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(fault(OPERATION))?;
        after.map_or(Ok(Flux::ZERO), |after| {
            amount(after, "flux_transaction", "balance_after", user.as_str(), OPERATION)
        })
    }
}

impl PgLedger {
    async fn debited(&self, operation: Operation) -> Result<DebitOutcome, Fault> {
        match self.queue.perform(operation).await? {
            Outcome::Debit(outcome) => Ok(outcome),
            other => Err(mistaken(&other)),
        }
    }

    async fn held(&self, operation: Operation) -> Result<HoldOutcome, Fault> {
        match self.queue.perform(operation).await? {
            Outcome::Hold(outcome) => Ok(outcome),
            other => Err(mistaken(&other)),
        }
    }

    async fn time_of(
        &self,
        user: &UserId,
        entry: &EntryId,
        operation: &'static str,
    ) -> Result<Option<NaiveDateTime>, Fault> {
        sqlx::query_scalar("select created_at from flux_transaction where id = $1 and user_id = $2")
            .bind(entry.as_str())
            .bind(user.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(fault(operation))
    }
}

async fn standing(pool: &PgPool, user: &UserId, operation: &'static str) -> Result<Standing, Fault> {
    let row: Option<BalanceRow> = sqlx::query_as(
        "select user_id, flux, held, version, updated_at, deleted_at is not null \
         from user_flux where user_id = $1",
    )
    .bind(user.as_str())
    .fetch_optional(pool)
    .await
    .map_err(fault(operation))?;
    let Some(row) = row else { return Ok(Standing::Absent) };
    let (_, row) = ledger_rows::balance(row, operation)?;
    Ok(if row.closed { Standing::Closed } else { Standing::Open(row.balance()) })
}

fn found(standing: Standing) -> Option<OpenOutcome> {
    match standing {
        Standing::Open(balance) => Some(OpenOutcome::Found(balance)),
        Standing::Closed => Some(OpenOutcome::Closed),
        Standing::Absent => None,
    }
}

fn vanished(operation: &'static str) -> Fault {
    Fault::new(crate::ports::FaultKind::Corrupt, operation, "a balance row was removed while it was being read")
}

fn mistaken(outcome: &Outcome) -> Fault {
    let cause = format!("an operation was answered with the outcome of another: {outcome:?}");
    Fault::new(crate::ports::FaultKind::Corrupt, "postgres.ledger.batch", cause)
}
