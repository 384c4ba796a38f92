//! What a client sees of a stream.

use std::sync::atomic::Ordering;

use super::doubles::{Step, World, events, text};
use crate::core::llm::Completion;
use crate::core::model::fact::{Fact, InterruptionStage, StreamEnd};
use crate::ports::upstream::UpstreamError;

const BODY: &str = r#"{"model":"m","stream":true,"messages":[]}"#;
const ASKS: &str = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
const HELLO: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":2500}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const INTERRUPTED: &str =
    "data: {\"error\":{\"code\":\"stream_interrupted\",\"message\":\"Upstream stream interrupted\"}}\n\n";

/// What ends a stream that was charged.
fn receipt(charged: i64) -> String {
    format!(": airi-flux-charged {charged}\n\n")
}

#[test]
fn the_usage_event_reaches_only_who_asked_for_it() {
    let script = || vec![events(vec![text(HELLO), text(USAGE), text(DONE)])];
    let world = World::simple(script());
    assert_eq!(world.stream(BODY), (format!("{HELLO}{DONE}{}", receipt(4)), false));
    assert_eq!(world.row().0.charged.get(), 4);
    let world = World::simple(script());
    assert_eq!(world.stream(ASKS), (format!("{HELLO}{USAGE}{DONE}{}", receipt(4)), false));
}

#[test]
fn the_last_word_ends_the_stream_although_the_upstream_hangs() {
    for last in ["data: [DONE]\n\n", "data: [DONE]\r\n\r\n"] {
        let chunks = vec![text(HELLO), text(last)];
        let step = Step::Answer { status: 200, content_type: "text/event-stream", chunks, then_hangs: true };
        let world = World::simple(vec![step]);
        let Completion::Stream { body, .. } = world.complete(BODY).unwrap() else { panic!() };
        let read: Vec<_> = world.drive(futures::StreamExt::collect(body), usize::MAX).expect("the stream ends");
        assert!(read.iter().all(Result::is_ok));
        assert_eq!(world.open_bodies.load(Ordering::SeqCst), 0);
        world.run_jobs();
        assert_eq!(world.row().1, Some(StreamEnd::Done));
    }
}

#[test]
fn a_break_after_the_last_word_but_before_its_blank_line_is_a_clean_end() {
    for (last, mended) in [("data: [DONE]\n", "data: [DONE]\n"), ("data: [DONE]", "data: [DONE]\n")] {
        let broken = Err(UpstreamError::Transport("reset".to_owned()));
        let world = World::simple(vec![events(vec![text(HELLO), text(last), broken])]);
        assert_eq!(world.stream(BODY), (format!("{HELLO}{mended}{}", receipt(5)), false));
    }
}

#[test]
fn a_broken_stream_says_so_and_ends_abnormally() {
    for (cause, end) in [
        (UpstreamError::Transport("reset".to_owned()), StreamEnd::UpstreamError),
        (UpstreamError::Stalled, StreamEnd::IdleTimeout),
    ] {
        let world = World::simple(vec![events(vec![text(HELLO), Err(cause), text(DONE)])]);
        assert_eq!(world.stream(BODY), (format!("{HELLO}{INTERRUPTED}"), true));
        let (row, ended) = world.row();
        assert_eq!((row.status, row.charged.get(), ended), (502, 0, Some(end)));
        let told = Fact::StreamInterrupted { model: "m".to_owned(), stage: InterruptionStage::MidStream };
        assert!(world.facts().contains(&told));
        assert_eq!(world.open_bodies.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn the_interruption_is_an_event_of_its_own_even_inside_a_torn_line() {
    let broken = || Err(UpstreamError::Transport("reset".to_owned()));
    let world = World::simple(vec![events(vec![text(HELLO), text("data: {\"ch"), broken()])]);
    assert_eq!(world.stream(ASKS).0, format!("{HELLO}data: {{\"ch\n\n{INTERRUPTED}"));
    let world = World::simple(vec![events(vec![text(HELLO), text("data: {\"ch"), broken()])]);
    assert_eq!(world.stream(BODY).0, format!("{HELLO}{INTERRUPTED}"));
}

#[test]
fn an_error_event_is_passed_on_and_then_treated_as_a_break() {
    let recorded =
        include_str!("../../../../tests/fixtures/provider-responses/openai-chat-stream-error-inside.sse.txt");
    let world = World::simple(vec![events(vec![text(recorded)])]);
    let (seen, abnormal) = world.stream(BODY);
    assert!(abnormal);
    assert!(seen.contains("provider returned an error") && seen.ends_with(INTERRUPTED) && !seen.contains("[DONE]"));
    assert_eq!(world.row().0.status, 502);
}

#[test]
fn the_first_byte_is_told_once_and_measured_from_routing() {
    let world = World::simple(vec![events(vec![text(HELLO), text(DONE)])]);
    world.now_ms.store(17, Ordering::SeqCst);
    world.stream(BODY);
    let told: Vec<_> = world.facts().into_iter().filter(|fact| matches!(fact, Fact::FirstByte { .. })).collect();
    assert_eq!(told, [Fact::FirstByte { model: "m".to_owned(), after_ms: 0 }]);
    assert_eq!(world.row().0.first_byte_ms, Some(0));
}

#[test]
fn an_answer_that_is_no_event_stream_is_not_held_back() {
    let chunks = vec![text("{\"a\":"), text("1}")];
    let step = Step::Answer { status: 201, content_type: "application/json", chunks, then_hangs: false };
    let world = World::simple(vec![step]);
    let Completion::Stream { body, status, content_type, .. } = world.complete(BODY).unwrap() else { panic!() };
    assert_eq!((status, &*content_type), (201, "application/json"));
    let read: Vec<_> = world.drive(futures::StreamExt::collect(body), usize::MAX).unwrap();
    assert_eq!(read, [Ok("{\"a\":".into()), Ok("1}".into())]);
}

#[cfg(test)]
mod cut_anywhere {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn recorded_streams_pass_byte_for_byte_however_they_are_cut(cuts in prop::collection::vec(1usize..60, 1..60)) {
            let recorded = [
                include_str!("../../../../tests/fixtures/provider-responses/openai-chat-stream-usage.sse.txt"),
                include_str!("../../../../tests/fixtures/provider-responses/openai-chat-stream-tool-call.sse.txt"),
                include_str!("../../../../tests/fixtures/provider-responses/openai-chat-stream-no-usage.sse.txt"),
            ];
            for whole in recorded {
                let (mut chunks, mut rest) = (Vec::new(), whole);
                for cut in cuts.iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    let (chunk, behind) = rest.split_at((*cut).min(rest.len()));
                    chunks.push(text(chunk));
                    rest = behind;
                }
                let world = World::simple(vec![events(chunks)]);
                let (heard, abnormal) = world.stream(ASKS);
                let end = receipt(world.row().0.charged.get());
                prop_assert_eq!((heard, abnormal), (format!("{}\n\n{end}", whole.trim_end()), false));
            }
        }
    }
}
