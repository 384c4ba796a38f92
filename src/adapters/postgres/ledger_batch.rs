//! Operations that arrive together share one transaction, and so one wait for the disk.
//!
//! A queue, a few workers: each takes everything that waits, debits, holds and captures alike, without a timer, and
//! commits it as one transaction. Under no load an operation travels alone; under load the batches grow by themselves.
//! Durability is the same either way.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::NaiveDateTime;
use sqlx::{PgConnection, PgPool};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::fault::fault;
use super::ledger_rows::{self, BalanceRow, amount};
use crate::core::model::batch::{Key, Operation, Outcome, Past, Stored, apply};
use crate::core::model::hold::HeldFlux;
use crate::core::model::ids::{RequestId, UserId};
use crate::core::model::posting::LockedBalance;
use crate::ports::{Fault, FaultKind};

/// How operations are put together.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Transactions at one time; each holds one connection. At least 1.
    pub in_flight: usize,
    /// Operations in one transaction at most. At least 1.
    pub largest: usize,
}

impl Default for Batching {
    fn default() -> Self {
        Self { in_flight: 2, largest: 128 }
    }
}

/// The door to the workers. When the last one is dropped they finish what is queued and end.
pub(super) struct Queue {
    waiting: mpsc::Sender<Waiting>,
}

impl Queue {
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

    /// Has an operation done. A caller that goes away before it is queued leaves no trace; afterwards it is done
    /// without the caller.
    pub(super) async fn perform(&self, operation: Operation) -> Result<Outcome, Fault> {
        let (answer, outcome) = oneshot::channel();
        let stopped = || Fault::new(FaultKind::Unavailable, OPERATION, "the workers have stopped");
        self.waiting.send(Waiting { operation, answer }).await.map_err(|_| stopped())?;
        outcome.await.map_err(|_| stopped())?
    }
}

const OPERATION: &str = "postgres.ledger.batch";

/// More than this wait outside, in their own tasks: the queue bounds memory, not callers.
const QUEUE_LENGTH: usize = 1024;

struct Waiting {
    operation: Operation,
    answer: oneshot::Sender<Answer>,
}

type Answer = Result<Outcome, Fault>;

async fn work(pool: PgPool, queue: Arc<Mutex<mpsc::Receiver<Waiting>>>, largest: usize) {
    let mut batch = Vec::with_capacity(largest);
    loop {
        let taken = queue.lock().await.recv_many(&mut batch, largest).await;
        if taken == 0 {
            return;
        }
        let (operations, answers): (Vec<_>, Vec<_>) = batch.drain(..).map(|w: Waiting| (w.operation, w.answer)).unzip();
        for (answer, outcome) in answers.into_iter().zip(perform(&pool, &operations).await) {
            // A caller that is gone does not need to hear it; the books have it.
            drop(answer.send(outcome));
        }
    }
}

/// Does everything in one transaction. When the database objects to something in it (text it cannot store, a row
/// others hold for too long), each operation is done by itself, so that the cause fails alone; a repetition of something
/// that had been committed after all is a replay.
async fn perform(pool: &PgPool, operations: &[Operation]) -> Vec<Answer> {
    let error = match commit(pool, operations, BEGIN_TOGETHER).await {
        Ok(outcomes) => return outcomes,
        Err(error) => error,
    };
    if !matches!(error, sqlx::Error::Database(_) | sqlx::Error::Encode(_)) {
        let fault = fault(OPERATION)(error);
        return operations.iter().map(|_| Err(copy(&fault))).collect();
    }
    let mut outcomes = Vec::with_capacity(operations.len());
    let mut stuck: HashMap<&UserId, Fault> = HashMap::new();
    for operation in operations {
        if let Some(fault) = stuck.get(operation.user()) {
            outcomes.push(Err(copy(fault)));
            continue;
        }
        match commit(pool, std::slice::from_ref(operation), BEGIN_ALONE).await.map_err(fault(OPERATION)) {
            Ok(outcome) => outcomes.extend(outcome),
            Err(fault) => {
                if fault.kind() == FaultKind::Timeout {
                    stuck.insert(operation.user(), copy(&fault));
                }
                outcomes.push(Err(fault));
            }
        }
    }
    outcomes
}

/// Read committed: the replay lookup behind the locks MUST see what their last holders committed. One held row must
/// not hold up the others of a batch for long; alone, an operation has more patience.
const BEGIN_TOGETHER: &str = "begin isolation level read committed; set local lock_timeout = '1s'";
const BEGIN_ALONE: &str = "begin isolation level read committed; set local lock_timeout = '5s'";

/// The same fault for one more caller.
fn copy(fault: &Fault) -> Fault {
    let cause = std::error::Error::source(fault).map_or_else(|| fault.to_string(), ToString::to_string);
    Fault::new(fault.kind(), OPERATION, cause)
}

