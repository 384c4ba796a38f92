//! The gateway against a fake of the provider on loopback: what is sent, how often, and what is made of the answers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use airi_server::adapters::stripe::{StripeGateway, StripeSettings};
use airi_server::core::model::billing::{CheckoutOrder, PortalOrder};
use airi_server::core::model::ids::UserId;
use airi_server::core::model::secret::Secret;
use airi_server::ports::FaultKind;
use airi_server::ports::billing::{PaymentError, PaymentGateway};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::books::flux;

/// Head and body of each request, as sent.
type Heard = Arc<Mutex<Vec<(String, String)>>>;

/// Answers one request per connection, in order; the last answer repeats.
#[expect(clippy::disallowed_methods, reason = "ends with the test")]
async fn provider(answers: Vec<(u16, &'static str, String)>) -> (StripeGateway, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let heard = Heard::default();
    let notes = heard.clone();
    tokio::task::spawn(async move {
        for nth in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            let (head, body) = loop {
                let mut piece = [0; 4096];
                let read = socket.read(&mut piece).await.unwrap();
                bytes.extend_from_slice(&piece[..read]);
                let text = String::from_utf8(bytes.clone()).unwrap();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let head = head.to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    let first = text.lines().next().unwrap().to_owned();
                    break (format!("{first}\n{head}"), body.to_owned());
                }
            };
            notes.lock().unwrap().push((head, body));
            let (status, headers, text) = answers.get(nth).or(answers.last()).unwrap();
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n{headers}\
                 content-length: {}\r\n\r\n{text}",
                text.len()
            );
            // Whoever hears enough of a long answer hangs up.
            socket.write_all(answer.as_bytes()).await.ok();
        }
    });
    (StripeGateway::new(&StripeSettings { secret_key: Secret::new("sk_test_1"), base }).unwrap(), heard)
}

fn ok(text: &str) -> (u16, &'static str, String) {
    (200, "", text.to_owned())
}

fn order() -> CheckoutOrder {
    CheckoutOrder {
        user: UserId::new("user-1"),
        price: "price_1".to_owned(),
        flux: flux(500),
        currency: Some("cny".to_owned()),
        recurring: false,
        customer: Some("cus_1".to_owned()),
        email: "a@b.co".to_owned(),
        success_url: "https://airi.moeru.ai/settings/flux?success=true".to_owned(),
        cancel_url: "https://airi.moeru.ai/settings/flux?canceled=true".to_owned(),
        payment_methods: vec!["card".to_owned(), "wechat_pay".to_owned()],
        payment_method_options: json!({ "wechat_pay": { "client": "web" } }).as_object().unwrap().clone(),
        once: "one order".to_owned(),
    }
}

fn fields(body: &str) -> BTreeSet<String> {
    url::form_urlencoded::parse(body.as_bytes()).map(|(name, value)| format!("{name}={value}")).collect()
}

#[tokio::test]
async fn a_checkout_is_the_recorded_form_and_its_targets() {
    let session = include_str!("../../fixtures/provider-responses/stripe-checkout-session-created.json");
    let (gateway, heard) = provider(vec![ok(session)]).await;
    let opened = gateway.open_checkout(&order()).await.unwrap();
    assert_eq!((opened.id.as_str(), opened.amount_total), ("cs_fx1", Some(300)));
    gateway.open_checkout(&CheckoutOrder { customer: None, currency: None, ..order() }).await.unwrap();
    let heard = heard.lock().unwrap();
    let (head, body) = &heard[0];
    assert!(head.starts_with("POST /v1/checkout/sessions HTTP/1.1"), "{head}");
    for header in [
        "authorization: bearer sk_test_1",
        "content-type: application/x-www-form-urlencoded",
        "accept: application/json",
        "stripe-version: 2026-03-25.dahlia",
    ] {
        assert!(head.contains(header), "{header} in {head}");
    }
    let key = |head: &str| head.lines().find(|line| line.starts_with("idempotency-key: ")).map(str::to_owned);
    assert!(key(head).is_some_and(|line| line.len() == "idempotency-key: ".len() + 64), "{head}");
    assert_eq!(key(head), key(&heard[1].0), "the same order has the same key");
    let expected = [
        "payment_method_types[0]=card",
        "payment_method_types[1]=wechat_pay",
        "payment_method_options[wechat_pay][client]=web",
        "currency=cny",
        "line_items[0][price]=price_1",
        "line_items[0][quantity]=1",
        "mode=payment",
        "allow_promotion_codes=true",
        "success_url=https://airi.moeru.ai/settings/flux?success=true",
        "cancel_url=https://airi.moeru.ai/settings/flux?canceled=true",
        "customer=cus_1",
        "metadata[userId]=user-1",
        "metadata[fluxAmount]=500",
        "client_reference_id=user-1",
        "payment_intent_data[metadata][userId]=user-1",
    ];
    assert_eq!(fields(body), expected.map(str::to_owned).into());
    let second = fields(&heard[1].1);
    assert!(second.contains("customer_email=a@b.co") && second.contains("customer_creation=always"), "{second:?}");
    assert!(!second.iter().any(|field| field.starts_with("currency=") || field.starts_with("customer=")));
}

