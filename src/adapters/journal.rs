//! One fact to many sinks, and the sink that keeps finished generations as rows.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::BoxFuture;

use crate::core::model::fact::Fact;
use crate::core::model::request_log::LoggedRequest;
use crate::ports::Fault;
use crate::ports::journal::Journal;
use crate::ports::runtime::Tasks;

/// Tells every sink, in order.
pub struct FanOut {
    /// Who is told.
    pub sinks: Vec<Arc<dyn Journal>>,
}

impl Journal for FanOut {
    fn record(&self, fact: Fact) {
        let Some((last, others)) = self.sinks.split_last() else { return };
        for sink in others {
            sink.record(fact.clone());
        }
        last.record(fact);
    }
}

/// Writes rows of the request log, all of a batch or none.
pub type InsertRows = Box<dyn Fn(Vec<LoggedRequest>) -> BoxFuture<'static, Result<(), Fault>> + Send + Sync>;

/// Rows that wait at most; beyond it new ones are dropped and counted.
const QUEUE_ROWS: usize = 10_000;
/// Rows written at once.
const BATCH_ROWS: usize = 500;
/// Pauses before a batch that failed is tried again; after the last one it is given up.
const RETRIES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// Keeps [`Fact::GenerationEnded`] as rows, best effort.
///
/// A job of [`Tasks`] writes while there is something to write, so a drained shutdown has written all; rows that
/// come while it writes form the next batch. Nothing waits for a timer.
pub struct RequestLogSink {
    itself: Weak<Self>,
    insert: InsertRows,
    tasks: Arc<dyn Tasks>,
    queue: Mutex<Queue>,
    /// Held while a batch is under way: batches are written one after the other.
    writing: tokio::sync::Mutex<()>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Queue {
    rows: VecDeque<LoggedRequest>,
    /// Whether a job has been started that has not yet seen the queue empty.
    has_writer: bool,
}

impl RequestLogSink {
    /// Writes with `insert`, in jobs of `tasks`.
    pub fn new(insert: InsertRows, tasks: Arc<dyn Tasks>) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            itself: itself.clone(),
            insert,
            tasks,
            queue: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            dropped: AtomicU64::new(0),
        })
    }

    /// Writes all that waits and returns when it is written or given up. The caller bounds how long that may take.
    pub async fn flush(&self) {
        let _turn = self.writing.lock().await;
        while let Some(batch) = self.next_batch() {
            self.write(batch).await;
        }
    }

    /// Rows lost so far, to a full queue or a failing database.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn next_batch(&self) -> Option<Vec<LoggedRequest>> {
        let mut queue = self.lock();
        let size = queue.rows.len().min(BATCH_ROWS);
        if size == 0 {
            // In the same breath as seeing the queue empty, or a row in between would wait for the next one.
            queue.has_writer = false;
            return None;
        }
        Some(queue.rows.drain(..size).collect())
    }

    async fn write(&self, batch: Vec<LoggedRequest>) {
        let mut lost = Lost { sink: self, rows: batch.len() as u64 };
        for pause in RETRIES {
            if (self.insert)(batch.clone()).await.is_ok() {
                lost.rows = 0;
                return;
            }
            tokio::time::sleep(pause).await;
        }
        match (self.insert)(batch).await {
            Ok(()) => lost.rows = 0,
            Err(fault) => tracing::warn!(
                rows = lost.rows,
                error = &fault as &(dyn std::error::Error + 'static),
                "request log rows were lost"
            ),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for RequestLogSink {
    fn record(&self, fact: Fact) {
        let Fact::GenerationEnded { row, .. } = fact else { return };
        let mut queue = self.lock();
        if queue.rows.len() >= QUEUE_ROWS {
            drop(queue);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.rows.push_back(row);
        let needs_writer = !std::mem::replace(&mut queue.has_writer, true);
        drop(queue);
        if !needs_writer {
            return;
        }
        let Some(sink) = self.itself.upgrade() else { return };
        self.tasks.spawn(
            "request-log",
            Box::pin(async move {
                let mut abandoned = Abandoned(Some(&sink));
                sink.flush().await;
                abandoned.0 = None;
            }),
        );
    }
}

/// Counts a batch as lost unless it was written, also when its writer is dropped.
struct Lost<'a> {
    sink: &'a RequestLogSink,
    rows: u64,
}

impl Drop for Lost<'_> {
    fn drop(&mut self) {
        self.sink.dropped.fetch_add(self.rows, Ordering::Relaxed);
    }
}

/// Lets the next row start a writer when this one is dropped at its work.
struct Abandoned<'a>(Option<&'a RequestLogSink>);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(sink) = self.0 {
            sink.lock().has_writer = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::ids::{LogId, RequestId, UserId};
    use crate::core::model::ledger::Flux;
    use crate::core::model::request_log::GenerationKind;
    use crate::ports::FaultKind;
    use crate::ports::mocks::MockJournal;

    /// Keeps jobs until the test runs them.
    #[derive(Default)]
    struct Held(Mutex<Vec<BoxFuture<'static, ()>>>);

    impl Tasks for Held {
        fn spawn(&self, _: &'static str, job: BoxFuture<'static, ()>) {
            self.0.lock().unwrap().push(job);
        }
    }

    impl Held {
        async fn run(&self) -> usize {
            let jobs = std::mem::take(&mut *self.0.lock().unwrap());
            let count = jobs.len();
            for job in jobs {
                job.await;
            }
            count
        }
    }

    type Batches = Arc<Mutex<Vec<Vec<String>>>>;

    fn sink(failures: u64) -> (Arc<RequestLogSink>, Arc<Held>, Batches) {
        let tasks = Arc::new(Held::default());
        let batches = Batches::default();
        let (written, left) = (Arc::clone(&batches), AtomicU64::new(failures));
        let insert: InsertRows = Box::new(move |rows| {
            let fails = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            let written = Arc::clone(&written);
            Box::pin(async move {
                tokio::task::yield_now().await;
                if fails {
                    return Err(Fault::new(FaultKind::Unavailable, "test.insert", "down"));
                }
                written.lock().unwrap().push(rows.iter().map(|row| row.id.to_string()).collect());
                Ok(())
            })
        });
        (RequestLogSink::new(insert, Arc::clone(&tasks) as Arc<dyn Tasks>), tasks, batches)
    }

    fn ended(id: &(impl std::fmt::Display + ?Sized)) -> Fact {
        let row = LoggedRequest {
            id: LogId::new(format!("{id}")),
            request: RequestId::new("r"),
            user: UserId::new("u"),
            kind: GenerationKind::Chat,
            model: "m".to_owned(),
            status: 200,
            duration_ms: 1,
            first_byte_ms: None,
            charged: Flux::ONE,
            prompt_tokens: None,
            completion_tokens: None,
            upstream: None,
            key: None,
            fallback_depth: None,
            error: None,
            stream: false,
            at: chrono::DateTime::UNIX_EPOCH,
        };
        Fact::GenerationEnded { row, ended: None }
    }

    #[test]
    fn every_sink_hears_every_fact() {
        let hears = || {
            let mut sink = MockJournal::new();
            sink.expect_record().withf(|fact| *fact == Fact::ConfigStaleUse).times(1).return_const(());
            Arc::new(sink) as Arc<dyn Journal>
        };
        FanOut { sinks: vec![hears(), hears(), hears()] }.record(Fact::ConfigStaleUse);
        FanOut { sinks: Vec::new() }.record(Fact::ConfigStaleUse);
    }

    #[tokio::test]
    async fn rows_are_written_in_batches_by_one_writer() {
        let (sink, tasks, batches) = sink(0);
        for id in 0..BATCH_ROWS + 3 {
            sink.record(ended(&id));
        }
        sink.record(Fact::ConfigStaleUse);
        assert_eq!(tasks.run().await, 1);
        let sizes: Vec<usize> = batches.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!(sizes, [BATCH_ROWS, 3]);
        sink.record(ended("later"));
        assert_eq!(tasks.run().await, 1);
        assert_eq!(batches.lock().unwrap().last().unwrap(), &["later"]);
    }

    #[tokio::test]
    async fn a_full_queue_drops_the_newest_and_counts() {
        let (sink, tasks, batches) = sink(0);
        for id in 0..QUEUE_ROWS + 7 {
            sink.record(ended(&id));
        }
        assert_eq!(sink.dropped(), 7);
        tasks.run().await;
        assert_eq!(batches.lock().unwrap().iter().map(Vec::len).sum::<usize>(), QUEUE_ROWS);
    }

    #[tokio::test]
    async fn a_batch_survives_two_failures_and_is_given_up_at_the_third() {
        let [(healed, first, kept), (failing, second, lost)] = [sink(2), sink(3)];
        healed.record(ended("kept"));
        failing.record(ended("lost"));
        futures::join!(first.run(), second.run());
        assert_eq!((kept.lock().unwrap().len(), healed.dropped()), (1, 0));
        assert_eq!((lost.lock().unwrap().len(), failing.dropped()), (0, 1));
    }

    #[tokio::test]
    async fn a_flush_writes_what_no_job_has_written() {
        let (sink, tasks, batches) = sink(0);
        sink.record(ended("a"));
        sink.flush().await;
        assert_eq!(batches.lock().unwrap().len(), 1);
        assert_eq!(tasks.run().await, 1);
        assert_eq!(batches.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_writer_that_is_dropped_counts_its_batch_and_leaves_room_for_another() {
        let (sink, tasks, batches) = sink(0);
        sink.record(ended("cut"));
        let mut job = tasks.0.lock().unwrap().pop().unwrap();
        assert!(futures::poll!(&mut job).is_pending());
        drop(job);
        assert_eq!(sink.dropped(), 1);
        sink.record(ended("next"));
        assert_eq!(tasks.run().await, 1);
        assert_eq!(*batches.lock().unwrap(), [["next"]]);
    }
}
