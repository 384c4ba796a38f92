//! Letters that stay here, for whoever tries this server on their own machine.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::written;
use crate::core::model::letters::Letter;
use crate::ports::mailer::{Kept, Mailer, Outbox, Undelivered};

/// Letters kept; older ones make room.
const KEPT: usize = 50;

/// Keeps the last letters in memory and says in the log that there is one, without recipient or link.
#[derive(Default)]
pub struct MemoryOutbox {
    letters: Mutex<VecDeque<Kept>>,
}

#[async_trait]
impl Mailer for MemoryOutbox {
    async fn send(&self, letter: &Letter) -> Result<(), Undelivered> {
        let written = written::write(letter)?;
        let kept = Kept { letter: letter.clone(), subject: written.subject, text: written.text };
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.truncate(KEPT - 1);
        letters.push_front(kept);
        tracing::info!(template = letter.message.template(), "a letter waits at /dev/outbox");
        Ok(())
    }
}

impl Outbox for MemoryOutbox {
    fn letters(&self) -> Vec<Kept> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::accounts::Email;
    use crate::core::model::letters::Message;
    use crate::core::model::secret::Secret;
    use crate::core::model::texts::Language;

    #[tokio::test]
    async fn the_newest_letters_are_kept_newest_first() {
        let outbox = MemoryOutbox::default();
        for number in 0..=KEPT {
            let letter = Letter {
                to: Email::stored("a@b.co"),
                message: Message::MagicLink,
                link: Secret::new(format!("https://x.yz/{number}")),
                language: Language::English,
            };
            outbox.send(&letter).await.unwrap();
        }
        let letters = outbox.letters();
        assert_eq!(letters.len(), KEPT);
        assert_eq!(letters[0].letter.link.expose(), format!("https://x.yz/{KEPT}"));
        assert!(letters[0].text.contains(letters[0].letter.link.expose()));
    }
}
