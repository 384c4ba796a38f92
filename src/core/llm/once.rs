//! Calls that are made once however often they are sent (contract `gateway.md` §7.2).

use std::sync::Arc;

use super::{Completion, CompletionCall, Completions};
use crate::core::error::{Code, Error};
use crate::core::model::fact::Fact;
use crate::core::model::idempotency::{CallKey, Claim, Claimed, LONGEST_ANSWER};
use crate::core::model::ids::{RequestId, UserId};
use crate::ports::idempotency::IdempotencyRepo;
use crate::ports::runtime::Tasks;

impl Completions {
    /// Answers a call its caller has named; see [`Completions::complete`]. The same key and body are charged once, and a
    /// whole answer is heard again for 24 h. Answers under which name the call is in the books.
    ///
    /// A stream is not kept: its repetition is refused. A call that failed, or whose caller left, may be sent again.
    pub async fn complete_once(&self, call: CompletionCall, key: CallKey) -> Result<(RequestId, Completion), Error> {
        let claim = Claim {
            user: call.user.clone(),
            key,
            body: call.body.clone(),
            request: call.request.clone(),
            at: self.clock.now(),
        };
        let request = match self.keys.claim(&claim).await? {
            Claimed::Mine(request) => request,
            Claimed::Running => return Err(Error::new(Code::IdempotencyInProgress)),
            Claimed::Mismatch => return Err(Error::new(Code::IdempotencyMismatch)),
            Claimed::NotKept => return Err(Error::new(Code::IdempotencyNotKept)),
            Claimed::Answered { request, body } => {
                let entry = self.ledger.repo.find_entry(&call.user, &request).await?;
                let charged = entry.map(|entry| entry.amount);
                return Ok((request, Completion::Json { body, charged, clamped: None }));
            }
        };
        let mut named = Named {
            keys: Arc::clone(&self.keys),
            tasks: Arc::clone(&self.settle.tasks),
            claim: Some((call.user.clone(), claim.key.clone())),
        };
        let answer = self.complete(CompletionCall { request: request.clone(), ..call }).await?;
        let kept = match &answer {
            Completion::Json { body, .. } if body.len() <= LONGEST_ANSWER => Some(body.clone()),
            Completion::Json { .. } | Completion::Stream { .. } => None,
        };
        match self.keys.finish(&claim.user, &claim.key, kept).await {
            Ok(()) => named.claim = None,
            // The answer is there and paid: it is handed out, and a repetition makes the call again without a charge.
            Err(fault) => {
                let cause = fault.to_string();
                self.settle.journal.record(Fact::Degraded { operation: "idempotency.finish", cause });
            }
        }
        Ok((request, answer))
    }
}

/// A call that was begun. Dropped before it is answered, it may be made again.
struct Named {
    keys: Arc<dyn IdempotencyRepo>,
    tasks: Arc<dyn Tasks>,
    claim: Option<(UserId, CallKey)>,
}

impl Drop for Named {
    fn drop(&mut self) {
        let Some((user, key)) = self.claim.take() else { return };
        let keys = Arc::clone(&self.keys);
        let job = async move {
            // What cannot be given up now is taken for abandoned after a while.
            let _given_up = keys.give_up(&user, &key).await;
        };
        self.tasks.spawn("llm.give_up", Box::pin(job));
    }
}
