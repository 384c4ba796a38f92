//! A caller may leave at every await: one row is left, one settlement at most, and no upstream.

use std::sync::atomic::Ordering;

use futures::StreamExt;

use super::doubles::{Step, World, call, events, text, whole};
use crate::core::llm::{Completion, RoutingPolicy};
use crate::core::model::fact::Fact;

const WHOLE: &str = r#"{"model":"m","messages":[]}"#;
const STREAM: &str = r#"{"model":"m","stream":true,"messages":[]}"#;
const HELLO: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn a_call_that_is_never_polled_does_nothing() {
    let world = World::simple(vec![]);
    let completions = world.completions(RoutingPolicy::default());
    drop(completions.complete(call("r1", WHOLE)));
    assert!(world.facts().is_empty() && world.called().is_empty());
}

#[test]
fn a_caller_that_leaves_while_the_head_is_awaited_stops_the_chain() {
    for (body, streams) in [(WHOLE, false), (STREAM, true)] {
        let world = World::simple(vec![Step::Silent]);
        let completions = world.completions(RoutingPolicy::default());
        assert!(world.drive(completions.complete(call("r1", body)), 100).is_none());
        assert_eq!(world.called().len(), 1);
        let (row, ended) = world.row();
        assert_eq!((row.status, row.charged.get(), ended.is_some()), (499, 0, streams));
    }
}

/// Runs one call, read to its end, that is dropped after `polls` polls. `None` when it was.
fn run(world: &std::sync::Arc<World>, body: &str, polls: usize) -> Option<()> {
    let completions = world.completions(RoutingPolicy::default());
    let whole = async {
        if let Completion::Stream { mut body, .. } = completions.complete(call("r1", body)).await.unwrap() {
            while body.next().await.is_some() {}
        }
    };
    let ended = world.drive(whole, polls);
    world.run_jobs();
    ended
}

#[test]
fn wherever_a_call_is_dropped_it_leaves_one_row_and_at_most_one_settlement() {
    for body in [WHOLE, STREAM] {
        let mut polls = 0;
        loop {
            let script = match body {
                WHOLE => vec![whole("{}")],
                _ => vec![events(vec![text(HELLO), text(HELLO), text(DONE)])],
            };
            let world = World::simple(script);
            let ended = run(&world, body, polls);
            let begun = world.facts().iter().any(|fact| matches!(fact, Fact::GenerationRequested { .. }));
            let rows = world.rows();
            assert_eq!(rows.len(), usize::from(begun), "{body} dropped after {polls} polls");
            let debits = world.debits.lock().unwrap();
            let charged: i64 = rows.iter().map(|(row, _)| row.charged.get()).sum();
            assert!(debits.len() <= 1);
            assert_eq!(debits.iter().map(|(_, charged)| charged.get()).sum::<i64>(), charged);
            assert_eq!(world.balance.load(Ordering::SeqCst), 1_000 - charged);
            assert_eq!(world.open_bodies.load(Ordering::SeqCst), 0);
            if ended.is_some() {
                assert_eq!(charged, 5);
                break;
            }
            polls += 1;
            assert!(polls < 1_000, "the call never ends");
        }
        assert!(polls > 5, "the world gives way at its awaits");
    }
}

#[test]
fn a_whole_answer_is_charged_although_its_caller_leaves_during_the_debit() {
    let polls_to_the_debit = (0..1_000)
        .find(|polls| {
            let world = World::simple(vec![whole("{}")]);
            let completions = world.completions(RoutingPolicy::default());
            let left = world.drive(completions.complete(call("r1", WHOLE)), *polls).is_none();
            left && world.rows().is_empty() && world.open_bodies.load(Ordering::SeqCst) == 0 && {
                world.run_jobs();
                !world.debits.lock().unwrap().is_empty()
            }
        })
        .expect("there is an await between the answer and the end of its debit");
    let world = World::simple(vec![whole("{}")]);
    run(&world, WHOLE, polls_to_the_debit);
    let row = world.row().0;
    assert_eq!((row.status, row.charged.get()), (200, 5));
}
