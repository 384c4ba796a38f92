//! `UsageMeter`: what every adapter keeps (contract `audio.md` §7.3, target AU-D25).

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use airi_server::core::model::hold::Hold;
use airi_server::core::model::ids::UserId;
use airi_server::core::model::ledger::Flux;
use airi_server::core::model::meter::{MeterReading, MeteredUse, Unsettled};
use airi_server::ports::FaultKind;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::books::{World, credit, debit, entry_id, flux, opening, request};

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(&crate::books::World::sqlite().await).await;
            })+
        }

        #[cfg(feature = "live")]
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(&crate::books::World::postgres().await).await;
            })+
        }
    };
}

cases!(
    every_sequence_of_the_vectors,
    a_settlement_is_entered_like_a_debit,
    a_short_settlement_is_entered_with_what_is_missing,
    a_use_without_a_whole_flux_has_no_entry,
    a_replay_answers_the_first_reading_and_adds_nothing,
    twenty_copies_of_one_use_are_metered_once,
    parallel_uses_lose_no_unit,
    parallel_uses_without_a_balance_lose_no_unit,
    a_debt_left_alone_is_forgiven,
    a_debt_without_a_live_balance_waits_for_one,
    meters_and_users_have_their_own_debts,
    a_settlement_that_fails_leaves_nothing,
    settlements_debits_and_credits_share_one_chain,
    callers_that_leave_at_any_moment_leave_whole_books,
    held_flux_is_told_and_left_alone,
    what_was_accumulated_is_settled_or_owed_in_any_order,
);

const DAY: Duration = Duration::from_secs(86_400);

fn used(user: &UserId, id: &str, units: i64, units_per_flux: i64) -> MeteredUse {
    MeteredUse {
        user: user.clone(),
        meter: "tts",
        request: request(id),
        units,
        units_per_flux,
        debt_lifetime: DAY,
        entry: entry_id(),
        description: "tts_request",
        metadata: json!({"source": "llm.request", "model": "voice"}).as_object().unwrap().clone(),
    }
}

async fn settle(world: &World, used: &MeteredUse) -> MeterReading {
    world.meter.settle(used).await.unwrap()
}

async fn debt(world: &World, user: &UserId) -> i64 {
    world.meter.debt(user, "tts", DAY).await.unwrap().units
}

async fn every_sequence_of_the_vectors(world: &World) {
    let vectors: Value = serde_json::from_str(include_str!("../fixtures/flux-meter-vectors.json")).unwrap();
    let sequences = vectors["sequences"].as_array().unwrap();
    // A failing debit is an exception of the reference's two steps; here it is a failing transaction, which
    // `a_settlement_that_fails_leaves_nothing` shows.
    let played = sequences.iter().filter(|sequence| sequence["steps"][0]["billing"] != "throws");
    let mut count = 0;
    for sequence in played {
        count += 1;
        let name = sequence["name"].as_str().unwrap();
        let per = sequence["unitsPerFlux"].as_i64().unwrap();
        let afforded = sequence["steps"][0]["billing"]["charged"].as_i64().unwrap_or(1_000);
        let user = world.rich(name, afforded).await;
        if let Some(start) = sequence["startDebt"].as_i64() {
            settle(world, &used(&user, "start", start, per)).await;
        }
        for (n, step) in sequence["steps"].as_array().unwrap().iter().enumerate() {
            let reading = settle(world, &used(&user, &format!("r{n}"), step["units"].as_i64().unwrap(), per)).await;
            assert_eq!(reading.charged.get(), step["debit"].as_i64().unwrap(), "{name} {n}");
            assert_eq!(reading.debt, step["debtAfter"].as_i64().unwrap(), "{name} {n}");
            assert_eq!(reading.unbilled.get(), step["unbilledFlux"].as_i64().unwrap_or(0), "{name} {n}");
            assert_eq!(reading.balance.unwrap().flux.get(), world.flux(&user).await.unwrap(), "{name} {n}");
            assert_eq!(debt(world, &user).await, reading.debt, "{name} {n}");
        }
        world.audit(&user).await;
    }
    assert_eq!(count, sequences.len() - 1);
}

async fn a_settlement_is_entered_like_a_debit(world: &World) {
    let user = world.rich("u", 10).await;
    let use_of_three = used(&user, "r", 3_500, 1_000);
    let reading = settle(world, &use_of_three).await;
    assert_eq!((reading.charged, reading.unbilled, reading.debt), (flux(3), Flux::ZERO, 500));
    assert_eq!((reading.balance.unwrap().flux, reading.replayed), (flux(7), false));
    let entry = world.ledger.find_entry(&user, &use_of_three.request).await.unwrap().unwrap();
    assert_eq!((entry.id, entry.amount, entry.after), (use_of_three.entry, flux(3), flux(7)));
    assert_eq!((entry.description.as_str(), entry.metadata), ("tts_request", Some(use_of_three.metadata)));
    assert_eq!(
        world.ledger.find(&user).await.unwrap(),
        airi_server::core::model::ledger::Standing::Open(reading.balance.unwrap())
    );
    world.audit(&user).await;
}

