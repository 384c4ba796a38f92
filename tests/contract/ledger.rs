//! `LedgerRepo`: what every adapter keeps (contracts `ledger.md`, `billing-stripe.md` §1–4).

use std::time::Duration;

use airi_server::core::model::ids::{EntryId, RequestId, UserId};
use airi_server::core::model::ledger::{Balance, CreditOutcome, DebitOutcome, EntryKind, Flux, OpenOutcome, Standing};
use airi_server::core::model::page::Window;
use airi_server::ports::FaultKind;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::books::{World, credit, debit, flux, opening, request};

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
    a_user_nobody_asked_for_is_absent_and_finding_them_writes_nothing,
    the_first_read_makes_the_grant_and_its_entry,
    a_grant_of_zero_still_has_its_entry,
    fifty_first_reads_make_one_grant,
    a_debit_is_written_as_asked,
    the_last_flux_is_drained_and_the_entry_says_what_is_missing,
    a_replay_of_a_partial_debit_answers_what_was_taken_then,
    a_debit_of_nothing_is_refused,
    fifty_copies_of_one_debit_are_charged_once,
    a_hundred_debits_of_one_take_sixty_from_sixty,
    users_without_a_live_row_are_refused_and_nothing_is_written,
    an_earlier_charge_is_replayed_even_when_the_row_is_closed,
    a_promo_before_the_first_read_follows_the_grant,
    a_replayed_credit_answers_its_entry,
    credits_without_a_business_object_are_all_made,
    fifty_copies_of_one_credit_to_a_new_user_make_one_grant_and_one_credit,
    a_closed_row_is_not_credited,
    a_sum_beyond_the_exact_range_is_refused_and_opens_nothing,
    history_is_paged_newest_first,
    history_continues_behind_an_entry_of_the_user_only,
    capacity_is_the_balance_after_the_newest_gift_or_purchase,
    an_entry_is_found_by_its_business_object_and_owner,
    rows_of_the_reference_are_read_and_continued,
    a_time_ahead_of_the_clock_is_still_followed_by_a_later_one,
    a_storm_of_debits_and_credits_keeps_the_books,
    callers_that_leave_at_any_moment_leave_whole_books,
    a_debit_that_cannot_be_written_fails_alone,
    an_unreadable_balance_fails_only_its_owner,
    what_is_queued_is_charged_after_the_ledger_is_dropped,
);

async fn a_user_nobody_asked_for_is_absent_and_finding_them_writes_nothing(world: &World) {
    let user = UserId::new("u");
    assert_eq!(world.ledger.find(&user).await.unwrap(), Standing::Absent);
    assert_eq!(world.ledger.capacity(&user).await.unwrap(), Flux::ZERO);
    let page = world.ledger.list(&user, Window { limit: 20, offset: 0 }, None).await.unwrap();
    assert!(page.items.is_empty() && !page.has_more);
    assert_eq!(world.flux(&user).await, None);
}

async fn the_first_read_makes_the_grant_and_its_entry(world: &World) {
    let user = UserId::new("u");
    let OpenOutcome::Opened(balance) = world.ledger.open(&user, &opening(100)).await.unwrap() else {
        panic!("the first read opens")
    };
    assert_eq!(balance.flux, flux(100));
    assert_eq!(world.ledger.open(&user, &opening(999)).await.unwrap(), OpenOutcome::Found(balance));
    assert_eq!(world.ledger.find(&user).await.unwrap(), Standing::Open(balance));

    let page = world.ledger.list(&user, Window { limit: 20, offset: 0 }, None).await.unwrap();
    let [entry] = &page.items[..] else { panic!("one entry") };
    assert_eq!((entry.kind, entry.description.as_str()), (EntryKind::Initial, "Initial grant"));
    assert_eq!((entry.amount, entry.before, entry.after), (flux(100), Flux::ZERO, flux(100)));
    assert_eq!((&entry.request, &entry.metadata), (&None, &None));
    world.audit(&user).await;

    world.close(&user).await;
    assert_eq!(world.ledger.open(&user, &opening(100)).await.unwrap(), OpenOutcome::Closed);
    assert_eq!(world.ledger.find(&user).await.unwrap(), Standing::Closed);
    assert_eq!(world.entries(&user).await.len(), 1);
}

