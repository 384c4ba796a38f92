//! Resend over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, StatusCode, redirect};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use super::{MailSettings, Sender, written};
use crate::core::model::letters::Letter;
use crate::core::model::secret::Secret;
use crate::ports::mailer::{Mailer, Undelivered};
use crate::ports::{Fault, FaultKind};

/// Resend refuses requests without one.
const USER_AGENT: &str = concat!("airi-server/", env!("CARGO_PKG_VERSION"));
const LIMIT: Duration = Duration::from_secs(10);
/// Before each further attempt.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1_200)];

/// Sends through an account at Resend.
pub struct ResendMailer {
    client: Client,
    url: String,
    key: Secret,
    from: Sender,
}

#[derive(Serialize)]
struct Call<'a> {
    from: String,
    to: [&'a str; 1],
    subject: &'a str,
    html: &'a str,
    text: &'a str,
}

#[derive(Deserialize)]
struct Refusal {
    name: String,
}

impl ResendMailer {
    /// Uses the key and the address of the settings.
    pub fn new(settings: &MailSettings, key: Secret) -> Result<Self, Fault> {
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(LIMIT)
            .build()
            .map_err(|error| Fault::new(FaultKind::Unavailable, "mail.resend", error))?;
        Ok(Self { client, url: format!("{}/emails", settings.resend_api_base), key, from: settings.from.clone() })
    }

    /// Whether another attempt may help, and what to call the failure.
    async fn attempt(&self, call: &Call<'_>, key: &str) -> Result<(), (bool, String)> {
        let request = self.client.post(&self.url).bearer_auth(self.key.expose()).header("idempotency-key", key);
        // The error's text would name the address only, but it is the recipient's provider that is nobody's business.
        let answer = request.json(call).send().await.map_err(|_| (true, "unreachable".to_owned()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let again = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        let name = answer.json::<Refusal>().await.map_or_else(|_| format!("status_{}", status.as_u16()), |it| it.name);
        Err((again, name))
    }
}

#[async_trait]
impl Mailer for ResendMailer {
    #[tracing::instrument(name = "mail.resend.send", skip_all)]
    async fn send(&self, letter: &Letter) -> Result<(), Undelivered> {
        let written = written::write(letter)?;
        let call = Call {
            from: self.from.to_string(),
            to: [letter.to.as_str()],
            subject: &written.subject,
            html: &written.html,
            text: &written.text,
        };
        let key = written::idempotency_key(letter);
        let sending = async {
            let mut pauses = PAUSES.iter();
            loop {
                let (again, name) = match self.attempt(&call, &key).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                };
                match pauses.next() {
                    Some(pause) if again => sleep(*pause).await,
                    _ => return Err(Undelivered::Failed(name)),
                }
            }
        };
        match timeout_at(Instant::now() + LIMIT, sending).await {
            Ok(sent) => sent,
            Err(_) => Err(Undelivered::Failed("timeout".to_owned())),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "ends with the test")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::core::model::accounts::Email;
    use crate::core::model::letters::Message;
    use crate::core::model::texts::Language;

    fn letter() -> Letter {
        Letter {
            to: Email::stored("ann@example.com"),
            message: Message::PasswordReset,
            link: Secret::new("https://x.yz/?t=1"),
            language: Language::English,
        }
    }

    /// Answers one connection per reply and keeps what was asked.
    async fn provider(replies: Vec<(u16, &'static str)>) -> (ResendMailer, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::task::spawn(async move {
            let mut asked = Vec::new();
            for (status, body) in replies {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut read = Vec::new();
                while !is_complete(&read) {
                    let mut part = [0; 4_096];
                    let length = socket.read(&mut part).await.unwrap();
                    read.extend_from_slice(&part[..length]);
                }
                asked.push(String::from_utf8(read).unwrap());
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n\
                     content-length: {length}\r\n\r\n{body}"
                );
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        let settings = MailSettings { resend_api_base: base, ..MailSettings::default() };
        (ResendMailer::new(&settings, Secret::new("re_key")).unwrap(), served)
    }

    fn is_complete(read: &[u8]) -> bool {
        let text = String::from_utf8_lossy(read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        length.is_some_and(|length: usize| body.len() >= length)
    }

    #[tokio::test]
    async fn a_letter_is_sent_as_the_provider_wants_it() {
        let (mailer, served) = provider(vec![(200, "{\"id\":\"1\"}")]).await;
        mailer.send(&letter()).await.unwrap();
        let asked = served.await.unwrap().remove(0);
        let (head, body) = asked.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /emails HTTP/1.1"), "{head}");
        for part in ["authorization: Bearer re_key", "user-agent: airi-server/", "idempotency-key: password_reset/"] {
            assert!(head.contains(part), "{part} in {head}");
        }
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["from"], "Project AIRI <noreply@airi.moeru.ai>");
        assert_eq!(body["to"], serde_json::json!(["ann@example.com"]));
        assert!(body["html"].as_str().unwrap().contains("https://x.yz/?t=1"));
        assert!(body["text"].as_str().unwrap().contains("https://x.yz/?t=1"));
    }

    #[tokio::test]
    async fn a_busy_provider_is_asked_again_with_the_same_key() {
        let (mailer, served) = provider(vec![(429, "{}"), (503, ""), (200, "{\"id\":\"1\"}")]).await;
        mailer.send(&letter()).await.unwrap();
        let key = |asked: &String| asked.lines().find(|line| line.starts_with("idempotency-key")).unwrap().to_owned();
        let keys: Vec<_> = served.await.unwrap().iter().map(key).collect();
        assert_eq!(keys.len(), 3);
        assert!(keys.iter().all(|found| *found == keys[0]));
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_told_by_its_name() {
        let refusal = "{\"statusCode\":403,\"name\":\"invalid_from_address\",\"message\":\"ann@example.com\"}";
        let (mailer, served) = provider(vec![(403, refusal)]).await;
        let failed = mailer.send(&letter()).await.unwrap_err();
        assert_eq!(failed, Undelivered::Failed("invalid_from_address".to_owned()));
        assert_eq!(served.await.unwrap().len(), 1);
    }
}