async fn a_short_settlement_is_entered_with_what_is_missing(world: &World) {
    let user = world.rich("u", 1).await;
    let reading = settle(world, &used(&user, "r", 3_500, 1_000)).await;
    assert_eq!((reading.charged, reading.unbilled, reading.debt), (flux(1), flux(2), 2_500));
    let metadata = world.ledger.find_entry(&user, &request("r")).await.unwrap().unwrap().metadata.unwrap();
    let expected = json!({"source": "llm.request", "model": "voice", "requestedAmount": 3, "unbilled": 2});
    assert_eq!(Value::Object(metadata), expected);

    // The rest is taken with the first use after a top-up.
    world.ledger.credit(&credit(&user, None, 10)).await.unwrap();
    let reading = settle(world, &used(&user, "r2", 600, 1_000)).await;
    assert_eq!((reading.charged, reading.unbilled, reading.debt), (flux(3), Flux::ZERO, 100));
    world.audit(&user).await;
}

async fn a_use_without_a_whole_flux_has_no_entry(world: &World) {
    let user = world.rich("u", 10).await;
    let reading = settle(world, &used(&user, "r", 999, 1_000)).await;
    assert_eq!((reading.charged, reading.debt, reading.balance.unwrap().flux), (Flux::ZERO, 999, flux(10)));
    assert_eq!((world.audit(&user).await.len(), world.uses(&user).await), (1, 1));
    for nothing in [0, -5] {
        let reading = settle(world, &used(&user, &format!("r{nothing}"), nothing, 1_000)).await;
        assert_eq!((reading.charged, reading.debt, reading.replayed), (Flux::ZERO, 999, false));
    }
    assert_eq!(world.uses(&user).await, 1);
}

async fn a_replay_answers_the_first_reading_and_adds_nothing(world: &World) {
    let user = world.rich("u", 1).await;
    let first = settle(world, &used(&user, "r", 3_500, 1_000)).await;
    world.ledger.credit(&credit(&user, None, 10)).await.unwrap();
    settle(world, &used(&user, "r2", 1, 1_000)).await;
    let again = settle(world, &used(&user, "r", 3_500, 1_000)).await;
    assert_eq!(again, MeterReading { balance: None, replayed: true, ..first });
    assert_eq!((debt(world, &user).await, world.uses(&user).await), (501, 2));
    world.audit(&user).await;
}

async fn twenty_copies_of_one_use_are_metered_once(world: &World) {
    let user = world.rich("u", 10).await;
    let copy = used(&user, "r", 1_700, 1_000);
    let readings = join_all((0..20).map(|_| settle(world, &copy))).await;
    assert_eq!(readings.iter().filter(|reading| !reading.replayed).count(), 1);
    assert!(readings.iter().all(|reading| (reading.charged, reading.debt) == (flux(1), 700)));
    assert_eq!((debt(world, &user).await, world.flux(&user).await), (700, Some(9)));
    assert_eq!(world.audit(&user).await.len(), 2);
}

async fn parallel_uses_lose_no_unit(world: &World) {
    let user = world.rich("u", 1_000).await;
    let uses: Vec<_> = (1..=60).map(|n| used(&user, &format!("r{n}"), n * 7, 500)).collect();
    join_all(uses.iter().map(|used| settle(world, used))).await;
    let units: i64 = uses.iter().map(|used| used.units).sum();
    let taken = 1_000 - world.flux(&user).await.unwrap();
    assert_eq!((taken, debt(world, &user).await), (units / 500, units % 500));
    world.audit(&user).await;
}

async fn parallel_uses_without_a_balance_lose_no_unit(world: &World) {
    let user = UserId::new("nobody");
    let uses: Vec<_> = (1..=30).map(|n| used(&user, &format!("r{n}"), n * 7, 50)).collect();
    let readings = join_all(uses.iter().map(|used| settle(world, used))).await;
    assert!(readings.iter().all(|reading| reading.charged.is_zero() && reading.balance.is_none()));
    assert_eq!(debt(world, &user).await, uses.iter().map(|used| used.units).sum::<i64>());
    assert_eq!((world.flux(&user).await, world.entries(&user).await.len()), (None, 0));
}

