//! A mailer that is heard of.

use std::sync::Arc;

use async_trait::async_trait;

use crate::core::model::fact::Fact;
use crate::core::model::letters::Letter;
use crate::ports::journal::Journal;
use crate::ports::mailer::{Mailer, Undelivered};
use crate::ports::runtime::Clock;

/// Records each send. Without a mailer inside, every letter fails as unconfigured, and that is no send.
pub struct ToldMailer {
    /// What sends.
    pub inner: Option<Arc<dyn Mailer>>,
    /// Measures.
    pub clock: Arc<dyn Clock>,
    /// Hears.
    pub journal: Arc<dyn Journal>,
}

#[async_trait]
impl Mailer for ToldMailer {
    async fn send(&self, letter: &Letter) -> Result<(), Undelivered> {
        let Some(inner) = &self.inner else { return Err(Undelivered::NotConfigured) };
        let begun = self.clock.elapsed();
        let sent = inner.send(letter).await;
        let took = self.clock.elapsed().saturating_sub(begun);
        let failed = match &sent {
            Ok(()) => None,
            Err(Undelivered::Failed(name)) => Some(name.clone()),
            Err(Undelivered::NotConfigured) => Some("not_configured".to_owned()),
        };
        let (template, duration_ms) = (letter.message.template(), took.as_secs_f64() * 1e3);
        self.journal.record(Fact::LetterSent { template, failed, duration_ms });
        sent
    }
}
