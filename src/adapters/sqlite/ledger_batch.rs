//! Operations that arrive together share one transaction, and so one wait for the disk.
//!
//! A queue and one worker, since there is one writer: it takes everything that waits, debits, holds and captures alike,
//! without a timer, and commits it as one transaction.

use std::collections::{BTreeSet, HashMap};

use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot};

use super::Sqlite;
use super::fault::fault;
use super::ledger_rows::{self, BalanceRow, amount};
use crate::core::model::batch::{Key, Operation, Outcome, Past, Stored, apply};
use crate::core::model::hold::HeldFlux;
use crate::core::model::ids::{RequestId, UserId};
use crate::core::model::posting::LockedBalance;
use crate::ports::{Fault, FaultKind};

/// The door to the worker. When it is dropped the worker finishes what is queued and ends.
pub(super) struct Queue {
    waiting: mpsc::Sender<Waiting>,
}

impl Queue {
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

    /// Has an operation done. A caller that goes away before it is queued leaves no trace; afterwards it is done
    /// without the caller.
    pub(super) async fn perform(&self, operation: Operation) -> Result<Outcome, Fault> {
        let (answer, outcome) = oneshot::channel();
        let stopped = || Fault::new(FaultKind::Unavailable, OPERATION, "the worker has stopped");
        self.waiting.send(Waiting { operation, answer }).await.map_err(|_| stopped())?;
        outcome.await.map_err(|_| stopped())?
    }
}

const OPERATION: &str = "sqlite.ledger.batch";

/// More than this wait outside, in their own tasks: the queue bounds memory, not callers.
const QUEUE_LENGTH: usize = 1024;

/// Operations in one transaction at most, so that credits and other writers get their turn.
const LARGEST: usize = 128;

struct Waiting {
    operation: Operation,
    answer: oneshot::Sender<Answer>,
}

type Answer = Result<Outcome, Fault>;

async fn work(db: Sqlite, mut queue: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(LARGEST);
    while queue.recv_many(&mut batch, LARGEST).await > 0 {
        let (operations, answers): (Vec<_>, Vec<_>) = batch.drain(..).map(|w: Waiting| (w.operation, w.answer)).unzip();
        for (answer, outcome) in answers.into_iter().zip(perform(&db, &operations).await) {
            // A caller that is gone does not need to hear it; the books have it.
            drop(answer.send(outcome));
        }
    }
}

