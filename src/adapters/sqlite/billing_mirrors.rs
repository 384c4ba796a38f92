//! Our copies of the payment provider's objects: stored when at least as settled and as new as what is there.

use chrono::{DateTime, Utc};
use sqlx::query::QueryScalar;
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{Row, SqliteConnection};

use super::fault::fault;
use crate::core::model::billing::event::{HandledEvent, JournaledEvent};
use crate::core::model::billing::mirror::{Age, Checkout, Invoice, Kept, Saved, Subscription};
use crate::core::model::ids::UserId;
use crate::core::model::page::Window;
use crate::ports::Fault;

/// The stored form of a time.
pub(super) fn stamp(at: DateTime<Utc>) -> i64 {
    super::micros(at)
}

fn time(stored: i64) -> Result<DateTime<Utc>, sqlx::Error> {
    super::time(stored).ok_or_else(|| sqlx::Error::Decode("a time beyond the calendar".into()))
}

/// `id, type, created, livemode, amount, received_at, processed_at, outcome, error`.
pub(super) type EventRow = (String, String, i64, bool, Option<i64>, i64, Option<i64>, Option<String>, Option<String>);

/// Reads a journal row.
pub(super) fn event(row: EventRow) -> Result<HandledEvent, sqlx::Error> {
    let (id, kind, created, livemode, amount, received_at, processed_at, outcome, error) = row;
    let event = JournaledEvent { id, kind, created: time(created)?, livemode, amount, received_at: time(received_at)? };
    Ok(HandledEvent { event, processed_at: processed_at.map(time).transpose()?, outcome, error })
}

/// The reference's columns hold 32 bits; what has no room there is exact in the journal (BS-D01).
fn small(amount: Option<i64>) -> Option<i32> {
    amount.and_then(|amount| amount.try_into().ok())
}

fn wide(amount: Option<i32>) -> Option<i64> {
    amount.map(i64::from)
}

/// Stores a copy of a session.
pub(super) async fn save_checkout(
    connection: &mut SqliteConnection,
    id: &str,
    checkout: &Checkout,
    age: Age,
) -> Result<Saved, Fault> {
    const OPERATION: &str = "sqlite.billing.save_checkout";
    let written = sqlx::query(
        "insert into stripe_checkout_session \
           (id, user_id, stripe_session_id, stripe_customer_id, mode, status, payment_status, amount_total, currency, \
            success_url, cancel_url, stripe_payment_intent_id, stripe_subscription_id, metadata, expires_at, \
            last_event_rank, last_event_at) \
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) \
         on conflict (stripe_session_id) do update set \
           stripe_customer_id = coalesce(excluded.stripe_customer_id, stripe_checkout_session.stripe_customer_id), \
           mode = excluded.mode, status = excluded.status, payment_status = excluded.payment_status, \
           amount_total = excluded.amount_total, currency = excluded.currency, \
           success_url = coalesce(excluded.success_url, stripe_checkout_session.success_url), \
           cancel_url = coalesce(excluded.cancel_url, stripe_checkout_session.cancel_url), \
           stripe_payment_intent_id = \
             coalesce(excluded.stripe_payment_intent_id, stripe_checkout_session.stripe_payment_intent_id), \
           stripe_subscription_id = \
             coalesce(excluded.stripe_subscription_id, stripe_checkout_session.stripe_subscription_id), \
           metadata = excluded.metadata, expires_at = excluded.expires_at, \
           last_event_rank = excluded.last_event_rank, last_event_at = excluded.last_event_at, updated_at = cast(round(unixepoch('subsec') * 1000) as integer) * 1000 \
         where stripe_checkout_session.user_id = excluded.user_id \
           and (excluded.last_event_rank, excluded.last_event_at) \
             >= (stripe_checkout_session.last_event_rank, stripe_checkout_session.last_event_at)",
    )
    .bind(id)
    .bind(checkout.user.as_str())
    .bind(&checkout.session)
    .bind(&checkout.customer)
    .bind(&checkout.mode)
    .bind(&checkout.status)
    .bind(&checkout.payment_status)
    .bind(small(checkout.amount_total))
    .bind(&checkout.currency)
    .bind(&checkout.success_url)
    .bind(&checkout.cancel_url)
    .bind(&checkout.payment_intent)
    .bind(&checkout.subscription)
    .bind(&checkout.metadata)
    .bind(checkout.expires_at.map(stamp))
    .bind(age.rank)
    .bind(stamp(age.at))
    .execute(&mut *connection)
    .await
    .map_err(fault(OPERATION))?;
    let owner = sqlx::query_scalar("select user_id from stripe_checkout_session where stripe_session_id = ?1")
        .bind(&checkout.session);
    judge(connection, written.rows_affected(), owner, &checkout.user, OPERATION).await
}

