#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]
mod bench_tmp;
mod books;
mod ledger;
mod meter;