#[tokio::test]
async fn prices_are_listed_to_the_last_page() {
    let page = include_str!("../../fixtures/provider-responses/stripe-prices-list.json");
    let first = page.replace("\"has_more\": false", "\"has_more\": true");
    let recurring = include_str!("../../fixtures/provider-responses/stripe-price-recurring.json");
    let (gateway, heard) = provider(vec![ok(&first), ok(page), ok(recurring)]).await;
    assert_eq!(gateway.prices("prod_fx1").await.unwrap().len(), 6);
    let price = gateway.price("price_sub1").await.unwrap();
    assert_eq!((price.interval.as_deref(), price.flux()), (Some("month"), Some(flux(3_000))));
    let heard = heard.lock().unwrap();
    let line = |nth: usize| {
        let path = heard[nth].0.split(' ').nth(1).unwrap();
        url::form_urlencoded::parse(path.split_once('?').unwrap().1.as_bytes())
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<BTreeSet<_>>()
    };
    let query = ["active=true", "expand[0]=data.currency_options", "limit=100", "product=prod_fx1"];
    assert_eq!(line(0), query.map(str::to_owned).into());
    assert!(line(1).contains("starting_after=price_fx3"), "{:?}", line(1));
    assert_eq!(line(2), ["expand[0]=currency_options".to_owned()].into());
    assert!(heard[2].0.starts_with("GET /v1/prices/price_sub1?"));
}

#[tokio::test]
async fn what_passes_is_tried_again_with_the_same_key_and_advice_is_obeyed() {
    let portal = include_str!("../../fixtures/provider-responses/stripe-portal-session.json");
    let (gateway, heard) =
        provider(vec![(500, "", "{}".into()), (429, "retry-after: 0\r\n", "{}".into()), ok(portal)]).await;
    let order = PortalOrder {
        customer: "cus_1".to_owned(),
        return_url: "https://airi.moeru.ai/settings/flux".to_owned(),
        once: "visit".to_owned(),
    };
    assert_eq!(gateway.open_portal(&order).await.unwrap(), "https://billing.example.test/p/session/fx1");
    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 3);
    assert!(heard.iter().all(|request| *request == heard[0] && request.0.contains("idempotency-key: ")));
    assert_eq!(
        fields(&heard[0].1),
        ["customer=cus_1".to_owned(), "return_url=https://airi.moeru.ai/settings/flux".to_owned()].into()
    );
}