async fn a_grant_of_zero_still_has_its_entry(world: &World) {
    let user = UserId::new("u");
    assert!(matches!(world.ledger.open(&user, &opening(0)).await.unwrap(), OpenOutcome::Opened(_)));
    let entries = world.audit(&user).await;
    assert_eq!((entries.len(), entries[0].kind.as_str(), entries[0].amount), (1, "initial", 0));
}

async fn fifty_first_reads_make_one_grant(world: &World) {
    let user = UserId::new("u");
    let openings: Vec<_> = (0..50).map(|_| opening(100)).collect();
    let reads = join_all(openings.iter().map(|opening| world.ledger.open(&user, opening))).await;
    let opened = reads.iter().filter(|read| matches!(read.as_ref().unwrap(), OpenOutcome::Opened(_))).count();
    assert_eq!(opened, 1);
    for read in reads {
        let (OpenOutcome::Opened(balance) | OpenOutcome::Found(balance)) = read.unwrap() else { panic!("not closed") };
        assert_eq!(balance.flux, flux(100));
    }
    assert_eq!(world.audit(&user).await.len(), 1);
}

async fn a_debit_is_written_as_asked(world: &World) {
    let user = world.rich("u", 100).await;
    let mut wish = debit(&user, "r", 3);
    wish.metadata = json!({"source": "llm.request", "model": "m", "promptTokens": 7}).as_object().unwrap().clone();
    let outcome = world.ledger.debit(&wish).await.unwrap();
    let DebitOutcome::Charged { charged, balance } = outcome else { panic!("charged") };
    assert_eq!((charged, balance.flux), (flux(3), flux(97)));

    let entry = world.ledger.find_entry(&user, &wish.request).await.unwrap().unwrap();
    assert_eq!((entry.id, entry.kind), (wish.entry.clone(), EntryKind::Debit));
    assert_eq!((entry.amount, entry.before, entry.after), (flux(3), flux(100), flux(97)));
    assert_eq!(entry.request.as_ref(), Some(&wish.request));
    assert_eq!((entry.description.as_str(), entry.metadata), ("llm_request", Some(wish.metadata)));
    assert_eq!(world.ledger.find(&user).await.unwrap(), Standing::Open(balance));
    world.audit(&user).await;
}

async fn the_last_flux_is_drained_and_the_entry_says_what_is_missing(world: &World) {
    let user = world.rich("u", 2).await;
    let mut wish = debit(&user, "r", 5);
    wish.metadata = json!({"source": "llm.request"}).as_object().unwrap().clone();
    let DebitOutcome::Charged { charged, balance } = world.ledger.debit(&wish).await.unwrap() else {
        panic!("charged")
    };
    assert_eq!((charged, balance.flux), (flux(2), Flux::ZERO));
    let entry = world.ledger.find_entry(&user, &wish.request).await.unwrap().unwrap();
    let expected = json!({"source": "llm.request", "requestedAmount": 5, "unbilled": 3});
    assert_eq!(Value::Object(entry.metadata.unwrap()), expected);
    assert_eq!(world.ledger.debit(&debit(&user, "r2", 1)).await.unwrap(), DebitOutcome::Refused);
    world.audit(&user).await;
}

async fn a_replay_of_a_partial_debit_answers_what_was_taken_then(world: &World) {
    let user = world.rich("u", 2).await;
    world.ledger.debit(&debit(&user, "r", 5)).await.unwrap();
    world.ledger.credit(&credit(&user, Some("top-up"), 50)).await.unwrap();
    let again = world.ledger.debit(&debit(&user, "r", 5)).await.unwrap();
    assert_eq!(again, DebitOutcome::Replayed { charged: flux(2), after: Flux::ZERO });
    assert_eq!(world.flux(&user).await, Some(50));
    world.audit(&user).await;
}

