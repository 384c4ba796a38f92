//! Flux set aside: what calls at once can spend, and what a killed process leaves behind.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;

use crate::books::end_leases;
use crate::caller::{Caller, Heard, question};
use crate::server::{Mode, Server, in_both_modes};
use crate::stores::eventually;
use crate::upstream::{Reply, ScriptedUpstream, Step};

in_both_modes!(of_twenty_calls_at_once_exactly_the_affordable_ones_answer, a_kill_amid_live_streams_loses_no_flux);

/// What is set aside for a short call at the usual prices.
const SET_ASIDE: i64 = 5;

async fn installed(mode: Mode, grant: i64) -> (ScriptedUpstream, Server, Caller) {
    let upstream = ScriptedUpstream::start().await;
    let mut server = Server::install(mode).await;
    let model = |name: &str| json!({ "kind": "openai-compatible", "modelName": name, "baseURL": upstream.base_url(), "plaintextKey": name });
    server.route(&json!({ "slices": [model("ends"), model("hangs")], "defaults": { "chatModel": "ends" } }));
    let caller = server.user("caller", grant);
    server.start().await;
    (upstream, server, caller)
}

async fn of_twenty_calls_at_once_exactly_the_affordable_ones_answer(mode: Mode) {
    let (upstream, mut server, caller) = installed(mode, 5 * SET_ASIDE).await;
    // Nobody is through before everybody has asked.
    let reply = Reply::stream(&["word"], Some((3_000, 2_000))).paced(Duration::from_millis(700));
    upstream.any_key().always(reply);
    let body = question(true);
    let heard = join_all((0..20).map(|_| caller.stream(&body))).await;
    let answered: Vec<_> = heard.iter().filter(|heard| heard.status == 200).collect();
    assert!(answered.iter().all(|heard| heard.is_done()), "{answered:?}");
    assert_eq!(answered.len(), 5);
    assert_eq!(heard.iter().filter(|heard| heard.status == 402).count(), 15);
    assert_eq!(upstream.seen().len(), 5);
    let charges = server.books().await.charges().await;
    let told: HashSet<String> = answered.iter().map(|heard| heard.request_id()).collect();
    assert_eq!(charges.iter().map(|charge| charge.request_id.clone()).collect::<HashSet<_>>(), told);
    assert_eq!(charges.iter().map(|charge| charge.amount).collect::<Vec<_>>(), [SET_ASIDE; 5]);
    assert_eq!(caller.balance().await, 0);
    assert!(server.stop().await.success());
    server.books().await.balance().await;
    assert!(server.ask(&["ledger", "verify"]).ends_with(" 0 drifts"));
}

/// Calls a user may begin in a minute.
const A_MINUTES: usize = 60;

async fn a_kill_amid_live_streams_loses_no_flux(mode: Mode) {
    const GRANT: i64 = 5_000;
    const PRICE: i64 = 12;
    // The embedded counter cannot be set back, so there a minute's calls must do.
    let (finished, live) = if mode == Mode::Services { (40, 200) } else { (20, 40) };
    let (upstream, mut server, caller) = installed(mode, GRANT).await;
    upstream.for_key("ends").always(Reply::stream(&["word"], Some((9_000, 3_000))));
    upstream.for_key("hangs").always(Reply::stream(&["word"; 3], None).cut_after(3, Step::Hang));
    let body = question(true);
    let served = join_all((0..finished).map(|_| caller.stream(&body))).await;
    assert!(served.iter().all(Heard::is_done), "{served:?}");

    let mut body = body;
    body["model"] = "hangs".into();
    let mut hanging = JoinSet::new();
    for batch in (0..live).collect::<Vec<_>>().chunks(A_MINUTES - 20) {
        if mode == Mode::Services {
            forget_counted_calls(&server).await;
        }
        for _ in batch {
            hanging.spawn(listen(caller.clone(), body.clone()));
        }
        upstream.wait_for(finished + hanging.len()).await;
    }
    assert_eq!(upstream.seen_with("hangs").iter().filter(|seen| seen.ended.is_none()).count(), live);
    server.kill();
    let ended_well = hanging.join_all().await.into_iter().filter(|done| *done).count();
    assert_eq!(ended_well, 0, "streams ended well although their server was killed");

    assert!(server.ask(&["ledger", "verify"]).ends_with(" 0 drifts"));
    let books = server.books().await;
    let charges = books.charges().await;
    let charged: HashMap<_, _> = charges.iter().map(|charge| (charge.request_id.clone(), charge.amount)).collect();
    assert_eq!((charges.len(), charged.len()), (finished, finished));
    for heard in &served {
        assert_eq!(charged.get(&heard.request_id()), Some(&PRICE), "{heard:?}");
    }
    let spent = PRICE * i64::try_from(finished).unwrap();
    assert_eq!(books.balances().await[&caller.id], GRANT - spent);
    assert_eq!(books.held().await, (live, SET_ASIDE * i64::try_from(live).unwrap()));

    // Their leases are not over; once they are, nothing stays behind.
    assert_eq!(server.ask(&["holds", "sweep"]), "0");
    end_leases(&server).await;
    assert_eq!(server.ask(&["holds", "sweep"]), live.to_string());
    assert_eq!(server.books().await.held().await, (0, 0));
    assert!(server.ask(&["ledger", "verify"]).ends_with(" 0 drifts"));

    server.start().await;
    if mode == Mode::Services {
        forget_counted_calls(&server).await;
    }
    let heard = caller.stream(&question(true)).await;
    assert!(heard.is_done(), "{heard:?}");
    let left = GRANT - spent - PRICE;
    eventually("the last charge", async || (caller.balance().await == left).then_some(())).await;
    assert!(server.stop().await.success());
    server.books().await.balance().await;
}

/// Whether the stream ended as it should.
async fn listen(caller: Caller, body: serde_json::Value) -> bool {
    caller.try_stream(&body, usize::MAX).await.is_some_and(|heard| heard.is_done())
}

/// Lets a user begin a minute's calls anew.
async fn forget_counted_calls(server: &Server) {
    let client = redis::Client::open(server.redis.as_ref().unwrap().url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let counters: Vec<String> = redis::cmd("KEYS").arg("*ratelimit:*").query_async(&mut connection).await.unwrap();
    for counter in counters {
        redis::cmd("DEL").arg(counter).query_async::<()>(&mut connection).await.unwrap();
    }
}
