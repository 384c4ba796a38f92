//! Calls named by their caller.

use async_trait::async_trait;
use bytes::Bytes;

use super::Fault;
use crate::core::model::idempotency::{Claim, Claimed};

/// `airi_idempotency`.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait IdempotencyRepo: Send + Sync {
    /// Begins a call, once however many begin it at the same time. MUST lock the row before it decides by
    /// [`KeptCall::judge`](crate::core::model::idempotency::KeptCall::judge), and MUST keep a hash of the body, not the
    /// body.
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Fault>;

    /// The call was answered; `answer` is what a repetition hears, when it is kept. MUST change nothing when the claim
    /// was taken over meanwhile.
    async fn finish(&self, claim: &Claim, answer: Option<Bytes>) -> Result<(), Fault>;

    /// The call was given up before an answer: the next claim makes it again, under the same name. MUST change nothing
    /// when the claim was taken over meanwhile.
    async fn give_up(&self, claim: &Claim) -> Result<(), Fault>;
}
