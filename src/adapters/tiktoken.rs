//! Token counts by OpenAI's `o200k_base` vocabulary, which comes with the binary.

use std::sync::Arc;

use async_trait::async_trait;
use tiktoken_rs::CoreBPE;
use tokio::sync::OnceCell;

use crate::ports::llm::TokenCounter;

/// Longest piece that is looked at in one go, bytes: the time a piece of one letter repeated takes grows with its square.
const PIECE: usize = 2 << 10;

/// Counts with a vocabulary that is loaded when it is first needed: it takes 40 MiB and a third of a second.
#[derive(Clone, Default)]
pub struct Tiktoken {
    vocabulary: Arc<OnceCell<Option<CoreBPE>>>,
}

impl Tiktoken {
    /// Nothing loaded yet.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl TokenCounter for Tiktoken {
    async fn ready(&self) {
        let load = || async { tokio::task::spawn_blocking(tiktoken_rs::o200k_base).await.ok().and_then(Result::ok) };
        self.vocabulary.get_or_init(load).await;
    }

    /// A token for four bytes while the vocabulary is not there.
    fn count(&self, text: &str) -> u64 {
        let Some(Some(vocabulary)) = self.vocabulary.get() else { return (text.len() as u64).div_ceil(4) };
        let mut rest = text;
        let mut tokens = 0_u64;
        while !rest.is_empty() {
            let mut end = rest.len().min(PIECE);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (piece, behind) = rest.split_at(end);
            tokens = tokens.saturating_add(vocabulary.encode_ordinary(piece).len() as u64);
            rest = behind;
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn counts_are_those_of_the_vocabulary_whatever_the_text() {
        let counter = Tiktoken::new();
        assert_eq!(counter.count("hello world"), 3);
        counter.ready().await;
        for (text, tokens) in [("", 0), ("hello world", 2), ("<|endoftext|>", 7), ("你好，世界", 3)] {
            assert_eq!(counter.count(text), tokens, "{text}");
        }
        let long = "é🙂a".repeat(5_000);
        assert!((5_000..50_000).contains(&counter.count(&long)));
    }
}
