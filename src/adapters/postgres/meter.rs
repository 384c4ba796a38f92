//! `UsageMeter` on PostgreSQL: units, balance and entry in one transaction.

use async_trait::async_trait;
use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::fault::fault;
use super::ledger_rows::{self, amount};
use crate::core::model::ids::{RequestId, UserId};
use crate::core::model::ledger::Flux;
use crate::core::model::meter::{MeterReading, MeteredUse, Settlement, Unsettled, remembered, settle};
use crate::core::model::posting::LockedBalance;
use crate::ports::Fault;
use crate::ports::ledger::UsageMeter;

/// Debts and uses in `flux_meter_debt` and `flux_meter_usage`.
pub struct PgMeter {
    /// Where the tables are.
    pub pool: PgPool,
}

#[async_trait]
impl UsageMeter for PgMeter {
    /// Units of zero or less are no use: nothing is written and the present debt is answered.
    #[tracing::instrument(name = "postgres.meter.settle", skip_all)]
    async fn settle(&self, used: &MeteredUse) -> Result<MeterReading, Fault> {
        let mut tx = ledger_rows::begin(&self.pool).await.map_err(fault(SETTLE))?;
        let mut row = ledger_rows::lock(&mut tx, &used.user, SETTLE).await?.filter(|row| !row.closed);
        let (units, touched) = lock_debt(&mut tx, &used.user, used.meter).await?;
        if let Some(reading) = replay(&mut tx, &used.user, &used.request).await? {
            return Ok(reading);
        }
        let clock = ledger_rows::clock(&mut tx, SETTLE).await?;
        let owed = remembered(units, touched, clock, used.debt_lifetime);
        if used.units <= 0 {
            let balance = row.map(|row| row.balance());
            return Ok(MeterReading {
                charged: Flux::ZERO,
                unbilled: Flux::ZERO,
                debt: owed,
                balance,
                replayed: false,
            });
        }
        let available = row.as_ref().map_or(Flux::ZERO, LockedBalance::available);
        let settlement = settle(owed, used.units, used.units_per_flux, available);
        if let Some(row) = &mut row
            && let Some(entry) = row.settle(used, settlement, clock)
        {
            let rows = [(used.user.clone(), row.clone())];
            let entries = [(used.user.clone(), entry)];
            ledger_rows::write(&mut tx, &rows, &entries, &[]).await.map_err(fault(SETTLE))?;
        }
        record(&mut tx, used, settlement, clock).await?;
        tx.commit().await.map_err(fault(SETTLE))?;
        Ok(MeterReading {
            charged: settlement.charged,
            unbilled: settlement.unbilled,
            debt: settlement.debt,
            balance: row.map(|row| row.balance()),
            replayed: false,
        })
    }

    #[tracing::instrument(name = "postgres.meter.debt", skip_all)]
    async fn debt(
        &self,
        user: &UserId,
        meter: &'static str,
        debt_lifetime: std::time::Duration,
    ) -> Result<Unsettled, Fault> {
        const OPERATION: &str = "postgres.meter.debt";
        let row: (Option<i64>, Option<NaiveDateTime>, i64, NaiveDateTime) = sqlx::query_as(
            "with clock as (select clock_timestamp() at time zone 'UTC' as now) \
             select owed.units, owed.updated_at, \
               (select coalesce(sum(amount), 0)::int8 from flux_hold where user_id = $1 and expires_at > clock.now), \
               clock.now \
             from clock left join flux_meter_debt owed on owed.user_id = $1 and owed.meter = $2",
        )
        .bind(user.as_str())
        .bind(meter)
        .fetch_one(&self.pool)
        .await
        .map_err(fault(OPERATION))?;
        let (units, touched, held, now) = row;
        let owed = units.zip(touched);
        Ok(Unsettled {
            units: owed.map_or(0, |(units, at)| remembered(units, at.and_utc(), now.and_utc(), debt_lifetime)),
            held: amount(held, "flux_hold", "amount", user.as_str(), OPERATION)?,
        })
    }
}

const SETTLE: &str = "postgres.meter.settle";

/// Locks the debt, making it if need be. The balance row is locked already; this second lock is for users who have
/// none yet.
async fn lock_debt(connection: &mut PgConnection, user: &UserId, meter: &str) -> Result<(i64, DateTime<Utc>), Fault> {
    let (units, touched): (i64, NaiveDateTime) = sqlx::query_as(
        "insert into flux_meter_debt (user_id, meter, units, updated_at) \
         values ($1, $2, 0, clock_timestamp() at time zone 'UTC') \
         on conflict (user_id, meter) do update set units = flux_meter_debt.units returning units, updated_at",
    )
    .bind(user.as_str())
    .bind(meter)
    .fetch_one(connection)
    .await
    .map_err(fault(SETTLE))?;
    Ok((units, touched.and_utc()))
}

async fn replay(
    connection: &mut PgConnection,
    user: &UserId,
    request: &RequestId,
) -> Result<Option<MeterReading>, Fault> {
    let row: Option<(i64, i64, i64)> = sqlx::query_as(
        "select flux_charged, flux_unbilled, debt_after from flux_meter_usage where user_id = $1 and request_id = $2",
    )
    .bind(user.as_str())
    .bind(request.as_str())
    .fetch_optional(connection)
    .await
    .map_err(fault(SETTLE))?;
    let Some((charged, unbilled, debt)) = row else { return Ok(None) };
    Ok(Some(MeterReading {
        charged: amount(charged, "flux_meter_usage", "flux_charged", request.as_str(), SETTLE)?,
        unbilled: amount(unbilled, "flux_meter_usage", "flux_unbilled", request.as_str(), SETTLE)?,
        debt,
        balance: None,
        replayed: true,
    }))
}

async fn record(
    connection: &mut PgConnection,
    used: &MeteredUse,
    settlement: Settlement,
    at: DateTime<Utc>,
) -> Result<(), Fault> {
    sqlx::query(
        "with owed as ( \
           update flux_meter_debt set units = $3, updated_at = $4 where user_id = $1 and meter = $2 \
         ) \
         insert into flux_meter_usage \
           (user_id, request_id, meter, units, flux_charged, flux_unbilled, debt_after, created_at) \
         values ($1, $5, $2, $6, $7, $8, $3, $4)",
    )
    .bind(used.user.as_str())
    .bind(used.meter)
    .bind(settlement.debt)
    .bind(at.naive_utc())
    .bind(used.request.as_str())
    .bind(used.units)
    .bind(settlement.charged.get())
    .bind(settlement.unbilled.get())
    .execute(connection)
    .await
    .map_err(fault(SETTLE))?;
    Ok(())
}
