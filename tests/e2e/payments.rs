//! Buying flux: from the shop to the balance, with a provider on loopback and messages signed by the provider's own
//! package.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::caller::{Caller, client};
use crate::provider::Provider;
use crate::server::{Mode, Server, in_both_modes};
use crate::stores::exported;

in_both_modes!(
    a_purchase_from_the_shop_to_the_balance,
    nothing_is_written_for_messages_the_provider_did_not_send,
    every_event_ten_times_shuffled_and_across_a_kill_ends_the_same,
);

const SECRET: &str = "whsec_e2e";

async fn shop(mode: Mode, provider: &Provider) -> Server {
    let mut server = Server::install(mode).await;
    server.set("STRIPE_SECRET_KEY", "sk_test_e2e");
    server.set("STRIPE_API_BASE", &provider.base());
    server.set("ADMIN_EMAILS", "boss@e2e.test");
    let doctor = |server: &Server| String::from_utf8(server.run(&["doctor"]).stdout).unwrap();
    assert!(doctor(&server).contains("FAIL  shop: payments would be taken and never credited"));
    server.set("STRIPE_WEBHOOK_SECRET", SECRET);
    assert!(doctor(&server).contains("FAIL  shop: nothing is on sale"));
    server.ask(&["config", "set", "STRIPE_FLUX_PRODUCT_ID", "prod_fx1"]);
    assert!(doctor(&server).contains("ok    shop"));
    server
}

/// A message and its header, ready to be sent any number of times.
#[derive(Clone)]
struct Message {
    body: String,
    signature: String,
}

