//! The rows of `user_flux` and `flux_transaction`: read and written the same way by every money transaction.
//!
//! There is one writer and its transactions are immediate, so whatever is read inside one is locked.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{SqliteConnection, SqliteExecutor};

use super::fault::{corrupt, fault};
use crate::core::model::batch::Key;
use crate::core::model::hold::HeldFlux;
use crate::core::model::ids::{EntryId, RequestId, UserId};
use crate::core::model::ledger::{Entry, EntryKind, Flux, Opening};
use crate::core::model::posting::{LockedBalance, opening_entry};
use crate::ports::Fault;

/// `user_id, flux, held, version, updated_at, closed`.
pub(super) type BalanceRow = (String, i64, i64, i64, i64, bool);

/// Checks a balance row.
pub(super) fn balance(row: BalanceRow, operation: &'static str) -> Result<(UserId, LockedBalance), Fault> {
    let (user, flux, held, version, touched, closed) = row;
    let flux = amount(flux, "user_flux", "flux", &user, operation)?;
    let held = amount(held, "user_flux", "held", &user, operation)?;
    let touched = time(touched, "user_flux", "updated_at", &user, operation)?;
    Ok((UserId::new(user), LockedBalance { flux, held, version, touched, closed }))
}

/// One balance row; `None` when there is none.
pub(super) async fn find<'c>(
    executor: impl SqliteExecutor<'c>,
    user: &UserId,
    operation: &'static str,
) -> Result<Option<LockedBalance>, Fault> {
    let row: Option<BalanceRow> = sqlx::query_as(
        "select user_id, flux, held, version, updated_at, deleted_at is not null from user_flux where user_id = ?1",
    )
    .bind(user.as_str())
    .fetch_optional(executor)
    .await
    .map_err(fault(operation))?;
    row.map(|row| balance(row, operation).map(|(_, balance)| balance)).transpose()
}

/// One balance row, whose lapsed holds are voided; `None` when there is none.
pub(super) async fn lock(
    connection: &mut SqliteConnection,
    user: &UserId,
    operation: &'static str,
) -> Result<Option<LockedBalance>, Fault> {
    let Some(mut row) = find(&mut *connection, user, operation).await? else { return Ok(None) };
    if !row.held.is_zero() {
        let now = clock(&mut *connection).await.map_err(fault(operation))?;
        let gone: Vec<i64> =
            sqlx::query_scalar("delete from flux_hold where user_id = ?1 and expires_at <= ?2 returning amount")
                .bind(user.as_str())
                .bind(now.timestamp_micros())
                .fetch_all(&mut *connection)
                .await
                .map_err(fault(operation))?;
        if !gone.is_empty() {
            row.give_back(Flux::saturating(gone.into_iter().fold(0, i64::saturating_add)));
            sqlx::query("update user_flux set held = ?2 where user_id = ?1")
                .bind(user.as_str())
                .bind(row.held.get())
                .execute(connection)
                .await
                .map_err(fault(operation))?;
        }
    }
    Ok(Some(row))
}

/// The database's clock, which counts milliseconds; a time of the ledger only when read inside the transaction.
pub(super) async fn clock<'c>(executor: impl SqliteExecutor<'c>) -> Result<DateTime<Utc>, sqlx::Error> {
    let millis: i64 =
        sqlx::query_scalar("select cast(round(unixepoch('subsec') * 1000) as integer)").fetch_one(executor).await?;
    DateTime::from_timestamp_millis(millis).ok_or(sqlx::Error::RowNotFound)
}

/// Makes the row of a new user with its `initial` entry.
pub(super) async fn open(
    connection: &mut SqliteConnection,
    user: &UserId,
    opening: &Opening,
    operation: &'static str,
) -> Result<LockedBalance, Fault> {
    let at = clock(&mut *connection).await.map_err(fault(operation))?;
    let row = LockedBalance::opened(opening, at);
    sqlx::query("insert into user_flux (user_id, flux, version, updated_at) values (?1, ?2, ?3, ?4)")
        .bind(user.as_str())
        .bind(row.flux.get())
        .bind(row.version)
        .bind(row.touched.timestamp_micros())
        .execute(&mut *connection)
        .await
        .map_err(fault(operation))?;
    insert(connection, user, &opening_entry(opening, at)).await.map_err(fault(operation))?;
    Ok(row)
}

