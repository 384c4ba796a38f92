//! Any mail server, over SMTP.

use std::time::Duration;

use async_trait::async_trait;
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use thiserror::Error;
use tokio::time::timeout;

use super::{Sender, written};
use crate::core::model::letters::Letter;
use crate::core::model::secret::Secret;
use crate::ports::mailer::{Mailer, Undelivered};

const LIMIT: Duration = Duration::from_secs(10);

/// Why the settings cannot be used. Quotes nothing: the address holds a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnusableSmtp {
    /// The address of the server.
    #[error("expected smtp://user:password@host:port or smtps://…")]
    Url,
    /// The sender.
    #[error("the sender is not an e-mail address")]
    From,
}

/// Sends through a mail server.
pub struct SmtpMailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl SmtpMailer {
    /// `smtps` speaks TLS from the first byte; `smtp` with `?tls=required` switches to it.
    pub fn new(url: &Secret, from: &Sender) -> Result<Self, UnusableSmtp> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose()).map_err(|_| UnusableSmtp::Url)?;
        let address: Address = from.email.parse().map_err(|_| UnusableSmtp::From)?;
        let name = Some(from.name.clone()).filter(|name| !name.is_empty());
        Ok(Self { transport: transport.timeout(Some(LIMIT)).build(), from: Mailbox::new(name, address) })
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    #[tracing::instrument(name = "mail.smtp.send", skip_all)]
    async fn send(&self, letter: &Letter) -> Result<(), Undelivered> {
        let failed = |name: &str| Undelivered::Failed(name.to_owned());
        let written = written::write(letter)?;
        let to: Address = letter.to.as_str().parse().map_err(|_| failed("recipient"))?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(written.subject)
            .multipart(MultiPart::alternative_plain_html(written.text, written.html))
            .map_err(|_| failed("message"))?;
        // The server's own words may quote the recipient.
        match timeout(LIMIT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.is_permanent() => Err(failed("refused")),
            Ok(Err(_)) => Err(failed("unreachable")),
            Err(_) => Err(failed("timeout")),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "ends with the test")]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::core::model::accounts::Email;
    use crate::core::model::letters::Message as About;
    use crate::core::model::texts::Language;

    fn letter() -> Letter {
        Letter {
            to: Email::stored("ann@example.com"),
            message: About::MagicLink,
            link: Secret::new("https://x.yz/t"),
            language: Language::Chinese,
        }
    }

    /// A mail server of one conversation; `rcpt` is its answer to the recipient.
    async fn server(rcpt: &'static str) -> (SmtpMailer, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Secret::new(format!("smtp://{}", listener.local_addr().unwrap()));
        let heard = tokio::task::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let (read, mut write) = socket.into_split();
            let mut lines = BufReader::new(read).lines();
            let mut heard = String::new();
            let mut data = false;
            write.write_all(b"220 test\r\n").await.unwrap();
            while let Ok(Some(line)) = lines.next_line().await {
                heard.push_str(&line);
                heard.push('\n');
                let answer = match line.split_whitespace().next().unwrap_or_default() {
                    "." => {
                        data = false;
                        "250 kept"
                    }
                    _ if data => continue,
                    "EHLO" => "250 test",
                    "RCPT" => rcpt,
                    "DATA" => {
                        data = true;
                        "354 go"
                    }
                    "QUIT" => "221 bye",
                    _ => "250 ok",
                };
                write.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
                if line == "." {
                    break;
                }
            }
            heard
        });
        (SmtpMailer::new(&url, &Sender::default()).unwrap(), heard)
    }

    #[tokio::test]
    async fn a_letter_arrives_in_both_forms() {
        let (mailer, heard) = server("250 ok").await;
        mailer.send(&letter()).await.unwrap();
        let heard = heard.await.unwrap();
        for part in ["RCPT TO:<ann@example.com>", "multipart/alternative", "text/plain", "text/html"] {
            assert!(heard.contains(part), "{part} in {heard}");
        }
    }

    #[tokio::test]
    async fn a_refusal_does_not_quote_the_server() {
        let (mailer, _heard) = server("550 no such ann@example.com").await;
        assert_eq!(mailer.send(&letter()).await.unwrap_err(), Undelivered::Failed("refused".to_owned()));
    }

    #[test]
    fn unusable_settings_are_named() {
        let unusable = |url: &str, email: &str| {
            let from = Sender { email: email.to_owned(), ..Sender::default() };
            SmtpMailer::new(&Secret::new(url), &from).err()
        };
        assert_eq!(unusable("http://x", "a@b.co"), Some(UnusableSmtp::Url));
        assert_eq!(unusable("smtp://localhost", "nobody"), Some(UnusableSmtp::From));
    }
}
