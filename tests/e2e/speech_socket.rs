//! The speech socket of the built binary: the whole table, with real stores behind it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::caller::Caller;
use crate::server::{Mode, Server, in_both_modes};
use crate::speech_table::{self, Account, Arrangement, House};

in_both_modes!(every_case_of_the_table);

async fn every_case_of_the_table(mode: Mode) {
    match mode {
        Mode::Embedded => speech_table::play::<Built<false>>().await,
        Mode::Services => speech_table::play::<Built<true>>().await,
    }
}

struct Built<const SERVICES: bool> {
    server: Server,
    callers: Vec<Caller>,
}

impl<const SERVICES: bool> House for Built<SERVICES> {
    async fn open(arranged: Arrangement, balances: &[i64]) -> Self {
        let mut server = Server::install(if SERVICES { Mode::Services } else { Mode::Embedded }).await;
        let callers =
            balances.iter().enumerate().map(|(n, balance)| server.user(&format!("speaker{n}"), *balance)).collect();
        if let Some(url) = &arranged.upstream {
            server.route(&json!({ "slices": [
                { "kind": "streaming-tts", "upstreamURL": "ws://127.0.0.1:9/v1", "plaintextKey": "volc-key" },
            ] }));
            let mut entry = server.entry("STREAMING_TTS_UPSTREAM").await;
            entry["baseURL"] = Value::from(url.as_str());
            if let Some(token) = &arranged.token {
                entry["keys"][0]["ciphertext"] = Value::from(token.as_str());
            }
            let key = entry["keys"][0].clone();
            entry["keys"] = Value::Array(vec![key; arranged.keys]);
            server.configure("STREAMING_TTS_UPSTREAM", &entry).await;
        }
        if let Some(price) = arranged.price {
            server.configure("FLUX_PER_1K_CHARS_TTS", &price.into()).await;
        }
        server.start().await;
        Self { server, callers }
    }

    fn address(&self) -> String {
        format!("{}/api/v1/audio/speech/ws", self.server.url().replacen("http", "ws", 1))
    }

    fn token(&self, user: usize) -> String {
        self.callers[user].token.clone()
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn close(mut self) -> Vec<Account> {
        assert!(self.server.stop().await.success());
        let books = self.server.books().await;
        let mut accounts = Vec::new();
        for caller in &self.callers {
            let used = books.metered(&caller.id).await;
            let log = books.log().await.into_iter().filter(|row| row.user_id == caller.id);
            let rows = log.map(|row| row.status).collect();
            accounts.push(Account { units: used.iter().sum(), uses: used.len(), rows });
        }
        let log = self.server.log();
        let secrets = ["volc-key", "paid text", "127.0.0.1:9/"].into_iter();
        for secret in secrets.chain(self.callers.iter().map(|caller| caller.token.as_str())) {
            assert!(!log.contains(secret), "{secret} was logged");
        }
        accounts
    }
}
