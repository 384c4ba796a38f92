use chrono::DateTime;
use serde_json::{Value, json};

use super::*;
use crate::core::chats::Sent;
use crate::core::model::chats::{ChatEvent, LogPage, Message as Stored};
use crate::core::model::ids::{InstanceId, MessageId};

fn open() -> Session {
    let (session, outputs) = Session::known(&UserId::new("alice"));
    assert!(matches!(outputs[0], Output::Listen(_)));
    session
}

fn call(name: &str, id: &str, content: &Value) -> Input {
    let body = json!({ "invokeId": id, "content": content });
    Input::Text(json!({ "type": format!("{name}-send"), "payload": { "body": body } }).to_string())
}

fn push(id: &str, chat: &str) -> Input {
    let messages = json!([{ "id": "m", "role": "user", "content": "x" }]);
    call("chat:send-messages", id, &json!({ "chatId": chat, "messages": messages }))
}

fn pull(id: &str, chat: &str) -> Input {
    call("chat:pull-messages", id, &json!({ "chatId": chat, "afterSeq": 0 }))
}

fn stored(seq: i64) -> Stored {
    Stored {
        id: MessageId::new(format!("m{seq}")),
        chat: ChatId::new("c"),
        sender: None,
        role: "tool".to_owned(),
        content: String::new(),
        seq,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

fn page(numbers: impl IntoIterator<Item = i64>, seq: i64, has_more: bool) -> Result<Answer, Error> {
    Ok(Answer::Page(LogPage { messages: numbers.into_iter().map(stored).collect(), seq, has_more }))
}

fn event(from: i64, to: i64) -> Input {
    let written: Vec<_> = (from..=to).map(stored).collect();
    let mut events = NewMessages::of(&ChatId::new("c"), &written);
    let payload = events.remove(0);
    let (user_id, origin_instance_id) = (UserId::new("alice"), InstanceId::new("i"));
    Input::Heard(Heard::Event(ChatEvent { user_id, payload, origin_instance_id }))
}

fn own(from: i64, to: i64) -> Result<Answer, Error> {
    Ok(Answer::Sent(Sent { seq: to, given: Some((from, to)) }))
}

/// Short words for outputs: `send <type> [from-to]`, `call <id>`, `repair <id> after <n>`, `close <code>`.
fn words(outputs: &[Output]) -> Vec<String> {
    outputs
        .iter()
        .map(|output| match output {
            Output::Send(message) => {
                let frame: Value = serde_json::from_str(&message.clone().print("x", 0)).unwrap();
                let body = &frame["payload"]["body"];
                let range = body.get("fromSeq").map(|from| format!(" {from}-{}", body["toSeq"])).unwrap_or_default();
                format!("send {}{range}", frame["type"].as_str().unwrap())
            }
            Output::Perform(id, Call::Client(_)) => format!("call {id}"),
            Output::Perform(id, Call::Repair { after, .. }) => format!("repair {id} after {after}"),
            Output::Close(why) => format!("close {}", why.code()),
            other => format!("{other:?}"),
        })
        .collect()
}

fn play(session: &mut Session, steps: Vec<(Input, &[&str])>) {
    for (at, (input, expected)) in steps.into_iter().enumerate() {
        assert_eq!(words(&session.step(input)), expected, "step {at}");
    }
}

#[test]
fn calls_of_one_chat_run_in_order_and_chats_beside_each_other() {
    play(
        &mut open(),
        vec![
            (push("1", "c"), &["call 1"]),
            (push("2", "c"), &[]),
            (push("3", "d"), &["call 2"]),
            (push("4", "c"), &[]),
            (Input::Done(1, own(1, 1)), &["send chat:send-messages-receive-1", "call 3"]),
            (Input::Done(3, own(2, 2)), &["send chat:send-messages-receive-2", "call 4"]),
        ],
    );
}

#[test]
fn at_most_eight_chats_at_once_and_a_full_queue_stops_reading() {
    let mut session = open();
    for n in 0..8 {
        assert_eq!(session.step(pull("i", &format!("c{n}"))).len(), 1);
    }
    for n in 8..MOST_QUEUED + 8 {
        assert!(session.is_hungry());
        assert!(session.step(pull("i", &format!("c{n}"))).is_empty());
    }
    assert!(!session.is_hungry());
    assert_eq!(words(&session.step(Input::Done(1, page([], 0, false))))[1], "call 9");
    assert!(session.is_hungry());
}

#[test]
fn an_own_push_is_not_heard_again_whichever_comes_first() {
    play(
        &mut open(),
        vec![
            (push("1", "c"), &["call 1"]),
            (event(1, 2), &[]),
            (Input::Done(1, own(1, 2)), &["send chat:send-messages-receive-1"]),
            (push("2", "c"), &["call 2"]),
            (Input::Done(2, own(3, 3)), &["send chat:send-messages-receive-2"]),
            (event(3, 3), &[]),
            (event(4, 5), &["send chat:new-messages 4-5"]),
        ],
    );
}

#[test]
fn what_others_said_while_an_own_push_ran_is_read_afterwards() {
    play(
        &mut open(),
        vec![
            (push("1", "c"), &["call 1"]),
            (event(1, 1), &[]),
            (event(2, 2), &[]),
            (event(3, 3), &[]),
            (Input::Done(1, own(2, 2)), &["send chat:send-messages-receive-1", "repair 2 after 0"]),
            (Input::Done(2, page(1..=3, 3, false)), &["send chat:new-messages 1-3"]),
            (event(4, 4), &["send chat:new-messages 4-4"]),
        ],
    );
}

#[test]
fn a_push_that_jumps_ahead_is_preceded_by_what_is_missing() {
    play(
        &mut open(),
        vec![
            (pull("1", "c"), &["call 1"]),
            (Input::Done(1, page(1..=2, 2, true)), &["send chat:pull-messages-receive-1"]),
            (event(9, 9), &["repair 2 after 2"]),
            (event(10, 10), &[]),
            (Input::Done(2, page(3..=6, 6, true)), &["send chat:new-messages 3-6", "repair 3 after 6"]),
            (Input::Done(3, page(7..=10, 10, false)), &["send chat:new-messages 7-10"]),
            (event(10, 10), &[]),
            (event(8, 11), &["repair 4 after 10"]),
        ],
    );
}

#[test]
fn after_a_gap_every_known_chat_is_read_and_a_failed_reading_is_repeated() {
    let fault = || Err(Error::new(Code::ServiceUnavailable));
    play(
        &mut open(),
        vec![
            (event(5, 5), &["send chat:new-messages 5-5"]),
            (Input::Heard(Heard::Gap), &["repair 1 after 5"]),
            (Input::Done(1, fault()), &[]),
            (Input::Tick(Duration::from_secs(1)), &["repair 2 after 5"]),
            (Input::Heard(Heard::Gap), &[]),
            (Input::Done(2, page(6..=6, 6, false)), &["send chat:new-messages 6-6", "repair 3 after 6"]),
            (Input::Done(3, page([], 6, false)), &[]),
            (Input::Tick(Duration::from_secs(2)), &[]),
        ],
    );
}

#[test]
fn a_long_gap_is_read_page_after_page() {
    play(
        &mut open(),
        vec![
            (event(5, 5), &["send chat:new-messages 5-5"]),
            (Input::Heard(Heard::Gap), &["repair 1 after 5"]),
            (Input::Done(1, page(6..=7, 7, true)), &["send chat:new-messages 6-7", "repair 2 after 7"]),
            (Input::Done(2, page(8..=8, 8, false)), &["send chat:new-messages 8-8"]),
        ],
    );
}

#[test]
fn a_push_that_overtakes_the_first_page_does_not_hide_what_lies_between() {
    play(
        &mut open(),
        vec![
            (event(9, 9), &["send chat:new-messages 9-9"]),
            (pull("1", "c"), &["call 1"]),
            (Input::Done(1, page(1..=2, 2, true)), &["send chat:pull-messages-receive-1", "repair 2 after 2"]),
            (Input::Done(2, page(3..=9, 9, false)), &["send chat:new-messages 3-9"]),
            // Later pages are the client's own affair.
            (pull("2", "c"), &["call 3"]),
            (Input::Done(3, page(1..=2, 2, true)), &["send chat:pull-messages-receive-2"]),
            (event(10, 10), &["send chat:new-messages 10-10"]),
        ],
    );
}

#[test]
fn held_pushes_come_behind_the_first_page_or_after_half_a_second() {
    let mut session = open().holding();
    play(
        &mut session,
        vec![
            (event(9, 9), &[]),
            (push("1", "c"), &["call 1"]),
            (Input::Done(1, own(10, 10)), &["send chat:send-messages-receive-1"]),
            (pull("2", "c"), &["call 2"]),
            (Input::Done(2, page(1..=2, 2, true)), &["send chat:pull-messages-receive-2", "repair 3 after 2"]),
            (Input::Done(3, page(3..=9, 9, false)), &["send chat:new-messages 3-9"]),
            (event(11, 11), &["send chat:new-messages 11-11"]),
        ],
    );
    let mut session = open().holding();
    play(
        &mut session,
        vec![
            (event(9, 9), &[]),
            (event(10, 10), &[]),
            (Input::Tick(HOLD), &["repair 1 after 8"]),
            (Input::Done(1, page(9..=10, 10, false)), &["send chat:new-messages 9-10"]),
            (event(11, 11), &["send chat:new-messages 11-11"]),
        ],
    );
}

#[test]
fn numbers_that_do_not_exist_are_asked_for_once() {
    play(
        &mut open(),
        vec![
            (event(1, 1), &["send chat:new-messages 1-1"]),
            (event(7, 7), &["repair 1 after 1"]),
            (Input::Done(1, page([], 1, false)), &[]),
            (Input::Tick(Duration::from_secs(1)), &[]),
            (event(2, 2), &["send chat:new-messages 2-2"]),
        ],
    );
}

#[test]
fn a_dead_peer_is_dropped_after_two_missed_answers_and_the_token_looked_at_again() {
    let mut session = open();
    let at = |seconds| Input::Tick(Duration::from_secs(seconds));
    assert_eq!(words(&session.step(at(30))), ["Ping"]);
    session.step(Input::Pong);
    assert_eq!(words(&session.step(at(60))), ["Ping", "Recheck"]);
    assert!(session.step(Input::Judged(Err(Error::new(Code::ServiceUnavailable)))).is_empty());
    assert!(session.step(Input::Judged(Ok(Some(UserId::new("alice"))))).is_empty());
    assert_eq!(words(&session.step(at(90))), ["Ping"]);
    assert_eq!(words(&session.step(at(120))), ["close 1011"]);
    assert!(session.step(push("1", "c")).is_empty());
    assert_eq!(words(&open().step(Input::Judged(Ok(None)))), ["close 4001"]);
}

#[test]
fn without_a_token_the_first_word_must_be_who_is_calling() {
    let authenticate = || call("chat:authenticate", "a", &json!({ "token": "t" }));
    let mut session = Session::waiting();
    assert_eq!(words(&session.step(authenticate())), ["Authenticate(\"t\")"]);
    assert!(!session.is_hungry());
    let outputs = session.step(Input::Judged(Ok(Some(UserId::new("alice")))));
    assert_eq!(words(&outputs)[1..], ["send eventa:adapters:hono-ws:connected", "send chat:authenticate-receive-a"]);
    assert_eq!(words(&session.step(authenticate())), ["send chat:authenticate-receive-error-a"]);

    for bad in [push("1", "c"), Input::Text("no json".to_owned()), Input::Binary, Input::Tick(PATIENCE)] {
        assert_eq!(words(&Session::waiting().step(bad)), ["close 4001"]);
    }
    for (verdict, close) in [(Ok(None), "close 4001"), (Err(Error::new(Code::ServiceUnavailable)), "close 1013")] {
        let mut session = Session::waiting();
        session.step(authenticate());
        assert_eq!(words(&session.step(Input::Judged(verdict))), [close]);
    }
}

/// What the reference answered to each recorded client frame, and what we do where the contract wants something else.
#[test]
fn every_recorded_frame_of_a_client_is_answered_with_the_recorded_kind() {
    let fixtures = [
        include_str!("../../../../tests/fixtures/eventa-frames.jsonl"),
        include_str!("../../../../tests/fixtures/eventa-frames-newer-client.jsonl"),
    ];
    let (mut played, mut answered) = (0, 0);
    for fixture in fixtures {
        let lines: Vec<Value> = fixture.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let recorded: Vec<&str> = lines
            .iter()
            .filter(|line| line["direction"] == "server->client")
            .filter_map(|line| line["frame"].as_str())
            .collect();
        for line in lines.iter().filter(|line| line["direction"] == "client->server") {
            // Another server's calls, and a call whose caller left before its answer.
            if ["generic:", "disconnect:"].iter().any(|kind| line["case"].as_str().unwrap().starts_with(kind)) {
                continue;
            }
            played += 1;
            let mut session = open();
            let text = line["frame"].as_str().map(str::to_owned);
            let input = text.clone().map_or(Input::Binary, Input::Text);
            let outputs = session.step(input);
            let frame: Value = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            let invoke = frame["payload"]["body"]["invokeId"].as_str().unwrap_or_default();
            let was_answered = |suffix: &str| recorded.iter().any(|sent| sent.contains(&format!("{suffix}{invoke}\"")));
            match &outputs[..] {
                [] => assert!(
                    invoke.is_empty() || frame["type"].as_str().unwrap().ends_with("-abort"),
                    "silence to {line}"
                ),
                [Output::Perform(id, Call::Client(request))] => {
                    answered += 1;
                    assert!(was_answered("-receive-") || was_answered("-receive-error-") || invoke == "a/b", "{line}");
                    let answer = match request {
                        Request::Send { .. } => own(1, 2),
                        _ => page(1..=2, 2, false),
                    };
                    let told = session.step(Input::Done(*id, answer));
                    let name = frame["type"].as_str().unwrap().trim_end_matches("-send");
                    assert_eq!(words(&told), [format!("send {name}-receive-{invoke}")]);
                }
                [Output::Send(message)] => {
                    let said: Value = serde_json::from_str(&message.clone().print("x", 0)).unwrap();
                    let kind = said["type"].as_str().unwrap();
                    if invoke.is_empty() {
                        assert_eq!(kind, "eventa:adapters:hono-ws:error", "{line}");
                        assert!(said["payload"]["body"]["error"]["message"].is_string());
                    } else {
                        assert!(kind.ends_with(&format!("-receive-error-{invoke}")), "{line}");
                        let error = &said["payload"]["body"]["content"]["error"];
                        assert_eq!(
                            (&error["name"], said["payload"]["invokeType"].as_u64()),
                            (&json!("ApiError"), Some(5))
                        );
                        assert!(error["message"].is_string() && error["statusCode"].is_number());
                    }
                    assert_eq!(said["payload"]["id"], said["type"]);
                }
                other => panic!("{other:?} to {line}"),
            }
        }
    }
    assert!(played > 30 && answered > 15, "{played} {answered}");
}

#[test]
fn the_end_of_the_account_is_the_end_of_the_socket() {
    let mut session = open();
    assert_eq!(words(&session.step(Input::Heard(Heard::Closed))), ["close 4001"]);
    assert_eq!(words(&session.step(event(1, 1))), Vec::<String>::new());
}

/// The shape of every recorded server frame, key by key.
#[test]
fn frames_have_the_recorded_keys_in_the_recorded_order() {
    let fixture = include_str!("../../../../tests/fixtures/eventa-frames.jsonl");
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut compared = 0;
    for line in fixture.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let Some(frame) = line["frame"].as_str().filter(|_| line["direction"] == "server->client") else { continue };
        let frame: Value = serde_json::from_str(frame).unwrap();
        let kind = frame["type"].as_str().unwrap();
        let mut session = open();
        let ours = if kind == "eventa:adapters:hono-ws:connected" {
            vec![Output::Send(Message::connected())]
        } else if kind == "chat:new-messages" {
            session.step(event(1, 2))
        } else if kind.starts_with("chat:send-messages-receive-") && frame["payload"]["invokeType"] == 4 {
            session.step(push("1", "c"));
            session.step(Input::Done(1, own(1, 1)))
        } else {
            continue;
        };
        let Some(Output::Send(ours)) = ours.first() else { panic!("nothing for {kind}") };
        let ours: Value = serde_json::from_str(&ours.clone().print("x", 0)).unwrap();
        assert_eq!(keys(&ours), keys(&frame), "{kind}");
        assert_eq!(keys(&ours["payload"]), keys(&frame["payload"]), "{kind}");
        assert_eq!(keys(&ours["payload"]["body"]), keys(&frame["payload"]["body"]), "{kind}");
        if let Some(message) = frame["payload"]["body"]["messages"].as_array().and_then(|messages| messages.first()) {
            assert_eq!(keys(&ours["payload"]["body"]["messages"][0]), keys(message), "{kind}");
        }
        compared += 1;
    }
    assert!(compared > 30, "{compared}");
}
