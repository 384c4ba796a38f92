//! SIGKILL and SIGTERM in the middle of things.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;

use crate::caller::{Caller, Heard, question};
use crate::server::{Mode, Server, in_both_modes};
use crate::upstream::{Reply, ScriptedUpstream};

in_both_modes!(
    what_was_delivered_a_second_before_a_kill_is_charged_once,
    a_stream_is_finished_and_charged_before_the_server_ends,
);

const COMPLETIONS: usize = 100;
const USERS: usize = 25;
const GRANT: i64 = 10_000;
const PRICE: i64 = 12;
/// When the process is killed, counted from the first request.
const UNTIL_KILL: Duration = Duration::from_millis(2_600);

/// A model and its key: the upstream answers the one whole and the other in parts.
const WHOLE: &str = "whole";
const STREAMED: &str = "streamed";
const USAGE: Option<(u64, u64)> = Some((9_000, 3_000));

fn is_streamed(call: usize) -> bool {
    !call.is_multiple_of(2)
}

async fn installed(mode: Mode, users: usize) -> (ScriptedUpstream, Server, Vec<Caller>) {
    let upstream = ScriptedUpstream::start().await;
    let mut server = Server::install(mode).await;
    let model = |name: &str| json!({ "kind": "openai-compatible", "modelName": name, "baseURL": upstream.base_url(), "plaintextKey": name });
    server.route(&json!({ "slices": [model(WHOLE), model(STREAMED)], "defaults": { "chatModel": WHOLE } }));
    let callers = (0..users).map(|n| server.user(&format!("caller{n}"), GRANT)).collect();
    server.start().await;
    (upstream, server, callers)
}

async fn what_was_delivered_a_second_before_a_kill_is_charged_once(mode: Mode) {
    let (upstream, mut server, callers) = installed(mode, USERS).await;
    // Answers fall due over four seconds, so the kill finds some settled, some under way and some not begun.
    for n in 0..COMPLETIONS {
        let pause = Duration::from_millis(40 * u64::try_from(n).unwrap());
        let (key, reply) = if is_streamed(n) {
            (STREAMED, Reply::stream(&["in ", "parts"], USAGE))
        } else {
            (WHOLE, Reply::completion("whole", USAGE))
        };
        upstream.for_key(key).next(reply.delayed(pause));
    }
    let begun = Instant::now();
    let asking = (0..COMPLETIONS).map(|n| {
        let caller = &callers[n % USERS];
        async move {
            let mut body = question(is_streamed(n));
            if is_streamed(n) {
                body["model"] = STREAMED.into();
                let heard = caller.try_stream(&body, usize::MAX).await.filter(Heard::is_done)?;
                Some((heard.request_id(), heard.at))
            } else {
                body["model"] = WHOLE.into();
                let answer = caller.try_complete(&body).await.filter(|answer| answer.status == 200)?;
                Some((answer.request_id(), answer.at))
            }
        }
    });
    let mut asking = Box::pin(join_all(asking));
    let early = tokio::time::timeout_at((begun + UNTIL_KILL).into(), &mut asking).await;
    assert!(early.is_err(), "everything was over before the kill");
    let killed = Instant::now();
    server.kill();
    let delivered: HashMap<String, Instant> = asking.await.into_iter().flatten().collect();
    let settled = |at: Instant| killed.saturating_duration_since(at) > Duration::from_secs(1);
    let due = delivered.values().filter(|at| settled(**at)).count();
    assert!(due >= 10, "only {due} of {} answers came early enough to say anything", delivered.len());
    assert!(delivered.len() < COMPLETIONS, "nothing was under way when the process was killed");

    server.start().await;
    let books = server.books().await;
    let (charges, balances) = (books.charges().await, books.balances().await);
    let mut times: HashMap<&str, usize> = HashMap::new();
    for charge in &charges {
        *times.entry(&charge.request_id).or_default() += 1;
        assert_eq!(charge.amount, PRICE, "{charge:?}");
    }
    for (request, at) in &delivered {
        let times = times.get(request.as_str()).copied().unwrap_or_default();
        assert!(times <= 1, "{request} was charged {times} times");
        assert!(times == 1 || !settled(*at), "{request} came {:?} before the kill and was not charged", killed - *at);
    }
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    for caller in &callers {
        let spent: i64 = charges.iter().filter(|charge| charge.user_id == caller.id).map(|charge| charge.amount).sum();
        assert_eq!((balances[&caller.id], caller.balance().await), (GRANT - spent, GRANT - spent));
    }
    // What was reserved for calls that died with the process is not lost for ever.
    upstream.any_key().always(Reply::completion("again", USAGE));
    assert_eq!(callers[0].complete(&question(false)).await.status, 200);
    assert!(server.stop().await.success());
    books.balance().await;
}

async fn a_stream_is_finished_and_charged_before_the_server_ends(mode: Mode) {
    let (upstream, mut server, callers) = installed(mode, 1).await;
    upstream.any_key().always(Reply::stream(&["word "; 20], USAGE).paced(Duration::from_millis(50)));
    let caller = callers[0].clone();
    let body = question(true);
    let (heard, ended) = tokio::join!(caller.stream(&body), async {
        upstream.wait_for(1).await;
        server.stop().await
    });
    assert!(ended.success(), "{ended}");
    assert!(heard.is_done(), "{heard:?}");
    assert_eq!(heard.text(), "word ".repeat(20));
    let charges = server.books().await.charges().await;
    assert_eq!(charges.iter().map(|charge| charge.amount).collect::<Vec<_>>(), [PRICE]);
}
