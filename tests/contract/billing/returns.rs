//! Refunds and disputes of one payment: whatever order they come in, the same flux is gone in the end.

use airi_server::core::model::billing::settlement::{Clawed, ClawedBack, Reason, Restored, Settled};
use airi_server::core::model::ledger::DebitOutcome;

use super::{World, at, checkout, claw, purchase, undo, user};
use crate::books::{debit, flux, opening};

/// What can happen to a payment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Paid,
    Refunded(i64),
    Disputed(i64),
    Won(i64),
}

/// Every order of the steps.
fn orders(steps: &[Step]) -> Vec<Vec<Step>> {
    if steps.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for first in 0..steps.len() {
        let rest = [&steps[..first], &steps[first + 1..]].concat();
        all.extend(orders(&rest).into_iter().map(|order| [&[steps[first]][..], &order].concat()));
    }
    all
}

/// Balance minus debt.
async fn left(world: &World) -> i64 {
    world.balance(&user()).await.max(0) - world.owed(&user()).await.get()
}

/// Takes the steps with a payment of 300 for 500 flux; answers what is left of the 500. `spends` of it are spent as
/// soon as they can be.
async fn after(world: &World, session: &str, order: &[Step], spends: i64) -> i64 {
    let before = left(world).await;
    let mut spent = 0;
    for step in order {
        match step {
            Step::Paid => {
                let copy = checkout(session, "complete", "paid");
                world.repo.save_checkout(session, &copy, copy.age(at(0))).await.unwrap();
                let settled = world.repo.settle(&purchase(session, session, 500)).await.unwrap();
                assert!(matches!(settled, Settled::Applied { .. }), "{settled:?}");
                if spends > 0 {
                    let outcome = world.ledger.debit(&debit(&user(), &format!("spend {session}"), spends)).await;
                    if let DebitOutcome::Charged { charged, .. } = outcome.unwrap() {
                        spent += charged.get();
                    }
                }
            }
            Step::Refunded(amount) => {
                world.repo.claw_back(&claw(session, Reason::Refund, *amount)).await.unwrap();
            }
            Step::Disputed(amount) => {
                world.repo.claw_back(&claw(session, Reason::Dispute, *amount)).await.unwrap();
            }
            Step::Won(amount) => {
                world.repo.restore(&undo(&claw(session, Reason::Dispute, *amount)), &opening(0)).await.unwrap();
            }
        }
    }
    left(world).await + spent - before
}

async fn every_order_leaves_the_same(world: &World) {
    use Step::{Disputed, Paid, Refunded, Won};
    world.ledger.open(&user(), &opening(0)).await.unwrap();
    for (case, (steps, expected)) in [
        (&[Paid, Disputed(300), Refunded(300), Won(300)][..], 0),
        (&[Paid, Disputed(300), Refunded(100), Won(300)], 334),
        (&[Paid, Disputed(300), Refunded(100), Refunded(250), Won(300)], 84),
        (&[Paid, Disputed(300), Disputed(100), Won(300)], 334),
        (&[Paid, Disputed(200), Refunded(200), Won(200)], 167),
        (&[Paid, Disputed(300), Won(300)], 500),
        (&[Paid, Disputed(100), Refunded(100)], 168),
    ]
    .into_iter()
    .enumerate()
    {
        for (nth, order) in orders(steps).iter().enumerate() {
            for spends in [0, 400] {
                let session = format!("s{case}-{nth}-{spends}");
                assert_eq!(after(world, &session, order, spends).await, expected, "{order:?} spending {spends}");
            }
        }
    }
    assert_eq!(world.ledger.verify().await.unwrap().drifts, []);
}

async fn a_won_dispute_gives_nothing_for_money_that_was_refunded(world: &World) {
    world.ledger.open(&user(), &opening(0)).await.unwrap();
    after(world, "a", &[Step::Paid, Step::Disputed(300), Step::Refunded(300)], 0).await;
    let won = undo(&claw("a", Reason::Dispute, 300));
    let restored = world.repo.restore(&won, &opening(0)).await.unwrap();
    let Restored::Applied { given, .. } = restored else { panic!("{restored:?}") };
    assert_eq!((given, world.balance(&user()).await), (flux(0), 0));
}

async fn a_credit_tells_what_was_taken_of_it_at_once(world: &World) {
    world.ledger.open(&user(), &opening(0)).await.unwrap();
    let (refund, dispute) = (claw("a", Reason::Refund, 100), claw("a", Reason::Dispute, 300));
    for early in [&refund, &dispute] {
        assert_eq!(world.repo.claw_back(early).await.unwrap(), ClawedBack::Waiting);
    }
    let copy = checkout("a", "complete", "paid");
    world.repo.save_checkout("a", &copy, copy.age(at(0))).await.unwrap();
    let settled = world.repo.settle(&purchase("a", "evt", 500)).await.unwrap();
    let Settled::Applied { clawed, balance, .. } = settled else { panic!("{settled:?}") };
    let told = |request, amount| Clawed { request, asked: flux(amount), taken: flux(amount) };
    assert_eq!(clawed, [told(refund.request, 166), told(dispute.request, 334)]);
    assert_eq!(balance.flux, flux(0));
}

async fn a_share_of_an_amount_no_copy_can_hold_is_exact(world: &World) {
    world.ledger.open(&user(), &opening(0)).await.unwrap();
    let mut copy = checkout("a", "complete", "paid");
    copy.amount_total = Some(6_000_000_000);
    world.repo.save_checkout("a", &copy, copy.age(at(0))).await.unwrap();
    let mut pay = purchase("a", "evt", 500);
    pay.paid = copy.amount_total;
    world.repo.settle(&pay).await.unwrap();
    let mut half = claw("a", Reason::Dispute, 3_000_000_000);
    half.of = None;
    world.repo.claw_back(&half).await.unwrap();
    assert_eq!(world.balance(&user()).await, 250);
}

macro_rules! cases {
    ($open:path) => {
        cases!($open: every_order_leaves_the_same, a_won_dispute_gives_nothing_for_money_that_was_refunded,
            a_credit_tells_what_was_taken_of_it_at_once, a_share_of_an_amount_no_copy_can_hold_is_exact);
    };
    ($open:path: $($case:ident),+) => {
        $(
            #[tokio::test]
            async fn $case() {
                super::$case(&$open().await).await;
            }
        )+
    };
}

mod sqlite {
    cases!(super::World::sqlite);
}

#[cfg(feature = "live")]
mod postgres {
    cases!(super::World::postgres);
}