/// Stores a copy of a subscription.
pub(super) async fn save_subscription(
    connection: &mut SqliteConnection,
    id: &str,
    subscription: &Subscription,
    age: Age,
) -> Result<Saved, Fault> {
    const OPERATION: &str = "sqlite.billing.save_subscription";
    let written = sqlx::query(
        "insert into stripe_subscription \
           (id, user_id, stripe_subscription_id, stripe_customer_id, stripe_price_id, status, current_period_start, \
            current_period_end, cancel_at_period_end, canceled_at, ended_at, metadata, last_event_rank, last_event_at) \
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) \
         on conflict (stripe_subscription_id) do update set \
           stripe_customer_id = excluded.stripe_customer_id, stripe_price_id = excluded.stripe_price_id, \
           status = excluded.status, current_period_start = excluded.current_period_start, \
           current_period_end = excluded.current_period_end, cancel_at_period_end = excluded.cancel_at_period_end, \
           canceled_at = excluded.canceled_at, ended_at = excluded.ended_at, metadata = excluded.metadata, \
           last_event_rank = excluded.last_event_rank, last_event_at = excluded.last_event_at, updated_at = cast(round(unixepoch('subsec') * 1000) as integer) * 1000 \
         where stripe_subscription.user_id = excluded.user_id \
           and (excluded.last_event_rank, excluded.last_event_at) \
             >= (stripe_subscription.last_event_rank, stripe_subscription.last_event_at)",
    )
    .bind(id)
    .bind(subscription.user.as_str())
    .bind(&subscription.subscription)
    .bind(&subscription.customer)
    .bind(&subscription.price)
    .bind(&subscription.status)
    .bind(subscription.current_period_start.map(stamp))
    .bind(subscription.current_period_end.map(stamp))
    .bind(subscription.cancel_at_period_end)
    .bind(subscription.canceled_at.map(stamp))
    .bind(subscription.ended_at.map(stamp))
    .bind(&subscription.metadata)
    .bind(age.rank)
    .bind(stamp(age.at))
    .execute(&mut *connection)
    .await
    .map_err(fault(OPERATION))?;
    let owner = sqlx::query_scalar("select user_id from stripe_subscription where stripe_subscription_id = ?1")
        .bind(&subscription.subscription);
    judge(connection, written.rows_affected(), owner, &subscription.user, OPERATION).await
}

/// Stores a copy of an invoice.
pub(super) async fn save_invoice(
    connection: &mut SqliteConnection,
    id: &str,
    invoice: &Invoice,
    age: Age,
) -> Result<Saved, Fault> {
    const OPERATION: &str = "sqlite.billing.save_invoice";
    let written = sqlx::query(
        "insert into stripe_invoice \
           (id, user_id, stripe_invoice_id, stripe_customer_id, stripe_subscription_id, stripe_payment_intent_id, \
            status, amount_due, amount_paid, currency, invoice_url, invoice_pdf, period_start, period_end, paid_at, \
            metadata, last_event_rank, last_event_at) \
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18) \
         on conflict (stripe_invoice_id) do update set \
           stripe_customer_id = excluded.stripe_customer_id, \
           stripe_subscription_id = coalesce(excluded.stripe_subscription_id, stripe_invoice.stripe_subscription_id), \
           stripe_payment_intent_id = \
             coalesce(excluded.stripe_payment_intent_id, stripe_invoice.stripe_payment_intent_id), \
           status = excluded.status, amount_due = excluded.amount_due, amount_paid = excluded.amount_paid, \
           currency = excluded.currency, invoice_url = excluded.invoice_url, invoice_pdf = excluded.invoice_pdf, \
           period_start = excluded.period_start, period_end = excluded.period_end, paid_at = excluded.paid_at, \
           metadata = excluded.metadata, \
           last_event_rank = excluded.last_event_rank, last_event_at = excluded.last_event_at, updated_at = cast(round(unixepoch('subsec') * 1000) as integer) * 1000 \
         where stripe_invoice.user_id = excluded.user_id \
           and (excluded.last_event_rank, excluded.last_event_at) \
             >= (stripe_invoice.last_event_rank, stripe_invoice.last_event_at)",
    )
    .bind(id)
    .bind(invoice.user.as_str())
    .bind(&invoice.invoice)
    .bind(&invoice.customer)
    .bind(&invoice.subscription)
    .bind(&invoice.payment_intent)
    .bind(&invoice.status)
    .bind(small(invoice.amount_due))
    .bind(small(invoice.amount_paid))
    .bind(&invoice.currency)
    .bind(&invoice.url)
    .bind(&invoice.pdf)
    .bind(invoice.period_start.map(stamp))
    .bind(invoice.period_end.map(stamp))
    .bind(invoice.paid_at.map(stamp))
    .bind(&invoice.metadata)
    .bind(age.rank)
    .bind(stamp(age.at))
    .execute(&mut *connection)
    .await
    .map_err(fault(OPERATION))?;
    let owner =
        sqlx::query_scalar("select user_id from stripe_invoice where stripe_invoice_id = ?1").bind(&invoice.invoice);
    judge(connection, written.rows_affected(), owner, &invoice.user, OPERATION).await
}

