//! Debits that arrive together share one transaction, and so one wait for the disk.
//!
//! A queue, a few workers: each takes everything that waits, without a timer, and commits it as one transaction. Under
//! no load a debit travels alone; under load the batches grow by themselves. Durability is the same either way.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::NaiveDateTime;
use sqlx::{PgConnection, PgPool};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::fault::fault;
use super::ledger_rows::{self, BalanceRow, amount};
use crate::core::model::ids::{RequestId, UserId};
use crate::core::model::ledger::{Debit, DebitOutcome};
use crate::core::model::posting::{LockedBalance, Past, Pasts, apply_debits};
use crate::ports::{Fault, FaultKind};

/// How debits are put together.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Transactions of debits at one time; each holds one connection. At least 1.
    pub in_flight: usize,
    /// Debits in one transaction at most. At least 1.
    pub largest: usize,
}

impl Default for Batching {
    fn default() -> Self {
        Self { in_flight: 2, largest: 128 }
    }
}

/// The door to the workers. When the last one is dropped they finish what is queued and end.
pub(super) struct DebitQueue {
    waiting: mpsc::Sender<Waiting>,
}

impl DebitQueue {
    /// Starts the workers. MUST be called inside a runtime.
    pub(super) fn start(pool: &PgPool, batching: Batching) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..batching.in_flight.max(1) {
            let work = work(pool.clone(), Arc::clone(&receiver), batching.largest.max(1));
            #[expect(
                clippy::disallowed_methods,
                reason = "a worker ends by itself when its queue is drained and dropped"
            )]
            tokio::spawn(work);
        }
        Self { waiting: sender }
    }

    /// Has a debit made. A caller that goes away before it is queued leaves no trace; afterwards the debit is made
    /// without it.
    pub(super) async fn debit(&self, debit: &Debit) -> Result<DebitOutcome, Fault> {
        let (answer, outcome) = oneshot::channel();
        let stopped = || Fault::new(FaultKind::Unavailable, OPERATION, "the workers have stopped");
        self.waiting.send(Waiting { debit: debit.clone(), answer }).await.map_err(|_| stopped())?;
        outcome.await.map_err(|_| stopped())?
    }
}

const OPERATION: &str = "postgres.ledger.debit";

/// More than this wait outside, in their own tasks: the queue bounds memory, not callers.
const QUEUE_LENGTH: usize = 1024;

struct Waiting {
    debit: Debit,
    answer: oneshot::Sender<Result<DebitOutcome, Fault>>,
}

async fn work(pool: PgPool, queue: Arc<Mutex<mpsc::Receiver<Waiting>>>, largest: usize) {
    let mut batch = Vec::with_capacity(largest);
    loop {
        let taken = queue.lock().await.recv_many(&mut batch, largest).await;
        if taken == 0 {
            return;
        }
        let (debits, answers): (Vec<_>, Vec<_>) = batch.drain(..).map(|w: Waiting| (w.debit, w.answer)).unzip();
        for (answer, outcome) in answers.into_iter().zip(make(&pool, &debits).await) {
            // A caller that is gone does not need to hear it; the books have it.
            drop(answer.send(outcome));
        }
    }
}

/// Makes all debits in one transaction. When the database objects to something in it (text it cannot store, a row
/// others hold for too long), each is made by itself, so that the cause fails alone; a repetition of something that
/// had been committed after all is a replay.
async fn make(pool: &PgPool, debits: &[Debit]) -> Vec<Result<DebitOutcome, Fault>> {
    let error = match commit(pool, debits, BEGIN_TOGETHER).await {
        Ok(outcomes) => return outcomes,
        Err(error) => error,
    };
    if !matches!(error, sqlx::Error::Database(_) | sqlx::Error::Encode(_)) {
        let fault = fault(OPERATION)(error);
        return debits.iter().map(|_| Err(copy(&fault))).collect();
    }
    let mut outcomes = Vec::with_capacity(debits.len());
    let mut stuck: HashMap<&UserId, Fault> = HashMap::new();
    for debit in debits {
        if let Some(fault) = stuck.get(&debit.user) {
            outcomes.push(Err(copy(fault)));
            continue;
        }
        match commit(pool, std::slice::from_ref(debit), BEGIN_ALONE).await.map_err(fault(OPERATION)) {
            Ok(outcome) => outcomes.extend(outcome),
            Err(fault) => {
                if fault.kind() == FaultKind::Timeout {
                    stuck.insert(&debit.user, copy(&fault));
                }
                outcomes.push(Err(fault));
            }
        }
    }
    outcomes
}

