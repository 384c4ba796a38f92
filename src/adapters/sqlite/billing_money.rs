//! Payments, refunds and disputes: claim, balance, entries and debt in one transaction.
//!
//! There is one writer, so a refund and the credit it refers to cannot miss each other.

use serde_json::{Map, Value};
use sqlx::SqliteConnection;

use super::Sqlite;
use super::fault::{corrupt, fault};
use super::ledger_rows;
use crate::core::model::billing::settlement::{
    Books, Claim, ClawBack, Clawed, ClawedBack, Purchase, Reason, Restore, Restored, Returns, Settled, Stored, credited,
};
use crate::core::model::ids::{EntryId, RequestId, UserId};
use crate::core::model::ledger::{Credit, EntryKind, Flux, Opening};
use crate::core::model::posting::LockedBalance;
use crate::ports::Fault;

/// Claims a payment and credits it.
pub(super) async fn settle(db: &Sqlite, purchase: &Purchase) -> Result<Settled, Fault> {
    const OPERATION: &str = "sqlite.billing.settle";
    let credit = &purchase.credit;
    let mut tx = db.begin(OPERATION).await?;

    let row = lock_or_open(&mut tx, &credit.user, &credit.opening, OPERATION).await?;
    if !claim(&mut tx, purchase).await.map_err(fault(OPERATION))? {
        return Ok(Settled::AlreadyDone);
    }
    if let Some(request) = &credit.request
        && ledger_rows::find_entry(&mut *tx, &credit.user, request, OPERATION).await?.is_some()
    {
        return Ok(Settled::AlreadyDone);
    }
    let clock = ledger_rows::clock(&mut *tx).await.map_err(fault(OPERATION))?;
    let owed = owed(&mut tx, &credit.user, OPERATION).await?;
    let mut books = Books { row, owed, entries: Vec::new() };
    if !books.credit(credit, clock) {
        return Ok(Settled::Overflow);
    }
    let mut returns = Returns::of(credit.amount, purchase.paid);
    let mut clawed = Vec::new();
    let claim = purchase.claim.name();
    for claw in waiting(&mut tx, purchase.payment_intent.as_deref(), OPERATION).await? {
        let asked = returns.ask(&claw);
        let taken = books.claw_back(&claw, asked, clock);
        apply(&mut tx, &claw.request, &credit.user, &claim, (asked, taken)).await.map_err(fault(OPERATION))?;
        clawed.push(Clawed { request: claw.request, asked, taken });
    }
    if let Some(request) = &credit.request {
        books.pay_off(&purchase.owed_entry, request, clock);
    }
    let (balance, closed) = (books.row.balance(), books.row.closed);
    write(&mut tx, &credit.user, books, owed).await.map_err(fault(OPERATION))?;
    tx.commit().await.map_err(fault(OPERATION))?;
    Ok(Settled::Applied { balance, closed, clawed })
}

/// Takes back flux of a payment, or notes it until the payment is credited.
pub(super) async fn claw_back(db: &Sqlite, claw: &ClawBack) -> Result<ClawedBack, Fault> {
    const OPERATION: &str = "sqlite.billing.claw_back";
    let mut tx = db.begin(OPERATION).await?;

    if !note(&mut tx, claw).await.map_err(fault(OPERATION))? {
        return Ok(ClawedBack::Replayed);
    }
    let Some(paid) = payment(&mut tx, &claw.payment_intent).await.map_err(fault(OPERATION))? else {
        tx.commit().await.map_err(fault(OPERATION))?;
        return Ok(ClawedBack::Waiting);
    };
    // A credited user has a row; should somebody have removed it, all of it is owed.
    let row = ledger_rows::lock(&mut tx, &paid.user, OPERATION).await?.unwrap_or(NOBODY);
    let mut returns = returns(&mut tx, &paid, OPERATION).await?;
    let clock = ledger_rows::clock(&mut *tx).await.map_err(fault(OPERATION))?;
    let owed = owed(&mut tx, &paid.user, OPERATION).await?;
    let mut books = Books { row, owed, entries: Vec::new() };
    let asked = returns.ask(claw);
    let taken = books.claw_back(claw, asked, clock);
    let balance = (!books.row.closed).then(|| books.row.balance());
    apply(&mut tx, &claw.request, &paid.user, &paid.claim, (asked, taken)).await.map_err(fault(OPERATION))?;
    write(&mut tx, &paid.user, books, owed).await.map_err(fault(OPERATION))?;
    tx.commit().await.map_err(fault(OPERATION))?;
    Ok(ClawedBack::Applied { user: paid.user, asked, taken, balance })
}

