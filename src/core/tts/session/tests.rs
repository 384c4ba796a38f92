use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;

fn fixture(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn text(value: &Value) -> Frame {
    Frame::Text(value.to_string())
}

fn start() -> Input {
    Input::Client(text(&json!({ "event": "start", "model": "volcengine/seed-tts-2.0", "voice": "v" })))
}

fn says(words: &str) -> Input {
    Input::Client(text(&json!({ "event": "text", "text": words })))
}

fn finished(usage: &Value) -> Input {
    Input::Upstream(text(&json!({ "event": "session.finished", "payload": { "usage": { "text_words": usage } } })))
}

fn audio() -> Input {
    Input::Upstream(Frame::Binary(Bytes::from_static(b"AUDIO")))
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Everything a session says to these inputs, one second apart.
fn play(keys: usize, inputs: Vec<Input>) -> Vec<Output> {
    let mut session = Session::new(at(0), keys);
    inputs.into_iter().enumerate().flat_map(|(second, input)| session.step(at(second as u64), input)).collect()
}

fn open(mut more: Vec<Input>) -> Vec<Output> {
    let mut inputs = vec![start(), Input::Dialled];
    inputs.append(&mut more);
    play(1, inputs)
}

fn end(outputs: &[Output]) -> &End {
    let ends: Vec<_> =
        outputs.iter().filter_map(|output| if let Output::End(end) = output { Some(end) } else { None }).collect();
    assert_eq!(ends.len(), 1, "{outputs:?}");
    assert!(matches!(outputs.last(), Some(Output::End(_))), "nothing follows the end");
    ends[0]
}

fn told(outputs: &[Output]) -> Vec<Value> {
    let sent = outputs.iter().filter_map(|output| if let Output::Send(frame) = output { event(frame) } else { None });
    sent.collect()
}

/// What a session does in the case of this name; `None` when the case is about what comes before a session.
fn played(name: &str) -> Option<Vec<Output>> {
    Some(match name {
        "upstream refuses the connection" | "upstream answers the handshake with 401" => {
            let failed = || Input::DialFailed(Undialled::Refused);
            let outputs = play(2, vec![start(), failed(), failed()]);
            assert!(outputs.contains(&Output::Dial(1)), "the next key is tried: {outputs:?}");
            assert_eq!(end(&outputs).close, Some((1011, "upstream_error")), "{name}");
            outputs
        }
        "upstream address unusable" => play(2, vec![start(), Input::DialFailed(Undialled::Unusable)]),
        "finished with usage" => open(vec![finished(&json!(6))]),
        "finished with usage zero" => open(vec![says("hello"), finished(&json!(0))]),
        "finished with fractional usage" => open(vec![finished(&json!(6.9))]),
        "finished with negative usage" => open(vec![says("hello"), finished(&json!(-1))]),
        "finished twice" => open(vec![finished(&json!(6)), finished(&json!(6))]),
        "client leaves after audio" => open(vec![says("paid text"), audio(), Input::ClientLeft]),
        "client leaves before audio" => open(vec![says("paid text"), Input::ClientLeft]),
        "client leaves during dial" => play(1, vec![start(), Input::ClientLeft]),
        "upstream drops after audio" => open(vec![says("hello"), audio(), Input::UpstreamClosed]),
        "frames before upstream is open" => {
            let finish = Input::Client(text(&json!({ "event": "finish" })));
            let outputs = play(1, vec![start(), says("hello"), finish, Input::Dialled, Input::ClientLeft]);
            let forwarded: Vec<_> = outputs
                .iter()
                .filter_map(|output| if let Output::Forward(frame) = output { event(frame) } else { None })
                .map(|event| event["event"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(forwarded, ["start", "text", "finish"]);
            outputs
        }
        "65 frames before upstream is open" => {
            let mut inputs = vec![start()];
            inputs.extend((0..64).map(|_| says("x")));
            play(1, inputs)
        }
        "first frame is not start" => play(1, vec![says("x")]),
        "60 s of silence" => {
            let mut inputs = vec![start(), Input::Dialled];
            inputs.extend((0..70).map(|_| Input::Tick));
            let outputs = play(1, inputs);
            assert_eq!(outputs.iter().filter(|output| **output == Output::Ping).count(), 2, "at 25 s and 50 s");
            outputs
        }
        _ => return None,
    })
}

/// Judged where sockets are opened.
const BEFORE_A_SESSION: [&str; 9] = [
    "no token",
    "bad token",
    "upstream not configured",
    "balance zero",
    "balance below the 2000-unit estimate",
    "balance equal to the estimate",
    "price not configured",
    "key cannot be decrypted",
    "fifth parallel session of one user",
];

/// Members of targets that are words or times; [`played`] or the test named judges what they stand for.
const JUDGED_BY_THE_PLAYER: [(&str, &str); 4] = [
    // `played` sees the second key tried and how it is closed.
    ("upstream answers the handshake with 401", "next"),
    // `end` sees one end.
    ("finished twice", "billedOnce"),
    // `a_dial_is_given_up_when_its_client_leaves`.
    ("client leaves during dial", "upstreamClosedWithinMs"),
    // `played` compares the order.
    ("frames before upstream is open", "forwardedInOrder"),
];

#[test]
fn every_case_of_the_fixture_has_its_target_outcome() {
    let cases = fixture(include_str!("../../../../tests/fixtures/speech-ws-cases.json"));
    let mut before = BTreeSet::new();
    for case in cases["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let Some(outputs) = played(name) else {
            before.insert(name);
            continue;
        };
        let target = if case["target"] == "same" { &case["reference"] } else { &case["target"] };
        let end = end(&outputs);
        let mut judged = 0;
        if let Some(close) = target["close"].as_array() {
            let (code, reason) = end.close.unwrap_or_else(|| panic!("{name}: the client is gone"));
            assert_eq!((json!(code), json!(reason)), (close[0].clone(), close[1].clone()), "{name}");
            judged += 1;
        }
        if let Some(frames) = target["frames"].as_array() {
            assert!(frames.iter().all(|frame| told(&outputs).contains(frame)), "{name}: {outputs:?}");
            judged += 1;
        }
        let bill = end.bill.as_ref();
        if let Some(units) = target["billedUnits"].as_i64() {
            assert_eq!(bill.map_or(0, |bill| bill.units), units, "{name}");
            judged += 1;
        }
        if let Some(status) = target["requestLogStatus"].as_u64() {
            assert_eq!(bill.map(|bill| u64::from(bill.status)), Some(status), "{name}");
            judged += 1;
        }
        if target["requestLogRow"] == false {
            assert_eq!(bill, None, "{name}");
            judged += 1;
        }
        let elsewhere = JUDGED_BY_THE_PLAYER.iter().filter(|(row, _)| *row == name).count();
        assert_eq!(judged + elsewhere, target.as_object().unwrap().len(), "{name}: a member was not judged");
    }
    assert_eq!(before, BEFORE_A_SESSION.into_iter().collect());
}

#[test]
fn every_recorded_session_is_billed_as_expected() {
    for recorded in [
        include_str!("../../../../tests/fixtures/provider-responses/unspeech-session-ok.jsonl"),
        include_str!("../../../../tests/fixtures/provider-responses/unspeech-session-no-usage.jsonl"),
        include_str!("../../../../tests/fixtures/provider-responses/unspeech-session-error.jsonl"),
        include_str!("../../../../tests/fixtures/provider-responses/unspeech-session-client-abort.jsonl"),
    ] {
        let (mut session, mut outputs, mut relayed, mut expect) = (Session::new(at(0), 1), Vec::new(), 0, Value::Null);
        for line in recorded.lines().map(fixture) {
            // The audio itself does not matter, only that it is some.
            let frame = if line["kind"] == "text" { text(&line["json"]) } else { Frame::Binary("AUDIO".into()) };
            let input = match (line["dir"].as_str(), line["kind"].as_str()) {
                (Some("client->upstream"), _) => Input::Client(frame),
                (Some("upstream->client"), Some("close")) => Input::UpstreamClosed,
                (Some("upstream->client"), _) => {
                    relayed += 1;
                    Input::Upstream(frame)
                }
                (Some("client"), _) => Input::ClientLeft,
                _ => {
                    expect = if line["expect"].is_null() { expect } else { line["expect"].clone() };
                    continue;
                }
            };
            let said = session.step(at(1), input);
            let dialled = said.contains(&Output::Dial(0));
            outputs.extend(said);
            if dialled {
                outputs.extend(session.step(at(1), Input::Dialled));
            }
        }
        let units = expect["billedUnitsTarget"].as_i64().or_else(|| expect["billedUnits"].as_i64()).unwrap();
        let end = end(&outputs);
        assert_eq!(end.bill.as_ref().unwrap().units, units, "{expect}");
        assert!(end.bill.as_ref().unwrap().model.starts_with("volcengine/seed-tts-"));
        let sent = outputs.iter().filter(|output| matches!(output, Output::Send(_))).count();
        assert_eq!(sent, relayed, "every frame of the upstream reaches the client, in its place");
    }
}

#[test]
fn a_provider_that_counts_wildly_does_not_drain_a_balance() {
    for (reported, billed) in
        [(json!(1e300), 36), (json!(i64::MAX), 36), (json!(20), 20), (json!("6"), 5), (json!(null), 5)]
    {
        let outputs = open(vec![says("hello"), finished(&reported)]);
        assert_eq!(end(&outputs).bill.as_ref().unwrap().units, billed, "{reported}");
    }
}

#[test]
fn an_upstreams_error_is_told_without_its_address_and_nothing_is_owed() {
    let failed = json!({ "event": "error", "code": "session_failed", "message": "dial tcp 10.0.0.7:443 refused" });
    let outputs = open(vec![says("hello"), audio(), Input::Upstream(text(&failed)), Input::UpstreamClosed]);
    let end = end(&outputs);
    assert_eq!(end.close, Some((1011, "upstream_error")));
    let bill = end.bill.as_ref().unwrap();
    assert_eq!((bill.units, bill.forgiven, bill.status), (0, 5, 502));
    assert_eq!(told(&outputs)[0]["message"], "dial tcp [redacted] refused");
}

#[test]
fn a_client_that_cancels_owes_what_it_heard_however_the_upstream_takes_it() {
    let cancels = || Input::Client(text(&json!({ "event": "cancel" })));
    let failed = || Input::Upstream(text(&json!({ "event": "error", "code": "session_failed", "message": "x" })));
    for how in [Input::UpstreamClosed, Input::SendFailed, failed()] {
        let outputs = open(vec![says("hello"), audio(), cancels(), how.clone()]);
        let end = end(&outputs);
        assert_eq!((end.close, end.outcome), (Some((1000, "session_cancelled")), "client_closed"), "{how:?}");
        let bill = end.bill.as_ref().unwrap();
        assert_eq!((bill.units, bill.forgiven, bill.status, bill.error), (5, 0, 499, None), "{how:?}");
        assert!(!end.cancel, "the client said so itself");
    }
    let unheard = open(vec![says("hello"), cancels(), Input::UpstreamClosed]);
    assert_eq!(end(&unheard).bill.as_ref().unwrap().units, 0);
    let early = play(1, vec![start(), says("hello"), cancels(), Input::Dialled, audio(), Input::UpstreamClosed]);
    assert_eq!(end(&early).bill.as_ref().unwrap().units, 5, "said before the upstream was open");
    let counted = open(vec![says("hello"), audio(), cancels(), finished(&json!(3))]);
    assert_eq!(end(&counted).bill.as_ref().unwrap().units, 3, "the provider's count decides");
    let stopped = open(vec![says("hello"), audio(), cancels(), Input::Shutdown]);
    assert_eq!(end(&stopped).bill.as_ref().unwrap().units, 0, "our fault stays ours");
}

#[test]
fn garbage_is_relayed_and_not_counted() {
    let garbage = Frame::Binary(Bytes::from_static(&[0, 255, 3]));
    let outputs = open(vec![
        Input::Client(garbage.clone()),
        Input::Client(Frame::Text("{not json".to_owned())),
        says("你好"),
        Input::Client(text(&json!({ "event": "text", "text": 5 }))),
        audio(),
        Input::ClientLeft,
    ]);
    assert!(outputs.contains(&Output::Forward(garbage.clone())));
    assert_eq!(end(&outputs).bill.as_ref().unwrap().units, 2);
    let outputs = play(1, vec![Input::Client(garbage)]);
    assert_eq!(end(&outputs).close, Some((1008, "invalid_first_frame")));
    assert_eq!(end(&outputs).bill, None);
}

#[test]
fn frames_queues_and_time_have_their_limits() {
    let large = |bytes: usize| Input::Client(Frame::Text(" ".repeat(bytes)));
    assert_eq!(end(&open(vec![large(64 * 1024 + 1)])).close, Some((1009, "frame_too_large")));
    let binary = Input::Client(Frame::Binary(vec![0; 256 * 1024 + 1].into()));
    assert_eq!(end(&open(vec![binary])).close, Some((1009, "frame_too_large")));
    let mut inputs = vec![start()];
    inputs.extend((0..17).map(|_| large(64 * 1024)));
    assert_eq!(end(&play(1, inputs)).close, Some((1009, "queue_overflow")));
    assert_eq!(end(&play(1, vec![Input::Tick; 12])).close, Some((1008, "invalid_first_frame")));
    let mut session = Session::new(at(0), 1);
    session.step(at(1), start());
    session.step(at(2), Input::Dialled);
    for minute in 1..15 {
        assert!(session.step(at(minute * 60 - 5), says("x")).len() == 1);
    }
    session.step(at(890), audio());
    let outputs = session.step(at(900), Input::Tick);
    assert_eq!(end(&outputs).close, Some((1001, "session_timeout")));
    assert!(end(&outputs).cancel);
    assert_eq!(end(&outputs).bill.as_ref().unwrap().units, 14);
    assert!(session.step(at(901), audio()).is_empty(), "nothing follows the end");
}

#[test]
fn the_first_audio_is_timed_from_the_first_text() {
    let outputs = open(vec![says("x"), audio(), audio(), Input::ClientSlow]);
    let first: Vec<_> = outputs.iter().filter(|output| matches!(output, Output::FirstAudio(_))).collect();
    assert_eq!(first, [&Output::FirstAudio(at(1))]);
    assert_eq!(end(&outputs).close, Some((1013, "slow_consumer")));
}
