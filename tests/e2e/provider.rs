//! A payment provider on loopback: it opens sessions, remembers what it was asked, and never sends anything by itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use poem::http::{Method, StatusCode};
use poem::listener::TcpAcceptor;
use poem::{Endpoint, Request, Response, Server, endpoint};
use serde_json::{Value, json};

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    /// What stood in the query and in the body.
    pub(crate) form: HashMap<String, String>,
}

#[derive(Default)]
struct Memory {
    asked: Vec<Asked>,
    events: HashMap<String, Value>,
}

/// Ends with the test.
#[derive(Clone)]
pub(crate) struct Provider {
    address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
}

impl Provider {
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Self { address: listener.local_addr().unwrap(), memory: Arc::default() };
        let acceptor = TcpAcceptor::from_tokio(listener).unwrap();
        tokio::spawn(Server::new_with_acceptor(acceptor).run(provider.clone().endpoint()));
        provider
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything it was asked, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.memory.lock().unwrap().asked.clone()
    }

    /// From now on it can tell this event when asked.
    pub(crate) fn remember(&self, event: &Value) {
        self.memory.lock().unwrap().events.insert(event["id"].as_str().unwrap().to_owned(), event.clone());
    }

    fn endpoint(self) -> impl Endpoint {
        endpoint::make(move |mut request: Request| {
            let provider = self.clone();
            async move {
                let body = request.take_body().into_bytes().await.unwrap_or_default();
                let query = request.uri().query().unwrap_or_default().as_bytes();
                let read = |text| url::form_urlencoded::parse(text).into_owned();
                let form = read(query).chain(read(&body)).collect();
                let text = |name: &poem::http::HeaderName, value: &poem::http::HeaderValue| {
                    (name.to_string(), value.to_str().unwrap_or_default().to_owned())
                };
                let headers = request.headers().iter().map(|(name, value)| text(name, value)).collect();
                let path = request.uri().path().to_owned();
                let asked = Asked { method: request.method().to_string(), path, headers, form };
                let (status, answer) = provider.answer(request.method(), &asked);
                let answer =
                    Response::builder().status(status).content_type("application/json").body(answer.to_string());
                Ok::<_, poem::Error>(answer)
            }
        })
    }

    fn answer(&self, method: &Method, asked: &Asked) -> (StatusCode, Value) {
        let mut memory = self.memory.lock().unwrap();
        memory.asked.push(asked.clone());
        let read = |text: &str| (StatusCode::OK, serde_json::from_str::<Value>(text).unwrap());
        let missing = || {
            let error = json!({ "error": { "type": "invalid_request_error", "code": "resource_missing" } });
            (StatusCode::NOT_FOUND, error)
        };
        if asked.headers.get("authorization").map(String::as_str) != Some("Bearer sk_test_e2e") {
            return (StatusCode::UNAUTHORIZED, json!({ "error": { "type": "invalid_request_error" } }));
        }
        match (method.as_str(), asked.path.as_str()) {
            ("GET", "/v1/prices") => read(include_str!("../fixtures/provider-responses/stripe-prices-list.json")),
            ("GET", "/v1/prices/price_sub1") => {
                read(include_str!("../fixtures/provider-responses/stripe-price-recurring.json"))
            }
            ("POST", "/v1/billing_portal/sessions") => {
                read(include_str!("../fixtures/provider-responses/stripe-portal-session.json"))
            }
            ("POST", "/v1/checkout/sessions") => {
                let mut session: Value = serde_json::from_str(include_str!(
                    "../fixtures/provider-responses/stripe-checkout-session-created.json"
                ))
                .unwrap();
                let opened = memory.asked.iter().filter(|one| one.path == asked.path).count();
                session["id"] = format!("cs_e2e_{opened}").into();
                session["metadata"]["userId"] = asked.form["metadata[userId]"].clone().into();
                (StatusCode::OK, session)
            }
            ("GET", "/v1/invoice_payments") => {
                let payment =
                    json!({ "type": "payment_intent", "payment_intent": format!("pi_{}", asked.form["invoice"]) });
                let paid =
                    json!({ "id": "inpay_1", "object": "invoice_payment", "status": "paid", "payment": payment });
                (StatusCode::OK, json!({ "object": "list", "has_more": false, "data": [paid] }))
            }
            ("GET", path) => match path.strip_prefix("/v1/events/").and_then(|id| memory.events.get(id)) {
                Some(event) => (StatusCode::OK, event.clone()),
                None => missing(),
            },
            _ => missing(),
        }
    }
}
