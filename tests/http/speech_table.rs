//! The whole table of the speech socket, in one process over real sockets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use airi_server::adapters::frozen::FrozenClock;
use airi_server::adapters::runtime::TrackedTasks;
use airi_server::compose::testing;
use airi_server::core::App;
use airi_server::core::accounts::NewUser;
use airi_server::core::model::accounts::Email;
use airi_server::core::model::config::ConfigWrite;
use airi_server::core::model::fact::Fact;
use airi_server::core::model::ids::{EntryId, UserId};
use airi_server::core::model::ledger::{Credit, EntryKind, Flux};
use airi_server::core::model::meter::{MeterReading, MeteredUse, Unsettled};
use airi_server::core::model::secret::Secret;
use airi_server::http::{HttpSettings, serve};
use airi_server::ports::ledger::UsageMeter;
use airi_server::ports::{Fault, Ports};
use async_trait::async_trait;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::played::{self, Account, Arrangement, House};
use crate::world::Facts;

#[tokio::test(flavor = "multi_thread")]
async fn every_case_of_the_table() {
    played::play::<InProcess>().await;
}

struct InProcess {
    address: String,
    tokens: Vec<String>,
    users: Vec<UserId>,
    facts: Facts,
    clock: Arc<FrozenClock>,
    uses: Arc<Counted>,
    tasks: Arc<TrackedTasks>,
    leaving: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

impl House for InProcess {
    async fn open(arranged: Arrangement, balances: &[i64]) -> Self {
        let facts = Facts::default();
        let clock = Arc::new(FrozenClock::at(testing::START));
        let tasks = Arc::new(TrackedTasks::default());
        let ports = testing::ports().await.unwrap();
        let uses = Arc::new(Counted { meter: ports.meter.clone(), uses: Mutex::default() });
        let ports = Ports {
            journal: Arc::new(facts.clone()),
            clock: clock.clone(),
            meter: uses.clone(),
            tasks: tasks.clone(),
            ..ports
        };
        let mut entries = Vec::new();
        entries.extend(arranged.price.map(|price| ("FLUX_PER_1K_CHARS_TTS", Some(price.to_string()))));
        if let Some(url) = &arranged.upstream {
            let key = |n: usize| {
                let id = format!("k{n}");
                let sealed = ports.vault.seal(&Secret::new("volc-key"), "streaming-tts", &id).unwrap();
                json!({ "id": id, "ciphertext": arranged.token.clone().unwrap_or(sealed) })
            };
            let keys: Vec<_> = (0..arranged.keys).map(key).collect();
            entries.push(("STREAMING_TTS_UPSTREAM", Some(json!({ "baseURL": url, "keys": keys }).to_string())));
        }
        if !entries.is_empty() {
            ports.config.write(&ConfigWrite { entries, expected_version: None }).await.unwrap();
        }
        let app = Arc::new(App::new(ports.clone(), testing::policies()));
        let (mut users, mut tokens) = (Vec::new(), Vec::new());
        for (n, balance) in balances.iter().enumerate() {
            let email = Email::parse(&format!("speaker{n}@example.com")).unwrap();
            let new = NewUser { email: email.clone(), name: None, password: None, verified: true };
            let user = app.accounts.create(new).await.unwrap().id;
            tokens.push(app.accounts.open_session(&email).await.unwrap().token.expose().to_owned());
            if *balance > 0 {
                ports.ledger.credit(&credit(&user, *balance)).await.unwrap();
            }
            users.push(user);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("ws://{}/api/v1/audio/speech/ws", listener.local_addr().unwrap());
        let leaving = CancellationToken::new();
        let stop = leaving.clone();
        let served = tokio::spawn(async move { serve(app, &HttpSettings::default(), listener, stop).await });
        Self { address, tokens, users, facts, clock, uses, tasks, leaving, served }
    }

    fn address(&self) -> String {
        self.address.clone()
    }

    fn token(&self, user: usize) -> String {
        self.tokens[user].clone()
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    async fn close(self) -> Vec<Account> {
        self.leaving.cancel();
        self.served.await.unwrap().unwrap();
        assert!(self.tasks.drain(Duration::from_secs(20)).await, "a settlement did not end");
        let account = |user: &UserId| {
            let used: Vec<i64> =
                self.uses.uses.lock().unwrap().iter().filter(|(who, _)| who == user).map(|(_, units)| *units).collect();
            let row = |fact| match fact {
                Fact::GenerationEnded { row, .. } if row.user == *user => Some(i32::from(row.status)),
                _ => None,
            };
            let rows = self.facts.all().into_iter().filter_map(row).collect();
            Account { units: used.iter().sum(), uses: used.len(), rows }
        };
        self.users.iter().map(account).collect()
    }
}

fn credit(user: &UserId, amount: i64) -> Credit {
    Credit {
        entry: EntryId::new(format!("grant-{user}")),
        user: user.clone(),
        request: None,
        amount: Flux::new(amount).unwrap(),
        kind: EntryKind::Promo,
        description: "grant".to_owned(),
        metadata: None,
        opening: airi_server::core::model::ledger::Opening {
            entry: EntryId::new(format!("opening-{user}")),
            grant: Flux::ZERO,
        },
    }
}

/// Notes what is metered.
struct Counted {
    meter: Arc<dyn UsageMeter>,
    uses: Mutex<Vec<(UserId, i64)>>,
}

#[async_trait]
impl UsageMeter for Counted {
    async fn settle(&self, used: &MeteredUse) -> Result<MeterReading, Fault> {
        let reading = self.meter.settle(used).await?;
        if !reading.replayed {
            self.uses.lock().unwrap().push((used.user.clone(), used.units));
        }
        Ok(reading)
    }

    async fn debt(&self, user: &UserId, meter: &'static str, lifetime: Duration) -> Result<Unsettled, Fault> {
        self.meter.debt(user, meter, lifetime).await
    }
}