#[expect(clippy::disallowed_methods, reason = "a signature counts for a few minutes from now")]
fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Signed by the provider's own package.
fn signed(bodies: &[String], secret: &str, timestamp: i64) -> Vec<Message> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node/stripe.cjs");
    let mut node = Command::new("node")
        .arg(script)
        .env("NODE_PATH", exported("TEST_NODE_MODULES"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node could not be started; run ./scripts/test");
    let wanted: Vec<Value> =
        bodies.iter().map(|body| json!({ "payload": body, "secret": secret, "timestamp": timestamp })).collect();
    node.stdin.take().unwrap().write_all(json!(wanted).to_string().as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let signatures: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
    bodies.iter().cloned().zip(signatures).map(|(body, signature)| Message { body, signature }).collect()
}

/// Sends a message; the status, or none when the connection broke.
async fn send(server: &str, message: &Message) -> Option<u16> {
    let request = client().post(format!("{server}/api/v1/stripe/webhook")).body(message.body.clone());
    let request = request.header("content-type", "application/json").header("stripe-signature", &message.signature);
    request.send().await.ok().map(|answer| answer.status().as_u16())
}

async fn deliver(server: &Server, event: &Value, copies: usize) {
    let message = &signed(&[event.to_string()], SECRET, now())[0];
    let url = server.url();
    let statuses = futures::future::join_all((0..copies).map(|_| send(&url, message))).await;
    assert_eq!(statuses, vec![Some(200); copies], "{event}");
}

async fn ask(caller: &Caller, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let url = format!("{}{path}", caller.url);
    let mut request = client().request(method.parse().unwrap(), url).bearer_auth(&caller.token);
    request = request.header("origin", "https://airi.moeru.ai").header("content-type", "application/json");
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
}

async fn get(caller: &Caller, path: &str) -> Value {
    let (status, answer) = ask(caller, "GET", path, None).await;
    assert_eq!(status, 200, "{path} {answer}");
    answer
}

/// An event of the fixture by its name, about this user, with members of its object replaced.
fn event(name: &str, user: &str, id: &str, changes: &Value) -> Value {
    let mut event = fixture().into_iter().find(|case| case["name"] == name).unwrap()["event"].take();
    event["id"] = id.into();
    let object = event["data"]["object"].as_object_mut().unwrap();
    object.extend(changes.as_object().unwrap().clone());
    if let Some(named) = object.get_mut("metadata").and_then(|metadata| metadata.get_mut("userId")) {
        *named = user.into();
    }
    event
}

fn fixture() -> Vec<Value> {
    serde_json::from_str(include_str!("../fixtures/stripe-events.json")).unwrap()
}

async fn a_purchase_from_the_shop_to_the_balance(mode: Mode) {
    let provider = Provider::start().await;
    let mut server = shop(mode, &provider).await;
    let (buyer, boss) = (server.user("buyer", 0), server.user("boss", 0));
    server.start().await;

    let packages = get(&buyer, "/api/v1/stripe/packages").await;
    let labels: Vec<_> = packages.as_array().unwrap().iter().map(|package| package["label"].clone()).collect();
    assert_eq!(labels, ["500 Flux", "2000 Flux"]);
    assert_eq!(packages[1]["currencies"]["huf"], "HUF\u{a0}4,300.00");

    let wish = json!({ "stripePriceId": "price_fx1", "currency": "CNY" });
    let (status, answer) = ask(&buyer, "POST", "/api/v1/stripe/checkout", Some(wish.clone())).await;
    assert_eq!((status, &answer["url"]), (200, &json!("https://checkout.example.test/c/pay/cs_fx1")), "{answer}");
    let opened = provider.asked().into_iter().find(|asked| asked.path == "/v1/checkout/sessions").unwrap();
    assert_eq!(opened.form["metadata[userId]"], buyer.id);
    assert_eq!(opened.form["metadata[fluxAmount]"], "500");
    assert_eq!((opened.method.as_str(), opened.form["currency"].as_str()), ("POST", "cny"));
    assert_eq!(opened.form["success_url"], "https://airi.moeru.ai/settings/flux?success=true");
    assert_eq!(opened.headers["stripe-version"], "2026-03-25.dahlia");
    assert!(opened.headers.contains_key("idempotency-key"));

    let session = json!({ "id": "cs_e2e_1", "payment_intent": "pi_e2e", "customer": "cus_e2e" });
    deliver(&server, &event("checkout completed but unpaid (delayed method)", &buyer.id, "evt_u", &session), 1).await;
    assert_eq!(buyer.balance().await, 0, "nobody paid yet");
    let orders = get(&buyer, "/api/v1/stripe/orders").await;
    assert_eq!((&orders[0]["stripeSessionId"], &orders[0]["fluxCredited"]), (&json!("cs_e2e_1"), &json!(false)));
    deliver(&server, &event("delayed payment succeeded", &buyer.id, "evt_p", &session), 10).await;
    assert_eq!(buyer.balance().await, 500);
    let orders = get(&buyer, "/api/v1/stripe/orders").await;
    assert_eq!((orders.as_array().unwrap().len(), &orders[0]["fluxCredited"]), (1, &json!(true)));
    let newest = get(&buyer, "/api/v1/flux/history?limit=1").await["records"][0].clone();
    assert_eq!((&newest["description"], &newest["amount"]), (&json!("Stripe payment USD 3.00"), &json!(500)));
    assert_eq!(newest["metadata"], json!({ "stripeSessionId": "cs_e2e_1", "source": "stripe.checkout.completed" }));

    let (status, portal) = ask(&buyer, "POST", "/api/v1/stripe/portal", None).await;
    assert_eq!((status, &portal["url"]), (200, &json!("https://billing.example.test/p/session/fx1")), "{portal}");

    let month = event("subscription invoice paid", &buyer.id, "evt_m", &json!({ "customer": "cus_e2e" }));
    deliver(&server, &month, 3).await;
    assert_eq!(buyer.balance().await, 3_500);
    assert_eq!(get(&buyer, "/api/v1/stripe/invoices").await[0]["fluxCredited"], true);
    let refund = event("charge refunded in full", &buyer.id, "evt_r", &json!({ "payment_intent": "pi_e2e" }));
    deliver(&server, &refund, 3).await;
    assert_eq!(buyer.balance().await, 3_000);

    // An operator handles one more time what came, and what never came.
    let lost = json!({ "id": "in_lost", "customer": "cus_e2e" });
    let lost = event("subscription invoice paid", &buyer.id, "evt_lost", &lost);
    for (known, outcome) in [(&month, "duplicate"), (&lost, "applied"), (&lost, "duplicate")] {
        provider.remember(known);
        let path = format!("/api/admin/stripe/events/{}/replay", known["id"].as_str().unwrap());
        let (status, answer) = ask(&boss, "POST", &path, None).await;
        assert_eq!((status, &answer["outcome"]), (200, &json!(outcome)), "{answer}");
    }
    let (status, _) = ask(&boss, "POST", "/api/admin/stripe/events/evt_never/replay", None).await;
    assert_eq!(status, 404);
    let (status, _) = ask(&buyer, "POST", "/api/admin/stripe/events/evt_lost/replay", None).await;
    assert_eq!(status, 403);
    assert_eq!(buyer.balance().await, 6_000);
    let journal = get(&boss, "/api/admin/stripe/events?limit=3").await;
    let told: Vec<_> = journal["items"].as_array().unwrap().iter().map(|row| (&row["id"], &row["outcome"])).collect();
    let applied = &json!("applied");
    let (lost, refunded, month) = (&json!("evt_lost"), &json!("evt_r"), &json!("evt_m"));
    assert_eq!(told, [(lost, applied), (refunded, applied), (month, applied)]);
    let behind = format!("/api/admin/stripe/events?cursor={}", journal["nextCursor"].as_str().unwrap());
    assert_eq!(get(&boss, &behind).await["items"].as_array().unwrap().len(), 2);
    // The lost month goes back: the message names a payment that only the provider could tell us.
    let back = json!({ "id": "ch_lost", "payment_intent": "pi_in_lost", "amount": 900, "amount_refunded": 900 });
    deliver(&server, &event("charge refunded in full", &buyer.id, "evt_back", &back), 2).await;
    assert_eq!(buyer.balance().await, 3_000);
    server.books().await.balance().await;
    assert!(!server.log().contains("sk_test_e2e") && !server.log().contains(SECRET), "a secret was logged");
}

async fn nothing_is_written_for_messages_the_provider_did_not_send(mode: Mode) {
    let provider = Provider::start().await;
    let mut server = shop(mode, &provider).await;
    let (buyer, boss) = (server.user("buyer", 0), server.user("boss", 0));
    server.start().await;

    let url = server.url();
    let body = event("checkout paid", &buyer.id, "evt_1", &json!({})).to_string();
    let one = |body: &str, secret: &str, at: i64| signed(&[body.to_owned()], secret, at).remove(0);
    let good = one(&body, SECRET, now());
    let tampered = Message { body: body.replace("\"500\"", "\"900\""), ..good.clone() };
    let unsigned = Message { signature: String::new(), ..good.clone() };
    let huge = "x".repeat(2 * 1024 * 1024);
    for (message, expected, why) in [
        (one(&body, "whsec_other", now()), 400, "another secret"),
        (one(&body, SECRET, now() - 400), 400, "too old"),
        (one(&body, SECRET, now() + 400), 400, "from the future"),
        (tampered, 400, "another body"),
        (unsigned, 400, "no signature"),
        (one("not json", SECRET, now()), 400, "no JSON"),
        (one("[]", SECRET, now()), 400, "no event"),
        (one(&body.replace("\"livemode\":false", "\"livemode\":true"), SECRET, now()), 400, "real money"),
        (one(&huge, SECRET, now()), 413, "huge"),
    ] {
        assert_eq!(send(&url, &message).await, Some(expected), "{why}");
    }
    assert_eq!(get(&boss, "/api/admin/stripe/events").await, json!({ "items": [] }));
    assert_eq!(get(&buyer, "/api/v1/stripe/orders").await, json!([]));
    assert_eq!(buyer.balance().await, 0);
    assert_eq!(send(&url, &good).await, Some(200));
    assert_eq!(buyer.balance().await, 500);
}

async fn every_event_ten_times_shuffled_and_across_a_kill_ends_the_same(mode: Mode) {
    let provider = Provider::start().await;
    let mut server = shop(mode, &provider).await;
    let buyer = server.user("buyer", 0);
    server.start().await;

    let cases = fixture();
    let nobodys =
        cases.iter().find(|case| case["name"] == "subscription invoice for nobody").unwrap()["event"]["id"].clone();
    let events: Vec<String> = cases
        .iter()
        .map(|case| case["event"].to_string().replace("\"user-1\"", &json!(buyer.id).to_string()))
        .collect();
    let messages = signed(&events, SECRET, now());
    // The customer is known when events about it arrive.
    assert_eq!(send(&server.url(), &messages[0]).await, Some(200));

    // Many at once and in no order, while the process is killed under them.
    let url = server.url();
    let crowd = messages.iter().cycle().skip(7).step_by(11).take(messages.len() * 10);
    let answered = AtomicUsize::new(0);
    let storm = futures::future::join_all(crowd.map(async |message| {
        let status = send(&url, message).await;
        answered.fetch_add(1, Ordering::SeqCst);
        status
    }));
    let kill = async {
        while answered.load(Ordering::SeqCst) < messages.len() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill();
    };
    let (answers, ()) = futures::join!(storm, kill);
    assert!(answers.iter().any(Option::is_none), "the kill came too late to matter");
    server.start().await;

    // What was not acknowledged comes again; so does the rest, being allowed to.
    for (nth, message) in messages.iter().enumerate().rev() {
        let statuses = futures::future::join_all((0..10).map(|_| send(&url, message))).await;
        let expected = if message.body.contains(nobodys.as_str().unwrap()) { Some(500) } else { Some(200) };
        assert!(statuses.iter().all(|status| *status == expected), "{nth} {statuses:?} {}", message.body);
    }
    let books = server.books().await;
    books.balance().await;
    assert_eq!(books.balances().await[&buyer.id], 16_000);
    let orders = get(&buyer, "/api/v1/stripe/orders").await;
    let credited = orders.as_array().unwrap().iter().filter(|order| order["fluxCredited"] == true).count();
    assert_eq!(credited, 3);
    assert_eq!(server.ask(&["ledger", "verify"]).lines().count(), 1);
}
