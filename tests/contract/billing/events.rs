//! Every event of the fixture through the whole shop: once, in parallel and shuffled.

use std::sync::Arc;

use airi_server::compose::testing;
use airi_server::core::App;
use airi_server::core::model::accounts::{Account, Email, NewAccount};
use airi_server::core::model::billing::Price;
use airi_server::core::model::billing::mirror::Customer;
use airi_server::core::model::ids::UserId;
use airi_server::core::model::page::Window;
use airi_server::ports::Ports;
use airi_server::ports::billing::{BillingRepo, PaymentError};
use airi_server::ports::journal::Journal;
use airi_server::ports::mocks::{MockPaymentGateway, MockPaymentSignatures};
use chrono::DateTime;
use indexmap::IndexMap;
use serde_json::Value;

use super::World;
use crate::world::Notebook;

pub(super) fn fixture() -> Vec<Value> {
    serde_json::from_str(include_str!("../../fixtures/stripe-events.json")).unwrap()
}

/// The provider, which tells these payments of an invoice.
pub(super) fn gateway(
    payments: impl Fn(&str) -> Result<Vec<String>, PaymentError> + Send + 'static,
) -> MockPaymentGateway {
    let mut gateway = MockPaymentGateway::new();
    gateway.expect_price().returning(|id| {
        Ok(Price {
            id: id.to_owned(),
            unit_amount: Some(900),
            currency: "usd".to_owned(),
            product: "prod_fx1".to_owned(),
            active: true,
            metadata: [("fluxAmount".to_owned(), "3000".to_owned())].into(),
            currency_options: IndexMap::new(),
            interval: Some("month".to_owned()),
        })
    });
    gateway.expect_invoice_payments().returning(payments);
    gateway.expect_customer_owner().returning(|_| Err(PaymentError::Missing));
    gateway
}

async fn app(world: &World) -> App {
    app_over(world, world.repo.clone()).await
}

/// A shop over another way to the same books.
pub(super) async fn app_over(world: &World, billing: Arc<dyn BillingRepo>) -> App {
    let gateway = gateway(|invoice| Ok(vec![format!("pi_{invoice}")]));
    shop(world, billing, gateway, Arc::new(Notebook::default())).await
}

/// A shop with a provider and somebody who listens.
pub(super) async fn shop(
    world: &World,
    billing: Arc<dyn BillingRepo>,
    gateway: MockPaymentGateway,
    journal: Arc<dyn Journal>,
) -> App {
    let mut signatures = MockPaymentSignatures::new();
    signatures.expect_vouches().returning(|_, _, _| true);
    let ports = Ports {
        accounts: world.accounts.clone(),
        ledger: world.ledger.clone(),
        billing,
        payments: Some(Arc::new(gateway)),
        payment_signatures: Some(Arc::new(signatures)),
        journal,
        ..testing::ports().await.unwrap()
    };
    App::new(ports, testing::policies())
}

/// A user whose customer is known, as it is when events about it arrive.
pub(super) async fn somebody(world: &World) -> UserId {
    let user = UserId::new("user-1");
    let account = Account {
        id: user.clone(),
        name: String::new(),
        email: Email::stored("buyer@example.test"),
        email_verified: true,
        image: None,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    };
    world.accounts.create(&NewAccount { account, password: None }).await.unwrap();
    let customer = Customer { user: user.clone(), customer: "cus_fx1".to_owned(), email: None };
    world.repo.save_customer("c", &customer).await.unwrap();
    user
}

/// Everything that must not depend on the order of events.
pub(super) async fn state(world: &World, user: &UserId) -> (i64, i64, Vec<String>) {
    let all = Window { limit: 100, offset: 0 };
    let mut copies: Vec<String> = Vec::new();
    for order in world.repo.orders(user, all).await.unwrap() {
        copies.push(format!("{:?} {}", order.copy, order.flux_credited));
    }
    for invoice in world.repo.invoices(user, all).await.unwrap() {
        copies.push(format!("{:?} {}", invoice.copy, invoice.flux_credited));
    }
    copies.push(format!("{:?}", world.repo.running_subscriptions(user).await.unwrap()));
    copies.sort();
    world.audit(user).await;
    (world.balance(user).await, world.owed(user).await.get(), copies)
}

