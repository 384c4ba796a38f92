//! Payments: copies of the provider's objects, claims, refunds, and every event of the fixture in every order.

mod events;
mod gateway;
mod journeys;
mod prices;
mod returns;
mod signatures;
mod stops;
mod world;

use std::sync::Mutex;
use std::time::Duration;

use airi_server::core::model::billing::event::{HandledEvent, JournaledEvent};
use airi_server::core::model::billing::mirror::{Age, Checkout, Customer, Invoice, Saved, Subscription};
use airi_server::core::model::billing::settlement::{
    Claim, ClawBack, ClawedBack, Purchase, Reason, Restore, Restored, Settled,
};
use airi_server::core::model::hold::{Hold, HoldOutcome};
use airi_server::core::model::ids::{RequestId, UserId};
use airi_server::core::model::ledger::{DebitOutcome, EntryKind, Flux};
use airi_server::core::model::page::Window;
use airi_server::ports::billing::{Conclusion, EventStanding};
use chrono::{DateTime, Utc};
use serde_json::Map;

use crate::books::{credit, entry_id, flux, opening};
pub(crate) use world::World;

fn user() -> UserId {
    UserId::new("user-1")
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn checkout(session: &str, status: &str, payment_status: &str) -> Checkout {
    Checkout {
        user: user(),
        session: session.to_owned(),
        customer: Some("cus".to_owned()),
        mode: "payment".to_owned(),
        status: Some(status.to_owned()),
        payment_status: Some(payment_status.to_owned()),
        amount_total: Some(300),
        currency: Some("usd".to_owned()),
        success_url: None,
        cancel_url: None,
        payment_intent: Some(format!("pi_{session}")),
        subscription: None,
        metadata: Some(r#"{"fluxAmount":"500"}"#.to_owned()),
        expires_at: Some(at(86_400)),
    }
}

fn purchase(session: &str, event: &str, amount: i64) -> Purchase {
    Purchase {
        claim: Claim::Checkout(session.to_owned()),
        payment_intent: Some(format!("pi_{session}")),
        paid: Some(300),
        credit: airi_server::core::model::ledger::Credit {
            kind: EntryKind::Credit,
            opening: opening(7),
            ..credit(&user(), Some(event), amount)
        },
        owed_entry: entry_id(),
    }
}

fn claw(session: &str, reason: Reason, amount: i64) -> ClawBack {
    ClawBack {
        request: RequestId::new(format!("stripe-{}:{session}:{amount}", reason.as_str())),
        reason,
        payment_intent: format!("pi_{session}"),
        amount,
        of: Some(300),
        entry: entry_id(),
        description: "Refund USD 3.00".to_owned(),
        metadata: Map::new(),
    }
}

fn undo(claw: &ClawBack) -> Restore {
    Restore {
        request: RequestId::new(format!("won:{}", claw.request)),
        of: claw.request.clone(),
        payment_intent: claw.payment_intent.clone(),
        entry: entry_id(),
        owed_entry: entry_id(),
        description: "Dispute won".to_owned(),
        metadata: Map::new(),
    }
}

async fn paid(world: &World, session: &str, amount: i64) {
    let copy = checkout(session, "complete", "paid");
    world.repo.save_checkout(session, &copy, copy.age(at(0))).await.unwrap();
    let settled = world.repo.settle(&purchase(session, &format!("evt_{session}"), amount)).await.unwrap();
    assert!(matches!(settled, Settled::Applied { .. }), "{settled:?}");
}

async fn an_event_is_due_until_it_is_concluded(world: &World) {
    let event = JournaledEvent {
        id: "evt".to_owned(),
        kind: "invoice.paid".to_owned(),
        created: at(0),
        livemode: false,
        amount: Some(5_000_000_000),
        received_at: at(1),
    };
    assert_eq!(world.repo.receive(&event).await.unwrap(), EventStanding::Due);
    let failed = Conclusion { event: event.id.clone(), outcome: None, error: Some("away".to_owned()), at: at(2) };
    world.repo.conclude(&failed).await.unwrap();
    assert_eq!(world.repo.receive(&event).await.unwrap(), EventStanding::Due);
    let done = Conclusion { event: event.id.clone(), outcome: Some("applied"), error: None, at: at(3) };
    world.repo.conclude(&done).await.unwrap();
    assert_eq!(world.repo.receive(&event).await.unwrap(), EventStanding::Done);
    // Handled again: neither a repetition nor a failure makes anybody forget that it was applied.
    let repeated = Conclusion { outcome: Some("duplicate"), at: at(4), ..done.clone() };
    world.repo.conclude(&repeated).await.unwrap();
    world.repo.conclude(&failed).await.unwrap();
    let later = JournaledEvent { id: "evt_b".to_owned(), received_at: at(5), ..event.clone() };
    world.repo.receive(&later).await.unwrap();
    let same_time = JournaledEvent { id: "evt_a".to_owned(), ..later.clone() };
    world.repo.receive(&same_time).await.unwrap();
    let journal = world.repo.events(100, None).await.unwrap();
    let ids: Vec<_> = journal.iter().map(|row| row.event.id.as_str()).collect();
    assert_eq!(ids, ["evt_b", "evt_a", "evt"]);
    let first = HandledEvent { event, processed_at: Some(at(4)), outcome: Some("applied".to_owned()), error: None };
    assert_eq!(journal[2], first);
    assert_eq!((journal[0].processed_at, &journal[0].outcome), (None, &None));
    assert_eq!(world.repo.events(1, Some("evt_b")).await.unwrap()[0].event, same_time);
    assert_eq!(world.repo.events(5, Some("evt_a")).await.unwrap(), [first]);
}

async fn a_customer_stays_with_its_user(world: &World) {
    let repo = &world.repo;
    world.ledger.open(&user(), &opening(0)).await.unwrap();
    let customer = Customer { user: user(), customer: "cus".to_owned(), email: None };
    assert_eq!(repo.save_customer("c1", &customer).await.unwrap(), Saved::Written);
    let other = Customer { user: UserId::new("user-2"), ..customer.clone() };
    assert_eq!(repo.save_customer("c2", &other).await.unwrap(), Saved::Foreign);
    assert_eq!(repo.user_of_customer("cus").await.unwrap(), Some(user()));
    assert_eq!(repo.customer_of_user(&user()).await.unwrap().as_deref(), Some("cus"));
    let age = Age::of(0, false, at(0));
    assert!(repo.rename_customer("cus", Some("a@b.co"), Some("A"), age).await.unwrap());
    assert!(!repo.rename_customer("nobody", None, None, age).await.unwrap());
    assert!(repo.close_customer("cus", at(1)).await.unwrap());
    assert!(!repo.close_customer("nobody", at(1)).await.unwrap());
    assert_eq!(repo.customer_of_user(&user()).await.unwrap(), None);
    assert_eq!(repo.user_of_customer("cus").await.unwrap(), Some(user()));
    // A late checkout does not bring it back.
    assert_eq!(repo.save_customer("c3", &customer).await.unwrap(), Saved::Written);
    assert_eq!(repo.customer_of_user(&user()).await.unwrap(), None);
}

async fn copies_are_replaced_by_what_is_more_settled_or_newer(world: &World) {
    let repo = &world.repo;
    let done = checkout("cs", "complete", "paid");
    let open = checkout("cs", "open", "unpaid");
    assert_eq!(repo.save_checkout("o1", &open, Age::BEFORE_ALL).await.unwrap(), Saved::Written);
    assert_eq!(repo.open_checkouts(&user()).await.unwrap(), ["cs"]);
    assert_eq!(repo.save_checkout("o2", &done, done.age(at(1))).await.unwrap(), Saved::Written);
    assert!(repo.open_checkouts(&user()).await.unwrap().is_empty());
    assert_eq!(repo.save_checkout("o3", &open, open.age(at(9))).await.unwrap(), Saved::Stale);
    let theirs = Checkout { user: UserId::new("user-2"), ..done.clone() };
    assert_eq!(repo.save_checkout("o4", &theirs, theirs.age(at(9))).await.unwrap(), Saved::Foreign);
    let all = Window { limit: 100, offset: 0 };
    let orders = repo.orders(&user(), all).await.unwrap();
    assert_eq!(orders.len(), 1);
    assert_eq!((&orders[0].id[..], &orders[0].copy, orders[0].flux_credited), ("o1", &done, false));

    let sub = |status: &str| Subscription {
        user: user(),
        subscription: "sub".to_owned(),
        customer: "cus".to_owned(),
        price: Some("price".to_owned()),
        status: status.to_owned(),
        current_period_start: Some(at(0)),
        current_period_end: None,
        cancel_at_period_end: Some(false),
        canceled_at: None,
        ended_at: None,
        metadata: None,
    };
    let (active, over) = (sub("active"), sub("canceled"));
    assert_eq!(repo.save_subscription("s", &active, active.age(true, at(0))).await.unwrap(), Saved::Written);
    assert_eq!(repo.running_subscriptions(&user()).await.unwrap(), ["sub"]);
    assert_eq!(repo.save_subscription("s", &over, over.age(false, at(0))).await.unwrap(), Saved::Written);
    assert_eq!(repo.save_subscription("s", &active, active.age(false, at(9))).await.unwrap(), Saved::Stale);
    assert!(repo.running_subscriptions(&user()).await.unwrap().is_empty());

    let invoice = |status: &str, amount: i64| Invoice {
        user: user(),
        invoice: "in".to_owned(),
        customer: None,
        subscription: Some("sub".to_owned()),
        payment_intent: None,
        status: Some(status.to_owned()),
        amount_due: Some(amount),
        amount_paid: Some(amount),
        currency: Some("usd".to_owned()),
        url: None,
        pdf: None,
        period_start: None,
        period_end: Some(at(5)),
        paid_at: None,
        metadata: None,
    };
    let (due, huge) = (invoice("open", 900), invoice("paid", 5_000_000_000));
    assert_eq!(repo.save_invoice("i", &huge, huge.age(false, at(0))).await.unwrap(), Saved::Written);
    assert_eq!(repo.save_invoice("i", &due, due.age(false, at(9))).await.unwrap(), Saved::Stale);
    let invoices = repo.invoices(&user(), all).await.unwrap();
    assert_eq!((invoices[0].copy.status.as_deref(), invoices[0].copy.amount_paid), (Some("paid"), None));
}

async fn a_payment_is_credited_once_with_the_opening_grant_before_it(world: &World) {
    let copy = checkout("cs", "complete", "paid");
    assert_eq!(world.repo.settle(&purchase("cs", "e0", 500)).await.unwrap(), Settled::AlreadyDone);
    world.repo.save_checkout("o", &copy, copy.age(at(0))).await.unwrap();
    let purchases: Vec<_> = (0..10).map(|n| purchase("cs", &format!("evt_{n}"), 500)).collect();
    let settled = futures::future::join_all(purchases.iter().map(|purchase| world.repo.settle(purchase))).await;
    let applied = settled.into_iter().filter(|one| matches!(one, Ok(Settled::Applied { .. }))).count();
    assert_eq!(applied, 1);
    assert_eq!(world.balance(&user()).await, 507);
    assert_eq!(world.audit(&user()).await, 2);
    assert!(world.repo.orders(&user(), Window { limit: 1, offset: 0 }).await.unwrap()[0].flux_credited);
}

async fn a_refund_takes_its_share_and_what_is_missing_is_owed(world: &World) {
    paid(world, "a", 500).await;
    let first = claw("a", Reason::Refund, 100);
    let outcomes = futures::future::join_all((0..5).map(|_| world.repo.claw_back(&first))).await;
    let applied = outcomes.iter().filter(|one| matches!(one, Ok(ClawedBack::Applied { .. }))).count();
    assert_eq!(applied, 1, "{outcomes:?}");
    assert_eq!(world.balance(&user()).await, 507 - 166);
    // Everything is spent before the rest goes back.
    let spend = crate::books::debit(&user(), "spend", 331);
    world.ledger.debit(&spend).await.unwrap();
    let second = world.repo.claw_back(&claw("a", Reason::Refund, 300)).await.unwrap();
    let ClawedBack::Applied { asked, taken, .. } = second else { panic!("{second:?}") };
    assert_eq!((asked, taken), (flux(334), flux(10)));
    assert_eq!(world.owed(&user()).await, flux(324));
    paid(world, "b", 500).await;
    assert_eq!(world.balance(&user()).await, 500 - 324);
    assert_eq!(world.owed(&user()).await, Flux::ZERO);
    world.audit(&user()).await;
}

async fn a_refund_before_its_payment_waits_for_it(world: &World) {
    let early = claw("a", Reason::Refund, 300);
    assert_eq!(world.repo.claw_back(&early).await.unwrap(), ClawedBack::Waiting);
    assert_eq!(world.repo.claw_back(&early).await.unwrap(), ClawedBack::Replayed);
    paid(world, "a", 500).await;
    assert_eq!(world.balance(&user()).await, 7);
    world.audit(&user()).await;
}

async fn a_refund_and_its_payment_at_once_cannot_miss_each_other(world: &World) {
    for n in 0..10 {
        let session = format!("s{n}");
        let copy = checkout(&session, "complete", "paid");
        world.repo.save_checkout(&session, &copy, copy.age(at(0))).await.unwrap();
        let (pay, back) = (purchase(&session, &session, 500), claw(&session, Reason::Refund, 300));
        let (settled, clawed) = tokio::join!(world.repo.settle(&pay), world.repo.claw_back(&back));
        settled.unwrap();
        clawed.unwrap();
        assert_eq!(world.balance(&user()).await, 7, "{n}");
    }
    world.audit(&user()).await;
}

async fn a_won_dispute_gives_back_what_it_took_whatever_came_first(world: &World) {
    paid(world, "a", 500).await;
    let dispute = claw("a", Reason::Dispute, 300);
    world.repo.claw_back(&dispute).await.unwrap();
    assert_eq!(world.balance(&user()).await, 7);
    let won = undo(&dispute);
    for nth in 0..3 {
        let restored = world.repo.restore(&won, &opening(0)).await.unwrap();
        assert_eq!(matches!(restored, Restored::Applied { .. }), nth == 0, "{restored:?}");
    }
    assert_eq!(world.balance(&user()).await, 507);
    let late = claw("b", Reason::Dispute, 300);
    assert_eq!(world.repo.restore(&undo(&late), &opening(0)).await.unwrap(), Restored::Nothing);
    paid(world, "b", 500).await;
    assert_eq!(world.repo.claw_back(&late).await.unwrap(), ClawedBack::Replayed);
    assert_eq!(world.balance(&user()).await, 1_007);
    world.audit(&user()).await;
}

async fn a_refund_leaves_held_flux_to_the_answer_it_was_promised_for(world: &World) {
    paid(world, "a", 500).await;
    let hold = |request: &str, amount, lease| Hold {
        user: user(),
        request: RequestId::new(request),
        least: flux(amount),
        most: flux(amount),
        lease: Duration::from_secs(lease),
    };
    assert!(matches!(world.ledger.hold(&hold("gone", 60, 0)).await.unwrap(), HoldOutcome::Held { .. }));
    assert!(matches!(world.ledger.hold(&hold("answer", 400, 600)).await.unwrap(), HoldOutcome::Held { .. }));
    // 107 are free: what lapsed stands in nobody's way.
    let back = world.repo.claw_back(&claw("a", Reason::Refund, 300)).await.unwrap();
    let ClawedBack::Applied { asked, taken, balance: Some(balance), .. } = back else { panic!("{back:?}") };
    assert_eq!((asked, taken, balance.flux), (flux(500), flux(107), flux(400)));
    assert_eq!(world.owed(&user()).await, flux(393));
    assert_eq!(world.ledger.verify().await.unwrap().drifts, []);
    let captured = world.ledger.capture(&crate::books::debit(&user(), "answer", 250)).await.unwrap();
    assert!(matches!(captured, DebitOutcome::Charged { charged, .. } if charged == flux(250)), "{captured:?}");
    // The next credit settles the debt, and leaves alone what is held meanwhile.
    assert!(matches!(world.ledger.hold(&hold("next", 150, 600)).await.unwrap(), HoldOutcome::Held { .. }));
    paid(world, "b", 500).await;
    assert_eq!((world.balance(&user()).await, world.owed(&user()).await), (257, Flux::ZERO));
    let captured = world.ledger.capture(&crate::books::debit(&user(), "next", 150)).await.unwrap();
    assert!(matches!(captured, DebitOutcome::Charged { charged, .. } if charged == flux(150)), "{captured:?}");
    assert_eq!(world.ledger.verify().await.unwrap().drifts, []);
    world.audit(&user()).await;
}

async fn money_that_comes_and_goes_at_once_stays_whole(world: &World) {
    const PAYMENTS: usize = 12;
    let charged = Mutex::new(0);
    let spend = async |name: String, held: bool| {
        let hold = Hold {
            user: user(),
            request: RequestId::new(&*name),
            least: flux(1),
            most: flux(90),
            lease: Duration::from_secs(600),
        };
        if held {
            world.ledger.hold(&hold).await.unwrap();
        }
        let debit = crate::books::debit(&user(), &name, 70);
        let outcome = if held { world.ledger.capture(&debit).await } else { world.ledger.debit(&debit).await };
        if let DebitOutcome::Charged { charged: taken, .. } = outcome.unwrap() {
            *charged.lock().unwrap() += taken.get();
        }
    };
    for n in 0..PAYMENTS {
        let copy = checkout(&format!("s{n}"), "complete", "paid");
        world.repo.save_checkout(&format!("s{n}"), &copy, copy.age(at(0))).await.unwrap();
    }
    let rounds = (0..PAYMENTS).map(async |n| {
        let session = format!("s{n}");
        let pay = purchase(&session, &format!("evt_{n}"), 500);
        let back = claw(&session, Reason::Refund, 300);
        let refund = async {
            if n % 3 == 0 {
                world.repo.claw_back(&back).await.unwrap();
            }
        };
        let (settled, again, ..) = tokio::join!(
            world.repo.settle(&pay),
            world.repo.settle(&pay),
            refund,
            spend(format!("held-{n}"), true),
            spend(format!("plain-{n}"), false),
        );
        let applied = [settled, again].iter().filter(|one| matches!(one, Ok(Settled::Applied { .. }))).count();
        assert_eq!(applied, 1, "{n}");
    });
    futures::future::join_all(rounds).await;
    let (paid, back) = (500 * 12, 500 * 4);
    let left = world.balance(&user()).await - world.owed(&user()).await.get();
    assert_eq!(left, 7 + paid - back - *charged.lock().unwrap());
    assert_eq!(world.ledger.verify().await.unwrap().drifts, []);
    world.audit(&user()).await;
}

macro_rules! cases {
    ($open:path: $($case:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $case() {
                super::$case(&$open().await).await;
            }
        )+
    };
}

macro_rules! all {
    ($open:path) => {
        cases!(
            $open: an_event_is_due_until_it_is_concluded,
            a_customer_stays_with_its_user,
            copies_are_replaced_by_what_is_more_settled_or_newer,
            a_payment_is_credited_once_with_the_opening_grant_before_it,
            a_refund_takes_its_share_and_what_is_missing_is_owed,
            a_refund_leaves_held_flux_to_the_answer_it_was_promised_for,
            money_that_comes_and_goes_at_once_stays_whole,
            a_refund_before_its_payment_waits_for_it,
            a_refund_and_its_payment_at_once_cannot_miss_each_other,
            a_won_dispute_gives_back_what_it_took_whatever_came_first,
        );
    };
}

mod sqlite {
    all!(super::World::sqlite);
}

#[cfg(feature = "live")]
mod postgres {
    all!(super::World::postgres);
}