async fn a_debt_left_alone_is_forgiven(world: &World) {
    let user = world.rich("u", 10).await;
    settle(world, &used(&user, "r1", 700, 1_000)).await;
    world.age_debt(&user, DAY / 2).await;
    assert_eq!(debt(world, &user).await, 700);
    world.age_debt(&user, DAY).await;
    assert_eq!(debt(world, &user).await, 0);
    let reading = settle(world, &used(&user, "r2", 400, 1_000)).await;
    assert_eq!((reading.charged, reading.debt), (Flux::ZERO, 400));
    // The use made it young again.
    assert_eq!(debt(world, &user).await, 400);
}

async fn a_debt_without_a_live_balance_waits_for_one(world: &World) {
    let closed = world.rich("closed", 10).await;
    world.close(&closed).await;
    let reading = settle(world, &used(&closed, "r", 2_500, 1_000)).await;
    assert_eq!((reading.charged, reading.unbilled, reading.debt), (Flux::ZERO, flux(2), 2_500));
    assert_eq!(reading.balance, None);
    assert_eq!((world.flux(&closed).await, world.entries(&closed).await.len()), (Some(10), 1));

    let new = UserId::new("new");
    settle(world, &used(&new, "r", 2_500, 1_000)).await;
    world.ledger.open(&new, &opening(10)).await.unwrap();
    let reading = settle(world, &used(&new, "r2", 500, 1_000)).await;
    assert_eq!((reading.charged, reading.debt), (flux(3), 0));
    world.audit(&new).await;
}

async fn meters_and_users_have_their_own_debts(world: &World) {
    let (user, other) = (world.rich("u", 10).await, world.rich("v", 10).await);
    settle(world, &used(&user, "r1", 700, 1_000)).await;
    settle(world, &MeteredUse { meter: "stt", ..used(&user, "r2", 600, 1_000) }).await;
    settle(world, &used(&other, "r1", 500, 1_000)).await;
    assert_eq!(debt(world, &user).await, 700);
    assert_eq!(world.meter.debt(&user, "stt", DAY).await.unwrap().units, 600);
    assert_eq!(debt(world, &other).await, 500);
}

async fn a_settlement_that_fails_leaves_nothing(world: &World) {
    let user = world.rich("u", 10).await;
    let taken = world.ledger.list(&user, airi_server::core::model::page::Window { limit: 1, offset: 0 }, None);
    let entry = taken.await.unwrap().items.remove(0).id;
    let refused = MeteredUse { entry, ..used(&user, "r", 2_500, 1_000) };
    assert_eq!(world.meter.settle(&refused).await.unwrap_err().kind(), FaultKind::Corrupt);
    assert_eq!((debt(world, &user).await, world.uses(&user).await, world.flux(&user).await), (0, 0, Some(10)));
    let reading = settle(world, &used(&user, "r", 2_500, 1_000)).await;
    assert_eq!((reading.charged, reading.debt, reading.replayed), (flux(2), 500, false));
}

async fn settlements_debits_and_credits_share_one_chain(world: &World) {
    let user = world.rich("u", 50).await;
    let storm = (0..90).map(|n: usize| {
        let user = &user;
        async move {
            match n % 3 {
                0 => {
                    settle(world, &used(user, &format!("m{n}"), 700, 500)).await;
                }
                1 => {
                    world.ledger.debit(&debit(user, &format!("d{n}"), 2)).await.unwrap();
                }
                _ => {
                    world.ledger.credit(&credit(user, Some(&format!("c{n}")), 1)).await.unwrap();
                }
            }
        }
    });
    join_all(storm).await;
    world.audit(&user).await;
}

async fn callers_that_leave_at_any_moment_leave_whole_books(world: &World) {
    let user = world.rich("u", 10_000).await;
    let uses: Vec<_> = (0..120).map(|n| used(&user, &format!("r{n}"), 700, 500)).collect();
    join_all(uses.iter().map(|used| {
        let patience = Duration::from_micros(rand::random_range(0..30_000));
        async move { tokio::time::timeout(patience, settle(world, used)).await.is_ok() }
    }))
    .await;
    let metered = world.uses(&user).await;
    let taken = 10_000 - world.flux(&user).await.unwrap();
    assert_eq!(metered * 700, taken * 500 + debt(world, &user).await);
    // Asking again completes what was not made and repeats nothing.
    for used in &uses {
        settle(world, used).await;
    }
    assert_eq!((world.uses(&user).await, debt(world, &user).await), (120, 0));
    assert_eq!(world.flux(&user).await, Some(10_000 - 120 * 700 / 500));
    world.audit(&user).await;
}