pub(super) async fn deliver(app: &App, case: &Value) -> bool {
    app.billing.receive(Some("good"), case["event"].to_string().as_bytes()).await.is_ok()
}

/// A fixed shuffle per seed.
fn shuffled(mut cases: Vec<Value>, seed: u64) -> Vec<Value> {
    let mut state = seed;
    for at in (1..cases.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from(state >> 33).unwrap() % (at + 1);
        cases.swap(at, other);
    }
    cases
}

pub(super) const NOBODYS: &str = "subscription invoice for nobody";

pub(super) async fn in_order(world: &World) -> (i64, i64, Vec<String>) {
    let user = somebody(world).await;
    let app = app(world).await;
    for case in fixture() {
        let name = case["name"].as_str().unwrap();
        assert_eq!(deliver(&app, &case).await, name != NOBODYS, "{name}");
    }
    state(world, &user).await
}

#[tokio::test]
async fn every_event_has_the_effect_the_fixture_names() {
    let world = World::sqlite().await;
    let user = somebody(&world).await;
    let app = app(&world).await;
    let mut before = 0;
    for case in fixture() {
        let name = case["name"].as_str().unwrap();
        deliver(&app, &case).await;
        let now = world.balance(&user).await.max(0);
        let expected = match name {
            "checkout paid" | "delayed payment succeeded" | "fully discounted checkout" | "dispute won" => 500,
            "subscription invoice paid"
            | "fully discounted subscription invoice"
            | "subscription invoice before the customer is known" => 3_000,
            "invoice with proration lines" => 6_000,
            "charge refunded in full" | "dispute opened" => -500,
            _ => 0,
        };
        assert_eq!(now - before, expected, "{name}");
        before = now;
    }
    assert_eq!(before, 16_000);
    assert!(world.repo.running_subscriptions(&user).await.unwrap().is_empty(), "a late update revived it");
}

#[tokio::test]
async fn partial_refunds_are_a_running_sum() {
    let world = World::sqlite().await;
    let user = somebody(&world).await;
    let app = app(&world).await;
    let cases = fixture();
    let named = |name: &str| cases.iter().find(|case| case["name"] == name).unwrap();
    deliver(&app, named("checkout paid")).await;
    deliver(&app, named("partial refund, first")).await;
    assert_eq!(world.balance(&user).await, 500 - 166);
    deliver(&app, named("partial refund, second (cumulative 250)")).await;
    assert_eq!(world.balance(&user).await, 500 - 416);
}

async fn ten_at_once_and_any_order_end_the_same(open: impl AsyncFn() -> World) {
    let expected = in_order(&open().await).await;
    for seed in 1..=6 {
        let world = open().await;
        let user = somebody(&world).await;
        let app = app(&world).await;
        for case in shuffled(fixture(), seed) {
            let copies = if seed % 2 == 0 { 10 } else { 1 };
            futures::future::join_all((0..copies).map(|_| deliver(&app, &case))).await;
        }
        assert_eq!(state(&world, &user).await, expected, "seed {seed}");
    }
}

#[tokio::test]
async fn sqlite_ends_the_same_in_any_order() {
    ten_at_once_and_any_order_end_the_same(World::sqlite).await;
}

#[cfg(feature = "live")]
#[tokio::test]
async fn postgres_ends_the_same_in_any_order() {
    ten_at_once_and_any_order_end_the_same(World::postgres).await;
}

#[tokio::test]
async fn nothing_is_written_for_a_message_nobody_vouches_for() {
    let world = World::sqlite().await;
    let user = somebody(&world).await;
    let app = app(&world).await;
    let mut body = fixture()[0]["event"].to_string().into_bytes();
    assert!(app.billing.receive(None, &body).await.is_err());
    body.truncate(40);
    assert!(app.billing.receive(Some("good"), &body).await.is_err());
    assert_eq!(world.balance(&user).await, -1);
    assert!(world.repo.orders(&user, Window { limit: 1, offset: 0 }).await.unwrap().is_empty());
}
