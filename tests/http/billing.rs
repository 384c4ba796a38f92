//! `/stripe`: the order of refusals at the checkout, and where the buyer is sent back to.

use poem::http::StatusCode;
use serde_json::{Value, json};

use crate::world::{Client, USER, World, distrust, provider};

fn shop() -> Client {
    World { payments: Some(provider()), payment_signatures: Some(distrust()), ..World::default() }.client()
}

async fn buy(client: &Client, body: Value, headers: &[(&str, &str)]) -> (StatusCode, Value) {
    let mut request = client.post("/api/v1/stripe/checkout").header("authorization", USER).body(body.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.0;
    (answer.status(), answer.into_body().into_json().await.unwrap())
}

#[tokio::test]
async fn refusals_come_in_the_order_of_the_contract() {
    let client = shop();
    let home = ("origin", "https://airi.moeru.ai");
    for (body, headers, status, code) in [
        (json!({}), &[home][..], 400, "INVALID_REQUEST"),
        (json!({ "stripePriceId": "p1", "currency": "yen!" }), &[home][..], 400, "INVALID_REQUEST"),
        (json!({ "stripePriceId": "unknown" }), &[home][..], 400, "INVALID_PACKAGE"),
        (json!({ "stripePriceId": "p1", "currency": "eur" }), &[home][..], 400, "INVALID_REQUEST"),
        (json!({ "stripePriceId": "p2" }), &[][..], 400, "INVALID_PACKAGE"),
        (json!({ "stripePriceId": "p1" }), &[][..], 400, "INVALID_ORIGIN"),
        (json!({ "stripePriceId": "p1" }), &[("origin", "https://evil.example")][..], 400, "INVALID_ORIGIN"),
        (json!({ "stripePriceId": "p1", "currency": "JPY" }), &[home][..], 502, "BAD_GATEWAY"),
    ] {
        let (found, answer) = buy(&client, body.clone(), headers).await;
        assert_eq!((found.as_u16(), answer["error"].as_str().unwrap()), (status, code), "{body} {answer}");
    }
}

#[tokio::test]
async fn the_page_decides_where_the_buyer_comes_back_and_shells_come_back_to_the_web() {
    let client = shop();
    for (headers, base) in [
        (
            &[("referer", "http://localhost:5173/settings/flux?x=1"), ("origin", "https://airi.moeru.ai")][..],
            "http://localhost:5173",
        ),
        (&[("referer", "https://evil.example/"), ("origin", "https://airi.moeru.ai")][..], "https://airi.moeru.ai"),
        (&[("origin", "capacitor://localhost")][..], "https://airi.moeru.ai"),
    ] {
        let (status, answer) = buy(&client, json!({ "stripePriceId": "p1" }), headers).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["url"], format!("{base}/settings/flux?success=true"));
    }
}

#[tokio::test]
async fn the_eleventh_purchase_of_a_minute_is_refused() {
    let client = shop();
    for nth in 1..=11 {
        let (status, answer) = buy(&client, json!({}), &[]).await;
        let expected = if nth > 10 { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::BAD_REQUEST };
        assert_eq!(status, expected, "{nth} {answer}");
    }
}

#[tokio::test]
async fn everybody_sees_what_can_be_bought() {
    let answer = shop().get("/api/v1/stripe/packages").send().await;
    answer
        .assert_json(json!([{
            "stripePriceId": "p1",
            "label": "500 Flux",
            "defaultCurrency": "usd",
            "currencies": { "usd": "$3.00", "jpy": "¥450" },
            "recommended": false,
            "type": "one_time",
        }]))
        .await;
}

#[tokio::test]
async fn a_huge_message_is_refused_before_anybody_looks_at_it() {
    let answer = shop().post("/api/v1/stripe/webhook").body(vec![b'x'; 1_100_000]).send().await;
    assert_eq!(answer.0.status(), StatusCode::PAYLOAD_TOO_LARGE);
}
