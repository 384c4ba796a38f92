//! Are we ready, and if not, which need is missing?

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;

use super::error::{Code, Error};
use crate::ports::probe::Probe;
use crate::ports::runtime::Clock;

/// Asks every dependency the process cannot work without.
pub struct Health {
    /// Dependencies by the name the answer shows.
    pub probes: Vec<(&'static str, Arc<dyn Probe>)>,
}

/// One dependency's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The dependency.
    pub name: &'static str,
    /// Whether it answered.
    pub ok: bool,
}

impl Health {
    /// Asks all of them at once.
    pub async fn check(&self) -> Vec<Check> {
        join_all(self.probes.iter().map(|(name, probe)| async move { Check { name, ok: probe.check().await.is_ok() } }))
            .await
    }
}

/// Is the database still there? Asked before anything is done that only the database can account for.
///
/// Sessions, prices and balances come from copies that outlive an outage, so without this question a call would be
/// admitted, the upstream paid, and the charge lost.
pub struct Liveness {
    /// The database.
    pub probe: Arc<dyn Probe>,
    /// Tells how old an answer is.
    pub clock: Arc<dyn Clock>,
    /// The last answer; start with the default.
    pub last: LastAnswer,
}

/// What the database said last, and when.
#[derive(Debug, Default)]
pub struct LastAnswer(Mutex<Option<(Duration, bool)>>);

/// An answer is believed for this long.
const BELIEVED: Duration = Duration::from_secs(1);

impl Liveness {
    /// Refuses, with advice when to come back, while the database does not answer. One caller asks; the others go by
    /// the last answer meanwhile.
    pub async fn require(&self) -> Result<(), Error> {
        if !self.is_there().await {
            return Err(Error::new(Code::ServiceUnavailable).retry_after(1));
        }
        Ok(())
    }

    async fn is_there(&self) -> bool {
        let now = self.clock.elapsed();
        {
            let mut last = self.last.0.lock().unwrap_or_else(PoisonError::into_inner);
            match *last {
                Some((at, answer)) if now < at + BELIEVED => return answer,
                // Whoever finds a stale answer asks; a dropped asker leaves the old answer for another while.
                Some((_, answer)) => *last = Some((now, answer)),
                None => {}
            }
        }
        let answer = self.probe.check().await.is_ok();
        *self.last.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((self.clock.elapsed(), answer));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;
    use crate::ports::mocks::{MockClock, MockProbe};
    use crate::ports::{Fault, FaultKind};

    #[tokio::test]
    async fn the_database_is_asked_once_a_second_and_believed_again_when_it_is_back() {
        let now = Arc::new(AtomicU64::new(0));
        let asked = Arc::new(AtomicUsize::new(0));
        let mut clock = MockClock::new();
        let time = now.clone();
        clock.expect_elapsed().returning(move || Duration::from_millis(time.load(Ordering::SeqCst)));
        let mut probe = MockProbe::new();
        let count = asked.clone();
        probe.expect_check().returning(move || match count.fetch_add(1, Ordering::SeqCst) {
            1 => Err(Fault::new(FaultKind::Unavailable, "probe", "refused")),
            _ => Ok(()),
        });
        let liveness = Liveness { probe: Arc::new(probe), clock: Arc::new(clock), last: LastAnswer::default() };
        for (at, there, times) in [(0, true, 1), (999, true, 1), (1_000, false, 2), (1_500, false, 2), (2_000, true, 3)]
        {
            now.store(at, Ordering::SeqCst);
            let answer = liveness.require().await;
            assert_eq!(answer.is_ok(), there, "at {at} ms");
            assert_eq!(asked.load(Ordering::SeqCst), times, "at {at} ms");
            if let Err(error) = answer {
                assert_eq!((error.code, error.retry_after), (Code::ServiceUnavailable, Some(1)));
            }
        }
    }
}