async fn a_debit_of_nothing_is_refused(world: &World) {
    let user = world.rich("u", 2).await;
    assert_eq!(world.ledger.debit(&debit(&user, "r", 0)).await.unwrap(), DebitOutcome::Refused);
    assert_eq!(world.audit(&user).await.len(), 1);
}

async fn fifty_copies_of_one_debit_are_charged_once(world: &World) {
    let user = world.rich("u", 100).await;
    let wish = debit(&user, "r", 7);
    let outcomes = join_all((0..50).map(|_| world.ledger.debit(&wish))).await;
    let mut charged = 0;
    for outcome in outcomes {
        match outcome.unwrap() {
            DebitOutcome::Charged { charged: taken, balance } => {
                charged += 1;
                assert_eq!((taken, balance.flux), (flux(7), flux(93)));
            }
            other => assert_eq!(other, DebitOutcome::Replayed { charged: flux(7), after: flux(93) }),
        }
    }
    assert_eq!(charged, 1);
    assert_eq!(world.audit(&user).await.len(), 2);
}

async fn a_hundred_debits_of_one_take_sixty_from_sixty(world: &World) {
    let user = world.rich("u", 60).await;
    let wishes: Vec<_> = (0..100).map(|n| debit(&user, &format!("r{n}"), 1)).collect();
    let outcomes = join_all(wishes.iter().map(|wish| world.ledger.debit(wish))).await;
    let refused = outcomes.iter().filter(|outcome| *outcome.as_ref().unwrap() == DebitOutcome::Refused).count();
    assert_eq!(refused, 40);
    let entries = world.audit(&user).await;
    assert_eq!(entries.iter().filter(|entry| entry.kind == "debit").count(), 60);
    assert_eq!(world.flux(&user).await, Some(0));
}

async fn users_without_a_live_row_are_refused_and_nothing_is_written(world: &World) {
    let nobody = UserId::new("nobody");
    assert_eq!(world.ledger.debit(&debit(&nobody, "r", 1)).await.unwrap(), DebitOutcome::Refused);
    assert_eq!((world.flux(&nobody).await, world.entries(&nobody).await.len()), (None, 0));

    let gone = world.rich("gone", 10).await;
    world.close(&gone).await;
    assert_eq!(world.ledger.debit(&debit(&gone, "r", 1)).await.unwrap(), DebitOutcome::Refused);
    assert_eq!((world.flux(&gone).await, world.entries(&gone).await.len()), (Some(10), 1));
}

async fn an_earlier_charge_is_replayed_even_when_the_row_is_closed(world: &World) {
    let user = world.rich("u", 10).await;
    world.ledger.debit(&debit(&user, "r", 4)).await.unwrap();
    world.close(&user).await;
    let again = world.ledger.debit(&debit(&user, "r", 4)).await.unwrap();
    assert_eq!(again, DebitOutcome::Replayed { charged: flux(4), after: flux(6) });
}

async fn a_promo_before_the_first_read_follows_the_grant(world: &World) {
    let user = UserId::new("u");
    let mut gift = credit(&user, Some("gift"), 50);
    gift.opening = opening(100);
    let CreditOutcome::Credited { entry, balance } = world.ledger.credit(&gift).await.unwrap() else { panic!("made") };
    assert_eq!((entry, balance.flux), (gift.entry.clone(), flux(150)));
    let entries = world.audit(&user).await;
    let kinds: Vec<_> = entries.iter().map(|entry| (entry.kind.as_str(), entry.amount)).collect();
    assert_eq!(kinds, [("initial", 100), ("promo", 50)]);
    assert_eq!(world.ledger.open(&user, &opening(100)).await.unwrap(), OpenOutcome::Found(balance));
}