/// Does everything in one transaction. When the database objects to something in it, each operation is done by itself,
/// so that the cause fails alone; a repetition of something that had been committed after all is a replay.
async fn perform(db: &Sqlite, operations: &[Operation]) -> Vec<Answer> {
    let fault = match commit(db, operations).await {
        Ok(outcomes) => return outcomes,
        Err(fault) => fault,
    };
    if operations.len() == 1 || fault.kind() != FaultKind::Corrupt {
        return operations.iter().map(|_| Err(copy(&fault))).collect();
    }
    let mut outcomes = Vec::with_capacity(operations.len());
    for operation in operations {
        match commit(db, std::slice::from_ref(operation)).await {
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

async fn commit(db: &Sqlite, operations: &[Operation]) -> Result<Vec<Answer>, Fault> {
    let mut tx = db.begin(OPERATION).await?;
    let (rows, unsound_rows) = sort_rows(read_rows(&mut tx, operations).await.map_err(fault(OPERATION))?);
    let clock = ledger_rows::clock(&mut *tx).await.map_err(fault(OPERATION))?;
    let mut keyed = Keyed::default();
    keyed.read(&mut tx, operations, &rows, clock.timestamp_micros()).await.map_err(fault(OPERATION))?;
    let Keyed { pasts, holds, unsound: unsound_keys } = keyed;

    let unsound = |operation: &Operation| {
        let user = operation.user();
        let key = operation.request().map(|request| (user.clone(), request.clone()));
        let keyed = key.and_then(|key| unsound_keys.get(&key));
        keyed.or_else(|| unsound_rows.get(user)).map(copy)
    };
    let faults: Vec<Option<Fault>> = operations.iter().map(unsound).collect();
    let sound = operations.iter().zip(&faults).filter(|(_, fault)| fault.is_none()).map(|(operation, _)| operation);
    let batch = apply(sound, Stored { rows, pasts, holds }, clock);

    if batch.changes_nothing() {
        tx.rollback().await.map_err(fault(OPERATION))?;
    } else {
        ledger_rows::write(&mut tx, &batch.rows, &batch.entries, &batch.holds).await.map_err(fault(OPERATION))?;
        tx.commit().await.map_err(fault(OPERATION))?;
    }
    let mut outcomes = batch.outcomes.into_iter();
    let missing = || Err(Fault::new(FaultKind::Corrupt, OPERATION, "an operation without an outcome"));
    Ok(faults.into_iter().map(|fault| fault.map_or_else(|| outcomes.next().map_or_else(missing, Ok), Err)).collect())
}

async fn read_rows(
    connection: &mut SqliteConnection,
    operations: &[Operation],
) -> Result<Vec<BalanceRow>, sqlx::Error> {
    let users: BTreeSet<&str> = operations.iter().map(|operation| operation.user().as_str()).collect();
    let mut rows = Vec::with_capacity(users.len());
    for user in users {
        let row: Option<BalanceRow> = sqlx::query_as(
            "select user_id, flux, held, version, updated_at, deleted_at is not null from user_flux where user_id = ?1",
        )
        .bind(user)
        .fetch_optional(&mut *connection)
        .await?;
        rows.extend(row);
    }
    Ok(rows)
}

/// Entries and holds that exist already for requests of a batch, and every lapsed hold of its users.
#[derive(Default)]
struct Keyed {
    pasts: HashMap<Key, Past>,
    holds: HashMap<Key, HeldFlux>,
    unsound: HashMap<Key, Fault>,
}

impl Keyed {
    async fn read(
        &mut self,
        connection: &mut SqliteConnection,
        operations: &[Operation],
        rows: &HashMap<UserId, LockedBalance>,
        now: i64,
    ) -> Result<(), sqlx::Error> {
        let keys = operations.iter().filter_map(|operation| Some((operation.user(), operation.request()?)));
        let keys: BTreeSet<(&str, &str)> = keys.map(|(user, request)| (user.as_str(), request.as_str())).collect();
        for (user, request) in keys {
            let past: Option<(i64, i64)> = sqlx::query_as(
                "select amount, balance_after from flux_transaction where user_id = ?1 and request_id = ?2",
            )
            .bind(user)
            .bind(request)
            .fetch_optional(&mut *connection)
            .await?;
            if let Some((charged, after)) = past {
                self.past(user, request, charged, after);
            }
            let hold: Option<(i64, i64)> =
                sqlx::query_as("select amount, expires_at from flux_hold where user_id = ?1 and request_id = ?2")
                    .bind(user)
                    .bind(request)
                    .fetch_optional(&mut *connection)
                    .await?;
            if let Some((amount, until)) = hold {
                self.hold(user, request, amount, until);
            }
        }
        for (user, _) in rows.iter().filter(|(_, row)| !row.held.is_zero()) {
            let lapsed: Vec<(String, i64, i64)> = sqlx::query_as(
                "select request_id, amount, expires_at from flux_hold where user_id = ?1 and expires_at <= ?2",
            )
            .bind(user.as_str())
            .bind(now)
            .fetch_all(&mut *connection)
            .await?;
            for (request, amount, until) in lapsed {
                self.hold(user.as_str(), &request, amount, until);
            }
        }
        Ok(())
    }

    fn past(&mut self, user: &str, request: &str, charged: i64, after: i64) {
        let past = amount(charged, "flux_transaction", "amount", request, OPERATION).and_then(|charged| {
            let after = amount(after, "flux_transaction", "balance_after", request, OPERATION)?;
            Ok(Past { charged, after })
        });
        let key = (UserId::new(user), RequestId::new(request));
        match past {
            Ok(past) => drop(self.pasts.insert(key, past)),
            Err(fault) => drop(self.unsound.insert(key, fault)),
        }
    }

    fn hold(&mut self, user: &str, request: &str, held: i64, until: i64) {
        let hold = amount(held, "flux_hold", "amount", request, OPERATION).and_then(|amount| {
            let until = ledger_rows::time(until, "flux_hold", "expires_at", request, OPERATION)?;
            Ok(HeldFlux { amount, until })
        });
        let key = (UserId::new(user), RequestId::new(request));
        match hold {
            Ok(hold) => drop(self.holds.insert(key, hold)),
            Err(fault) => drop(self.unsound.insert(key, fault)),
        }
    }
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
