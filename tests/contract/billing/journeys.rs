//! What becomes of flux, and what operators hear, when the provider's events tell a whole story.

use std::sync::Arc;

use airi_server::core::App;
use airi_server::core::model::fact::Fact;
use airi_server::core::model::ids::UserId;
use airi_server::ports::billing::PaymentError;
use airi_server::ports::{Fault, FaultKind};
use serde_json::{Value, json};

use super::World;
use super::events::{deliver, fixture, gateway, shop, somebody};
use crate::world::Notebook;

/// A shop of one buyer, and what it told.
struct Story {
    world: World,
    user: UserId,
    app: App,
    told: Arc<Notebook>,
}

impl Story {
    async fn begins(
        world: World,
        payments: impl Fn(&str) -> Result<Vec<String>, PaymentError> + Send + 'static,
    ) -> Self {
        let (user, told) = (somebody(&world).await, Arc::new(Notebook::default()));
        let app = shop(&world, world.repo.clone(), gateway(payments), told.clone()).await;
        Self { world, user, app, told }
    }

    /// Delivers an event of the fixture as another event, with members of its object replaced.
    async fn hears(&self, name: &str, id: &str, changes: Value) -> bool {
        let mut case = fixture().into_iter().find(|case| case["name"] == name).unwrap();
        case["event"]["id"] = id.into();
        if let Some(kind) = changes.get("type") {
            case["event"]["type"] = kind.clone();
        }
        let object = case["event"]["data"]["object"].as_object_mut().unwrap();
        object.extend(changes.as_object().unwrap().clone());
        deliver(&self.app, &case).await
    }

    async fn balance(&self) -> i64 {
        self.world.balance(&self.user).await.max(0)
    }
}

fn one_payment(invoice: &str) -> Result<Vec<String>, PaymentError> {
    Ok(vec![format!("pi_{invoice}")])
}

#[tokio::test]
async fn an_inquiry_takes_nothing_until_the_bank_takes_the_money() {
    let story = Story::begins(World::sqlite().await, one_payment).await;
    story.hears("checkout paid", "e1", json!({})).await;
    let inquiry = |status: &str| json!({ "payment_intent": "pi_fx1", "status": status });
    story.hears("dispute opened", "e2", inquiry("warning_needs_response")).await;
    assert_eq!(story.balance().await, 500);
    story.hears("dispute won", "e3", inquiry("warning_closed")).await;
    assert_eq!(story.balance().await, 500);
    // Another one becomes a chargeback, which is won.
    let other =
        |kind: &str, status: &str| json!({ "type": kind, "id": "dp_2", "payment_intent": "pi_fx1", "status": status });
    story.hears("dispute opened", "e4", other("charge.dispute.created", "warning_needs_response")).await;
    for id in ["e5", "e6"] {
        story.hears("dispute opened", id, other("charge.dispute.funds_withdrawn", "needs_response")).await;
        assert_eq!(story.balance().await, 0);
    }
    story.hears("dispute won", "e7", other("charge.dispute.closed", "won")).await;
    assert_eq!(story.balance().await, 500);
}

async fn a_refunded_subscription_payment_is_taken_back(world: World) {
    let story = Story::begins(world, one_payment).await;
    let refund = |invoice: &str, amount: i64| {
        let payment = format!("pi_{invoice}");
        json!({ "id": format!("ch_{invoice}"), "payment_intent": payment, "amount": 900, "amount_refunded": amount })
    };
    story.hears("subscription invoice paid", "e1", json!({})).await;
    story.hears("same invoice, second event type", "e2", json!({})).await;
    assert_eq!(story.balance().await, 3_000);
    story.hears("charge refunded in full", "e3", refund("in_fx1", 300)).await;
    assert_eq!(story.balance().await, 2_000);
    story.hears("charge refunded in full", "e4", refund("in_fx1", 900)).await;
    assert_eq!(story.balance().await, 0);
    // The refund of another month overtakes its payment.
    story.hears("charge refunded in full", "e5", refund("in_2", 900)).await;
    story.hears("subscription invoice paid", "e6", json!({ "id": "in_2" })).await;
    assert_eq!(story.balance().await, 0);
    assert_eq!(story.told.count(|fact| matches!(fact, Fact::PaymentAlert { .. })), 0);
}

