//! The rows of `user_flux` and `flux_transaction`: locked, read and written, the same way for every money transaction.

use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use super::fault::{corrupt, fault};
use crate::core::model::batch::Key;
use crate::core::model::hold::HeldFlux;
use crate::core::model::ids::{EntryId, RequestId, UserId};
use crate::core::model::ledger::{Entry, EntryKind, Flux, Opening};
use crate::core::model::posting::{LockedBalance, opening_entry};
use crate::ports::Fault;

/// Begins a transaction in which every statement sees what was committed before it: the replay lookup behind a lock
/// MUST see the entry of whoever held that lock, whatever the database's default isolation is.
pub(super) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    pool.begin_with("begin isolation level read committed").await
}

/// `user_id, flux, held, version, updated_at, closed`.
pub(super) type BalanceRow = (String, i64, i64, i64, NaiveDateTime, bool);

/// Checks a balance row.
pub(super) fn balance(row: BalanceRow, operation: &'static str) -> Result<(UserId, LockedBalance), Fault> {
    let (user, flux, held, version, touched, closed) = row;
    let flux = amount(flux, "user_flux", "flux", &user, operation)?;
    let held = amount(held, "user_flux", "held", &user, operation)?;
    Ok((UserId::new(user), LockedBalance { flux, held, version, touched: touched.and_utc(), closed }))
}

/// Locks one balance row and voids its lapsed holds; `None` when there is none.
pub(super) async fn lock(
    connection: &mut PgConnection,
    user: &UserId,
    operation: &'static str,
) -> Result<Option<LockedBalance>, Fault> {
    let row: Option<BalanceRow> = sqlx::query_as(
        "select user_id, flux, held, version, updated_at, deleted_at is not null \
         from user_flux where user_id = $1 for update",
    )
    .bind(user.as_str())
    .fetch_optional(&mut *connection)
    .await
    .map_err(fault(operation))?;
    let Some(row) = row else { return Ok(None) };
    let (_, mut row) = balance(row, operation)?;
    if !row.held.is_zero()
        && let Some(held) = void(connection, user, operation).await?
    {
        row.held = held;
    }
    Ok(Some(row))
}

/// Deletes the lapsed holds of a locked row and answers what stays held; `None` when nothing has lapsed.
async fn void(connection: &mut PgConnection, user: &UserId, operation: &'static str) -> Result<Option<Flux>, Fault> {
    let held: Option<i64> = sqlx::query_scalar(
        "with gone as ( \
           delete from flux_hold where user_id = $1 and expires_at <= clock_timestamp() at time zone 'UTC' \
           returning amount \
         ) \
         update user_flux set held = greatest(0, held - lapsed.amount) \
         from (select sum(amount)::int8 as amount from gone) lapsed \
         where user_id = $1 and lapsed.amount is not null returning held",
    )
    .bind(user.as_str())
    .fetch_optional(connection)
    .await
    .map_err(fault(operation))?;
    held.map(|held| amount(held, "user_flux", "held", user.as_str(), operation)).transpose()
}

/// The database's clock; a time of the ledger only when read after the lock was taken.
pub(super) async fn clock(connection: &mut PgConnection, operation: &'static str) -> Result<DateTime<Utc>, Fault> {
    let now: NaiveDateTime = sqlx::query_scalar("select clock_timestamp() at time zone 'UTC'")
        .fetch_one(connection)
        .await
        .map_err(fault(operation))?;
    Ok(now.and_utc())
}

/// Makes the row of a new user with its `initial` entry, in one statement; `None` when a row was there.
/// Whoever gets the row holds its lock until the end of the transaction.
pub(super) async fn open<'c>(
    executor: impl sqlx::PgExecutor<'c>,
    user: &UserId,
    opening: &Opening,
    operation: &'static str,
) -> Result<Option<LockedBalance>, Fault> {
    let entry = opening_entry(opening, DateTime::UNIX_EPOCH);
    let at: Option<NaiveDateTime> = sqlx::query_scalar(
        "with opened as ( \
           insert into user_flux (user_id, flux, version, updated_at) \
           values ($1, $2, 1, clock_timestamp() at time zone 'UTC') \
           on conflict (user_id) do nothing returning updated_at \
         ) \
         insert into flux_transaction \
           (id, user_id, type, amount, balance_before, balance_after, description, created_at) \
         select $3, $1, $4, $5, $6, $2, $7, opened.updated_at from opened returning created_at",
    )
    .bind(user.as_str())
    .bind(entry.after.get())
    .bind(entry.id.as_str())
    .bind(entry.kind.as_str())
    .bind(entry.amount.get())
    .bind(entry.before.get())
    .bind(&entry.description)
    .fetch_optional(executor)
    .await
    .map_err(fault(operation))?;
    Ok(at.map(|at| LockedBalance::opened(opening, at.and_utc())))
}

