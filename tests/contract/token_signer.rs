//! `TokenSigner`.

use std::sync::Arc;
use std::time::Duration;

use airi_server::adapters::runtime::RandomIds;
use airi_server::adapters::sqlite::signing_keys::SqliteSigningKeys;
use airi_server::adapters::tokens::KeyRing;
use airi_server::core::model::oidc::claims::Claims;
use airi_server::core::model::secret::Secret;
use airi_server::ports::oidc::TokenSigner;

use crate::world::HandClock;

async fn signer() -> (KeyRing, Arc<HandClock>) {
    let clock = Arc::new(HandClock::default());
    let repo = Arc::new(SqliteSigningKeys { db: crate::support::databases::sqlite().await });
    (KeyRing::new(repo, clock.clone(), Arc::new(RandomIds::new()), Secret::new("secret")), clock)
}

fn claims() -> Claims {
    let mut claims = Claims::new();
    claims.insert("sub".to_owned(), "u1".into());
    claims
}

#[tokio::test]
async fn a_token_outlives_a_rotation_by_a_day_and_is_known_for_a_month_more() {
    let (tokens, clock) = signer().await;
    let token = tokens.sign(&claims()).await.unwrap();
    assert_eq!(*tokens.verify(token.expose(), false).await.unwrap().unwrap(), claims());
    assert_eq!(tokens.published().await.unwrap().len(), 1);
    let kid = tokens.rotate().await.unwrap();
    let published = tokens.published().await.unwrap();
    assert_eq!(published.len(), 2);
    assert!(published.iter().any(|key| key["kid"] == kid.as_str()));
    clock.turn(Duration::from_secs(86_400 - 1));
    assert!(tokens.verify(token.expose(), false).await.unwrap().is_some());
    clock.turn(Duration::from_secs(1));
    assert!(tokens.verify(token.expose(), false).await.unwrap().is_none());
    assert!(tokens.verify(token.expose(), true).await.unwrap().is_some());
}

#[tokio::test]
async fn a_digest_is_the_stored_form_of_the_reference() {
    let (tokens, _) = signer().await;
    let digest = tokens.digest("zGUNAN93MJI911J3lCq5R9rMYnHWL2hD");
    assert_eq!(digest, "O8LWtvyKOtlKq_tQ6zyXcM2hPPJVmNnO5SuD-DPml30");
}