async fn commit(pool: &PgPool, operations: &[Operation], begin: &'static str) -> Result<Vec<Answer>, sqlx::Error> {
    let mut tx = pool.begin_with(begin).await?;
    let (rows, unsound_rows) = sort_rows(lock(&mut tx, operations).await?);
    let found = look_up(&mut tx, operations).await?;
    let (pasts, holds, unsound_keys) = sort_found(found.keyed);

    let unsound = |operation: &Operation| {
        let user = operation.user();
        let key = operation.request().map(|request| (user.clone(), request.clone()));
        let keyed = key.and_then(|key| unsound_keys.get(&key));
        keyed.or_else(|| unsound_rows.get(user)).map(copy)
    };
    let faults: Vec<Option<Fault>> = operations.iter().map(unsound).collect();
    let sound = operations.iter().zip(&faults).filter(|(_, fault)| fault.is_none()).map(|(operation, _)| operation);
    let batch = apply(sound, Stored { rows, pasts, holds }, found.clock.and_utc());

    if batch.changes_nothing() {
        // Locks alone would make a commit wait for the disk.
        tx.rollback().await?;
    } else {
        ledger_rows::write(&mut tx, &batch.rows, &batch.entries, &batch.holds).await?;
        tx.commit().await?;
    }
    let mut outcomes = batch.outcomes.into_iter();
    let missing = || Err(Fault::new(FaultKind::Corrupt, OPERATION, "an operation without an outcome"));
    Ok(faults.into_iter().map(|fault| fault.map_or_else(|| outcomes.next().map_or_else(missing, Ok), Err)).collect())
}

/// Locks every row of the batch in the order of the key, which is the same in every process, so that two batches
/// never wait for each other.
async fn lock(connection: &mut PgConnection, operations: &[Operation]) -> Result<Vec<BalanceRow>, sqlx::Error> {
    sqlx::query_as(
        "select user_id, flux, held, version, updated_at, deleted_at is not null \
         from user_flux where user_id = any($1) order by user_id for update",
    )
    .bind(Vec::from_iter(users(operations)))
    .fetch_all(connection)
    .await
}

fn users(operations: &[Operation]) -> BTreeSet<&str> {
    operations.iter().map(|operation| operation.user().as_str()).collect()
}

/// What there is beside the locked rows.
struct Found {
    clock: NaiveDateTime,
    keyed: Vec<KeyedRow>,
}

/// `user_id, request_id, amount`, then `balance_after` of an earlier entry, or `expires_at` of a hold.
type KeyedRow = (String, String, i64, Option<i64>, Option<NaiveDateTime>);

/// The clock under the locks, the entries and holds that exist already for requests of the batch, and every lapsed hold
/// of its users.
///
/// `offset 0` keeps the planner from joining the list to whole tables, which it prefers while their statistics are
/// young; each pair is one look-up in a unique index.
async fn look_up(connection: &mut PgConnection, operations: &[Operation]) -> Result<Found, sqlx::Error> {
    type Row = (NaiveDateTime, Option<String>, Option<String>, Option<i64>, Option<i64>, Option<NaiveDateTime>);
    let keys = || operations.iter().filter_map(|operation| Some((operation.user(), operation.request()?)));
    let rows: Vec<Row> = sqlx::query_as(
        "with c as materialized (select clock_timestamp() at time zone 'UTC' as now), \
         k as materialized (select distinct user_id, request_id from unnest($1::text[], $2::text[]) \
           as k(user_id, request_id)) \
         select c.now, null::text, null::text, null::int8, null::int8, null::timestamp from c \
         union all \
         select c.now, t.user_id, t.request_id, t.amount, t.balance_after, null \
         from c cross join k cross join lateral ( \
           select user_id, request_id, amount, balance_after from flux_transaction \
           where user_id = k.user_id and request_id = k.request_id offset 0 \
         ) t \
         union all \
         select c.now, h.user_id, h.request_id, h.amount, null, h.expires_at \
         from c cross join k cross join lateral ( \
           select user_id, request_id, amount, expires_at from flux_hold \
           where user_id = k.user_id and request_id = k.request_id offset 0 \
         ) h \
         union all \
         select c.now, h.user_id, h.request_id, h.amount, null, h.expires_at \
         from flux_hold h cross join c where h.user_id = any($3) and h.expires_at <= c.now",
    )
    .bind(keys().map(|(user, _)| user.as_str()).collect::<Vec<_>>())
    .bind(keys().map(|(_, request)| request.as_str()).collect::<Vec<_>>())
    .bind(Vec::from_iter(users(operations)))
    .fetch_all(connection)
    .await?;
    let clock = rows.first().map(|row| row.0).ok_or(sqlx::Error::RowNotFound)?;
    let keyed = rows
        .into_iter()
        .filter_map(|(_, user, request, amount, after, until)| Some((user?, request?, amount?, after, until)));
    Ok(Found { clock, keyed: keyed.collect() })
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

fn sort_found(rows: Vec<KeyedRow>) -> (HashMap<Key, Past>, HashMap<Key, HeldFlux>, HashMap<Key, Fault>) {
    let (mut pasts, mut holds, mut unsound) = (HashMap::new(), HashMap::new(), HashMap::new());
    for (user, request, stored, after, until) in rows {
        let key = (UserId::new(user), RequestId::new(request.as_str()));
        let checked = match until {
            Some(until) => amount(stored, "flux_hold", "amount", &request, OPERATION).map(|amount| {
                holds.insert(key.clone(), HeldFlux { amount, until: until.and_utc() });
            }),
            None => amount(stored, "flux_transaction", "amount", &request, OPERATION).and_then(|charged| {
                let after = after.unwrap_or(-1);
                let after = amount(after, "flux_transaction", "balance_after", &request, OPERATION)?;
                pasts.insert(key.clone(), Past { charged, after });
                Ok(())
            }),
        };
        if let Err(fault) = checked {
            unsound.insert(key, fault);
        }
    }
    (pasts, holds, unsound)
}
