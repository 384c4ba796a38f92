//! Copies of sessions, so that a request does not wait for the database to know its caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use moka::{future, sync};
use sha2::{Digest, Sha256};

use crate::core::model::accounts::{Session, SignedIn};
use crate::core::model::identity::Closing;
use crate::core::model::ids::{SessionId, UserId};
use crate::ports::Fault;
use crate::ports::accounts::SessionRepo;
use crate::ports::runtime::Clock;

/// Keeps each session that was found for up to 10 s; callers with one token share one look-up.
///
/// A session ended or extended here is looked up anew at once; one ended by another process may pass for 10 s
/// more. Tokens are kept as their SHA-256 only: a memory dump shows nothing that could be presented.
pub struct CachedSessions {
    inner: Arc<dyn SessionRepo>,
    clock: Arc<dyn Clock>,
    copies: future::Cache<[u8; 32], Copy>,
    /// When, in `changes`, a session was last changed through us.
    changed: sync::Cache<SessionId, u64>,
    changes: AtomicU64,
}

#[derive(Clone)]
struct Copy {
    found: Arc<SignedIn>,
    /// The changes made before the look-up began.
    changes: u64,
    /// When the look-up began.
    at: Duration,
}

const FRESH: Duration = Duration::from_secs(10);
const SESSIONS: u64 = 50_000;
/// Outlives every copy and every look-up that was under way at the change.
const CHANGE_REMEMBERED: Duration = Duration::from_secs(60);

/// What is not kept.
enum Miss {
    Absent,
    Failed(Fault),
}

impl CachedSessions {
    /// An empty cache before `inner`; `clock` ends the copies.
    pub fn new(inner: Arc<dyn SessionRepo>, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner,
            clock,
            copies: future::Cache::builder().max_capacity(SESSIONS).time_to_live(FRESH).build(),
            changed: sync::Cache::builder().max_capacity(SESSIONS).time_to_live(CHANGE_REMEMBERED).build(),
            changes: AtomicU64::new(0),
        }
    }

    async fn load(&self, token: &str) -> Result<Copy, Miss> {
        let (changes, at) = (self.changes.load(Ordering::SeqCst), self.clock.elapsed());
        match self.inner.find_by_token(token).await {
            Ok(Some(found)) => Ok(Copy { found: Arc::new(found), changes, at }),
            Ok(None) => Err(Miss::Absent),
            Err(fault) => Err(Miss::Failed(fault)),
        }
    }

    fn is_fresh(&self, copy: &Copy) -> bool {
        let changed = self.changed.get(&copy.found.session.id);
        self.clock.elapsed().saturating_sub(copy.at) < FRESH && changed.is_none_or(|changed| changed <= copy.changes)
    }
}

#[async_trait]
impl SessionRepo for CachedSessions {
    async fn open(&self, session: &Session) -> Result<(), Fault> {
        self.inner.open(session).await
    }

    async fn find_by_token(&self, token: &str) -> Result<Option<SignedIn>, Fault> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        // The second round begins after whatever made the first copy useless.
        for _ in 0..2 {
            let copy = match self.copies.try_get_with(key, self.load(token)).await {
                Ok(copy) => copy,
                Err(miss) => return answer(&miss),
            };
            if self.is_fresh(&copy) {
                return Ok(Some(SignedIn::clone(&copy.found)));
            }
            self.copies.invalidate(&key).await;
        }
        self.inner.find_by_token(token).await
    }

    async fn extend(&self, id: &SessionId, expires_at: DateTime<Utc>, at: DateTime<Utc>) -> Result<(), Fault> {
        let _changed = Changed { sessions: self, id };
        self.inner.extend(id, expires_at, at).await
    }

    async fn touch(&self, id: &SessionId) {
        drop(Changed { sessions: self, id });
    }

    async fn list(&self, user: &UserId, now: DateTime<Utc>) -> Result<Vec<Session>, Fault> {
        self.inner.list(user, now).await
    }

    async fn close(&self, user: &UserId, which: &Closing, at: DateTime<Utc>) -> Result<Vec<SessionId>, Fault> {
        let closed = self.inner.close(user, which, at).await?;
        for id in &closed {
            drop(Changed { sessions: self, id });
        }
        Ok(closed)
    }
}

/// The failure is shared by all that waited for it, and a fault has one owner.
fn answer(miss: &Miss) -> Result<Option<SignedIn>, Fault> {
    match miss {
        Miss::Absent => Ok(None),
        Miss::Failed(fault) => Err(Fault::new(fault.kind(), fault.operation(), fault.to_string())),
    }
}

