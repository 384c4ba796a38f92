//! Calls whose price is set aside before they are routed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;

use super::doubles::{Step, World, call, events, refusal, text, whole};
use crate::core::error::Code;
use crate::core::llm::{Completion, RoutingPolicy};

const WHOLE: &str = r#"{"model":"m","messages":[]}"#;
const STREAM: &str = r#"{"model":"m","stream":true,"messages":[]}"#;
const HELLO: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn held(world: &World) -> i64 {
    world.holds.lock().unwrap().values().map(|amount| amount.get()).sum()
}

#[test]
fn of_twenty_calls_at_once_exactly_the_affordable_ones_answer() {
    for (balance, affordable) in [(5, 1), (25, 5)] {
        let script = (0..20).map(|_| events(vec![text(HELLO), text(DONE)])).collect();
        let world = World::simple(script).holding();
        world.balance.store(balance, Ordering::SeqCst);
        let completions = world.completions(RoutingPolicy::default());
        let answers: Vec<_> = (0..20)
            .map(|n| world.drive(completions.complete(call(&format!("r{n}"), STREAM)), usize::MAX).unwrap())
            .collect();
        let (answered, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(answered.len(), affordable);
        assert!(refused.into_iter().all(|refused| refused.unwrap_err().code == Code::InsufficientFlux));
        assert_eq!(held(&world), balance);
        for answer in answered {
            let Completion::Stream { body, .. } = answer.unwrap() else { panic!() };
            let _: Vec<_> = world.drive(body.collect(), usize::MAX).unwrap();
        }
        world.run_jobs();
        let charged: i64 = world.debits.lock().unwrap().iter().map(|(_, charged)| charged.get()).sum();
        assert_eq!((charged, world.balance.load(Ordering::SeqCst), held(&world)), (balance, 0, 0));
    }
}

#[test]
fn a_cheaper_answer_gives_the_rest_back_and_a_dearer_one_is_paid_from_what_is_available() {
    for (tokens, balance, charged, unbilled) in [(1_000, 20, 1, 0), (9_000, 20, 9, 0), (9_000, 7, 7, 2)] {
        let answer = format!(r#"{{"usage":{{"prompt_tokens":{tokens},"completion_tokens":0}}}}"#);
        let world = World::simple(vec![whole(&answer)]).holding();
        world.balance.store(balance, Ordering::SeqCst);
        assert!(world.complete(WHOLE).is_ok());
        assert_eq!(world.row().0.charged.get(), charged);
        assert_eq!((world.balance.load(Ordering::SeqCst), held(&world)), (balance - charged, 0));
        let told: i64 = world.unbilled().iter().map(|(amount, ..)| amount).sum();
        assert_eq!(told, unbilled);
    }
}

#[test]
fn a_call_that_gets_nothing_gives_everything_back() {
    for (body, script) in [
        ("not json", vec![]),
        (r#"{"model":"other"}"#, vec![]),
        (WHOLE, vec![refusal(500, "")]),
        (WHOLE, vec![whole("<html>")]),
    ] {
        let world = World::simple(script).holding();
        assert!(world.complete(body).is_err());
        world.run_jobs();
        assert_eq!((held(&world), world.held_ever.lock().unwrap().len()), (0, 1), "{body}");
        assert!(world.debits.lock().unwrap().is_empty());
    }
}

#[test]
fn wherever_a_call_is_dropped_nothing_stays_held() {
    for body in [WHOLE, STREAM] {
        for polls in 0..1_000 {
            let script = match body {
                WHOLE => vec![whole("{}")],
                _ => vec![events(vec![text(HELLO), text(HELLO), text(DONE)])],
            };
            let world = World::simple(script).holding();
            let ended = run(&world, body, polls);
            assert_eq!(held(&world), 0, "{body} dropped after {polls} polls");
            let charged: i64 = world.rows().iter().map(|(row, _)| row.charged.get()).sum();
            assert_eq!(world.balance.load(Ordering::SeqCst), 1_000 - charged);
            if ended {
                assert_eq!(charged, 5);
                break;
            }
        }
    }
}

fn run(world: &Arc<World>, body: &str, polls: usize) -> bool {
    let completions = world.completions(RoutingPolicy::default());
    let whole = async {
        if let Completion::Stream { mut body, .. } = completions.complete(call("r1", body)).await.unwrap() {
            while body.next().await.is_some() {}
        }
    };
    let ended = world.drive(whole, polls).is_some();
    world.run_jobs();
    ended
}

#[test]
fn a_database_out_of_reach_admits_nobody() {
    let world = World::simple(vec![Step::Silent]).holding();
    world.hold_faults.store(1, Ordering::SeqCst);
    assert_eq!(world.complete(WHOLE).unwrap_err().code, Code::ServiceUnavailable);
    assert!(world.called().is_empty());
}