/// Undoes what a dispute took, but for what refunds of the same payment are due beside it.
pub(super) async fn restore(db: &Sqlite, restore: &Restore, opening: &Opening) -> Result<Restored, Fault> {
    const OPERATION: &str = "sqlite.billing.restore";
    let mut tx = db.begin(OPERATION).await?;

    let undone: Option<(Option<String>, Option<i64>, Option<i64>)> = sqlx::query_as(
        "insert into stripe_clawback \
           (request_id, reason, stripe_payment_intent_id, amount, entry_id, description, metadata, restored) \
         values (?1, 'dispute', ?2, 0, ?3, '', '{}', true) \
         on conflict (request_id) do update set restored = true where not stripe_clawback.restored \
         returning user_id, asked, taken",
    )
    .bind(restore.of.as_str())
    .bind(&restore.payment_intent)
    .bind(restore.entry.as_str())
    .fetch_optional(&mut *tx)
    .await
    .map_err(fault(OPERATION))?;
    let Some((Some(user), Some(asked), Some(taken))) = undone else {
        tx.commit().await.map_err(fault(OPERATION))?;
        return Ok(Restored::Nothing);
    };
    let (user, asked, taken) = (UserId::new(user), Flux::saturating(asked), Flux::saturating(taken));
    let back = match payment(&mut tx, &restore.payment_intent).await.map_err(fault(OPERATION))? {
        Some(paid) => returns(&mut tx, &paid, OPERATION).await?.surplus().min(asked),
        None => asked,
    };
    keep(&mut tx, &restore.of, asked.saturating_sub(back)).await.map_err(fault(OPERATION))?;
    let row = lock_or_open(&mut tx, &user, opening, OPERATION).await?;
    let clock = ledger_rows::clock(&mut *tx).await.map_err(fault(OPERATION))?;
    let owed = owed(&mut tx, &user, OPERATION).await?;
    let mut books = Books { row, owed, entries: Vec::new() };
    let given = books.forgive(back, asked.saturating_sub(taken));
    let credit = Credit {
        entry: restore.entry.clone(),
        user: user.clone(),
        request: Some(restore.request.clone()),
        amount: given,
        kind: EntryKind::Credit,
        description: restore.description.clone(),
        metadata: Some(restore.metadata.clone()),
        opening: opening.clone(),
    };
    if !given.is_zero() && !books.credit(&credit, clock) {
        return Err(corrupt(OPERATION, "user_flux", "flux", user.as_str()));
    }
    books.pay_off(&restore.owed_entry, &restore.request, clock);
    let (balance, closed) = (books.row.balance(), books.row.closed);
    write(&mut tx, &user, books, owed).await.map_err(fault(OPERATION))?;
    tx.commit().await.map_err(fault(OPERATION))?;
    Ok(Restored::Applied { user, given, balance, closed })
}

/// Flux the user owes.
async fn owed(connection: &mut SqliteConnection, user: &UserId, operation: &'static str) -> Result<Flux, Fault> {
    let owed: Option<i64> = sqlx::query_scalar("select owed from flux_owed where user_id = ?1")
        .bind(user.as_str())
        .fetch_optional(connection)
        .await
        .map_err(fault(operation))?;
    owed.map_or(Ok(Flux::ZERO), |owed| ledger_rows::amount(owed, "flux_owed", "owed", user.as_str(), operation))
}

/// Stands in for a row that is not there: nothing can be taken from it and nothing of it is written.
const NOBODY: LockedBalance = LockedBalance {
    flux: Flux::ZERO,
    held: Flux::ZERO,
    version: 0,
    touched: chrono::DateTime::UNIX_EPOCH,
    closed: true,
};

