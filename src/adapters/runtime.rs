//! The process itself: its clock, its randomness, its background work.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::ports::runtime::{Clock, IdSource, Tasks};

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Measures from now on.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this adapter is where the wall clock is read")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// Names drawn from the operating system's generator, buffered so that one name is not one system call.
#[derive(Debug)]
pub struct RandomIds {
    pool: Mutex<Pool>,
}

#[derive(Debug)]
struct Pool {
    bytes: [u8; 512],
    used: usize,
}

const ID_ALPHABET: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz-";
const TOKEN_ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

impl RandomIds {
    /// An empty buffer; the first name fills it.
    pub fn new() -> Self {
        Self { pool: Mutex::new(Pool { bytes: [0; 512], used: 512 }) }
    }

    /// `length` characters, each equally likely: bytes beyond the largest multiple of the alphabet are redrawn.
    fn draw(&self, alphabet: &[u8], length: usize) -> String {
        let mut pool = self.pool.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fair = 256 - 256 % alphabet.len();
        let mut text = String::with_capacity(length);
        while text.len() < length {
            let byte = usize::from(pool.next());
            if byte < fair {
                text.push(char::from(alphabet[byte % alphabet.len()]));
            }
        }
        text
    }
}

impl Default for RandomIds {
    fn default() -> Self {
        Self::new()
    }
}

impl Pool {
    fn next(&mut self) -> u8 {
        if self.used == self.bytes.len() {
            // An id made without entropy would be guessable: no name is better than a weak one, so wait for it.
            while SysRng.try_fill_bytes(&mut self.bytes).is_err() {
                std::thread::yield_now();
            }
            self.used = 0;
        }
        let byte = std::mem::take(&mut self.bytes[self.used]);
        self.used += 1;
        byte
    }
}

impl IdSource for RandomIds {
    fn id(&self) -> String {
        self.draw(ID_ALPHABET, 21)
    }

    fn token(&self) -> String {
        self.draw(TOKEN_ALPHABET, 32)
    }
}

/// Background work that shutdown waits for.
#[derive(Debug, Default)]
pub struct TrackedTasks {
    tracker: TaskTracker,
}

impl TrackedTasks {
    /// Waits until every job has ended, at most `grace`; says whether all did.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.tracker.close();
        let drained = timeout(grace, self.tracker.wait()).await.is_ok();
        self.tracker.reopen();
        drained
    }
}

impl Tasks for TrackedTasks {
    fn spawn(&self, name: &'static str, job: BoxFuture<'static, ()>) {
        tracing::trace!(task = name, "task {name} started");
        self.tracker.spawn(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_their_length_and_alphabet_and_do_not_repeat() {
        let ids = RandomIds::new();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..2_000 {
            let id = ids.id();
            assert_eq!(id.len(), 21);
            assert!(id.bytes().all(|byte| ID_ALPHABET.contains(&byte)), "{id}");
            assert!(seen.insert(id));
            let token = ids.token();
            assert_eq!(token.len(), 32);
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{token}");
            assert!(seen.insert(token));
        }
    }

    #[tokio::test]
    async fn draining_waits_for_work_and_says_when_it_gave_up() {
        let tasks = TrackedTasks::default();
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn("held", Box::pin(async move { drop(held.await) }));
        assert!(!tasks.drain(Duration::from_millis(10)).await);
        drop(release);
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }
}