async fn a_replayed_credit_answers_its_entry(world: &World) {
    let user = world.rich("u", 10).await;
    let mut gift = credit(&user, Some("gift"), 5);
    gift.metadata = Some(json!({"description": "sorry", "issuedByUserId": "admin"}).as_object().unwrap().clone());
    world.ledger.credit(&gift).await.unwrap();
    world.ledger.debit(&debit(&user, "r", 15)).await.unwrap();

    let CreditOutcome::Replayed { entry } = world.ledger.credit(&credit(&user, Some("gift"), 99)).await.unwrap() else {
        panic!("replayed")
    };
    assert_eq!((&entry.id, entry.kind, entry.amount), (&gift.entry, EntryKind::Promo, flux(5)));
    assert_eq!((entry.before, entry.after), (flux(10), flux(15)));
    assert_eq!((entry.description.as_str(), &entry.metadata), ("gift", &gift.metadata));

    world.close(&user).await;
    assert!(matches!(world.ledger.credit(&gift).await.unwrap(), CreditOutcome::Replayed { .. }));
    assert_eq!(world.flux(&user).await, Some(0));
}

async fn credits_without_a_business_object_are_all_made(world: &World) {
    let user = world.rich("u", 0).await;
    for _ in 0..3 {
        let outcome = world.ledger.credit(&credit(&user, None, 5)).await.unwrap();
        assert!(matches!(outcome, CreditOutcome::Credited { .. }));
    }
    assert_eq!(world.flux(&user).await, Some(15));
    world.audit(&user).await;
}

async fn fifty_copies_of_one_credit_to_a_new_user_make_one_grant_and_one_credit(world: &World) {
    let user = UserId::new("u");
    let gifts: Vec<_> = (0..50)
        .map(|_| {
            let mut gift = credit(&user, Some("gift"), 50);
            gift.opening = opening(100);
            gift
        })
        .collect();
    let outcomes = join_all(gifts.iter().map(|gift| world.ledger.credit(gift))).await;
    let made = outcomes.iter().filter(|outcome| matches!(outcome.as_ref().unwrap(), CreditOutcome::Credited { .. }));
    assert_eq!(made.count(), 1);
    for outcome in outcomes {
        assert!(matches!(outcome.unwrap(), CreditOutcome::Credited { .. } | CreditOutcome::Replayed { .. }));
    }
    assert_eq!(world.audit(&user).await.len(), 2);
    assert_eq!(world.flux(&user).await, Some(150));
}

async fn a_closed_row_is_not_credited(world: &World) {
    let user = world.rich("u", 10).await;
    world.close(&user).await;
    assert_eq!(world.ledger.credit(&credit(&user, Some("late"), 5)).await.unwrap(), CreditOutcome::Closed);
    assert_eq!((world.flux(&user).await, world.entries(&user).await.len()), (Some(10), 1));
}

async fn a_sum_beyond_the_exact_range_is_refused_and_opens_nothing(world: &World) {
    let user = world.rich("u", 1).await;
    assert_eq!(world.ledger.credit(&credit(&user, Some("big"), 1 << 53)).await.unwrap(), CreditOutcome::Overflow);
    assert_eq!(world.audit(&user).await.len(), 1);

    let new = UserId::new("new");
    let mut big = credit(&new, Some("big"), 1 << 53);
    big.opening = opening(1);
    assert_eq!(world.ledger.credit(&big).await.unwrap(), CreditOutcome::Overflow);
    assert_eq!((world.flux(&new).await, world.entries(&new).await.len()), (None, 0));
}