/// Writes rows, their new entries and their changed holds.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    rows: &[(UserId, LockedBalance)],
    entries: &[(UserId, Entry)],
    holds: &[(Key, Option<HeldFlux>)],
) -> Result<(), sqlx::Error> {
    for (user, row) in rows {
        sqlx::query("update user_flux set flux = ?2, held = ?3, version = ?4, updated_at = ?5 where user_id = ?1")
            .bind(user.as_str())
            .bind(row.flux.get())
            .bind(row.held.get())
            .bind(row.version)
            .bind(row.touched.timestamp_micros())
            .execute(&mut *connection)
            .await?;
    }
    for (user, entry) in entries {
        insert(connection, user, entry).await?;
    }
    for ((user, request), hold) in holds {
        match hold {
            None => {
                sqlx::query("delete from flux_hold where user_id = ?1 and request_id = ?2")
                    .bind(user.as_str())
                    .bind(request.as_str())
                    .execute(&mut *connection)
                    .await?
            }
            Some(hold) => {
                sqlx::query(
                    "insert into flux_hold (user_id, request_id, amount, expires_at, created_at) \
                 values (?1, ?2, ?3, ?4, cast(round(unixepoch('subsec') * 1000) as integer) * 1000) \
                 on conflict (user_id, request_id) \
                 do update set amount = excluded.amount, expires_at = excluded.expires_at",
                )
                .bind(user.as_str())
                .bind(request.as_str())
                .bind(hold.amount.get())
                .bind(hold.until.timestamp_micros())
                .execute(&mut *connection)
                .await?
            }
        };
    }
    Ok(())
}

async fn insert(connection: &mut SqliteConnection, user: &UserId, entry: &Entry) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into flux_transaction \
           (id, user_id, type, amount, balance_before, balance_after, request_id, description, metadata, created_at) \
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )
    .bind(entry.id.as_str())
    .bind(user.as_str())
    .bind(entry.kind.as_str())
    .bind(entry.amount.get())
    .bind(entry.before.get())
    .bind(entry.after.get())
    .bind(entry.request.as_ref().map(RequestId::as_str))
    .bind(&entry.description)
    .bind(entry.metadata.as_ref().map(Json))
    .bind(entry.at.timestamp_micros())
    .execute(connection)
    .await?;
    Ok(())
}

/// `id, type, amount, balance_before, balance_after, request_id, description, metadata, created_at`.
pub(super) type EntryRow = (String, String, i64, i64, i64, Option<String>, String, Option<Json<Value>>, i64);

/// Checks a ledger row.
pub(super) fn entry(row: EntryRow, operation: &'static str) -> Result<Entry, Fault> {
    let (id, kind, charged, before, after, request, description, metadata, at) = row;
    let kind = EntryKind::parse(&kind).ok_or_else(|| corrupt(operation, "flux_transaction", "type", &id))?;
    let metadata = match metadata {
        None | Some(Json(Value::Null)) => None,
        Some(Json(Value::Object(metadata))) => Some(metadata),
        Some(_) => return Err(corrupt(operation, "flux_transaction", "metadata", &id)),
    };
    Ok(Entry {
        kind,
        amount: amount(charged, "flux_transaction", "amount", &id, operation)?,
        before: amount(before, "flux_transaction", "balance_before", &id, operation)?,
        after: amount(after, "flux_transaction", "balance_after", &id, operation)?,
        request: request.map(RequestId::new),
        description,
        metadata,
        at: time(at, "flux_transaction", "created_at", &id, operation)?,
        id: EntryId::new(id),
    })
}

/// The user's entry for a business object.
pub(super) async fn find_entry<'c>(
    executor: impl SqliteExecutor<'c>,
    user: &UserId,
    request: &RequestId,
    operation: &'static str,
) -> Result<Option<Entry>, Fault> {
    let row: Option<EntryRow> = sqlx::query_as(
        "select id, type, amount, balance_before, balance_after, request_id, description, metadata, created_at \
         from flux_transaction where user_id = ?1 and request_id = ?2",
    )
    .bind(user.as_str())
    .bind(request.as_str())
    .fetch_optional(executor)
    .await
    .map_err(fault(operation))?;
    row.map(|row| entry(row, operation)).transpose()
}

/// Reads a stored amount, naming the cell that holds something else.
pub(super) fn amount(
    stored: i64,
    table: &str,
    column: &str,
    key: &str,
    operation: &'static str,
) -> Result<Flux, Fault> {
    Flux::new(stored).ok_or_else(|| corrupt(operation, table, column, key))
}

/// Reads a stored time, which is in microseconds since 1970.
pub(super) fn time(
    stored: i64,
    table: &str,
    column: &str,
    key: &str,
    operation: &'static str,
) -> Result<DateTime<Utc>, Fault> {
    DateTime::from_timestamp_micros(stored).ok_or_else(|| corrupt(operation, table, column, key))
}
