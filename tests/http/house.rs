//! A server over a real world in memory, reached through real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use airi_server::adapters::runtime::{RandomIds, SystemClock, TrackedTasks};
use airi_server::compose::testing;
use airi_server::core::App;
use airi_server::core::accounts::NewUser;
use airi_server::core::model::accounts::Email;
use airi_server::core::model::oidc::claims::Claims;
use airi_server::http::{HttpSettings, serve};
use airi_server::ports::Ports;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;

use crate::identity::ORIGIN;

pub(crate) struct House {
    pub(crate) app: Arc<App>,
    pub(crate) address: SocketAddr,
    pub(crate) leaving: CancellationToken,
    pub(crate) served: tokio::task::JoinHandle<std::io::Result<()>>,
    pub(crate) client: reqwest::Client,
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::of(testing::ports().await.unwrap()).await
    }

    pub(crate) async fn of(ports: Ports) -> Self {
        let ports = Ports {
            clock: Arc::new(SystemClock::start()),
            ids: Arc::new(RandomIds::new()),
            tasks: Arc::new(TrackedTasks::default()),
            ..ports
        };
        let app = Arc::new(App::new(ports, testing::policies()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let leaving = CancellationToken::new();
        let settings =
            HttpSettings { ws_frame_limit_bytes: 1024 * 1024, shutdown_grace_ms: 5_000, ..HttpSettings::default() };
        let (served_app, stop) = (app.clone(), leaving.clone());
        let served = tokio::task::spawn(async move { serve(served_app, &settings, listener, stop).await });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { app, address, leaving, served, client }
    }

    /// A user's id and token.
    pub(crate) async fn person(&self, name: &str) -> (String, String) {
        let email = Email::parse(&format!("{name}@example.com")).unwrap();
        let new = NewUser { email: email.clone(), name: None, password: None, verified: true };
        let account = self.app.accounts.create(new).await.unwrap();
        let session = self.app.accounts.open_session(&email).await.unwrap();
        (account.id.to_string(), session.token.expose().to_owned())
    }

    pub(crate) async fn ask(&self, token: &str, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let url = format!("http://{}/api/v1/chats{path}", self.address);
        let mut request = self.client.request(method.parse().unwrap(), url).bearer_auth(token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    pub(crate) async fn socket(&self, token: &str) -> Peer {
        let mut peer = self.raw(&format!("/ws/chat?token={token}")).await;
        assert_eq!(peer.frame().await["type"], "eventa:adapters:hono-ws:connected");
        peer
    }

    pub(crate) async fn raw(&self, path: &str) -> Peer {
        Peer(connect_async(format!("ws://{}{path}", self.address)).await.unwrap().0)
    }
}

/// A signed access token of a user, as a client of the provider has it; it ends in `life` seconds.
pub(crate) async fn access_token(app: &App, user: &str, life: i64) -> String {
    let now = app.oidc.clock.now().timestamp();
    let claims: Claims = json!({ "iss": format!("{ORIGIN}/api/auth"), "aud": [ORIGIN], "sub": user, "iat": now - 60,
        "exp": now + life })
    .as_object()
    .unwrap()
    .clone();
    app.oidc.tokens.sign(&claims).await.unwrap().expose().to_owned()
}

pub(crate) struct Peer(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

impl Peer {
    pub(crate) async fn next(&mut self) -> Option<Result<Message, Error>> {
        tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap()
    }

    pub(crate) async fn frame(&mut self) -> Value {
        loop {
            match self.next().await.unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn start(&mut self, name: &str, id: &str, content: &Value) {
        let body = json!({ "invokeId": id, "content": content });
        self.say(&json!({ "type": format!("{name}-send"), "payload": { "body": body } }).to_string()).await;
    }

    /// Calls and answers the content, or the error.
    pub(crate) async fn call(&mut self, name: &str, content: Value) -> Result<Value, Value> {
        self.start(name, "i", &content).await;
        let frame = self.frame().await;
        let content = frame["payload"]["body"]["content"].clone();
        if frame["type"] == format!("{name}-receive-i") { Ok(content) } else { Err(content["error"].clone()) }
    }

    pub(crate) async fn push(&mut self, chat: &str, ids: impl IntoIterator<Item = String>) -> Result<Value, Value> {
        let messages: Vec<_> = ids.into_iter().map(|id| json!({ "id": id, "role": "user", "content": "x" })).collect();
        self.call("chat:send-messages", json!({ "chatId": chat, "messages": messages })).await
    }

    pub(crate) async fn pull(&mut self, chat: &str, after: i64) -> Result<Value, Value> {
        self.call("chat:pull-messages", json!({ "chatId": chat, "afterSeq": after })).await
    }

    pub(crate) async fn told(&mut self) -> (i64, i64, usize) {
        let frame = self.frame().await;
        assert_eq!(frame["type"], "chat:new-messages", "{frame}");
        let body = &frame["payload"]["body"];
        let count = body["messages"].as_array().unwrap().len();
        (body["fromSeq"].as_i64().unwrap(), body["toSeq"].as_i64().unwrap(), count)
    }

    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
                Some(Ok(Message::Text(text))) => panic!("a frame before the close: {text}"),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
