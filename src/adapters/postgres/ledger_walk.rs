//! Through all the books: what has lapsed, and whether everything adds up.

use futures::TryStreamExt;
use sqlx::{PgPool, Row};

use super::fault::fault;
use crate::core::model::ids::UserId;
use crate::core::model::verify::{Line, Verified, Walk};
use crate::ports::Fault;

/// Users with lapsed holds, at most so many.
pub(super) async fn lapsed(pool: &PgPool, users: u32) -> Result<Vec<UserId>, Fault> {
    let found: Vec<String> = sqlx::query_scalar(
        "select user_id from flux_hold where expires_at <= clock_timestamp() at time zone 'UTC' \
         group by user_id order by min(expires_at) limit $1",
    )
    .bind(i64::from(users))
    .fetch_all(pool)
    .await
    .map_err(fault("postgres.ledger.expire"))?;
    Ok(found.into_iter().map(UserId::new).collect())
}

/// Walks everything as it was at one moment, while others go on writing.
pub(super) async fn verify(pool: &PgPool) -> Result<Verified, Fault> {
    const OPERATION: &str = "postgres.ledger.verify";
    const BEGIN: &str = "begin isolation level repeatable read read only; set local statement_timeout = 0";
    let mut tx = pool.begin_with(BEGIN).await.map_err(fault(OPERATION))?;
    let mut walk = Walk::default();
    {
        // Users backwards, each user's entries forwards: the history index read from its end, without a sort.
        let mut entries = sqlx::query(
            "select user_id, id, type, amount, balance_before, balance_after \
             from flux_transaction order by user_id desc, created_at, id",
        )
        .fetch(&mut *tx);
        while let Some(row) = entries.try_next().await.map_err(fault(OPERATION))? {
            let read = || -> Result<_, sqlx::Error> {
                let line = Line {
                    id: row.try_get(1)?,
                    kind: row.try_get(2)?,
                    amount: row.try_get(3)?,
                    before: row.try_get(4)?,
                    after: row.try_get(5)?,
                };
                Ok((row.try_get::<&str, _>(0)?, line))
            };
            let (user, line) = read().map_err(fault(OPERATION))?;
            walk.entry(user, line);
        }
    }
    {
        let mut balances = sqlx::query(
            "select coalesce(f.user_id, h.user_id), coalesce(f.flux, 0), coalesce(f.held, 0), coalesce(h.amount, 0) \
             from user_flux f \
             full join (select user_id, sum(amount)::int8 as amount from flux_hold group by user_id) h \
               on h.user_id = f.user_id",
        )
        .fetch(&mut *tx);
        while let Some(row) = balances.try_next().await.map_err(fault(OPERATION))? {
            let read = || -> Result<_, sqlx::Error> {
                Ok((row.try_get::<&str, _>(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
            };
            let (user, flux, held, holds) = read().map_err(fault(OPERATION))?;
            walk.balance(user, flux, held, holds);
        }
    }
    tx.rollback().await.map_err(fault(OPERATION))?;
    Ok(walk.finish())
}