/// Writes locked rows, their new entries and their changed holds in one statement.
pub(super) async fn write(
    connection: &mut PgConnection,
    rows: &[(UserId, LockedBalance)],
    entries: &[(UserId, Entry)],
    holds: &[(Key, Option<HeldFlux>)],
) -> Result<(), sqlx::Error> {
    let metadata: Vec<Option<Json<&_>>> = entries.iter().map(|(_, e)| e.metadata.as_ref().map(Json)).collect();
    let kept: Vec<(&Key, HeldFlux)> = holds.iter().filter_map(|(key, hold)| Some((key, (*hold)?))).collect();
    let gone: Vec<&Key> = holds.iter().filter(|(_, hold)| hold.is_none()).map(|(key, _)| key).collect();
    sqlx::query(
        "with changed as ( \
           update user_flux set flux = c.flux, held = c.held, version = c.version, updated_at = c.updated_at \
           from unnest($1::text[], $2::int8[], $3::int8[], $4::int8[], $5::timestamp[]) \
             as c(user_id, flux, held, version, updated_at) \
           where user_flux.user_id = c.user_id \
         ), gone as ( \
           delete from flux_hold using unnest($16::text[], $17::text[]) as g(user_id, request_id) \
           where flux_hold.user_id = g.user_id and flux_hold.request_id = g.request_id \
         ), kept as ( \
           insert into flux_hold (user_id, request_id, amount, expires_at, created_at) \
           select k.user_id, k.request_id, k.amount, k.expires_at, clock_timestamp() at time zone 'UTC' \
           from unnest($18::text[], $19::text[], $20::int8[], $21::timestamp[]) \
             as k(user_id, request_id, amount, expires_at) \
           on conflict (user_id, request_id) do update set amount = excluded.amount, expires_at = excluded.expires_at \
         ) \
         insert into flux_transaction \
           (id, user_id, type, amount, balance_before, balance_after, request_id, description, metadata, created_at) \
         select e.id, e.user_id, e.type, e.amount, e.balance_before, e.balance_after, e.request_id, e.description, \
           e.metadata, e.created_at \
         from unnest($6::text[], $7::text[], $8::text[], $9::int8[], $10::int8[], $11::int8[], $12::text[], \
           $13::text[], $14::jsonb[], $15::timestamp[]) \
           as e(id, user_id, type, amount, balance_before, balance_after, request_id, description, metadata, created_at)",
    )
    .bind(rows.iter().map(|(user, _)| user.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, row)| row.flux.get()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, row)| row.held.get()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, row)| row.version).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, row)| row.touched.naive_utc()).collect::<Vec<_>>())
    .bind(entries.iter().map(|(_, entry)| entry.id.as_str()).collect::<Vec<_>>())
    .bind(entries.iter().map(|(user, _)| user.as_str()).collect::<Vec<_>>())
    .bind(entries.iter().map(|(_, entry)| entry.kind.as_str()).collect::<Vec<_>>())
    .bind(entries.iter().map(|(_, entry)| entry.amount.get()).collect::<Vec<_>>())
    .bind(entries.iter().map(|(_, entry)| entry.before.get()).collect::<Vec<_>>())
    .bind(entries.iter().map(|(_, entry)| entry.after.get()).collect::<Vec<_>>())
    .bind(entries.iter().map(|(_, entry)| entry.request.as_ref().map(RequestId::as_str)).collect::<Vec<_>>())
    .bind(entries.iter().map(|(_, entry)| entry.description.as_str()).collect::<Vec<_>>())
    .bind(metadata)
    .bind(entries.iter().map(|(_, entry)| entry.at.naive_utc()).collect::<Vec<_>>())
    .bind(gone.iter().map(|(user, _)| user.as_str()).collect::<Vec<_>>())
    .bind(gone.iter().map(|(_, request)| request.as_str()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(key, _)| key.0.as_str()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(key, _)| key.1.as_str()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(_, hold)| hold.amount.get()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(_, hold)| hold.until.naive_utc()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// `id, type, amount, balance_before, balance_after, request_id, description, metadata, created_at`.
pub(super) type EntryRow = (String, String, i64, i64, i64, Option<String>, String, Option<Json<Value>>, NaiveDateTime);

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
        at: at.and_utc(),
        id: EntryId::new(id),
    })
}

/// The user's entry for a business object.
pub(super) async fn find_entry<'c>(
    executor: impl sqlx::PgExecutor<'c>,
    user: &UserId,
    request: &RequestId,
    operation: &'static str,
) -> Result<Option<Entry>, Fault> {
    let row: Option<EntryRow> = sqlx::query_as(
        "select id, type, amount, balance_before, balance_after, request_id, description, metadata, created_at \
         from flux_transaction where user_id = $1 and request_id = $2",
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