/// Notes a change when dropped: also one that failed or was abandoned, since it may have been stored all the same.
struct Changed<'a> {
    sessions: &'a CachedSessions,
    id: &'a SessionId,
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        let change = self.sessions.changes.fetch_add(1, Ordering::SeqCst) + 1;
        self.sessions.changed.insert(self.id.clone(), change);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::core::model::accounts::{Account, Email};
    use crate::core::model::secret::Secret;
    use crate::ports::FaultKind;
    use crate::ports::mocks::MockClock;

    /// Knows one session; a look-up reads it, then waits at the gate.
    struct Rows {
        session: Mutex<Option<SignedIn>>,
        failing: AtomicBool,
        looked_up: AtomicU64,
        gate: Semaphore,
    }

    #[async_trait]
    impl SessionRepo for Rows {
        async fn open(&self, _session: &Session) -> Result<(), Fault> {
            Ok(())
        }
        async fn find_by_token(&self, token: &str) -> Result<Option<SignedIn>, Fault> {
            self.looked_up.fetch_add(1, Ordering::SeqCst);
            let session = self.session.lock().unwrap().clone();
            drop(self.gate.acquire().await.unwrap());
            if self.failing.load(Ordering::SeqCst) {
                return Err(Fault::new(FaultKind::Timeout, "rows.find", "down"));
            }
            Ok(session.filter(|_| token == "t"))
        }
        async fn extend(&self, _: &SessionId, expires_at: DateTime<Utc>, _: DateTime<Utc>) -> Result<(), Fault> {
            if let Some(found) = self.session.lock().unwrap().as_mut() {
                found.session.expires_at = expires_at;
            }
            Ok(())
        }
        async fn touch(&self, _: &SessionId) {}
        async fn list(&self, _: &UserId, _: DateTime<Utc>) -> Result<Vec<Session>, Fault> {
            Ok(Vec::new())
        }
        async fn close(&self, _: &UserId, _: &Closing, _: DateTime<Utc>) -> Result<Vec<SessionId>, Fault> {
            let closed = self.session.lock().unwrap().take();
            Ok(closed.into_iter().map(|found| found.session.id).collect())
        }
    }

    struct World {
        rows: Arc<Rows>,
        now_ms: Arc<AtomicU64>,
        sessions: CachedSessions,
    }

    fn world() -> World {
        let at = DateTime::UNIX_EPOCH;
        let account = Account {
            id: UserId::new("u"),
            name: String::new(),
            email: Email::stored("u@x.yz"),
            email_verified: false,
            image: None,
            created_at: at,
            updated_at: at,
        };
        let session = Session {
            id: SessionId::new("s"),
            token: Secret::new("t"),
            user: UserId::new("u"),
            expires_at: at,
            created_at: at,
            updated_at: at,
            ip_address: None,
            user_agent: None,
        };
        let rows = Arc::new(Rows {
            session: Mutex::new(Some(SignedIn { session, account })),
            failing: AtomicBool::new(false),
            looked_up: AtomicU64::new(0),
            gate: Semaphore::new(1),
        });
        let now_ms = Arc::new(AtomicU64::new(0));
        let mut clock = MockClock::new();
        let read = Arc::clone(&now_ms);
        clock.expect_elapsed().returning(move || Duration::from_millis(read.load(Ordering::SeqCst)));
        World { sessions: CachedSessions::new(rows.clone(), Arc::new(clock)), rows, now_ms }
    }

    impl World {
        async fn found(&self) -> bool {
            self.sessions.find_by_token("t").await.unwrap().is_some()
        }
        async fn end(&self) {
            let one = Closing::One(SessionId::new("s"));
            self.sessions.close(&UserId::new("u"), &one, DateTime::UNIX_EPOCH).await.unwrap();
        }
        fn looked_up(&self) -> u64 {
            self.rows.looked_up.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn a_session_is_kept_for_ten_seconds() {
        let world = world();
        assert!(world.found().await && world.found().await);
        world.now_ms.store(9_999, Ordering::SeqCst);
        assert!(world.found().await);
        assert_eq!(world.looked_up(), 1);
        world.now_ms.store(10_000, Ordering::SeqCst);
        assert!(world.found().await);
        assert_eq!(world.looked_up(), 2);
    }

    #[tokio::test]
    async fn an_unknown_token_and_a_failure_are_not_kept() {
        let world = world();
        for _ in 0..2 {
            assert!(world.sessions.find_by_token("other").await.unwrap().is_none());
        }
        assert_eq!(world.looked_up(), 2);
        world.rows.failing.store(true, Ordering::SeqCst);
        let fault = world.sessions.find_by_token("t").await.unwrap_err();
        assert_eq!((fault.kind(), fault.operation()), (FaultKind::Timeout, "rows.find"));
        world.rows.failing.store(false, Ordering::SeqCst);
        assert!(world.found().await);
    }

    #[tokio::test]
    async fn what_is_ended_or_extended_here_is_looked_up_anew() {
        let world = world();
        let later = DateTime::UNIX_EPOCH + SESSION_STEP;
        assert!(world.found().await);
        world.sessions.extend(&SessionId::new("s"), later, later).await.unwrap();
        assert_eq!(world.sessions.find_by_token("t").await.unwrap().unwrap().session.expires_at, later);
        assert!(world.found().await);
        assert_eq!(world.looked_up(), 2);
        world.end().await;
        assert!(!world.found().await);
    }

    #[tokio::test]
    async fn a_session_closed_with_others_is_looked_up_anew() {
        let world = world();
        assert!(world.found().await);
        world.sessions.close(&UserId::new("u"), &Closing::All, DateTime::UNIX_EPOCH).await.unwrap();
        assert!(!world.found().await);
    }

    const SESSION_STEP: chrono::Duration = chrono::Duration::days(1);

    #[tokio::test]
    async fn callers_with_one_token_share_one_look_up() {
        let world = world();
        let held = world.rows.gate.acquire().await.unwrap();
        let crowd = futures::future::join_all((0..50).map(|_| world.found()));
        let open = async {
            while world.looked_up() == 0 {
                tokio::task::yield_now().await;
            }
            drop(held);
        };
        let (found, ()) = futures::join!(crowd, open);
        assert!(found.into_iter().all(|found| found));
        assert_eq!(world.looked_up(), 1);
    }

    #[tokio::test]
    async fn a_look_up_that_began_before_the_end_is_not_kept_after_it() {
        let world = world();
        let held = world.rows.gate.acquire().await.unwrap();
        let revoke = async {
            while world.looked_up() == 0 {
                tokio::task::yield_now().await;
            }
            world.end().await;
            drop(held);
        };
        let (found, ()) = futures::join!(world.found(), revoke);
        assert!(!found && !world.found().await);
    }
}
