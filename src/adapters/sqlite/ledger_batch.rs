//! Debits that arrive together share one transaction, and so one wait for the disk.
//!
//! A queue and one worker, since there is one writer: it takes everything that waits, without a timer, and commits it
//! as one transaction.

use std::collections::{BTreeSet, HashMap};

use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot};

use super::Sqlite;
use super::fault::fault;
use super::ledger_rows::{self, BalanceRow, amount};
use crate::core::model::ids::{RequestId, UserId};
use crate::core::model::ledger::{Debit, DebitOutcome};
use crate::core::model::posting::{LockedBalance, Past, Pasts, apply_debits};
use crate::ports::{Fault, FaultKind};

/// The door to the worker. When it is dropped the worker finishes what is queued and ends.
pub(super) struct DebitQueue {
    waiting: mpsc::Sender<Waiting>,
}

impl DebitQueue {
    /// Starts the worker. MUST be called inside a runtime.
    pub(super) fn start(db: &Sqlite) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let work = work(db.clone(), receiver);
        #[expect(
            clippy::disallowed_methods,
            reason = "the worker ends by itself when its queue is drained and dropped"
        )]
        tokio::spawn(work);
        Self { waiting: sender }
    }

    /// Has a debit made. A caller that goes away before it is queued leaves no trace; afterwards the debit is made
    /// without it.
    pub(super) async fn debit(&self, debit: &Debit) -> Result<DebitOutcome, Fault> {
        let (answer, outcome) = oneshot::channel();
        let stopped = || Fault::new(FaultKind::Unavailable, OPERATION, "the worker has stopped");
        self.waiting.send(Waiting { debit: debit.clone(), answer }).await.map_err(|_| stopped())?;
        outcome.await.map_err(|_| stopped())?
    }
}

const OPERATION: &str = "sqlite.ledger.debit";

/// More than this wait outside, in their own tasks: the queue bounds memory, not callers.
const QUEUE_LENGTH: usize = 1024;

/// Debits in one transaction at most, so that credits and other writers get their turn.
const LARGEST: usize = 128;

struct Waiting {
    debit: Debit,
    answer: oneshot::Sender<Result<DebitOutcome, Fault>>,
}

async fn work(db: Sqlite, mut queue: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(LARGEST);
    while queue.recv_many(&mut batch, LARGEST).await > 0 {
        let (debits, answers): (Vec<_>, Vec<_>) = batch.drain(..).map(|w: Waiting| (w.debit, w.answer)).unzip();
        for (answer, outcome) in answers.into_iter().zip(make(&db, &debits).await) {
            // A caller that is gone does not need to hear it; the books have it.
            drop(answer.send(outcome));
        }
    }
}

/// Makes all debits in one transaction. When the database objects to something in it, each is made by itself, so that
/// the cause fails alone; a repetition of something that had been committed after all is a replay.
async fn make(db: &Sqlite, debits: &[Debit]) -> Vec<Result<DebitOutcome, Fault>> {
    let fault = match commit(db, debits).await {
        Ok(outcomes) => return outcomes,
        Err(fault) => fault,
    };
    if debits.len() == 1 || fault.kind() != FaultKind::Corrupt {
        return debits.iter().map(|_| Err(copy(&fault))).collect();
    }
    let mut outcomes = Vec::with_capacity(debits.len());
    for debit in debits {
        match commit(db, std::slice::from_ref(debit)).await {
            Ok(outcome) => outcomes.extend(outcome),
            Err(fault) => outcomes.push(Err(fault)),
        }
    }
    outcomes
}

/// The same fault for one more caller.
fn copy(fault: &Fault) -> Fault {
    let cause = std::error::Error::source(fault).map_or_else(|| fault.to_string(), ToString::to_string);
    Fault::new(fault.kind(), OPERATION, cause)
}

