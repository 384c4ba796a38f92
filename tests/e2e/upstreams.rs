//! Upstreams that refuse, hang, break and lie, seen from the client and from the books.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::books::{Charge, Logged};
use crate::caller::{Caller, question};
use crate::server::{Mode, Server, in_both_modes};
use crate::stores::eventually;
use crate::upstream::{Ended, Reply, ScriptedUpstream, Step};

const GRANT: i64 = 1_000;
/// Costs 12 flux at the usual price of one per thousand tokens.
const USAGE: Option<(u64, u64)> = Some((9_000, 3_000));
const PRICE: i64 = 12;
/// What a call must be able to pay.
const FLAT: i64 = 5;

/// A server in front of two upstreams with two keys each, and one caller.
struct World {
    server: Server,
    first: ScriptedUpstream,
    second: ScriptedUpstream,
    caller: Caller,
}

impl World {
    async fn with(mode: Mode, limits: Value) -> Self {
        let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
        let keys = |name: &str| {
            let key = |n: u8| json!({ "id": format!("{name}-{n}"), "plaintextKey": format!("sk-{name}-{n}") });
            json!([key(1), key(2)])
        };
        let mut server = Server::install(mode).await;
        server.route(&json!({
            "slices": [{
                "kind": "llm-model", "modelName": "scripted", "upstreams": [
                    { "baseURL": first.base_url(), "name": "first", "keys": keys("first") },
                    { "baseURL": second.base_url(), "name": "second", "keys": keys("second") },
                ],
            }],
            "defaults": { "chatModel": "scripted" },
            "routerDefaults": limits,
        }));
        let caller = server.user("caller", GRANT);
        server.start().await;
        Self { server, first, second, caller }
    }

    async fn new(mode: Mode) -> Self {
        Self::with(mode, json!({})).await
    }

    /// The charges and the log once `rows` calls were logged.
    async fn books(&self, rows: usize) -> (Vec<Charge>, Vec<Logged>) {
        let books = self.server.books().await;
        let log = eventually("the request log", async || Some(books.log().await).filter(|log| log.len() >= rows)).await;
        assert_eq!(log.len(), rows, "{log:?}");
        let charges = books.charges().await;
        let spent: i64 = charges.iter().map(|charge| charge.amount).sum();
        assert_eq!(books.balances().await[&self.caller.id], GRANT - spent);
        assert_eq!(self.caller.balance().await, GRANT - spent);
        assert_eq!(log.iter().map(|row| row.flux_consumed).sum::<i64>(), spent, "{log:?}");
        (charges, log)
    }

    /// The amount and the status of the only call.
    async fn only(&self) -> (i64, i32) {
        let (charges, log) = self.books(1).await;
        assert!(charges.len() <= 1, "{charges:?}");
        (charges.iter().map(|charge| charge.amount).sum(), log[0].status)
    }
}

in_both_modes!(
    refusals_walk_over_keys_and_upstreams,
    a_hang_before_the_head_moves_on,
    a_hang_between_chunks_ends_the_stream_unbilled,
    a_hang_after_the_last_event_is_billed_and_ends,
    a_reset_mid_stream_is_told_and_unbilled,
    a_success_with_an_error_inside_is_passed_on,
    an_error_event_inside_a_stream_is_unbilled,
    compression_is_neither_asked_for_nor_taken,
    a_request_fault_is_told_in_the_upstreams_words,
    when_nobody_answers_nobody_pays,
    a_caller_without_money_reaches_no_upstream,
);