async fn lock_or_open(
    connection: &mut SqliteConnection,
    user: &UserId,
    opening: &Opening,
    operation: &'static str,
) -> Result<LockedBalance, Fault> {
    match ledger_rows::lock(&mut *connection, user, operation).await? {
        Some(row) => Ok(row),
        None => ledger_rows::open(connection, user, opening, operation).await,
    }
}

/// Whether this purchase is the one that counts.
async fn claim(connection: &mut SqliteConnection, purchase: &Purchase) -> Result<bool, sqlx::Error> {
    let (claim, id) = match &purchase.claim {
        Claim::Checkout(id) => (
            sqlx::query(
                "update stripe_checkout_session set flux_credited = true, credited_flux = ?3, credited_paid = ?4, \
                   stripe_payment_intent_id = coalesce(?5, stripe_payment_intent_id), updated_at = cast(round(unixepoch('subsec') * 1000) as integer) * 1000 \
                 where stripe_session_id = ?1 and user_id = ?2 and not flux_credited",
            ),
            id,
        ),
        Claim::Invoice(id) => (
            sqlx::query(
                "update stripe_invoice set flux_credited = true, credited_flux = ?3, credited_paid = ?4, \
                   stripe_payment_intent_id = coalesce(?5, stripe_payment_intent_id), updated_at = cast(round(unixepoch('subsec') * 1000) as integer) * 1000 \
                 where stripe_invoice_id = ?1 and user_id = ?2 and not flux_credited",
            ),
            id,
        ),
    };
    let credit = &purchase.credit;
    let claim = claim.bind(id).bind(credit.user.as_str()).bind(credit.amount.get());
    let claimed = claim.bind(purchase.paid).bind(&purchase.payment_intent).execute(connection).await?;
    Ok(claimed.rows_affected() > 0)
}

/// Clawbacks of a payment that came before it was credited, in the order they came.
async fn waiting(
    connection: &mut SqliteConnection,
    payment_intent: Option<&str>,
    operation: &'static str,
) -> Result<Vec<ClawBack>, Fault> {
    let Some(payment_intent) = payment_intent else { return Ok(Vec::new()) };
    type Row = (String, String, i64, Option<i64>, String, String, String);
    let rows: Vec<Row> = sqlx::query_as(
        "select request_id, reason, amount, amount_of, entry_id, description, metadata from stripe_clawback \
         where stripe_payment_intent_id = ?1 and asked is null and not restored order by created_at, request_id",
    )
    .bind(payment_intent)
    .fetch_all(connection)
    .await
    .map_err(fault(operation))?;
    let read = |(request, reason, amount, of, entry, description, metadata): Row| {
        let reason = Reason::parse(&reason).ok_or_else(|| corrupt(operation, "stripe_clawback", "reason", &request))?;
        let metadata: Map<String, Value> =
            serde_json::from_str(&metadata).map_err(|_| corrupt(operation, "stripe_clawback", "metadata", &request))?;
        Ok(ClawBack {
            request: RequestId::new(request),
            reason,
            payment_intent: payment_intent.to_owned(),
            amount,
            of,
            entry: EntryId::new(entry),
            description,
            metadata,
        })
    };
    rows.into_iter().map(read).collect()
}

/// Notes a clawback; `false` when it is known.
async fn note(connection: &mut SqliteConnection, claw: &ClawBack) -> Result<bool, sqlx::Error> {
    let noted = sqlx::query(
        "insert into stripe_clawback \
           (request_id, reason, stripe_payment_intent_id, amount, amount_of, entry_id, description, metadata) \
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) on conflict (request_id) do nothing",
    )
    .bind(claw.request.as_str())
    .bind(claw.reason.as_str())
    .bind(&claw.payment_intent)
    .bind(claw.amount)
    .bind(claw.of)
    .bind(claw.entry.as_str())
    .bind(&claw.description)
    .bind(Value::Object(claw.metadata.clone()).to_string())
    .execute(connection)
    .await?;
    Ok(noted.rows_affected() > 0)
}

/// A credited payment.
struct Payment {
    user: UserId,
    claim: String,
    credited: Flux,
    paid: Option<i64>,
}