#[tokio::test]
async fn a_refusal_is_final_and_says_what_it_blames() {
    let refusal = include_str!("../../fixtures/provider-responses/stripe-error-400.json");
    let (gateway, heard) = provider(vec![(400, "request-id: req_1\r\n", refusal.to_owned())]).await;
    let error = gateway.open_checkout(&order()).await.unwrap_err();
    let PaymentError::Rejected { parameter, told } = error else { panic!("{error}") };
    assert_eq!(parameter.as_deref(), Some("price"));
    assert!(told.contains("req_1") && told.contains("resource_missing"), "{told}");
    assert_eq!(heard.lock().unwrap().len(), 1);
    let (away, heard) = provider(vec![(503, "", String::new())]).await;
    assert!(matches!(away.price("price_1").await, Err(PaymentError::Failed(_))));
    assert_eq!(heard.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn an_answer_without_end_is_not_asked_for_again() {
    let (gateway, heard) = provider(vec![ok(&"x".repeat(8 * 1024 * 1024 + 1))]).await;
    let error = gateway.price("price_1").await.unwrap_err();
    assert!(matches!(&error, PaymentError::Failed(fault) if fault.kind() == FaultKind::Corrupt), "{error}");
    assert_eq!(heard.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_session_the_provider_is_busy_with_is_not_taken_for_closed() {
    let busy = r#"{"error":{"type":"invalid_request_error","code":"lock_timeout"}}"#;
    let (gateway, heard) = provider(vec![(409, "retry-after: 0\r\n", busy.to_owned())]).await;
    let error = gateway.expire_checkout("cs_1").await.unwrap_err();
    assert!(matches!(error, PaymentError::Failed(_)), "{error}");
    assert_eq!(heard.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn payments_of_an_invoice_are_listed_to_the_last_page() {
    let page =
        r#"{"has_more":true,"data":[{"id":"inpay_1","payment":{"type":"payment_intent","payment_intent":"pi_1"}}]}"#;
    let last =
        r#"{"has_more":false,"data":[{"id":"inpay_2","payment":{"type":"payment_record","payment_intent":null}}]}"#;
    let (gateway, heard) = provider(vec![ok(page), ok(last)]).await;
    assert_eq!(gateway.invoice_payments("in_1").await.unwrap(), ["pi_1"]);
    let heard = heard.lock().unwrap();
    let path = "GET /v1/invoice_payments?invoice=in_1&status=paid&limit=100";
    assert!(heard[0].0.starts_with(&format!("{path} ")), "{}", heard[0].0);
    assert!(heard[1].0.starts_with(&format!("{path}&starting_after=inpay_1 ")), "{}", heard[1].0);
}

#[tokio::test]
async fn lines_owners_and_cancellations() {
    let lines = r#"{"has_more":true,"data":[{"id":"il_1","amount":900,"quantity":2,
        "parent":{"subscription_item_details":{"proration":false}},"pricing":{"price_details":{"price":"p"}}}]}"#;
    let last = r#"{"has_more":false,"data":[{"id":"il_2","amount":-4}]}"#;
    let customer = r#"{"id":"cus_1","metadata":{"userId":"user-1"}}"#;
    let (gateway, heard) = provider(vec![ok(lines), ok(last), ok(customer), (404, "", "{}".into())]).await;
    let lines = gateway.invoice_lines("in_1").await.unwrap();
    assert_eq!(lines.iter().map(|line| (line.buys(), line.quantity)).collect::<Vec<_>>(), [(true, 2), (false, 1)]);
    assert_eq!(gateway.customer_owner("cus_1").await.unwrap(), Some(UserId::new("user-1")));
    gateway.cancel_subscription("sub_1").await.unwrap();
    assert!(matches!(gateway.customer_owner("cus_1").await, Err(PaymentError::Missing)));
    assert!(matches!(gateway.price("a/b").await, Err(PaymentError::Missing)));
    let heard = heard.lock().unwrap();
    assert!(heard[1].0.starts_with("GET /v1/invoices/in_1/lines?limit=100&starting_after=il_1 "), "{}", heard[1].0);
    assert!(heard[3].0.starts_with("DELETE /v1/subscriptions/sub_1?prorate=false "), "{}", heard[3].0);
}

#[tokio::test]
async fn what_an_account_leaves_behind_is_found_and_closed() {
    let page = r#"{"has_more":true,"data":[{"id":"sub_1","status":"past_due"},{"id":"sub_2","status":"canceled"}]}"#;
    let last = r#"{"has_more":false,"data":[{"id":"sub_3","status":"active"}]}"#;
    let event = r#"{"id":"evt_1","type":"invoice.paid","created":1800000000,"livemode":false,
        "data":{"object":{"id":"in_1","amount_paid":900,"metadata":{"a":"\u00e9"}}}}"#;
    let not_open = (400, "", r#"{"error":{"type":"invalid_request_error"}}"#.to_owned());
    let (gateway, heard) = provider(vec![ok(page), ok(last), ok("{}"), not_open, ok(event)]).await;
    assert_eq!(gateway.subscriptions("cus_1").await.unwrap(), ["sub_1", "sub_3"]);
    gateway.expire_checkout("cs_1").await.unwrap();
    gateway.expire_checkout("cs_2").await.unwrap();
    let told: serde_json::Value = serde_json::from_slice(&gateway.event("evt_1").await.unwrap()).unwrap();
    assert_eq!(told, serde_json::from_str::<serde_json::Value>(event).unwrap());
    let heard = heard.lock().unwrap();
    assert!(heard[1].0.starts_with("GET /v1/subscriptions?customer=cus_1&limit=100&starting_after=sub_2 "));
    assert!(heard[2].0.starts_with("POST /v1/checkout/sessions/cs_1/expire "), "{}", heard[2].0);
    assert!(heard[2].0.contains("idempotency-key: "), "{}", heard[2].0);
    assert!(heard[4].0.starts_with("GET /v1/events/evt_1 "), "{}", heard[4].0);
}
