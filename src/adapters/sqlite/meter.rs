//! `UsageMeter` on SQLite: units, balance and entry in one transaction.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::{SqliteConnection, SqliteExecutor};

use super::Sqlite;
use super::fault::fault;
use super::ledger_rows::{self, amount, time};
use crate::core::model::ids::{RequestId, UserId};
use crate::core::model::ledger::Flux;
use crate::core::model::meter::{MeterReading, MeteredUse, Settlement, Unsettled, remembered, settle};
use crate::core::model::posting::LockedBalance;
use crate::ports::Fault;
use crate::ports::ledger::UsageMeter;

/// Debts and uses in `flux_meter_debt` and `flux_meter_usage`.
pub struct SqliteMeter {
    /// Where the tables are.
    pub db: Sqlite,
}

#[async_trait]
impl UsageMeter for SqliteMeter {
    /// Units of zero or less are no use: nothing is written and the present debt is answered.
    #[tracing::instrument(name = "sqlite.meter.settle", skip_all)]
    async fn settle(&self, used: &MeteredUse) -> Result<MeterReading, Fault> {
        let mut tx = self.db.begin(SETTLE).await?;
        if let Some(reading) = replay(&mut tx, &used.user, &used.request).await? {
            return Ok(reading);
        }
        let mut row = ledger_rows::lock(&mut tx, &used.user, SETTLE).await?.filter(|row| !row.closed);
        let clock = ledger_rows::clock(&mut *tx).await.map_err(fault(SETTLE))?;
        let owed = find_debt(&mut *tx, &used.user, used.meter, SETTLE)
            .await?
            .map_or(0, |(units, touched)| remembered(units, touched, clock, used.debt_lifetime));
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
        record(&mut tx, used, settlement, clock).await.map_err(fault(SETTLE))?;
        tx.commit().await.map_err(fault(SETTLE))?;
        Ok(MeterReading {
            charged: settlement.charged,
            unbilled: settlement.unbilled,
            debt: settlement.debt,
            balance: row.map(|row| row.balance()),
            replayed: false,
        })
    }

    #[tracing::instrument(name = "sqlite.meter.debt", skip_all)]
    async fn debt(
        &self,
        user: &UserId,
        meter: &'static str,
        debt_lifetime: std::time::Duration,
    ) -> Result<Unsettled, Fault> {
        const OPERATION: &str = "sqlite.meter.debt";
        let owed = find_debt(&self.db.readers, user, meter, OPERATION).await?;
        let now = ledger_rows::clock(&self.db.readers).await.map_err(fault(OPERATION))?;
        let held: i64 =
            sqlx::query_scalar("select coalesce(sum(amount), 0) from flux_hold where user_id = ?1 and expires_at > ?2")
                .bind(user.as_str())
                .bind(now.timestamp_micros())
                .fetch_one(&self.db.readers)
                .await
                .map_err(fault(OPERATION))?;
        Ok(Unsettled {
            units: owed.map_or(0, |(units, touched)| remembered(units, touched, now, debt_lifetime)),
            held: amount(held, "flux_hold", "amount", user.as_str(), OPERATION)?,
        })
    }
}

const SETTLE: &str = "sqlite.meter.settle";

async fn find_debt<'c>(
    executor: impl SqliteExecutor<'c>,
    user: &UserId,
    meter: &str,
    operation: &'static str,
) -> Result<Option<(i64, DateTime<Utc>)>, Fault> {
    let row: Option<(i64, i64)> =
        sqlx::query_as("select units, updated_at from flux_meter_debt where user_id = ?1 and meter = ?2")
            .bind(user.as_str())
            .bind(meter)
            .fetch_optional(executor)
            .await
            .map_err(fault(operation))?;
    row.map(|(units, touched)| Ok((units, time(touched, "flux_meter_debt", "updated_at", user.as_str(), operation)?)))
        .transpose()
}

async fn replay(
    connection: &mut SqliteConnection,
    user: &UserId,
    request: &RequestId,
) -> Result<Option<MeterReading>, Fault> {
    let row: Option<(i64, i64, i64)> = sqlx::query_as(
        "select flux_charged, flux_unbilled, debt_after from flux_meter_usage where user_id = ?1 and request_id = ?2",
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
    connection: &mut SqliteConnection,
    used: &MeteredUse,
    settlement: Settlement,
    at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into flux_meter_debt (user_id, meter, units, updated_at) values (?1, ?2, ?3, ?4) \
         on conflict (user_id, meter) do update set units = excluded.units, updated_at = excluded.updated_at",
    )
    .bind(used.user.as_str())
    .bind(used.meter)
    .bind(settlement.debt)
    .bind(at.timestamp_micros())
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "insert into flux_meter_usage \
           (user_id, request_id, meter, units, flux_charged, flux_unbilled, debt_after, created_at) \
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(used.user.as_str())
    .bind(used.request.as_str())
    .bind(used.meter)
    .bind(used.units)
    .bind(settlement.charged.get())
    .bind(settlement.unbilled.get())
    .bind(settlement.debt)
    .bind(at.timestamp_micros())
    .execute(connection)
    .await?;
    Ok(())
}