async fn payment(connection: &mut SqliteConnection, intent: &str) -> Result<Option<Payment>, sqlx::Error> {
    type Row = (String, String, Option<i64>, Option<String>, Option<i64>);
    let session: Option<Row> = sqlx::query_as(
        "select stripe_session_id, user_id, credited_flux, metadata, \
           coalesce(credited_paid, cast(amount_total as bigint)) from stripe_checkout_session \
         where stripe_payment_intent_id = ?1 and flux_credited order by created_at, id limit 1",
    )
    .bind(intent)
    .fetch_optional(&mut *connection)
    .await?;
    let (claim, row) = match session {
        Some(row) => (Claim::Checkout(row.0.clone()), row),
        None => {
            let invoice: Option<Row> = sqlx::query_as(
                "select stripe_invoice_id, user_id, credited_flux, metadata, \
                   coalesce(credited_paid, cast(amount_paid as bigint)) from stripe_invoice \
                 where stripe_payment_intent_id = ?1 and flux_credited order by created_at, id limit 1",
            )
            .bind(intent)
            .fetch_optional(connection)
            .await?;
            let Some(row) = invoice else { return Ok(None) };
            (Claim::Invoice(row.0.clone()), row)
        }
    };
    let (_, user, noted, metadata, paid) = row;
    Ok(Some(Payment {
        user: UserId::new(user),
        claim: claim.name(),
        credited: credited(noted, metadata.as_deref()),
        paid,
    }))
}

/// `request_id, reason, amount, amount_of, restored, asked`.
type ReturnRow = (String, String, i64, Option<i64>, bool, Option<i64>);

/// What is taken back of a payment so far.
async fn returns(connection: &mut SqliteConnection, paid: &Payment, operation: &'static str) -> Result<Returns, Fault> {
    let rows: Vec<ReturnRow> = sqlx::query_as(
        "select request_id, reason, amount, amount_of, restored, asked from stripe_clawback where claim = ?1",
    )
    .bind(&paid.claim)
    .fetch_all(connection)
    .await
    .map_err(fault(operation))?;
    let mut returns = Returns::of(paid.credited, paid.paid);
    for (request, reason, amount, of, restored, asked) in rows {
        let reason = Reason::parse(&reason).ok_or_else(|| corrupt(operation, "stripe_clawback", "reason", &request))?;
        let asked = Flux::saturating(asked.unwrap_or_default());
        returns.know(&Stored { reason, amount, of, restored, asked });
    }
    Ok(returns)
}

/// Notes what remains taken for a dispute that was won.
async fn keep(connection: &mut SqliteConnection, request: &RequestId, asked: Flux) -> Result<(), sqlx::Error> {
    sqlx::query("update stripe_clawback set asked = ?2, taken = min(taken, ?2) where request_id = ?1")
        .bind(request.as_str())
        .bind(asked.get())
        .execute(connection)
        .await?;
    Ok(())
}

async fn apply(
    connection: &mut SqliteConnection,
    request: &RequestId,
    user: &UserId,
    claim: &str,
    (asked, taken): (Flux, Flux),
) -> Result<(), sqlx::Error> {
    sqlx::query("update stripe_clawback set user_id = ?2, claim = ?3, asked = ?4, taken = ?5 where request_id = ?1")
        .bind(request.as_str())
        .bind(user.as_str())
        .bind(claim)
        .bind(asked.get())
        .bind(taken.get())
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes what changed: the row and its entries, and the debt.
async fn write(
    connection: &mut SqliteConnection,
    user: &UserId,
    books: Books,
    owed_before: Flux,
) -> Result<(), sqlx::Error> {
    if books.owed != owed_before {
        sqlx::query(
            "insert into flux_owed (user_id, owed, updated_at) values (?1, ?2, cast(round(unixepoch('subsec') * 1000) as integer) * 1000) \
             on conflict (user_id) do update set owed = excluded.owed, updated_at = excluded.updated_at",
        )
        .bind(user.as_str())
        .bind(books.owed.get())
        .execute(&mut *connection)
        .await?;
    }
    if books.entries.is_empty() {
        return Ok(());
    }
    let entries: Vec<_> = books.entries.into_iter().map(|entry| (user.clone(), entry)).collect();
    ledger_rows::write(connection, &[(user.clone(), books.row)], &entries, &[]).await
}