async fn refusals_walk_over_keys_and_upstreams(mode: Mode) {
    let world = World::new(mode).await;
    world.first.for_key("sk-first-1").always(Reply::refusal(401, "no such key"));
    world.first.for_key("sk-first-2").always(Reply::refusal(429, "slow down"));
    world.second.for_key("sk-second-1").always(Reply::completion("made it", USAGE));
    let answer = world.caller.complete(&question(false)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["choices"][0]["message"]["content"], "made it");
    let order: Vec<_> =
        [world.first.seen(), world.second.seen()].concat().iter().map(|seen| seen.key.clone().unwrap()).collect();
    assert_eq!(order, ["sk-first-1", "sk-first-2", "sk-second-1"]);
    let (charges, log) = world.books(1).await;
    assert_eq!(
        (charges.len(), charges[0].amount, charges[0].request_id.as_str()),
        (1, PRICE, answer.request_id().as_str())
    );
    assert_eq!((log[0].status, log[0].fallback_depth, log[0].model.as_str()), (200, Some(2), "scripted"));
    assert_eq!((log[0].prompt_tokens, log[0].completion_tokens), (Some(9_000), Some(3_000)));
}

async fn a_hang_before_the_head_moves_on(mode: Mode) {
    let world = World::with(mode, json!({ "perAttemptTimeoutMs": 300 })).await;
    world.first.any_key().always(Reply::hang_before_head());
    world.second.any_key().always(Reply::stream(&["made ", "it"], USAGE));
    let heard = world.caller.stream(&question(true)).await;
    assert!(heard.is_done(), "{heard:?}");
    assert_eq!(heard.text(), "made it");
    assert_eq!(world.first.seen().len(), 2, "each key of the first upstream is tried once");
    assert!(matches!(world.first.wait_ended(1).await.ended, Some(Ended::ClientLeft { .. })));
    assert_eq!(world.only().await, (PRICE, 200));
}

async fn a_hang_between_chunks_ends_the_stream_unbilled(mode: Mode) {
    let world = World::with(mode, json!({ "streamIdleTimeoutMs": 400 })).await;
    world.first.any_key().always(Reply::stream(&["one", "two", "three"], USAGE).cut_after(3, Step::Hang));
    let heard = world.caller.stream(&question(true)).await;
    assert_eq!((heard.status, heard.text().as_str()), (200, "onetwo"), "{heard:?}");
    assert_interrupted(&heard.events, heard.complete);
    assert!(matches!(world.first.wait_ended(0).await.ended, Some(Ended::ClientLeft { .. })));
    assert_eq!(world.only().await, (0, 502));
    assert_eq!(world.second.seen().len(), 0, "nothing is tried after the first byte");
}

async fn a_hang_after_the_last_event_is_billed_and_ends(mode: Mode) {
    let world = World::with(mode, json!({ "streamIdleTimeoutMs": 400 })).await;
    world.first.any_key().always(Reply::stream(&["one"], USAGE).hang_at_end());
    let begun = Instant::now();
    let heard = world.caller.stream(&question(true)).await;
    assert_eq!(heard.text(), "one");
    assert!(heard.events.iter().any(|event| event == "[DONE]"), "{heard:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(world.only().await, (PRICE, 200));
}

async fn a_reset_mid_stream_is_told_and_unbilled(mode: Mode) {
    let world = World::new(mode).await;
    world.first.any_key().always(Reply::stream(&["one", "two"], USAGE).cut_after(2, Step::Reset));
    let heard = world.caller.stream(&question(true)).await;
    assert_eq!(heard.text(), "one", "{heard:?}");
    assert_interrupted(&heard.events, heard.complete);
    assert_eq!(world.only().await, (0, 502));
}

/// Truncation can be told from completion twice: by an event, and by how the body ends.
fn assert_interrupted(events: &[String], complete: bool) {
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last, json!({ "error": { "code": "stream_interrupted", "message": "Upstream stream interrupted" } }));
    assert!(!complete, "the body ended as if all were well");
}

async fn a_success_with_an_error_inside_is_passed_on(mode: Mode) {
    let world = World::new(mode).await;
    world.first.any_key().always(Reply::error_inside_success("not really"));
    let answer = world.caller.complete(&question(false)).await;
    assert_eq!((answer.status, answer.body), (200, json!({ "error": { "message": "not really" } })));
    // Nothing was said that could be counted: the few tokens of the question are the price.
    assert_eq!(world.only().await, (1, 200));
}