/// Read committed: the replay lookup behind the locks MUST see what their last holders committed. One held row must
/// not hold up the others of a batch for long; alone, a debit has more patience.
const BEGIN_TOGETHER: &str = "begin isolation level read committed; set local lock_timeout = '1s'";
const BEGIN_ALONE: &str = "begin isolation level read committed; set local lock_timeout = '5s'";

/// The same fault for one more caller.
fn copy(fault: &Fault) -> Fault {
    let cause = std::error::Error::source(fault).map_or_else(|| fault.to_string(), ToString::to_string);
    Fault::new(fault.kind(), OPERATION, cause)
}

async fn commit(
    pool: &PgPool,
    debits: &[Debit],
    begin: &'static str,
) -> Result<Vec<Result<DebitOutcome, Fault>>, sqlx::Error> {
    let mut tx = pool.begin_with(begin).await?;
    let (rows, unsound_rows) = sort_rows(lock(&mut tx, debits).await?);
    let (clock, stored) = replays(&mut tx, debits).await?;
    let (pasts, unsound_pasts) = sort_pasts(stored);

    let unsound = |debit: &Debit| {
        let past = unsound_pasts.get(&(debit.user.clone(), debit.request.clone()));
        past.or_else(|| unsound_rows.get(&debit.user)).map(copy)
    };
    let faults: Vec<Option<Fault>> = debits.iter().map(unsound).collect();
    let sound = debits.iter().zip(&faults).filter(|(_, fault)| fault.is_none()).map(|(debit, _)| debit);
    let batch = apply_debits(sound, rows, pasts, clock.and_utc());

    if batch.entries.is_empty() {
        // Locks alone would make a commit wait for the disk.
        tx.rollback().await?;
    } else {
        ledger_rows::write(&mut tx, &batch.rows, &batch.entries).await?;
        tx.commit().await?;
    }
    let mut outcomes = batch.outcomes.into_iter();
    let missing = || Err(Fault::new(FaultKind::Corrupt, OPERATION, "a debit without an outcome"));
    Ok(faults.into_iter().map(|fault| fault.map_or_else(|| outcomes.next().map_or_else(missing, Ok), Err)).collect())
}

/// Locks every row of the batch in the order of the key, which is the same in every process, so that two batches
/// never wait for each other.
async fn lock(connection: &mut PgConnection, debits: &[Debit]) -> Result<Vec<BalanceRow>, sqlx::Error> {
    let users: BTreeSet<&str> = debits.iter().map(|debit| debit.user.as_str()).collect();
    sqlx::query_as(
        "select user_id, flux, version, updated_at, deleted_at is not null \
         from user_flux where user_id = any($1) order by user_id for update",
    )
    .bind(Vec::from_iter(users))
    .fetch_all(connection)
    .await
}

/// `user_id, request_id, amount, balance_after` of an earlier entry.
type PastRow = (String, String, i64, i64);

/// The clock under the lock, and the entries that exist already for requests of the batch.
///
/// `offset 0` keeps the planner from joining the list to the whole table, which it prefers while the table's
/// statistics are young; each pair is one look-up in the unique index.
async fn replays(
    connection: &mut PgConnection,
    debits: &[Debit],
) -> Result<(NaiveDateTime, Vec<PastRow>), sqlx::Error> {
    type Row = (NaiveDateTime, Option<String>, Option<String>, Option<i64>, Option<i64>);
    let rows: Vec<Row> = sqlx::query_as(
        "select c.now, p.user_id, p.request_id, p.amount, p.balance_after \
         from (select clock_timestamp() at time zone 'UTC' as now) c \
         left join ( \
           select t.user_id, t.request_id, t.amount, t.balance_after \
           from unnest($1::text[], $2::text[]) as k(user_id, request_id) \
           cross join lateral ( \
             select user_id, request_id, amount, balance_after from flux_transaction \
             where user_id = k.user_id and request_id = k.request_id offset 0 \
           ) t \
         ) p on true",
    )
    .bind(debits.iter().map(|debit| debit.user.as_str()).collect::<Vec<_>>())
    .bind(debits.iter().map(|debit| debit.request.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let clock = rows.first().map(|row| row.0).ok_or(sqlx::Error::RowNotFound)?;
    let pasts =
        rows.into_iter().filter_map(|(_, user, request, charged, after)| Some((user?, request?, charged?, after?)));
    Ok((clock, pasts.collect()))
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