async fn commit(db: &Sqlite, debits: &[Debit]) -> Result<Vec<Result<DebitOutcome, Fault>>, Fault> {
    let mut tx = db.begin(OPERATION).await?;
    let (rows, unsound_rows) = sort_rows(read_rows(&mut tx, debits).await.map_err(fault(OPERATION))?);
    let clock = ledger_rows::clock(&mut *tx).await.map_err(fault(OPERATION))?;
    let (pasts, unsound_pasts) = sort_pasts(replays(&mut tx, debits).await.map_err(fault(OPERATION))?);

    let unsound = |debit: &Debit| {
        let past = unsound_pasts.get(&(debit.user.clone(), debit.request.clone()));
        past.or_else(|| unsound_rows.get(&debit.user)).map(copy)
    };
    let faults: Vec<Option<Fault>> = debits.iter().map(unsound).collect();
    let sound = debits.iter().zip(&faults).filter(|(_, fault)| fault.is_none()).map(|(debit, _)| debit);
    let batch = apply_debits(sound, rows, pasts, clock);

    if batch.entries.is_empty() {
        tx.rollback().await.map_err(fault(OPERATION))?;
    } else {
        ledger_rows::write(&mut tx, &batch.rows, &batch.entries).await.map_err(fault(OPERATION))?;
        tx.commit().await.map_err(fault(OPERATION))?;
    }
    let mut outcomes = batch.outcomes.into_iter();
    let missing = || Err(Fault::new(FaultKind::Corrupt, OPERATION, "a debit without an outcome"));
    Ok(faults.into_iter().map(|fault| fault.map_or_else(|| outcomes.next().map_or_else(missing, Ok), Err)).collect())
}

async fn read_rows(connection: &mut SqliteConnection, debits: &[Debit]) -> Result<Vec<BalanceRow>, sqlx::Error> {
    let users: BTreeSet<&str> = debits.iter().map(|debit| debit.user.as_str()).collect();
    let mut rows = Vec::with_capacity(users.len());
    for user in users {
        let row: Option<BalanceRow> = sqlx::query_as(
            "select user_id, flux, version, updated_at, deleted_at is not null from user_flux where user_id = ?1",
        )
        .bind(user)
        .fetch_optional(&mut *connection)
        .await?;
        rows.extend(row);
    }
    Ok(rows)
}

/// `user_id, request_id, amount, balance_after` of an earlier entry.
type PastRow = (String, String, i64, i64);

/// The entries that exist already for requests of the batch.
async fn replays(connection: &mut SqliteConnection, debits: &[Debit]) -> Result<Vec<PastRow>, sqlx::Error> {
    let mut pasts = Vec::new();
    for debit in debits {
        let past: Option<PastRow> = sqlx::query_as(
            "select user_id, request_id, amount, balance_after from flux_transaction \
             where user_id = ?1 and request_id = ?2",
        )
        .bind(debit.user.as_str())
        .bind(debit.request.as_str())
        .fetch_optional(&mut *connection)
        .await?;
        pasts.extend(past);
    }
    Ok(pasts)
}

/// Sorts checked rows from unusable ones, so that one bad row fails only those who ask for it.
fn sort_rows(rows: Vec<BalanceRow>) -> (HashMap<UserId, LockedBalance>, HashMap<UserId, Fault>) {
    let (mut sound, mut unsound) = (HashMap::new(), HashMap::new());
    for row in rows {
        let user = UserId::new(row.0.as_str());
        match ledger_rows::balance(row, OPERATION) {
            Ok((user, balance)) => drop(sound.insert(user, balance)),
            Err(fault) => drop(unsound.insert(user, fault)),
        }
    }
    (sound, unsound)
}

fn sort_pasts(stored: Vec<PastRow>) -> (Pasts, HashMap<(UserId, RequestId), Fault>) {
    let (mut sound, mut unsound) = (Pasts::new(), HashMap::new());
    for (user, request, charged, after) in stored {
        let past = amount(charged, "flux_transaction", "amount", &request, OPERATION).and_then(|charged| {
            let after = amount(after, "flux_transaction", "balance_after", &request, OPERATION)?;
            Ok(Past { charged, after })
        });
        let key = (UserId::new(user), RequestId::new(request));
        match past {
            Ok(past) => drop(sound.insert(key, past)),
            Err(fault) => drop(unsound.insert(key, fault)),
        }
    }
    (sound, unsound)
}