async fn history_is_paged_newest_first(world: &World) {
    let user = world.rich("u", 100).await;
    for n in 1..45 {
        world.ledger.debit(&debit(&user, &format!("r{n}"), 1)).await.unwrap();
    }
    let mut seen = Vec::new();
    for (offset, length, more) in [(0, 20, true), (20, 20, true), (40, 5, false)] {
        let page = world.ledger.list(&user, Window { limit: 20, offset }, None).await.unwrap();
        assert_eq!((page.items.len(), page.has_more), (length, more));
        seen.extend(page.items);
    }
    assert!(seen.windows(2).all(|pair| pair[0].at > pair[1].at && pair[0].before == pair[1].after));
    assert_eq!(seen[44].kind, EntryKind::Initial);
    let beyond = world.ledger.list(&user, Window { limit: 100, offset: i32::MAX as u32 }, None).await.unwrap();
    assert!(beyond.items.is_empty() && !beyond.has_more);
}

async fn history_continues_behind_an_entry_of_the_user_only(world: &World) {
    let user = world.rich("u", 100).await;
    let other = world.rich("v", 100).await;
    for n in 0..5 {
        world.ledger.debit(&debit(&user, &format!("r{n}"), 1)).await.unwrap();
    }
    let everything = world.ledger.list(&user, Window { limit: 100, offset: 0 }, None).await.unwrap().items;
    let anchor = &everything[1].id;
    let page = world.ledger.list(&user, Window { limit: 3, offset: 77 }, Some(anchor)).await.unwrap();
    assert_eq!((&page.items[..], page.has_more), (&everything[2..5], true));
    let last = world.ledger.list(&user, Window { limit: 3, offset: 0 }, Some(&everything[4].id)).await.unwrap();
    assert_eq!((&last.items[..], last.has_more), (&everything[5..], false));

    let foreign = world.ledger.list(&other, Window { limit: 1, offset: 0 }, None).await.unwrap().items;
    for unknown in [&foreign[0].id, &EntryId::new("no such entry")] {
        let page = world.ledger.list(&user, Window { limit: 2, offset: 1 }, Some(unknown)).await.unwrap();
        assert_eq!((&page.items[..], page.has_more), (&everything[1..3], true));
    }
}

async fn capacity_is_the_balance_after_the_newest_gift_or_purchase(world: &World) {
    let user = world.rich("u", 100).await;
    assert_eq!(world.ledger.capacity(&user).await.unwrap(), flux(100));
    world.ledger.debit(&debit(&user, "r", 3)).await.unwrap();
    world.ledger.credit(&credit(&user, Some("gift"), 50)).await.unwrap();
    world.ledger.debit(&debit(&user, "r2", 9)).await.unwrap();
    assert_eq!(world.ledger.capacity(&user).await.unwrap(), flux(147));
}

async fn an_entry_is_found_by_its_business_object_and_owner(world: &World) {
    let user = world.rich("u", 10).await;
    let other = world.rich("v", 10).await;
    world.ledger.debit(&debit(&user, "r", 3)).await.unwrap();
    assert_eq!(world.ledger.find_entry(&user, &request("r")).await.unwrap().unwrap().amount, flux(3));
    assert_eq!(world.ledger.find_entry(&other, &request("r")).await.unwrap(), None);
    assert_eq!(world.ledger.find_entry(&user, &request("s")).await.unwrap(), None);
    // The same id means another object for another user.
    let outcome = world.ledger.debit(&debit(&other, "r", 2)).await.unwrap();
    assert!(matches!(outcome, DebitOutcome::Charged { .. }));
}

async fn rows_of_the_reference_are_read_and_continued(world: &World) {
    let user = UserId::new("u");
    world.reference_row(&user, 70).await;
    world.reference_entry(&user, "ref-1", "initial", (100, 0, 100), None).await;
    world.reference_entry(&user, "ref-2", "debit", (30, 100, 70), Some("theirs")).await;
    assert_eq!(world.ledger.find(&user).await.unwrap(), Standing::Open(Balance { flux: flux(70), version: 0 }));

    let replay = world.ledger.debit(&debit(&user, "theirs", 30)).await.unwrap();
    assert_eq!(replay, DebitOutcome::Replayed { charged: flux(30), after: flux(70) });
    world.ledger.debit(&debit(&user, "ours", 20)).await.unwrap();
    let page = world.ledger.list(&user, Window { limit: 10, offset: 0 }, None).await.unwrap();
    let ids: Vec<_> = page.items.iter().map(|entry| (entry.amount.get(), entry.metadata.is_some())).collect();
    assert_eq!(ids, [(20, true), (30, false), (100, false)]);
    assert_eq!(world.ledger.capacity(&user).await.unwrap(), flux(100));
    world.audit(&user).await;
}

