use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::*;
use crate::adapters::frozen::{CountingIds, FrozenClock};

const SECRET: &str = "contract-test-secret-000000000000000000";
const ED_PUBLIC: &str = r#"{"crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kty":"OKP"}"#;
const ED_PRIVATE: &str = r#"{"crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kty":"OKP"}"#;

/// Rows in memory, and how often they were read.
#[derive(Default)]
struct Rows {
    rows: Mutex<Vec<KeyRow>>,
    reads: AtomicUsize,
}

impl Rows {
    fn rows(&self) -> MutexGuard<'_, Vec<KeyRow>> {
        self.rows.lock().unwrap()
    }
}

#[async_trait]
impl SigningKeyRepo for Rows {
    async fn list(&self) -> Result<Vec<KeyRow>, Fault> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(self.rows().iter().rev().cloned().collect())
    }

    async fn add_first(&self, key: &KeyRow) -> Result<(), Fault> {
        let mut rows = self.rows();
        if rows.is_empty() {
            rows.push(key.clone());
        }
        Ok(())
    }

    async fn rotate(&self, key: &KeyRow, others_end: DateTime<Utc>) -> Result<(), Fault> {
        let mut rows = self.rows();
        rows.iter_mut().for_each(|row| row.expires_at = row.expires_at.or(Some(others_end)));
        rows.push(key.clone());
        Ok(())
    }
}

fn ring(rows: &Arc<Rows>) -> (KeyRing, Arc<FrozenClock>) {
    let clock = Arc::new(FrozenClock::at(DateTime::UNIX_EPOCH + TimeDelta::days(365)));
    (KeyRing::new(rows.clone(), clock.clone(), Arc::new(CountingIds::default()), Secret::new(SECRET)), clock)
}

fn reference() -> Arc<Rows> {
    let row = KeyRow {
        id: "reference".to_owned(),
        public_key: ED_PUBLIC.to_owned(),
        private_key: sealed::seal(&Secret::new(ED_PRIVATE), &Secret::new(SECRET)).unwrap(),
        created_at: DateTime::UNIX_EPOCH,
        expires_at: None,
    };
    Arc::new(Rows { rows: Mutex::new(vec![row]), reads: AtomicUsize::new(0) })
}

fn claims() -> Claims {
    json!({ "sub": "u1" }).as_object().unwrap().clone()
}

fn header(token: &Secret) -> Value {
    let text = token.expose().split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

#[tokio::test]
async fn a_database_without_a_key_gets_an_rs256_key_that_is_published() {
    let rows = Arc::new(Rows::default());
    let (ring, _) = ring(&rows);
    let token = ring.sign(&claims()).await.unwrap();
    assert_eq!(rows.rows().len(), 1);
    let kid = rows.rows()[0].id.clone();
    assert_eq!(header(&token), json!({ "alg": "RS256", "kid": kid }));
    assert_eq!(*ring.verify(token.expose(), false).await.unwrap().unwrap(), claims());
    let published = ring.published().await.unwrap();
    assert_eq!((&published[0]["alg"], &published[0]["kid"]), (&json!("RS256"), &json!(kid)));
    assert!(published[0].get("d").is_none());
    let anew = super::tests::ring(&rows).0;
    assert_eq!(*anew.verify(token.expose(), false).await.unwrap().unwrap(), claims(), "another process verifies it");
    anew.sign(&claims()).await.unwrap();
    assert_eq!(rows.rows().len(), 1);
}

#[tokio::test]
async fn a_key_of_the_reference_signs_until_it_is_rotated_and_verifies_for_a_day_more() {
    let rows = reference();
    let (ring, clock) = ring(&rows);
    let old = ring.sign(&claims()).await.unwrap();
    assert_eq!(header(&old), json!({ "alg": "EdDSA", "kid": "reference" }));
    let kid = ring.rotate().await.unwrap();
    assert_eq!(ring.published().await.unwrap().len(), 2);
    assert_eq!(header(&ring.sign(&claims()).await.unwrap())["kid"], "reference", "verifiers have not seen the new key");
    clock.advance(Duration::from_secs(600));
    assert_eq!(header(&ring.sign(&claims()).await.unwrap()), json!({ "alg": "RS256", "kid": kid }));
    assert!(ring.verify(old.expose(), false).await.unwrap().is_some());
    clock.advance(Duration::from_secs(86_400));
    assert!(ring.verify(old.expose(), false).await.unwrap().is_none());
    assert!(ring.verify(old.expose(), true).await.unwrap().is_some(), "a sign-out still knows its token");
}

#[tokio::test]
async fn nothing_but_an_untouched_token_of_ours_is_good() {
    let rows = reference();
    let (ring, _) = ring(&rows);
    let token = ring.sign(&claims()).await.unwrap();
    let token = token.expose();
    let parts: Vec<_> = token.split('.').collect();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"reference"}"#);
    let hmac = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"reference"}"#);
    let other = URL_SAFE_NO_PAD.encode(r#"{"sub":"u2"}"#);
    for bad in [
        String::new(),
        "a.b.c".to_owned(),
        "..".to_owned(),
        format!("{none}.{}.", parts[1]),
        format!("{hmac}.{}.{}", parts[1], parts[2]),
        format!("{}.{other}.{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{token}."),
        token[..token.len() - 2].to_owned(),
    ] {
        assert_eq!(ring.verify(&bad, true).await.unwrap(), None, "{bad}");
    }
    let foreign = KeyRing::new(Arc::new(Rows::default()), ring.clock.clone(), ring.ids.clone(), Secret::new("x"));
    let foreign = foreign.sign(&claims()).await.unwrap();
    assert_eq!(ring.verify(foreign.expose(), false).await.unwrap(), None);
}

#[tokio::test]
async fn the_store_is_read_once_a_minute_and_unknown_keys_cannot_hammer_it() {
    let rows = reference();
    let (ring, clock) = ring(&rows);
    let token = ring.sign(&claims()).await.unwrap();
    let unknown = format!("{}.e30.AA", URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"x"}"#));
    for _ in 0..50 {
        assert!(ring.verify(token.expose(), false).await.unwrap().is_some());
        assert!(ring.verify(&unknown, false).await.unwrap().is_none());
    }
    assert_eq!(rows.reads.load(Ordering::SeqCst), 1);
    clock.advance(LOOK_AGAIN);
    ring.verify(&unknown, false).await.unwrap();
    ring.verify(&unknown, false).await.unwrap();
    assert_eq!(rows.reads.load(Ordering::SeqCst), 2);
    clock.advance(FRESH);
    ring.verify(token.expose(), false).await.unwrap();
    assert_eq!(rows.reads.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_key_sealed_with_another_secret_still_verifies_and_never_signs() {
    let rows = reference();
    let (ring, clock) = ring(&rows);
    let token = ring.sign(&claims()).await.unwrap();
    let stranger = KeyRing::new(rows.clone(), clock, Arc::new(CountingIds::default()), Secret::new("another"));
    assert!(stranger.verify(token.expose(), false).await.unwrap().is_some());
    let fault = stranger.sign(&claims()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Corrupt);
    assert!(!format!("{fault:?}").contains(ED_PRIVATE));
}

#[test]
fn tokens_are_stored_as_the_reference_stores_them() {
    let (ring, _) = ring(&Arc::new(Rows::default()));
    assert_eq!(ring.digest("zGUNAN93MJI911J3lCq5R9rMYnHWL2hD"), "O8LWtvyKOtlKq_tQ6zyXcM2hPPJVmNnO5SuD-DPml30");
}
