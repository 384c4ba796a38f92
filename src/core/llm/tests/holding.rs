//! Calls whose price is set aside before they are routed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use serde_json::json;

use super::doubles::{Step, World, call, events, key, refusal, text, whole};
use crate::core::error::Code;
use crate::core::llm::{Completion, RoutingPolicy};
use crate::core::model::fact::StreamEnd;
use crate::core::model::ledger::Flux;

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
        // Each is charged for the few tokens it said, and gives the rest back.
        let each = i64::try_from(affordable).unwrap();
        assert_eq!((charged, world.balance.load(Ordering::SeqCst), held(&world)), (each, balance - each, 0));
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
    for (body, script, holds) in [
        // Nobody knows what it may cost.
        ("not json", vec![], 0),
        (r#"{"model":"other"}"#, vec![], 1),
        (WHOLE, vec![refusal(500, "")], 1),
        (WHOLE, vec![whole("<html>")], 1),
    ] {
        let world = World::simple(script).holding();
        assert!(world.complete(body).is_err());
        world.run_jobs();
        assert_eq!((held(&world), world.held_ever.lock().unwrap().len()), (0, holds), "{body}");
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
                assert_eq!(charged, 1);
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

/// A thousand tokens, as this world counts.
fn thousand() -> String {
    format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "word".repeat(1_000))
}

#[test]
fn a_growing_stream_sets_more_aside_and_is_charged_by_its_usage() {
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":8000}}\n\n";
    let mut chunks = vec![text(&thousand()); 8];
    chunks.extend([text(usage), text(DONE)]);
    let world = World::simple(vec![events(chunks)]).holding();
    let (heard, abnormal) = world.stream(STREAM);
    assert_eq!(heard, format!("{}{DONE}: airi-flux-charged 9\n\n", thousand().repeat(8)));
    assert!(!abnormal);
    let most: Vec<i64> = world.held_ever.lock().unwrap().iter().map(|hold| hold.most.get()).collect();
    assert_eq!(most[..2], [5, 10]);
    assert!(most.is_sorted(), "{most:?}");
    assert_eq!((world.row().0.charged.get(), world.balance.load(Ordering::SeqCst), held(&world)), (9, 991, 0));
    assert_eq!(world.unbilled(), []);
}

#[test]
fn a_stream_the_balance_does_not_afford_to_its_end_is_ended_with_length() {
    let chunks = vec![text(&thousand()); 12];
    let step = Step::Answer { status: 200, content_type: "text/event-stream", chunks, then_hangs: true };
    let world = World::simple(vec![step]).holding();
    world.balance.store(7, Ordering::SeqCst);
    let (heard, abnormal) = world.stream(STREAM);
    assert!(!abnormal);
    // The event that goes beyond what is paid is the last.
    let end = heard.strip_prefix(&thousand().repeat(8)).unwrap();
    let events: Vec<&str> = end.split_terminator("\n\n").collect();
    assert_eq!(events.len(), 3, "{end}");
    assert!(events[0].contains(r#""finish_reason":"length""#), "{end}");
    assert_eq!(events[1..], ["data: [DONE]", ": airi-flux-charged 7"]);
    assert_eq!(world.open_bodies.load(Ordering::SeqCst), 0, "the upstream goes on");
    let (row, ended) = world.row();
    assert_eq!((row.status, row.charged.get(), ended), (200, 7, Some(StreamEnd::Done)));
    assert_eq!((world.balance.load(Ordering::SeqCst), held(&world)), (0, 0));
    assert_eq!(world.unbilled(), [(1, "partial_debit_drained", "streaming")]);
}

#[test]
fn a_limit_the_balance_does_not_afford_is_lowered_upstream_and_announced() {
    for (limit, stream, balance, clamped) in [
        ("max_tokens", false, 20, Some(20_000)),
        ("max_completion_tokens", false, 20, Some(20_000)),
        ("max_completion_tokens", true, 20, Some(20_000)),
        ("max_tokens", false, 1_000, None),
        ("max_tokens", true, 1_000, None),
    ] {
        let body = format!(r#"{{"model":"m","stream":{stream},"{limit}":50000,"messages":[]}}"#);
        let answer = if stream { events(vec![text(HELLO), text(DONE)]) } else { whole("{}") };
        let world = World::simple(vec![answer]).holding();
        world.balance.store(balance, Ordering::SeqCst);
        let told = match world.complete(&body).unwrap() {
            Completion::Json { clamped, charged, .. } => {
                assert_eq!(charged.map(Flux::get), Some(1));
                clamped
            }
            Completion::Stream { clamped, .. } => clamped,
        };
        assert_eq!(told, clamped, "{body}");
        let sent = world.sent(0);
        assert_eq!(sent[limit], clamped.unwrap_or(50_000), "{sent}");
        let limits = ["max_tokens", "max_completion_tokens"].into_iter().filter(|name| sent.get(*name).is_some());
        assert_eq!(limits.count(), 1, "{sent}");
    }
}

#[test]
fn what_the_model_writes_at_most_is_set_aside_for_who_names_no_limit() {
    let world = World::simple(vec![whole("{}")]).holding();
    let key = json!([{"baseURL": "https://a/v1", "keys": [key("k1")]}]);
    let models = json!({"m": {"upstreams": key, "maxOutputTokens": 40_000}});
    world.set("LLM_ROUTER_CONFIG", &json!({"llm": {"models": models}, "tts": {"models": {}}}).to_string());
    assert!(world.complete(WHOLE).is_ok());
    assert_eq!(world.held_ever.lock().unwrap()[0].most.get(), 40);
}

#[test]
fn the_lease_is_renewed_while_bytes_flow() {
    for (between_ms, renewals) in [(0, 0), (61_000, 6)] {
        let mut chunks = vec![text(HELLO); 6];
        chunks.push(text(DONE));
        let world = World::simple(vec![events(chunks)]).holding();
        let Completion::Stream { mut body, .. } = world.complete(STREAM).unwrap() else { panic!() };
        while world.drive(body.next(), usize::MAX).unwrap().is_some() {
            world.now_ms.fetch_add(between_ms, Ordering::SeqCst);
        }
        let holds = world.held_ever.lock().unwrap();
        assert_eq!(holds.len(), 1 + renewals);
        assert!(holds.iter().all(|hold| hold.most.get() == 5 && hold.lease >= Duration::from_secs(180)));
    }
}

#[test]
fn a_database_out_of_reach_admits_nobody() {
    let world = World::simple(vec![Step::Silent]).holding();
    world.hold_faults.store(1, Ordering::SeqCst);
    assert_eq!(world.complete(WHOLE).unwrap_err().code, Code::ServiceUnavailable);
    assert!(world.called().is_empty());
}
