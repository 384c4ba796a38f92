//! `airi_idempotency`: calls named by their caller.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::NaiveDateTime;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgPool;

use super::fault::fault;
use crate::core::model::idempotency::{CallState, Claim, Claimed, Judgement, KeptCall, forgotten_before};
use crate::core::model::ids::RequestId;
use crate::ports::Fault;
use crate::ports::idempotency::IdempotencyRepo;

/// Named calls and their answers, for a day.
#[derive(Clone, Debug)]
pub struct PgIdempotency {
    /// Where the table is.
    pub pool: PgPool,
}

/// `body_hash, request_id, status, answer, created_at`.
type Row = (Vec<u8>, String, String, Option<Vec<u8>>, NaiveDateTime);

#[async_trait]
impl IdempotencyRepo for PgIdempotency {
    #[tracing::instrument(name = "postgres.idempotency.claim", skip_all, err)]
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Fault> {
        let fault = fault("postgres.idempotency.claim");
        let hash = Sha256::digest(&claim.body).to_vec();
        let mut tx = self.pool.begin().await.map_err(fault)?;
        let begun = sqlx::query(
            "INSERT INTO airi_idempotency (user_id, key, body_hash, request_id, status, answer, created_at) \
             VALUES ($1, $2, $3, $4, 'running', NULL, $5) ON CONFLICT (user_id, key) DO NOTHING",
        )
        .bind(claim.user.as_str())
        .bind(claim.key.as_str())
        .bind(&hash)
        .bind(claim.request.as_str())
        .bind(claim.at.naive_utc())
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        if begun.rows_affected() == 1 {
            // Whoever adds a row takes some that nobody needs away.
            sqlx::query(
                "DELETE FROM airi_idempotency WHERE ctid IN \
                 (SELECT ctid FROM airi_idempotency WHERE created_at < $1 LIMIT 20)",
            )
            .bind(forgotten_before(claim.at).naive_utc())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
            tx.commit().await.map_err(fault)?;
            return Ok(Claimed::Mine(claim.request.clone()));
        }
        let found: Option<Row> = sqlx::query_as(
            "SELECT body_hash, request_id, status, answer, created_at FROM airi_idempotency \
             WHERE user_id = $1 AND key = $2 FOR UPDATE",
        )
        .bind(claim.user.as_str())
        .bind(claim.key.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault)?;
        // It was just taken away for its age; the next try begins it.
        let Some((body_hash, request, status, answer, at)) = found else { return Ok(Claimed::Running) };
        let kept = KeptCall {
            body_hash,
            request: RequestId::new(request),
            state: CallState::of(&status),
            answer: answer.map(Bytes::from),
            at: at.and_utc(),
        };
        let request = match kept.judge(claim, &hash) {
            Judgement::Tell(told) => return Ok(told),
            Judgement::Resume(request) => request,
            Judgement::Replace => claim.request.clone(),
        };
        sqlx::query(
            "UPDATE airi_idempotency SET body_hash = $3, request_id = $4, status = 'running', answer = NULL, \
             created_at = $5 WHERE user_id = $1 AND key = $2",
        )
        .bind(claim.user.as_str())
        .bind(claim.key.as_str())
        .bind(&hash)
        .bind(request.as_str())
        .bind(claim.at.naive_utc())
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(Claimed::Mine(request))
    }

    #[tracing::instrument(name = "postgres.idempotency.finish", skip_all, err)]
    async fn finish(&self, claim: &Claim, answer: Option<Bytes>) -> Result<(), Fault> {
        sqlx::query(
            "UPDATE airi_idempotency SET status = $3, answer = $4 \
             WHERE user_id = $1 AND key = $2 AND created_at = $5",
        )
        .bind(claim.user.as_str())
        .bind(claim.key.as_str())
        .bind(CallState::Answered.as_str())
        .bind(answer.map(|answer| answer.to_vec()))
        .bind(claim.at.naive_utc())
        .execute(&self.pool)
        .await
        .map_err(fault("postgres.idempotency.finish"))?;
        Ok(())
    }

    #[tracing::instrument(name = "postgres.idempotency.give_up", skip_all, err)]
    async fn give_up(&self, claim: &Claim) -> Result<(), Fault> {
        sqlx::query(
            "UPDATE airi_idempotency SET status = $3 \
             WHERE user_id = $1 AND key = $2 AND status = $4 AND created_at = $5",
        )
        .bind(claim.user.as_str())
        .bind(claim.key.as_str())
        .bind(CallState::Free.as_str())
        .bind(CallState::Running.as_str())
        .bind(claim.at.naive_utc())
        .execute(&self.pool)
        .await
        .map_err(fault("postgres.idempotency.give_up"))?;
        Ok(())
    }
}