async fn held_flux_is_told_and_left_alone(world: &World) {
    let user = world.rich("u", 10).await;
    let hold = |id: &str, amount: i64, lease: Duration| Hold {
        user: user.clone(),
        request: request(id),
        least: flux(amount),
        most: flux(amount),
        lease,
    };
    world.ledger.hold(&hold("chat", 8, Duration::from_secs(60))).await.unwrap();
    let unsettled = world.meter.debt(&user, "tts", DAY).await.unwrap();
    assert_eq!(unsettled, Unsettled { units: 0, held: flux(8) });
    let reading = settle(world, &used(&user, "r", 5_000, 1_000)).await;
    assert_eq!((reading.charged, reading.unbilled, reading.debt), (flux(2), flux(3), 3_000));
    world.ledger.capture(&debit(&user, "chat", 6)).await.unwrap();
    assert_eq!(world.flux(&user).await, Some(2));
    // What the answer did not cost is there for the next use, and a lapsed hold keeps nothing.
    world.ledger.hold(&hold("dead", 2, Duration::ZERO)).await.unwrap();
    let unsettled = world.meter.debt(&user, "tts", DAY).await.unwrap();
    assert_eq!(unsettled, Unsettled { units: 3_000, held: Flux::ZERO });
    let reading = settle(world, &used(&user, "r2", 10, 1_000)).await;
    assert_eq!((reading.charged, reading.unbilled, reading.debt), (flux(2), flux(1), 1_010));
    world.audit(&user).await;
}

/// Uses and top-ups at once, some repeated, some of them left by their callers: what was accumulated
/// is settled or owed, and a balance that ran dry gives back what it could not pay.
async fn what_was_accumulated_is_settled_or_owed_in_any_order(world: &World) {
    let mut dice = StdRng::seed_from_u64(0xA1B2);
    for round in 0..24 {
        let balance = dice.random_range(0..30);
        let per = dice.random_range(1..1_500);
        let user = world.rich(format!("u{round}"), balance).await;
        let mut steps = Vec::new();
        for n in 0..dice.random_range(1..30) {
            let id = format!("r{}", dice.random_range(0..12));
            steps.push((n, id, dice.random_range(0..3_000), Duration::from_micros(dice.random_range(0..20_000))));
        }
        let given = AtomicI64::new(balance);
        join_all(steps.iter().map(|(n, id, units, patience)| {
            let (user, given) = (&user, &given);
            async move {
                match n % 6 {
                    0 => {
                        world.ledger.credit(&credit(user, Some(&format!("c{n}")), 2)).await.unwrap();
                        given.fetch_add(2, Ordering::SeqCst);
                    }
                    1 => {
                        let use_of_it = used(user, id, *units, per);
                        drop(tokio::time::timeout(*patience, settle(world, &use_of_it)).await);
                    }
                    _ => {
                        settle(world, &used(user, id, *units, per)).await;
                    }
                }
            }
        }))
        .await;
        // Waits for whatever is still under way for callers that left.
        settle(world, &used(&user, "last", 1, per)).await;
        let taken = given.into_inner() - world.flux(&user).await.unwrap();
        let spoken = world.units(&user).await;
        assert_eq!(spoken, taken * per + debt(world, &user).await, "round {round}");
        world.audit(&user).await;
    }
}

/// Random ways of using a meter; SQLite alone, since it takes hundreds of them.
mod any_order {
    use super::*;
    use proptest::test_runner::{Config, TestRunner};

    #[test]
    fn what_was_accumulated_is_settled_or_owed() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let world = runtime.block_on(World::sqlite_in_memory());
        let mut next = 0;
        let plan = (0..40i64, proptest::collection::vec((0..12u8, 0..3_000i64), 1..30), 1..1_500i64);
        let play = |(balance, uses, per): (i64, Vec<(u8, i64)>, i64)| {
            next += 1;
            runtime.block_on(async {
                let user = world.rich(format!("u{next}"), balance).await;
                let uses: Vec<_> = uses.iter().map(|(id, units)| used(&user, &format!("r{id}"), *units, per)).collect();
                let readings = join_all(uses.iter().map(|used| settle(&world, used))).await;
                let metered = uses.iter().zip(&readings).filter(|(_, reading)| !reading.replayed);
                let units: i64 = metered.map(|(used, _)| used.units).sum();
                let taken = balance - world.flux(&user).await.unwrap();
                assert_eq!(units, taken * per + debt(&world, &user).await);
                world.audit(&user).await;
            });
            Ok(())
        };
        let config = Config { failure_persistence: None, ..Config::with_cases(256) };
        let play = std::cell::RefCell::new(play);
        TestRunner::new(config).run(&plan, |plan| play.borrow_mut()(plan)).unwrap();
    }
}