async fn a_time_ahead_of_the_clock_is_still_followed_by_a_later_one(world: &World) {
    let user = world.rich("u", 10).await;
    world.postpone(&user, Duration::from_secs(3600)).await;
    for n in 0..3 {
        world.ledger.debit(&debit(&user, &format!("r{n}"), 1)).await.unwrap();
    }
    world.ledger.credit(&credit(&user, Some("gift"), 1)).await.unwrap();
    assert_eq!(world.audit(&user).await.len(), 5);
}

async fn a_storm_of_debits_and_credits_keeps_the_books(world: &World) {
    let users: Vec<_> = (0..6).map(|n| UserId::new(format!("u{n}"))).collect();
    let storm = (0..600).map(|n: usize| {
        let user = &users[n % users.len()];
        async move {
            match n % 7 {
                0 => {
                    world.ledger.credit(&credit(user, Some(&format!("c{}", n / 3)), 9)).await.unwrap();
                }
                1 => {
                    world.ledger.open(user, &opening(20)).await.unwrap();
                }
                // Every request comes twice.
                _ => {
                    world.ledger.debit(&debit(user, &format!("d{}", n / 12), 5)).await.unwrap();
                }
            }
        }
    });
    join_all(storm).await;
    for user in &users {
        assert!(world.audit(user).await.len() > 10);
    }
}

async fn callers_that_leave_at_any_moment_leave_whole_books(world: &World) {
    let users: Vec<_> = join_all((0..4).map(|n| world.rich(format!("u{n}"), 400))).await;
    for round in 0..10 {
        let calls = (0..40).map(|n: usize| {
            let user = &users[n % users.len()];
            async move {
                let patience = Duration::from_micros(rand::random_range(0..4_000));
                let name = format!("{round}-{n}");
                let call = async {
                    if n.is_multiple_of(5) {
                        world.ledger.credit(&credit(user, Some(&name), 3)).await.unwrap();
                    } else {
                        world.ledger.debit(&debit(user, &name, 2)).await.unwrap();
                    }
                };
                tokio::time::timeout(patience, call).await.is_ok()
            }
        });
        join_all(calls).await;
    }
    // Whoever asks again gets one outcome, whatever became of the first call.
    for user in &users {
        world.audit(user).await;
        let wish = debit(user, "0-1", 2);
        let again = world.ledger.debit(&wish).await.unwrap();
        assert!(matches!(again, DebitOutcome::Replayed { .. } | DebitOutcome::Charged { .. }));
        assert!(matches!(world.ledger.debit(&wish).await.unwrap(), DebitOutcome::Replayed { .. }));
        world.audit(user).await;
    }
}

async fn a_debit_that_cannot_be_written_fails_alone(world: &World) {
    let users: Vec<_> = join_all((0..20).map(|n| world.rich(format!("u{n}"), 10))).await;
    let taken = world.entries(&users[0]).await[0].id.clone();
    let wishes: Vec<_> = users
        .iter()
        .enumerate()
        .map(|(n, user)| {
            let mut wish = debit(user, "r", 1);
            if n == 7 {
                wish.entry = EntryId::new(taken.as_str());
            }
            wish
        })
        .collect();
    let outcomes = join_all(wishes.iter().map(|wish| world.ledger.debit(wish))).await;
    for (n, outcome) in outcomes.into_iter().enumerate() {
        if n == 7 {
            assert_eq!(outcome.unwrap_err().kind(), FaultKind::Corrupt);
        } else {
            assert!(matches!(outcome.unwrap(), DebitOutcome::Charged { .. }), "{n}");
        }
        world.audit(&users[n]).await;
    }
}

