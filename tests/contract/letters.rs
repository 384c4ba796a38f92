//! `Mailer`, `Outbox` and `Signatures` over the adapters that need no provider; the others are tested beside theirs.

use airi_server::adapters::mail::MemoryOutbox;
use airi_server::adapters::signatures::HmacSignatures;
use airi_server::core::model::accounts::Email;
use airi_server::core::model::letters::{Letter, Message};
use airi_server::core::model::proofs::{BadEmailToken, EmailClaims, EmailStep};
use airi_server::core::model::secret::Secret;
use airi_server::core::model::texts::Language;
use airi_server::ports::mailer::{Mailer, Outbox};
use airi_server::ports::signatures::Signatures;

#[tokio::test]
async fn a_kept_letter_can_be_read() {
    let outbox = MemoryOutbox::default();
    let letter = Letter {
        to: Email::stored("a@example.com"),
        message: Message::PasswordReset,
        link: Secret::new("https://x.yz/t"),
        language: Language::Chinese,
    };
    let mailer: &dyn Mailer = &outbox;
    mailer.send(&letter).await.unwrap();
    let kept: &dyn Outbox = &outbox;
    let found = kept.letters();
    assert_eq!((found.len(), found[0].letter.to.as_str()), (1, "a@example.com"));
    assert!(found[0].text.contains("https://x.yz/t"));
}

#[test]
fn every_mark_depends_on_the_secret_and_the_text() {
    let (one, other) = (HmacSignatures::new(Secret::new("one")), HmacSignatures::new(Secret::new("other")));
    let (one, other): (&dyn Signatures, &dyn Signatures) = (&one, &other);
    assert!(one.verifies("text", &one.sign("text")) && !one.verifies("texts", &one.sign("text")));
    assert!(!other.verifies("text", &one.sign("text")));
    assert_ne!(one.blind("text"), other.blind("text"));
    assert_eq!(one.digest("text"), other.digest("text"));
    let at = chrono::DateTime::from_timestamp(1_790_000_000, 0).unwrap();
    let hour = chrono::Duration::hours(1);
    let claims = EmailClaims {
        email: "a@example.com".to_owned(),
        update_to: None,
        step: EmailStep::Verify,
        issued_at: at,
        expires_at: at + hour,
    };
    let token = one.issue_email_token(&claims);
    assert_eq!(one.read_email_token(token.expose(), at), Ok(claims));
    assert_eq!(other.read_email_token(token.expose(), at), Err(BadEmailToken::Invalid));
}
