//! The process stops before or after any step a webhook takes: what the provider sends again leads to the same books.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use airi_server::core::model::billing::event::{HandledEvent, JournaledEvent};
use airi_server::core::model::billing::mirror::{Age, Checkout, Customer, Invoice, Kept, Saved, Subscription};
use airi_server::core::model::billing::settlement::{ClawBack, ClawedBack, Purchase, Restore, Restored, Settled};
use airi_server::core::model::ids::UserId;
use airi_server::core::model::ledger::Opening;
use airi_server::core::model::page::Window;
use airi_server::ports::Fault;
use airi_server::ports::billing::{BillingRepo, Conclusion, EventStanding};
use async_trait::async_trait;
use tokio::sync::Notify;

use super::World;
use super::events::{NOBODYS, app_over, deliver, fixture, in_order, somebody, state};

/// The way to the books, on which the process stops at one step: the call never returns, as for a process that is gone.
struct Stopping {
    inner: Arc<dyn BillingRepo>,
    /// Steps taken so far; every call has one before it takes effect and one after.
    taken: AtomicUsize,
    /// The step that is never completed.
    last: usize,
    stopped: Notify,
}

impl Stopping {
    async fn step(&self) {
        if self.taken.fetch_add(1, Ordering::SeqCst) == self.last {
            self.stopped.notify_one();
            std::future::pending::<()>().await;
        }
    }

    async fn around<T>(&self, call: impl Future<Output = T>) -> T {
        self.step().await;
        let answer = call.await;
        self.step().await;
        answer
    }
}

#[async_trait]
impl BillingRepo for Stopping {
    async fn receive(&self, event: &JournaledEvent) -> Result<EventStanding, Fault> {
        self.around(self.inner.receive(event)).await
    }

    async fn conclude(&self, conclusion: &Conclusion) -> Result<(), Fault> {
        self.around(self.inner.conclude(conclusion)).await
    }

    async fn events<'a>(&self, limit: u32, before: Option<&'a str>) -> Result<Vec<HandledEvent>, Fault> {
        self.around(self.inner.events(limit, before)).await
    }

    async fn save_customer(&self, id: &str, customer: &Customer) -> Result<Saved, Fault> {
        self.around(self.inner.save_customer(id, customer)).await
    }

    async fn rename_customer<'a>(
        &self,
        customer: &str,
        email: Option<&'a str>,
        name: Option<&'a str>,
        age: Age,
    ) -> Result<bool, Fault> {
        self.around(self.inner.rename_customer(customer, email, name, age)).await
    }

    async fn close_customer(&self, customer: &str, at: chrono::DateTime<chrono::Utc>) -> Result<bool, Fault> {
        self.around(self.inner.close_customer(customer, at)).await
    }

    async fn user_of_customer(&self, customer: &str) -> Result<Option<UserId>, Fault> {
        self.around(self.inner.user_of_customer(customer)).await
    }

    async fn customer_of_user(&self, user: &UserId) -> Result<Option<String>, Fault> {
        self.around(self.inner.customer_of_user(user)).await
    }

    async fn save_checkout(&self, id: &str, checkout: &Checkout, age: Age) -> Result<Saved, Fault> {
        self.around(self.inner.save_checkout(id, checkout, age)).await
    }

    async fn save_subscription(&self, id: &str, subscription: &Subscription, age: Age) -> Result<Saved, Fault> {
        self.around(self.inner.save_subscription(id, subscription, age)).await
    }

    async fn save_invoice(&self, id: &str, invoice: &Invoice, age: Age) -> Result<Saved, Fault> {
        self.around(self.inner.save_invoice(id, invoice, age)).await
    }

    async fn orders(&self, user: &UserId, window: Window) -> Result<Vec<Kept<Checkout>>, Fault> {
        self.around(self.inner.orders(user, window)).await
    }

    async fn invoices(&self, user: &UserId, window: Window) -> Result<Vec<Kept<Invoice>>, Fault> {
        self.around(self.inner.invoices(user, window)).await
    }

    async fn running_subscriptions(&self, user: &UserId) -> Result<Vec<String>, Fault> {
        self.around(self.inner.running_subscriptions(user)).await
    }

    async fn open_checkouts(&self, user: &UserId) -> Result<Vec<String>, Fault> {
        self.around(self.inner.open_checkouts(user)).await
    }

    async fn settle(&self, purchase: &Purchase) -> Result<Settled, Fault> {
        self.around(self.inner.settle(purchase)).await
    }

    async fn claw_back(&self, claw: &ClawBack) -> Result<ClawedBack, Fault> {
        self.around(self.inner.claw_back(claw)).await
    }

    async fn restore(&self, restore: &Restore, opening: &Opening) -> Result<Restored, Fault> {
        self.around(self.inner.restore(restore, opening)).await
    }
}

/// Every event is first stopped at the given step and then sent again, by the next process.
async fn stopped_at(world: &World, last: usize) -> (usize, (i64, i64, Vec<String>)) {
    let user = somebody(world).await;
    let stopping =
        Arc::new(Stopping { inner: world.repo.clone(), taken: AtomicUsize::new(0), last, stopped: Notify::new() });
    let (process, next) = (app_over(world, stopping.clone()).await, app_over(world, world.repo.clone()).await);
    let mut stops = 0;
    for case in fixture() {
        let name = case["name"].as_str().unwrap();
        stopping.taken.store(0, Ordering::SeqCst);
        tokio::select! {
            biased;
            done = deliver(&process, &case) => assert_eq!(done, name != NOBODYS, "{name}"),
            () = stopping.stopped.notified() => {
                stops += 1;
                assert_eq!(deliver(&next, &case).await, name != NOBODYS, "{name}");
            }
        }
    }
    assert_eq!(world.ledger.verify().await.unwrap().drifts, []);
    (stops, state(world, &user).await)
}

async fn redelivery_converges(open: impl AsyncFn() -> World) {
    let expected = in_order(&open().await).await;
    for last in 0.. {
        let (stops, state) = stopped_at(&open().await, last).await;
        assert_eq!(state, expected, "stopped at step {last}");
        if stops == 0 {
            // Reading the event's standing, the copies, the money and the conclusion, before and after each.
            assert!(last >= 10, "{last}");
            return;
        }
    }
}

#[tokio::test]
async fn a_process_that_stops_between_any_two_steps_is_mended_by_redelivery_sqlite() {
    redelivery_converges(World::sqlite).await;
}

#[cfg(feature = "live")]
#[tokio::test]
async fn a_process_that_stops_between_any_two_steps_is_mended_by_redelivery_postgres() {
    redelivery_converges(World::postgres).await;
}
