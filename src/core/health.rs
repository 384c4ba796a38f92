//! Are we ready, and if not, which need is missing?

use std::sync::Arc;

use futures::future::join_all;

use crate::ports::probe::Probe;

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