async fn an_unreadable_balance_fails_only_its_owner(world: &World) {
    let user = world.rich("u", 10).await;
    let odd = UserId::new("odd");
    world.reference_row(&odd, (1 << 53) + 1).await;
    let (mine, theirs) = (debit(&user, "r", 1), debit(&odd, "r", 1));
    let (mine, theirs) = tokio::join!(world.ledger.debit(&mine), world.ledger.debit(&theirs));
    assert!(matches!(mine.unwrap(), DebitOutcome::Charged { .. }));
    assert_eq!(theirs.unwrap_err().kind(), FaultKind::Corrupt);
    assert_eq!(world.ledger.find(&odd).await.unwrap_err().kind(), FaultKind::Corrupt);
    assert_eq!(world.flux(&odd).await, Some((1 << 53) + 1));
}

async fn what_is_queued_is_charged_after_the_ledger_is_dropped(world: &World) {
    let user = world.rich("u", 100).await;
    let ledger = world.another_ledger();
    let wishes: Vec<_> = (0..30).map(|n| debit(&user, &format!("r{n}"), 1)).collect();
    let mut calls: Vec<_> = wishes.iter().map(|wish| ledger.debit(wish)).collect();
    for call in &mut calls {
        // One poll queues the debit.
        assert!(futures::poll!(call).is_pending());
    }
    drop(calls);
    drop(ledger);
    world.wait_for("every queued debit", async || world.entries(&user).await.len() == 31).await;
    world.audit(&user).await;
}