async fn an_error_event_inside_a_stream_is_unbilled(mode: Mode) {
    let world = World::new(mode).await;
    let first = r#"{"choices":[{"index":0,"delta":{"content":"one"}}]}"#;
    let error = r#"{"error":{"message":"out of memory","code":500}}"#;
    let events = [format!("data: {first}\n\n"), format!("data: {error}\n\n")];
    world.first.any_key().always(Reply::events(events).then(Step::Hang));
    let heard = world.caller.stream(&question(true)).await;
    assert_eq!(heard.events[..2], [first, error]);
    assert!(!heard.complete, "{heard:?}");
    assert_eq!(world.only().await, (0, 502));
}

async fn compression_is_neither_asked_for_nor_taken(mode: Mode) {
    let world = World::new(mode).await;
    world.first.any_key().always(Reply::gzipped());
    world.second.any_key().always(Reply::completion("plain", USAGE));
    let answer = world.caller.complete(&question(false)).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, None), "{answer:?}");
    assert_eq!(answer.body["choices"][0]["message"]["content"], "plain");
    for seen in [world.first.seen(), world.second.seen()].concat() {
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
    }
    assert_eq!(world.only().await, (PRICE, 200));
}

async fn a_request_fault_is_told_in_the_upstreams_words(mode: Mode) {
    let world = World::new(mode).await;
    let text = "this model does not support tools (key sk-first-1, see https://upstream.test/help?account=77)";
    world.first.any_key().always(Reply::refusal(400, text));
    for stream in [false, true] {
        let answer = world.caller.complete(&question(stream)).await;
        assert_eq!((answer.status, &answer.body["error"]), (400, &json!("UPSTREAM_REJECTED")));
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.starts_with("this model does not support tools"), "{message}");
        assert!(!message.contains("sk-first-1") && !message.contains("account=77"), "{message}");
        assert!(message.contains("[redacted]"), "{message}");
    }
    assert_eq!((world.first.seen().len(), world.second.seen().len()), (2, 0), "every upstream would refuse it");
    let (charges, log) = world.books(2).await;
    assert_eq!((charges, log.iter().map(|row| row.status).collect::<Vec<_>>()), (vec![], vec![400, 400]));
}

async fn when_nobody_answers_nobody_pays(mode: Mode) {
    let world = World::new(mode).await;
    world.first.any_key().always(Reply::refusal(500, "sk-first-1 is broken"));
    world.second.any_key().always(Reply::retry_after(429, "7"));
    let answer = world.caller.complete(&question(false)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")));
    let details = json!({ "triedKeys": 4, "triedUpstreams": 2, "lastStatusCode": 429 });
    let told = json!({ "error": "SERVICE_UNAVAILABLE", "message": "Upstream rate-limited", "details": details });
    assert_eq!(answer.body, told);
    assert_eq!(world.only().await, (0, 503));
    assert!(!world.server.log().contains("sk-first-1"), "a key was logged");
}

async fn a_caller_without_money_reaches_no_upstream(mode: Mode) {
    let first = ScriptedUpstream::start().await;
    let mut server = Server::install(mode).await;
    server.route(&json!({
        "slices": [{ "kind": "openai-compatible", "modelName": "scripted", "baseURL": first.base_url(), "plaintextKey": "sk-1" }],
        "defaults": { "chatModel": "scripted" },
    }));
    let caller = server.user("poor", FLAT - 1);
    server.start().await;
    let answer = caller.complete(&question(true)).await;
    assert_eq!(answer.status, 402);
    assert_eq!(answer.body, json!({ "error": "PAYMENT_REQUIRED", "message": "Insufficient flux" }));
    assert_eq!(first.seen().len(), 0);
    assert_eq!(caller.balance().await, FLAT - 1);
}