#[tokio::test]
async fn a_refunded_subscription_payment_is_taken_back_sqlite() {
    a_refunded_subscription_payment_is_taken_back(World::sqlite().await).await;
}

#[cfg(feature = "live")]
#[tokio::test]
async fn a_refunded_subscription_payment_is_taken_back_postgres() {
    a_refunded_subscription_payment_is_taken_back(World::postgres().await).await;
}

#[tokio::test]
async fn an_invoice_whose_payment_nobody_can_tell_is_credited_and_operators_hear_of_it() {
    let two = |_: &str| Ok(vec!["pi_1".to_owned(), "pi_2".to_owned()]);
    type Answer = fn(&str) -> Result<Vec<String>, PaymentError>;
    let payments: [Answer; 3] = [two, |_| Ok(Vec::new()), |_| Err(PaymentError::Missing)];
    for payments in payments {
        let story = Story::begins(World::sqlite().await, payments).await;
        assert!(story.hears("subscription invoice paid", "e1", json!({})).await);
        assert_eq!(story.balance().await, 3_000);
        assert_eq!(story.told.count(|fact| matches!(fact, Fact::PaymentAlert { .. })), 1);
        // Nothing was paid, so nothing can go back.
        assert!(story.hears("fully discounted subscription invoice", "e2", json!({})).await);
        assert_eq!(story.told.count(|fact| matches!(fact, Fact::PaymentAlert { .. })), 1);
    }
    let away = |_: &str| Err(PaymentError::Failed(Fault::new(FaultKind::Unavailable, "stripe", "away")));
    let story = Story::begins(World::sqlite().await, away).await;
    assert!(!story.hears("subscription invoice paid", "e1", json!({})).await, "it shall come again");
    assert_eq!(story.balance().await, 0);
}

#[tokio::test]
async fn a_failed_payment_counts_unless_it_was_paid_since() {
    let story = Story::begins(World::sqlite().await, one_payment).await;
    let failures = || story.told.count(|fact| matches!(fact, Fact::PaymentFailed));
    story.hears("delayed payment failed", "e1", json!({})).await;
    story.hears("invoice payment failed", "e2", json!({})).await;
    assert_eq!(failures(), 2);
    story.hears("checkout paid", "e3", json!({})).await;
    story.hears("delayed payment failed", "e4", json!({ "id": "cs_fx1" })).await;
    story.hears("subscription invoice paid", "e5", json!({})).await;
    story.hears("invoice payment failed", "e6", json!({ "id": "in_fx1" })).await;
    story.hears("invoice payment failed", "e7", json!({ "customer": "cus_nobody" })).await;
    assert_eq!(failures(), 2);
}

#[tokio::test]
async fn a_refund_that_overtook_its_payment_is_told_when_it_takes() {
    let story = Story::begins(World::sqlite().await, one_payment).await;
    let taken = || story.told.count(|fact| matches!(fact, Fact::ClawedBack { taken, .. } if taken.get() == 500));
    story.hears("charge refunded in full", "e1", json!({})).await;
    assert_eq!(taken(), 0);
    story.hears("checkout paid", "e2", json!({})).await;
    assert_eq!((story.balance().await, taken()), (0, 1));
}

#[tokio::test]
async fn an_event_about_nobody_is_told_once_whatever_it_is_about() {
    let story = Story::begins(World::sqlite().await, one_payment).await;
    let orphans = || story.told.count(|fact| matches!(fact, Fact::PaymentOrphan { .. }));
    story.hears("subscription for unknown customer", "e1", json!({})).await;
    assert_eq!(orphans(), 1);
    story.hears("customer updated", "e2", json!({ "id": "cus_nobody" })).await;
    story.hears("invoice payment failed", "e3", json!({ "customer": "cus_nobody" })).await;
    assert_eq!(orphans(), 3);
}