/// What only a database with several writers can show.
#[cfg(feature = "live")]
mod postgres_alone {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_row_that_others_hold_does_not_hold_up_the_neighbours() {
        let world = World::postgres().await;
        let users: Vec<_> = join_all((0..10).map(|n| world.rich(format!("u{n}"), 10))).await;
        let held = world.hold(&users[3]).await;
        let wishes: Vec<_> = users.iter().map(|user| debit(user, "r", 1)).collect();
        let calls = futures::future::join_all(
            wishes.iter().enumerate().filter(|(n, _)| *n != 3).map(|(_, w)| world.ledger.debit(w)),
        );
        let (stuck, others) =
            tokio::join!(world.ledger.debit(&wishes[3]), tokio::time::timeout(Duration::from_secs(20), calls),);
        assert_eq!(stuck.unwrap_err().kind(), FaultKind::Timeout);
        for outcome in others.unwrap() {
            assert!(matches!(outcome.unwrap(), DebitOutcome::Charged { .. }));
        }
        held.rollback().await.unwrap();
        let later = world.ledger.debit(&wishes[3]).await.unwrap();
        assert!(matches!(later, DebitOutcome::Charged { .. }));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn text_the_database_cannot_store_fails_alone() {
        let world = World::postgres().await;
        let users: Vec<_> = join_all((0..10).map(|n| world.rich(format!("u{n}"), 10))).await;
        let mut wishes: Vec<_> = users.iter().map(|user| debit(user, "r", 1)).collect();
        wishes[4].metadata.insert("model".into(), "nul \0 inside".into());
        wishes[5].request = RequestId::new("nul \0 inside");
        for (n, outcome) in join_all(wishes.iter().map(|wish| world.ledger.debit(wish))).await.into_iter().enumerate() {
            assert_eq!(outcome.is_err(), n == 4 || n == 5, "{n}: {outcome:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_processes_share_the_rows() {
        let world = World::postgres().await;
        let ledgers = [world.another_ledger(), world.another_ledger()];
        let users: Vec<_> = join_all((0..8).map(|n| world.rich(format!("u{n}"), 50))).await;
        let wishes: Vec<_> =
            (0..400).map(|n: usize| debit(&users[n % users.len()], &format!("r{}", n / 16), 3)).collect();
        join_all(wishes.iter().enumerate().map(|(n, wish)| ledgers[n % 2].debit(wish)))
            .await
            .into_iter()
            .for_each(|outcome| assert!(outcome.is_ok()));
        for user in &users {
            world.audit(user).await;
        }
    }
}

/// Random interleavings; SQLite alone, since it takes hundreds of them.
mod any_order {
    use std::collections::HashMap;

    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    #[derive(Clone, Debug)]
    enum Step {
        Debit(u8, i64),
        Credit(u8, i64),
        Open(i64),
    }

    fn step() -> impl Strategy<Value = (u8, Step)> {
        let step = prop_oneof![
            6 => (0..20u8, 0..40i64).prop_map(|(id, amount)| Step::Debit(id, amount)),
            3 => (0..8u8, 1..40i64).prop_map(|(id, amount)| Step::Credit(id, amount)),
            1 => (0..60i64).prop_map(Step::Open),
        ];
        (0..3u8, step)
    }

    /// What one object did to one user: flux taken or given, by the first call and by each repetition.
    type Told = HashMap<(UserId, String), Vec<(bool, i64)>>;

    async fn perform(world: &World, user: &UserId, step: &Step) -> Option<(String, (bool, i64))> {
        match step {
            Step::Open(grant) => {
                world.ledger.open(user, &opening(*grant)).await.unwrap();
                None
            }
            Step::Debit(id, amount) => {
                let id = format!("d{id}");
                match world.ledger.debit(&debit(user, &id, *amount)).await.unwrap() {
                    DebitOutcome::Charged { charged, .. } => Some((id, (true, charged.get()))),
                    DebitOutcome::Replayed { charged, .. } => Some((id, (false, charged.get()))),
                    DebitOutcome::Refused => None,
                }
            }
            Step::Credit(id, amount) => {
                let id = format!("c{id}");
                match world.ledger.credit(&credit(user, Some(&id), *amount)).await.unwrap() {
                    CreditOutcome::Credited { .. } => Some((id, (true, *amount))),
                    CreditOutcome::Replayed { entry } => Some((id, (false, entry.amount.get()))),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn the_books_are_whole_and_every_object_happened_once() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let world = runtime.block_on(World::sqlite_in_memory());
        let round = std::cell::Cell::new(0);
        let tasks = proptest::collection::vec(proptest::collection::vec(step(), 1..12), 1..8);
        let config = Config { failure_persistence: None, ..Config::with_cases(300) };
        let play = |tasks: Vec<Vec<(u8, Step)>>| {
            round.set(round.get() + 1);
            let user = |n: u8| UserId::new(format!("u{}-{n}", round.get()));
            runtime.block_on(async {
                let (world, user) = (&world, &user);
                let told = join_all(tasks.iter().map(|steps| async move {
                    let mut told = Vec::new();
                    for (n, step) in steps {
                        told.extend(perform(world, &user(*n), step).await.map(|(id, what)| ((user(*n), id), what)));
                    }
                    told
                }))
                .await;
                let mut by_object = Told::new();
                for (object, what) in told.into_iter().flatten() {
                    by_object.entry(object).or_default().push(what);
                }
                for (object, what) in &by_object {
                    assert_eq!(what.iter().filter(|(first, _)| *first).count(), 1, "{object:?} {what:?}");
                    assert!(what.iter().all(|(_, amount)| *amount == what[0].1), "{object:?} {what:?}");
                }
                for n in 0..3 {
                    let entries = world.audit(&user(n)).await;
                    let objects = by_object.keys().filter(|(owner, _)| *owner == user(n)).count();
                    assert_eq!(entries.iter().filter(|entry| entry.request.is_some()).count(), objects);
                }
            });
            Ok(())
        };
        TestRunner::new(config).run(&tasks, play).unwrap();
    }
}
