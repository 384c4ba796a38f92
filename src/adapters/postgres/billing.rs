//! `BillingRepo` on PostgreSQL.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::billing_mirrors::{self as mirrors, stamp};
use super::billing_money as money;
use super::fault::fault;
use super::ledger_rows;
use crate::core::model::billing::event::{HandledEvent, JournaledEvent};
use crate::core::model::billing::mirror::{Age, Checkout, Customer, Invoice, Kept, Saved, Subscription};
use crate::core::model::billing::settlement::{ClawBack, ClawedBack, Purchase, Restore, Restored, Settled};
use crate::core::model::ids::UserId;
use crate::core::model::ledger::Opening;
use crate::core::model::page::Window;
use crate::ports::Fault;
use crate::ports::billing::{BillingRepo, Conclusion, EventStanding};

/// `stripe_*` and `flux_owed`, and the ledger as far as payments move it.
pub struct PgBilling {
    /// The database.
    pub pool: PgPool,
}

#[async_trait]
impl BillingRepo for PgBilling {
    #[tracing::instrument(name = "postgres.billing.receive", skip_all)]
    async fn receive(&self, event: &JournaledEvent) -> Result<EventStanding, Fault> {
        const OPERATION: &str = "postgres.billing.receive";
        // The update that changes nothing makes the statement answer for a row that was there.
        let done: bool = sqlx::query_scalar(
            "insert into stripe_event (id, type, created, livemode, amount, received_at) \
             values ($1, $2, $3, $4, $5, $6) \
             on conflict (id) do update set type = excluded.type returning processed_at is not null",
        )
        .bind(&event.id)
        .bind(&event.kind)
        .bind(stamp(event.created))
        .bind(event.livemode)
        .bind(event.amount)
        .bind(stamp(event.received_at))
        .fetch_one(&self.pool)
        .await
        .map_err(fault(OPERATION))?;
        Ok(if done { EventStanding::Done } else { EventStanding::Due })
    }

    #[tracing::instrument(name = "postgres.billing.conclude", skip_all)]
    async fn conclude(&self, conclusion: &Conclusion) -> Result<(), Fault> {
        sqlx::query(
            "update stripe_event set \
               outcome = case when $2::text = 'duplicate' then coalesce(outcome, $2) else coalesce($2, outcome) end, \
               error = case when $2 is null and processed_at is not null then error else $3 end, \
               processed_at = case when $2 is null then processed_at else $4 end \
             where id = $1",
        )
        .bind(&conclusion.event)
        .bind(conclusion.outcome)
        .bind(&conclusion.error)
        .bind(stamp(conclusion.at))
        .execute(&self.pool)
        .await
        .map_err(fault("postgres.billing.conclude"))?;
        Ok(())
    }

