//! Calls that are made once however often they are sent (contract `gateway.md` §7.2).

use std::sync::Arc;

use bytes::Bytes;

use super::{Completion, CompletionCall, Completions};
use crate::core::error::{Code, Error};
use crate::core::ledger::Ledger;
use crate::core::model::fact::Fact;
use crate::core::model::idempotency::{CallKey, Claim, Claimed, LONGEST_ANSWER};
use crate::core::model::ids::RequestId;
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
        let claim = Claim { body: Bytes::new(), ..claim };
        let mut named = Named {
            keys: Arc::clone(&self.keys),
            ledger: Arc::clone(&self.ledger),
            tasks: Arc::clone(&self.settle.tasks),
            call: Some((claim.clone(), request.clone())),
        };
        let answer = self.complete(CompletionCall { request: request.clone(), ..call }).await?;
        let kept = match &answer {
            Completion::Json { body, .. } if body.len() <= LONGEST_ANSWER => Some(body.clone()),
            Completion::Json { .. } | Completion::Stream { .. } => None,
        };
        match self.keys.finish(&claim, kept).await {
            Ok(()) => named.call = None,
            Err(fault) => {
                let cause = fault.to_string();
                self.settle.journal.record(Fact::Degraded { operation: "idempotency.finish", cause });
                // A whole answer is there and paid, and a repetition makes the call again without a charge. A stream is
                // under way: nobody may begin it beside.
                if matches!(answer, Completion::Stream { .. }) {
                    named.call = None;
                }
            }
        }
        Ok((request, answer))
    }
}

/// A call that was begun. Dropped before it is answered, it may be made again.
struct Named {
    keys: Arc<dyn IdempotencyRepo>,
    ledger: Arc<Ledger>,
    tasks: Arc<dyn Tasks>,
    call: Option<(Claim, RequestId)>,
}

impl Drop for Named {
    fn drop(&mut self) {
        let Some((claim, request)) = self.call.take() else { return };
        let (keys, ledger) = (Arc::clone(&self.keys), Arc::clone(&self.ledger));
        let job = async move {
            // What is held must be back before the next call holds under the same name, or its hold would be released.
            let released = ledger.release(&claim.user, &request).await;
            if released.is_ok() {
                // What cannot be given up now is taken for abandoned after a while.
                let _given_up = keys.give_up(&claim).await;
            }
        };
        self.tasks.spawn("llm.give_up", Box::pin(job));
    }
}
