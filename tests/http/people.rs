//! The whole server in process, and people who are signed in to it.

use std::sync::Arc;

use airi_server::compose::testing::{policies, ports};
use airi_server::core::App;
use airi_server::core::accounts::NewUser;
use airi_server::core::model::accounts::Email;
use airi_server::core::model::fact::Fact;
use airi_server::http::{HttpSettings, routes};
use airi_server::ports::{Ports, journal::Journal};
use poem::http::Method;
use poem::test::TestClient;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::world::{Client, Facts};

/// A server on an in-memory database.
pub(crate) struct House {
    pub(crate) app: Arc<App>,
    pub(crate) facts: Facts,
    client: Client,
}

/// Somebody who is signed in.
pub(crate) struct Person {
    pub(crate) id: String,
    token: String,
}

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Empty when there is none.
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// The status and the code of a refusal.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap().to_owned())
    }
}

impl House {
    pub(crate) async fn open() -> Self {
        let facts = Facts::default();
        let journal: Arc<dyn Journal> = Arc::new(facts.clone());
        Self::on(Ports { journal, ..ports().await.unwrap() }, facts)
    }

    pub(crate) fn on(ports: Ports, facts: Facts) -> Self {
        let app = Arc::new(App::new(ports, policies()));
        let client = TestClient::new(routes(app.clone(), &HttpSettings::default(), CancellationToken::new()));
        Self { app, facts, client }
    }

    pub(crate) async fn person(&self, name: &str) -> Person {
        let email = Email::parse(&format!("{name}@example.com")).unwrap();
        let new = NewUser { email: email.clone(), name: None, password: None, verified: true };
        let id = self.app.accounts.create(new).await.unwrap().id.to_string();
        let token = self.app.accounts.open_session(&email).await.unwrap().token.expose().to_owned();
        Person { id, token }
    }

    pub(crate) async fn call(&self, who: &Person, method: &str, path: &str, body: impl ToString) -> Answer {
        self.send(Some(who), method, path, body.to_string()).await
    }

    pub(crate) async fn get(&self, who: &Person, path: &str) -> Answer {
        self.send(Some(who), "GET", path, String::new()).await
    }

    pub(crate) async fn send(&self, who: Option<&Person>, method: &str, path: &str, body: String) -> Answer {
        let mut request = self.client.request(method.parse::<Method>().unwrap(), path).body(body);
        if let Some(who) = who {
            request = request.header("authorization", format!("Bearer {}", who.token));
        }
        let answer = request.send().await.0;
        let status = answer.status().as_u16();
        Answer { status, text: answer.into_body().into_string().await.unwrap() }
    }

    /// Facts about characters, in order.
    pub(crate) fn told(&self) -> Vec<Fact> {
        let about = |fact: &Fact| {
            matches!(fact, Fact::CharacterCreated | Fact::CharacterDeleted | Fact::CharacterEngaged { .. })
        };
        self.facts.all().into_iter().filter(about).collect()
    }
}

/// The keys of an object, in the order of the text.
pub(crate) fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}
