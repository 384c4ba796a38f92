//! Redis and PostgreSQL go away and come back while the server runs.

use std::time::Duration;

use serde_json::json;

use crate::caller::{Caller, client, question};
use crate::server::{Mode, Server};
use crate::stores::eventually;
use crate::upstream::{Reply, ScriptedUpstream};

const GRANT: i64 = 10_000;
const PRICE: i64 = 12;

async fn installed() -> (ScriptedUpstream, Server, Caller) {
    let upstream = ScriptedUpstream::start().await;
    upstream.any_key().always(Reply::completion("yes", Some((9_000, 3_000))));
    let mut server = Server::install(Mode::Services).await;
    server.route(&json!({
        "slices": [{ "kind": "openai-compatible", "modelName": "scripted", "baseURL": upstream.base_url(), "plaintextKey": "sk-1" }],
        "defaults": { "chatModel": "scripted" },
    }));
    let caller = server.user("caller", GRANT);
    server.start().await;
    (upstream, server, caller)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_answers_go_on_and_balances_stay_right() {
    let (upstream, mut server, caller) = installed().await;
    let ask = async |calls: usize| {
        for _ in 0..calls {
            let answer = caller.complete(&question(false)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    };
    let balance = async |calls: i64| {
        let right = GRANT - calls * PRICE;
        eventually("the balance to be right", async || (caller.balance().await == right).then_some(())).await;
    };
    ask(5).await;
    balance(5).await;

    // One stream is under way when Redis goes.
    upstream.any_key().next(Reply::stream(&["word "; 20], Some((9_000, 3_000))).paced(Duration::from_millis(50)));
    let body = question(true);
    let (heard, ()) = tokio::join!(caller.stream(&body), async {
        upstream.wait_for(6).await;
        server.redis.as_mut().unwrap().stop();
    });
    assert!(heard.is_done(), "{heard:?}");
    ask(10).await;
    balance(16).await;

    server.redis.as_mut().unwrap().resume().await;
    ask(5).await;
    balance(21).await;
    let books = server.books().await;
    assert_eq!(books.balances().await[&caller.id], GRANT - 21 * PRICE);
    assert_eq!(books.charges().await.len(), 21);
    assert_eq!(upstream.seen().len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_balance_from_before_an_outage_does_not_come_back() {
    let (_upstream, mut server, caller) = installed().await;
    assert_eq!(caller.complete(&question(false)).await.status, 200);
    eventually("the first charge", async || (caller.balance().await == GRANT - PRICE).then_some(())).await;
    server.redis.as_mut().unwrap().stop();
    assert_eq!(caller.complete(&question(false)).await.status, 200);
    let books = server.books().await;
    eventually("the second charge", async || (books.charges().await.len() == 2).then_some(())).await;
    // Redis wakes with the copy it had: the server must notice that it missed a write.
    server.redis.as_mut().unwrap().resume().await;
    eventually("the right balance", async || (caller.balance().await == GRANT - 2 * PRICE).then_some(())).await;
    for _ in 0..20 {
        assert_eq!(caller.balance().await, GRANT - 2 * PRICE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_callers_are_asked_to_come_back_and_can() {
    let (upstream, mut server, caller) = installed().await;
    assert_eq!(caller.complete(&question(false)).await.status, 200);
    let ready = async || client().get(format!("{}/readyz", caller.url)).send().await.unwrap().status().as_u16();
    let alive = async || client().get(format!("{}/livez", caller.url)).send().await.unwrap().status().as_u16();
    assert_eq!((alive().await, ready().await), (200, 200));

    server.cable.as_mut().unwrap().cut().await;
    // The last sign of life is believed for a second.
    eventually("the outage to be noticed", async || {
        (caller.complete(&question(false)).await.status == 503).then_some(())
    })
    .await;
    let asked = upstream.seen().len();
    for stream in [false, true] {
        let answer = caller.complete(&question(stream)).await;
        assert_eq!((answer.status, &answer.body["error"]), (503, &json!("SERVICE_UNAVAILABLE")), "{answer:?}");
        let seconds: u64 = answer.header("retry-after").expect("no retry-after").parse().unwrap();
        assert!((1..=300).contains(&seconds), "{seconds}");
    }
    assert_eq!((alive().await, ready().await), (200, 503));
    assert_eq!(upstream.seen().len(), asked, "an answer that cannot be charged was asked for");

    server.cable.as_mut().unwrap().mend().await;
    eventually("the server to recover", async || (ready().await == 200).then_some(())).await;
    let recovered = eventually("an answer", async || {
        let answer = caller.complete(&question(false)).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(recovered.body["choices"][0]["message"]["content"], "yes");

    let books = server.books().await;
    eventually("the charges", async || (books.charges().await.len() == 2).then_some(())).await;
    assert_eq!(books.balances().await[&caller.id], GRANT - 2 * PRICE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_while_postgres_is_away_is_charged_when_it_is_back() {
    let (upstream, mut server, caller) = installed().await;
    upstream.any_key().next(Reply::stream(&["word "; 10], Some((9_000, 3_000))).paced(Duration::from_millis(50)));
    let body = question(true);
    let (heard, ()) = tokio::join!(caller.stream(&body), async {
        upstream.wait_for(1).await;
        server.cable.as_mut().unwrap().cut().await;
    });
    assert!(heard.is_done(), "{heard:?}");
    server.cable.as_mut().unwrap().mend().await;
    let books = server.books().await;
    let charges = eventually("the charge", async || Some(books.charges().await).filter(|all| !all.is_empty())).await;
    assert_eq!((charges.len(), charges[0].amount), (1, PRICE));
}