    #[tracing::instrument(name = "postgres.billing.events", skip_all)]
    async fn events<'a>(&self, limit: u32, before: Option<&'a str>) -> Result<Vec<HandledEvent>, Fault> {
        const OPERATION: &str = "postgres.billing.events";
        let rows: Vec<mirrors::EventRow> = sqlx::query_as(
            "select id, type, created, livemode, amount, received_at, processed_at, outcome, error from stripe_event \
             where $1::text is null or (received_at, id) < (select received_at, id from stripe_event where id = $1) \
             order by received_at desc, id desc limit $2",
        )
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(fault(OPERATION))?;
        rows.into_iter().map(mirrors::event).collect::<Result<_, _>>().map_err(fault(OPERATION))
    }

    #[tracing::instrument(name = "postgres.billing.save_customer", skip_all)]
    async fn save_customer(&self, id: &str, customer: &Customer) -> Result<Saved, Fault> {
        const OPERATION: &str = "postgres.billing.save_customer";
        let mut tx = ledger_rows::begin(&self.pool).await.map_err(fault(OPERATION))?;
        let live: Option<bool> = sqlx::query_scalar(
            "insert into stripe_customer (id, user_id, stripe_customer_id, email) values ($1, $2, $3, $4) \
             on conflict (stripe_customer_id) do update set email = coalesce(stripe_customer.email, excluded.email) \
             where stripe_customer.user_id = excluded.user_id returning deleted_at is null",
        )
        .bind(id)
        .bind(customer.user.as_str())
        .bind(&customer.customer)
        .bind(&customer.email)
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault(OPERATION))?;
        let Some(live) = live else { return Ok(Saved::Foreign) };
        if live {
            sqlx::query("update user_flux set stripe_customer_id = $2 where user_id = $1 and deleted_at is null")
                .bind(customer.user.as_str())
                .bind(&customer.customer)
                .execute(&mut *tx)
                .await
                .map_err(fault(OPERATION))?;
        }
        tx.commit().await.map_err(fault(OPERATION))?;
        Ok(Saved::Written)
    }

    #[tracing::instrument(name = "postgres.billing.rename_customer", skip_all)]
    async fn rename_customer<'a>(
        &self,
        customer: &str,
        email: Option<&'a str>,
        name: Option<&'a str>,
        age: Age,
    ) -> Result<bool, Fault> {
        const OPERATION: &str = "postgres.billing.rename_customer";
        let renamed = sqlx::query(
            "update stripe_customer set email = $2, name = $3, last_event_rank = $4, last_event_at = $5, \
               updated_at = (clock_timestamp() at time zone 'UTC') \
             where stripe_customer_id = $1 and (last_event_rank, last_event_at) <= ($4, $5)",
        )
        .bind(customer)
        .bind(email)
        .bind(name)
        .bind(age.rank)
        .bind(stamp(age.at))
        .execute(&self.pool)
        .await
        .map_err(fault(OPERATION))?;
        Ok(renamed.rows_affected() > 0 || self.user_of_customer(customer).await?.is_some())
    }

    #[tracing::instrument(name = "postgres.billing.close_customer", skip_all)]
    async fn close_customer(&self, customer: &str, at: DateTime<Utc>) -> Result<bool, Fault> {
        const OPERATION: &str = "postgres.billing.close_customer";
        let mut tx = ledger_rows::begin(&self.pool).await.map_err(fault(OPERATION))?;
        let user: Option<String> = sqlx::query_scalar(
            "update stripe_customer set deleted_at = coalesce(deleted_at, $2), updated_at = (clock_timestamp() at time zone 'UTC') \
             where stripe_customer_id = $1 returning user_id",
        )
        .bind(customer)
        .bind(stamp(at))
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault(OPERATION))?;
        let Some(user) = user else { return Ok(false) };
        sqlx::query("update user_flux set stripe_customer_id = null where user_id = $1 and stripe_customer_id = $2")
            .bind(user)
            .bind(customer)
            .execute(&mut *tx)
            .await
            .map_err(fault(OPERATION))?;
        tx.commit().await.map_err(fault(OPERATION))?;
        Ok(true)
    }

    #[tracing::instrument(name = "postgres.billing.user_of_customer", skip_all)]
    async fn user_of_customer(&self, customer: &str) -> Result<Option<UserId>, Fault> {
        let user: Option<String> =
            sqlx::query_scalar("select user_id from stripe_customer where stripe_customer_id = $1")
                .bind(customer)
                .fetch_optional(&self.pool)
                .await
                .map_err(fault("postgres.billing.user_of_customer"))?;
        Ok(user.map(UserId::new))
    }

    #[tracing::instrument(name = "postgres.billing.customer_of_user", skip_all)]
    async fn customer_of_user(&self, user: &UserId) -> Result<Option<String>, Fault> {
        sqlx::query_scalar(
            "select stripe_customer_id from stripe_customer where user_id = $1 and deleted_at is null \
             order by created_at desc, id desc limit 1",
        )
        .bind(user.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(fault("postgres.billing.customer_of_user"))
    }

    #[tracing::instrument(name = "postgres.billing.save_checkout", skip_all)]
    async fn save_checkout(&self, id: &str, checkout: &Checkout, age: Age) -> Result<Saved, Fault> {
        let mut connection = self.pool.acquire().await.map_err(fault("postgres.billing.acquire"))?;
        mirrors::save_checkout(&mut connection, id, checkout, age).await
    }

    #[tracing::instrument(name = "postgres.billing.save_subscription", skip_all)]
    async fn save_subscription(&self, id: &str, subscription: &Subscription, age: Age) -> Result<Saved, Fault> {
        let mut connection = self.pool.acquire().await.map_err(fault("postgres.billing.acquire"))?;
        mirrors::save_subscription(&mut connection, id, subscription, age).await
    }

    #[tracing::instrument(name = "postgres.billing.save_invoice", skip_all)]
    async fn save_invoice(&self, id: &str, invoice: &Invoice, age: Age) -> Result<Saved, Fault> {
        let mut connection = self.pool.acquire().await.map_err(fault("postgres.billing.acquire"))?;
        mirrors::save_invoice(&mut connection, id, invoice, age).await
    }

    #[tracing::instrument(name = "postgres.billing.orders", skip_all)]
    async fn orders(&self, user: &UserId, window: Window) -> Result<Vec<Kept<Checkout>>, Fault> {
        mirrors::orders(&self.pool, user, window).await
    }

    #[tracing::instrument(name = "postgres.billing.invoices", skip_all)]
    async fn invoices(&self, user: &UserId, window: Window) -> Result<Vec<Kept<Invoice>>, Fault> {
        mirrors::invoices(&self.pool, user, window).await
    }

    #[tracing::instrument(name = "postgres.billing.running_subscriptions", skip_all)]
    async fn running_subscriptions(&self, user: &UserId) -> Result<Vec<String>, Fault> {
        sqlx::query_scalar(
            "select stripe_subscription_id from stripe_subscription \
             where user_id = $1 and deleted_at is null and status not in ('canceled', 'incomplete_expired') \
             order by created_at, id",
        )
        .bind(user.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(fault("postgres.billing.running_subscriptions"))
    }

    #[tracing::instrument(name = "postgres.billing.open_checkouts", skip_all)]
    async fn open_checkouts(&self, user: &UserId) -> Result<Vec<String>, Fault> {
        sqlx::query_scalar(
            "select stripe_session_id from stripe_checkout_session \
             where user_id = $1 and deleted_at is null and coalesce(status, 'open') = 'open' order by created_at, id",
        )
        .bind(user.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(fault("postgres.billing.open_checkouts"))
    }

    #[tracing::instrument(name = "postgres.billing.settle", skip_all)]
    async fn settle(&self, purchase: &Purchase) -> Result<Settled, Fault> {
        money::settle(&self.pool, purchase).await
    }

    #[tracing::instrument(name = "postgres.billing.claw_back", skip_all)]
    async fn claw_back(&self, claw: &ClawBack) -> Result<ClawedBack, Fault> {
        money::claw_back(&self.pool, claw).await
    }

    #[tracing::instrument(name = "postgres.billing.restore", skip_all)]
    async fn restore(&self, restore: &Restore, opening: &Opening) -> Result<Restored, Fault> {
        money::restore(&self.pool, restore, opening).await
    }
}
