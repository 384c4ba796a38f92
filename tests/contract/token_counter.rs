//! `TokenCounter`: what a price may be counted with.

use airi_server::adapters::tiktoken::Tiktoken;
use airi_server::ports::llm::TokenCounter;

async fn it_counts_before_it_is_ready_and_near_the_same_afterwards(under_test: &dyn TokenCounter) {
    let text = "It was a bright cold day in April, and the clocks were striking thirteen. ".repeat(20);
    let before = under_test.count(&text);
    under_test.ready().await;
    let after = under_test.count(&text);
    assert!(before >= 1 && after >= 1);
    assert!(before <= after * 2 && after <= before * 2, "{before} and {after}");
}

async fn nothing_counts_nothing_and_a_letter_counts(under_test: &dyn TokenCounter) {
    under_test.ready().await;
    assert_eq!(under_test.count(""), 0);
    for text in ["a", "é", "🙂", "\u{0}", "<|endoftext|>"] {
        assert!(under_test.count(text) >= 1, "{text:?}");
    }
}

async fn being_ready_twice_changes_nothing(under_test: &dyn TokenCounter) {
    under_test.ready().await;
    let once = under_test.count("hello world");
    under_test.ready().await;
    assert_eq!(under_test.count("hello world"), once);
}

macro_rules! every_case {
    ($under_test:expr => $($case:ident)+) => {$(
        #[tokio::test]
        async fn $case() {
            super::$case(&$under_test).await;
        }
    )+};
}

mod tiktoken {
    use super::*;

    every_case!(Tiktoken::new() =>
        it_counts_before_it_is_ready_and_near_the_same_afterwards
        nothing_counts_nothing_and_a_letter_counts
        being_ready_twice_changes_nothing
    );
}
