//! Copies of sessions, so that a request does not wait for the database to know its caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use moka::{future, sync};
use sha2::{Digest, Sha256};

use crate::core::model::accounts::{Session, SignedIn};
use crate::core::model::ids::SessionId;
use crate::ports::Fault;
use crate::ports::accounts::SessionRepo;
use crate::ports::runtime::Clock;

/// Keeps each session that was found for up to 10 s; callers with one token share one look-up.
///
/// A session revoked or extended here is looked up anew at once; one revoked by another process may pass for 10 s
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

    async fn revoke(&self, id: &SessionId) -> Result<(), Fault> {
        let _changed = Changed { sessions: self, id };
        self.inner.revoke(id).await
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