/// Owners never change, so the look at the one there needs no lock.
async fn judge(
    connection: &mut SqliteConnection,
    written: u64,
    owner: QueryScalar<'_, sqlx::Sqlite, String, SqliteArguments>,
    user: &UserId,
    operation: &'static str,
) -> Result<Saved, Fault> {
    if written > 0 {
        return Ok(Saved::Written);
    }
    let owner = owner.fetch_optional(connection).await.map_err(fault(operation))?;
    Ok(if owner.is_none_or(|owner| owner == user.as_str()) { Saved::Stale } else { Saved::Foreign })
}

/// The user's live sessions, newest first.
pub(super) async fn orders(pool: &SqlitePool, user: &UserId, window: Window) -> Result<Vec<Kept<Checkout>>, Fault> {
    const OPERATION: &str = "sqlite.billing.orders";
    let rows = sqlx::query(
        "select id, user_id, stripe_session_id, stripe_customer_id, mode, status, payment_status, amount_total, \
           currency, success_url, cancel_url, stripe_payment_intent_id, stripe_subscription_id, metadata, expires_at, \
           flux_credited, created_at, updated_at \
         from stripe_checkout_session where user_id = ?1 and deleted_at is null \
         order by created_at desc, id desc limit ?2 offset ?3",
    )
    .bind(user.as_str())
    .bind(i64::from(window.limit))
    .bind(i64::from(window.offset))
    .fetch_all(pool)
    .await
    .map_err(fault(OPERATION))?;
    rows.iter().map(order).collect::<Result<_, _>>().map_err(fault(OPERATION))
}

fn order(row: &SqliteRow) -> Result<Kept<Checkout>, sqlx::Error> {
    Ok(Kept {
        id: row.try_get("id")?,
        copy: Checkout {
            user: UserId::new(row.try_get::<String, _>("user_id")?),
            session: row.try_get("stripe_session_id")?,
            customer: row.try_get("stripe_customer_id")?,
            mode: row.try_get("mode")?,
            status: row.try_get("status")?,
            payment_status: row.try_get("payment_status")?,
            amount_total: wide(row.try_get("amount_total")?),
            currency: row.try_get("currency")?,
            success_url: row.try_get("success_url")?,
            cancel_url: row.try_get("cancel_url")?,
            payment_intent: row.try_get("stripe_payment_intent_id")?,
            subscription: row.try_get("stripe_subscription_id")?,
            metadata: row.try_get("metadata")?,
            expires_at: maybe(row, "expires_at")?,
        },
        flux_credited: row.try_get("flux_credited")?,
        created_at: time(row.try_get("created_at")?)?,
        updated_at: time(row.try_get("updated_at")?)?,
    })
}

/// The user's live invoices, newest first.
pub(super) async fn invoices(pool: &SqlitePool, user: &UserId, window: Window) -> Result<Vec<Kept<Invoice>>, Fault> {
    const OPERATION: &str = "sqlite.billing.invoices";
    let rows = sqlx::query(
        "select id, user_id, stripe_invoice_id, stripe_customer_id, stripe_subscription_id, stripe_payment_intent_id, \
           status, amount_due, amount_paid, currency, invoice_url, invoice_pdf, period_start, period_end, paid_at, \
           metadata, flux_credited, created_at, updated_at \
         from stripe_invoice where user_id = ?1 and deleted_at is null \
         order by created_at desc, id desc limit ?2 offset ?3",
    )
    .bind(user.as_str())
    .bind(i64::from(window.limit))
    .bind(i64::from(window.offset))
    .fetch_all(pool)
    .await
    .map_err(fault(OPERATION))?;
    rows.iter().map(invoice).collect::<Result<_, _>>().map_err(fault(OPERATION))
}

fn invoice(row: &SqliteRow) -> Result<Kept<Invoice>, sqlx::Error> {
    Ok(Kept {
        id: row.try_get("id")?,
        copy: Invoice {
            user: UserId::new(row.try_get::<String, _>("user_id")?),
            invoice: row.try_get("stripe_invoice_id")?,
            customer: row.try_get("stripe_customer_id")?,
            subscription: row.try_get("stripe_subscription_id")?,
            payment_intent: row.try_get("stripe_payment_intent_id")?,
            status: row.try_get("status")?,
            amount_due: wide(row.try_get("amount_due")?),
            amount_paid: wide(row.try_get("amount_paid")?),
            currency: row.try_get("currency")?,
            url: row.try_get("invoice_url")?,
            pdf: row.try_get("invoice_pdf")?,
            period_start: maybe(row, "period_start")?,
            period_end: maybe(row, "period_end")?,
            paid_at: maybe(row, "paid_at")?,
            metadata: row.try_get("metadata")?,
        },
        flux_credited: row.try_get("flux_credited")?,
        created_at: time(row.try_get("created_at")?)?,
        updated_at: time(row.try_get("updated_at")?)?,
    })
}

fn maybe(row: &SqliteRow, column: &str) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    row.try_get::<Option<i64>, _>(column)?.map(time).transpose()
}
