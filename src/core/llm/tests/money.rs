//! The table of who pays what, and debits that fail.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};

use super::doubles::{Step, World, events, text, whole};
use crate::core::error::Code;
use crate::core::llm::Completion;
use crate::core::model::fact::{Fact, InterruptionStage, StreamEnd};
use crate::ports::upstream::UpstreamError;

const WHOLE: &str = r#"{"model":"m","messages":[]}"#;
/// Its messages are 32 bytes of JSON: 8 tokens.
const STREAM: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
const HELLO: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":2500}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn metadata(world: &World) -> Value {
    let debits = world.debits.lock().unwrap();
    assert_eq!(debits.len(), 1);
    assert_eq!(debits[0].0.description, "llm_request");
    Value::Object(debits[0].0.metadata.clone())
}

/// Reads `items` items of a stream, then leaves.
fn leave_after(world: &Arc<World>, items: usize) {
    let Completion::Stream { mut body, .. } = world.complete(STREAM).unwrap() else { panic!() };
    for _ in 0..items {
        world.drive(body.next(), usize::MAX).unwrap().unwrap().unwrap();
    }
    drop(body);
    assert_eq!(world.open_bodies.load(Ordering::SeqCst), 0, "leaving stops the upstream at once");
    world.run_jobs();
}

#[test]
fn a_clean_end_pays_for_its_usage_or_the_flat_price() {
    let world = World::simple(vec![events(vec![text(HELLO), text(USAGE), text(DONE)])]);
    world.stream(STREAM);
    let (row, ended) = world.row();
    assert_eq!((row.status, row.charged.get(), ended), (200, 4, Some(StreamEnd::Done)));
    assert_eq!((row.prompt_tokens, row.completion_tokens), (Some(1000), Some(2500)));
    let facts = json!({"model": "m", "promptTokens": 1000, "completionTokens": 2500, "source": "llm.request"});
    assert_eq!(metadata(&world), facts);

    let world = World::simple(vec![events(vec![text(HELLO), text(DONE)])]);
    world.stream(STREAM);
    assert_eq!(world.row().0.charged.get(), 5);
    assert_eq!(metadata(&world), json!({"model": "m", "source": "llm.request"}));
}

#[test]
fn a_client_that_left_pays_for_what_it_got() {
    let world = World::simple(vec![events(vec![text(HELLO), text(DONE)])]);
    world.set("FLUX_PER_1K_TOKENS", "1000");
    leave_after(&world, 1);
    let (row, ended) = world.row();
    // 8 tokens of messages and 2 of "hello".
    assert_eq!((row.status, row.charged.get(), ended), (499, 10, Some(StreamEnd::ClientClosed)));
    assert_eq!((row.prompt_tokens, row.completion_tokens), (None, None));
    let facts = json!({
        "model": "m", "promptTokens": 8, "completionTokens": 2, "source": "llm.request",
        "estimated": true, "interrupted": "client",
    });
    assert_eq!(metadata(&world), facts);
}

#[test]
fn a_client_that_left_after_the_usage_pays_exactly_that() {
    let world = World::simple(vec![events(vec![text(&format!("{HELLO}{USAGE}")), text(HELLO), text(DONE)])]);
    leave_after(&world, 1);
    let row = world.row().0;
    assert_eq!((row.status, row.charged.get(), row.prompt_tokens), (499, 4, Some(1000)));
    assert_eq!(metadata(&world)["interrupted"], "client");
    assert!(metadata(&world).get("estimated").is_none());
}

#[test]
fn a_client_that_left_before_any_byte_pays_nothing() {
    let world = World::simple(vec![events(vec![text(HELLO), text(DONE)])]);
    leave_after(&world, 0);
    let (row, ended) = world.row();
    assert_eq!((row.status, row.charged.get(), ended), (499, 0, Some(StreamEnd::ClientClosed)));
    let told = Fact::StreamInterrupted { model: "m".to_owned(), stage: InterruptionStage::BeforeFirstChunk };
    assert!(world.facts().contains(&told));
    assert!(world.debits.lock().unwrap().is_empty());
}

#[test]
fn an_upstream_that_broke_is_not_paid_for_but_what_it_cost_is_told() {
    let broken = Err(UpstreamError::Stalled);
    let world = World::simple(vec![events(vec![text(HELLO), broken])]);
    world.set("FLUX_PER_1K_TOKENS", "1000");
    world.stream(STREAM);
    assert_eq!(world.row().0.charged.get(), 0);
    assert_eq!(world.unbilled(), [(10, "upstream_interrupted", "streaming")]);
    assert!(world.debits.lock().unwrap().is_empty());
}

#[test]
fn a_whole_answer_is_charged_before_it_is_handed_out_and_passed_untouched() {
    let answer = include_str!("../../../../tests/fixtures/provider-responses/openai-chat-200.json");
    let (head, tail) = answer.split_at(40);
    let chunks = vec![text(head), text(tail)];
    let world =
        World::simple(vec![Step::Answer { status: 201, content_type: "text/plain", chunks, then_hangs: false }]);
    let Completion::Json { body, .. } = world.complete(WHOLE).unwrap() else { panic!() };
    assert_eq!(body, answer);
    let (row, ended) = world.row();
    assert_eq!((row.status, row.charged.get(), row.stream, ended), (201, 2, false, None));
    assert_eq!(world.balance.load(Ordering::SeqCst), 998);
    assert!(!world.facts().iter().any(|fact| matches!(fact, Fact::FirstByte { .. })));
}

