//! A letter in words.

use askama::Template;
use sha2::{Digest, Sha256};

use crate::core::model::letters::{Letter, Message};
use crate::ports::mailer::Undelivered;

/// A letter ready to be sent.
pub(super) struct Written {
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
}

#[derive(Template)]
#[template(path = "mail/letter.html")]
struct Html<'a> {
    language: &'a str,
    subject: &'a str,
    sentence: &'a str,
    button: &'a str,
    link: &'a str,
    by_hand: &'a str,
    footer: &'a str,
}

#[derive(Template)]
#[template(path = "mail/letter.txt")]
struct Text<'a> {
    subject: &'a str,
    sentence: &'a str,
    link: &'a str,
    footer: &'a str,
}

/// Writes the letter in its language, as HTML and as plain text.
pub(super) fn write(letter: &Letter) -> Result<Written, Undelivered> {
    let (language, key) = (letter.language, letter.message.key());
    let text = |part: &str| language.text(&format!("{key}.{part}")).to_owned();
    let (subject, mut sentence, button) = (text("subject"), text("sentence"), text("button"));
    if let Message::ChangeEmail { to } = &letter.message {
        sentence = sentence.replace("{address}", to.as_str());
    }
    let (link, footer) = (letter.link.expose(), language.text("mail.footer"));
    let html = Html {
        language: language.tag(),
        subject: &subject,
        sentence: &sentence,
        button: &button,
        link,
        by_hand: language.text("mail.by_hand"),
        footer,
    };
    let plain = Text { subject: &subject, sentence: &sentence, link, footer };
    let failed = |_| Undelivered::Failed("template".to_owned());
    Ok(Written { html: html.render().map_err(failed)?, text: plain.render().map_err(failed)?, subject })
}

/// The same for the same letter only, and says nothing about it.
pub(super) fn idempotency_key(letter: &Letter) -> String {
    let mut sum = Sha256::new();
    for part in [letter.message.key(), letter.to.as_str(), letter.link.expose()] {
        sum.update(part.as_bytes());
        sum.update([0]);
    }
    format!("{}/{}", letter.message.template(), hex::encode(sum.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::accounts::Email;
    use crate::core::model::secret::Secret;
    use crate::core::model::texts::Language;

    pub(crate) fn letter(message: Message, language: Language) -> Letter {
        let link = Secret::new("https://api.example.com/api/auth/verify-email?token=a.b-c&callbackURL=%2F");
        Letter { to: Email::stored("ann@example.com"), message, link, language }
    }

    #[test]
    fn all_six_messages_are_written_in_both_languages() {
        let messages = [
            Message::Verification,
            Message::NewAddress,
            Message::PasswordReset,
            Message::MagicLink,
            Message::ChangeEmail { to: Email::stored("o'neil@example.com") },
            Message::DeleteAccount,
        ];
        for message in messages {
            for language in [Language::English, Language::Chinese] {
                let letter = letter(message.clone(), language);
                let written = write(&letter).unwrap();
                assert!(!written.subject.is_empty() && !written.text.contains("{address}"), "{message:?}");
                assert!(written.text.contains(letter.link.expose()), "{}", written.text);
                assert!(written.html.contains("token=a.b-c&#38;callbackURL=%2F"), "{}", written.html);
                assert!(written.html.contains(&format!("lang=\"{}\"", language.tag())));
                if matches!(message, Message::ChangeEmail { .. }) {
                    assert!(written.text.contains("o'neil@example.com"));
                    assert!(written.html.contains("o&#39;neil@example.com"), "{}", written.html);
                }
            }
        }
    }

    #[test]
    fn one_letter_has_one_key_and_another_has_another() {
        let one = letter(Message::Verification, Language::English);
        assert_eq!(idempotency_key(&one), idempotency_key(&one.clone()));
        assert_ne!(idempotency_key(&one), idempotency_key(&letter(Message::NewAddress, Language::English)));
        assert!(idempotency_key(&one).len() <= 256 && !idempotency_key(&one).contains("ann"));
    }
}
