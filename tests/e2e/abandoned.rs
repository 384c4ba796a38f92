//! Two hundred streams at once whose readers leave when they like: three parties' counts agree afterwards.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use crate::caller::question;
use crate::server::{Mode, Server, in_both_modes};
use crate::stores::eventually;
use crate::upstream::{Ended, Reply, ScriptedUpstream};

in_both_modes!(ledger_request_log_and_upstream_agree);

const USERS: usize = 40;
const STREAMS: usize = 200;
const GRANT: i64 = 10_000;
const TOKENS: usize = 30;

/// When a reader leaves: after some of the first events, or never. Plain arithmetic, so that a failure repeats.
fn patience_of(stream: usize) -> Option<usize> {
    let dice = stream.wrapping_mul(2_654_435_761) >> 7;
    (!dice.is_multiple_of(3)).then_some(1 + dice % 12)
}

async fn ledger_request_log_and_upstream_agree(mode: Mode) {
    let upstream = ScriptedUpstream::start().await;
    // Those who leave do so well before the upstream is through, so nobody is both gone and served.
    let reply = Reply::stream(&["word "; TOKENS], Some((9_000, 3_000))).paced(Duration::from_millis(80));
    upstream.any_key().always(reply);
    let mut server = Server::install(mode).await;
    server.route(&json!({
        "slices": [{ "kind": "openai-compatible", "modelName": "scripted", "baseURL": upstream.base_url(), "plaintextKey": "sk-1" }],
        "defaults": { "chatModel": "scripted" },
    }));
    let callers: Vec<_> = (0..USERS).map(|n| server.user(&format!("reader{n}"), GRANT)).collect();
    server.start().await;

    let body = question(true);
    let reading = (0..STREAMS).map(|stream| {
        let (caller, body) = (&callers[stream % USERS], &body);
        async move { caller.try_stream(body, patience_of(stream).unwrap_or(usize::MAX)).await.expect("no answer") }
    });
    let heard = join_all(reading).await;
    assert!(heard.iter().all(|heard| heard.status == 200), "{:?}", heard.iter().find(|heard| heard.status != 200));
    let served: HashMap<_, _> = heard.iter().map(|heard| (heard.request_id(), heard.is_done())).collect();
    assert_eq!(served.len(), STREAMS, "request ids repeat");
    for (stream, heard) in heard.iter().enumerate() {
        assert_eq!(heard.is_done(), patience_of(stream).is_none(), "stream {stream}: {heard:?}");
    }
    let finished = served.values().filter(|done| **done).count();

    let books = server.books().await;
    let log = eventually("200 rows", async || Some(books.log().await).filter(|log| log.len() >= STREAMS)).await;
    let (charges, balances) = (books.charges().await, books.balances().await);

    // The request log knows each call once, and how it ended.
    assert_eq!(log.len(), STREAMS);
    for row in &log {
        let expected = if served[&row.request_id] { 200 } else { 499 };
        assert_eq!(row.status, expected, "{row:?}");
    }
    // The ledger charged each call once, as the request log says.
    let charged: HashMap<_, _> = charges.iter().map(|charge| (charge.request_id.clone(), charge)).collect();
    assert_eq!((charges.len(), charged.len()), (STREAMS, STREAMS));
    for row in &log {
        let charge = charged[&row.request_id];
        assert_eq!((charge.amount, &charge.user_id), (row.flux_consumed, &row.user_id));
        let estimated = charge.metadata.contains("\"estimated\"");
        assert_eq!(estimated, row.status == 499, "{charge:?}");
        assert!(if estimated { charge.amount >= 1 } else { charge.amount == 12 }, "{charge:?}");
    }
    for caller in &callers {
        let spent: i64 = charges.iter().filter(|charge| charge.user_id == caller.id).map(|charge| charge.amount).sum();
        assert_eq!((balances[&caller.id], caller.balance().await), (GRANT - spent, GRANT - spent));
    }
    // The upstream was asked once per call, stopped when its reader left, and gave away what was charged.
    let seen = upstream.seen();
    assert_eq!(seen.len(), STREAMS);
    let stopped = seen.iter().filter(|seen| matches!(seen.ended, Some(Ended::ClientLeft { .. }))).count();
    assert_eq!(stopped, STREAMS - finished);
    let (prompt, completion): (Vec<_>, Vec<_>) = log
        .iter()
        .filter(|row| row.status == 200)
        .map(|row| (row.prompt_tokens.unwrap(), row.completion_tokens.unwrap()))
        .unzip();
    let tally = upstream.tally();
    assert_eq!(tally.completions, u64::try_from(finished).unwrap());
    assert_eq!(tally.prompt_tokens, u64::try_from(prompt.iter().sum::<i32>()).unwrap());
    assert_eq!(tally.completion_tokens, u64::try_from(completion.iter().sum::<i32>()).unwrap());

    assert!(server.stop().await.success());
    books.balance().await;
}