#[test]
fn an_error_inside_a_whole_answer_is_passed_on_and_costs_the_flat_price() {
    let world = World::simple(vec![whole(r#"{"error":{"message":"x"}}"#)]);
    assert!(
        matches!(world.complete(WHOLE), Ok(Completion::Json { body, .. }) if body == r#"{"error":{"message":"x"}}"#)
    );
    assert_eq!(world.row().0.charged.get(), 5);
}

#[test]
fn an_answer_that_cannot_be_used_is_not_billed() {
    let big = Bytes::from(vec![b' '; 1 << 20]);
    let too_long = (0..33).map(|_| Ok(big.clone())).collect();
    let cases = [
        (vec![text("<html>")], Code::BadGateway, 502),
        (vec![], Code::BadGateway, 502),
        (too_long, Code::BadGateway, 502),
        (vec![text("{"), Err(UpstreamError::Stalled)], Code::GatewayTimeout, 504),
    ];
    for (chunks, code, status) in cases {
        let answer = Step::Answer { status: 200, content_type: "application/json", chunks, then_hangs: false };
        let world = World::simple(vec![answer]);
        assert_eq!(world.complete(WHOLE).unwrap_err().code, code);
        let row = world.row().0;
        assert_eq!((row.status, row.charged.get(), row.upstream.as_deref()), (status, 0, Some("a")));
        let counted = world.facts().iter().any(|fact| matches!(fact, Fact::UpstreamRefused { status: 200, .. }));
        assert_eq!(counted, code == Code::BadGateway);
        assert!(world.debits.lock().unwrap().is_empty());
    }
}

#[test]
fn a_short_balance_is_drained_and_the_rest_is_told() {
    for (body, script, stage) in [
        (WHOLE, whole(r#"{"usage":{"prompt_tokens":10000,"completion_tokens":0}}"#), "non_streaming"),
        (STREAM, events(vec![text(&USAGE.replace("2500", "9000")), text(DONE)]), "streaming"),
    ] {
        let world = World::simple(vec![script]);
        world.balance.store(7, Ordering::SeqCst);
        let answered = world.complete(body).unwrap();
        if let Completion::Stream { body, .. } = answered {
            let _: Vec<_> = world.drive(body.collect(), usize::MAX).unwrap();
        }
        world.run_jobs();
        assert_eq!(world.row().0.charged.get(), 7);
        assert_eq!(world.unbilled(), [(3, "partial_debit_drained", stage)]);
    }
}

#[test]
fn a_delivered_answer_survives_a_lost_debit_and_the_loss_is_told() {
    let world = World::simple(vec![whole("{}")]);
    world.debit_faults.store(100, Ordering::SeqCst);
    assert!(world.complete(WHOLE).is_ok());
    world.run_jobs();
    assert_eq!(world.row().0.charged.get(), 0);
    assert_eq!(world.unbilled(), [(5, "debit_failed", "non_streaming")]);

    let world = World::simple(vec![events(vec![text(HELLO), text(DONE)])]);
    world.debit_faults.store(100, Ordering::SeqCst);
    world.stream(STREAM);
    assert_eq!(world.unbilled(), [(5, "debit_failed", "streaming")]);
    assert_eq!(world.row().0.status, 200);
}

#[test]
fn a_balance_emptied_meanwhile_is_a_failed_debit() {
    let world = World::simple(vec![events(vec![text(HELLO), text(DONE)])]);
    let Completion::Stream { body, .. } = world.complete(STREAM).unwrap() else { panic!() };
    world.balance.store(0, Ordering::SeqCst);
    let _: Vec<_> = world.drive(body.collect(), usize::MAX).unwrap();
    world.run_jobs();
    assert_eq!(world.unbilled(), [(5, "debit_failed", "streaming")]);
}

#[test]
fn a_debit_that_failed_for_a_moment_is_repeated_and_never_doubled() {
    for commits in [false, true] {
        let world = World::simple(vec![whole("{}")]);
        world.debit_faults.store(2, Ordering::SeqCst);
        world.debit_commits_then_fails.store(commits, Ordering::SeqCst);
        let Completion::Json { charged, .. } = world.complete(WHOLE).unwrap() else { panic!() };
        assert_eq!(charged, None, "the answer waits for the first try only");
        world.run_jobs();
        assert_eq!(world.row().0.charged.get(), 5);
        assert_eq!(world.balance.load(Ordering::SeqCst), 995, "{commits}");
        assert!(world.unbilled().is_empty());
    }
}

#[test]
fn a_stream_ends_before_a_charge_that_takes_more_than_one_try() {
    let world = World::simple(vec![events(vec![text(HELLO), text(DONE)])]);
    world.debit_faults.store(1, Ordering::SeqCst);
    let (said, abnormal) = world.stream(STREAM);
    assert!(said.ends_with(DONE) && !abnormal, "{said}");
    assert_eq!((world.row().0.charged.get(), world.unbilled()), (5, vec![]));
}
