//! Signed tokens: the keys of the `jwks` table, used and made (contract `auth.md` §3.5, §7.5).

mod der;
mod jwk;
mod sealed;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use moka::sync::Cache;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::core::model::oidc::claims::Claims;
use crate::core::model::oidc::keys::{KEY_OVERLAP, KeyRow, signing_key};
use crate::core::model::secret::Secret;
use crate::ports::oidc::{SigningKeyRepo, TokenSigner};
use crate::ports::runtime::{Clock, IdSource};
use crate::ports::{Fault, FaultKind};

/// A copy of the keys is used this long; a key another process made or ended is known after it.
const FRESH: Duration = Duration::from_secs(60);
/// A token of a key we do not know makes us look again, at most this often: anybody can make up a `kid`.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Tokens whose signature is remembered, so that a caller's every request does not cost a verification.
const REMEMBERED: u64 = 20_000;

/// Signs and verifies with the keys of a store. Tokens are remembered by their SHA-256 only.
pub struct KeyRing {
    repo: Arc<dyn SigningKeyRepo>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    secret: Secret,
    copy: RwLock<Option<Arc<Ring>>>,
    /// Held while keys are loaded or made, so that a crowd costs one look-up.
    loading: tokio::sync::Mutex<()>,
    good: Cache<[u8; 32], Good>,
}

/// A token whose signature was found good.
#[derive(Clone)]
struct Good {
    kid: Arc<str>,
    claims: Arc<Claims>,
}

struct Ring {
    loaded: Duration,
    rows: Vec<KeyRow>,
    keys: HashMap<String, Verifying>,
}

struct Verifying {
    row: usize,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl KeyRing {
    /// `secret` seals and opens private keys.
    pub fn new(repo: Arc<dyn SigningKeyRepo>, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>, secret: Secret) -> Self {
        let good = Cache::builder().max_capacity(REMEMBERED).time_to_live(FRESH).build();
        Self { repo, clock, ids, secret, copy: RwLock::default(), loading: tokio::sync::Mutex::default(), good }
    }

    fn kept(&self, at_most: Duration) -> Option<Arc<Ring>> {
        let copy = self.copy.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        (self.clock.elapsed().saturating_sub(copy.loaded) < at_most).then_some(copy)
    }

    async fn ring(&self, at_most: Duration) -> Result<Arc<Ring>, Fault> {
        if let Some(kept) = self.kept(at_most) {
            return Ok(kept);
        }
        let _turn = self.loading.lock().await;
        match self.kept(at_most) {
            Some(kept) => Ok(kept),
            None => self.load().await,
        }
    }

    async fn load(&self) -> Result<Arc<Ring>, Fault> {
        let loaded = self.clock.elapsed();
        let ring = Arc::new(Ring::of(self.repo.list().await?, loaded));
        *self.copy.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&ring));
        Ok(ring)
    }

    /// The keys, with one that signs among them.
    async fn signing_ring(&self) -> Result<Arc<Ring>, Fault> {
        let ring = self.ring(FRESH).await?;
        if signing_key(&ring.rows, self.clock.now()).is_some() {
            return Ok(ring);
        }
        let _turn = self.loading.lock().await;
        let ring = self.load().await?;
        if signing_key(&ring.rows, self.clock.now()).is_some() {
            return Ok(ring);
        }
        let row = self.make().await?;
        if ring.rows.is_empty() {
            self.repo.add_first(&row).await?;
        } else {
            // Every key has expired.
            self.repo.rotate(&row, self.clock.now() + KEY_OVERLAP).await?;
        }
        self.load().await
    }

    async fn make(&self) -> Result<KeyRow, Fault> {
        const OPERATION: &str = "tokens.make_key";
        let (public, private) = tokio::task::spawn_blocking(jwk::generate)
            .await
            .map_err(|error| Fault::new(FaultKind::Unavailable, OPERATION, error))?
            .ok_or_else(|| Fault::new(FaultKind::Unavailable, OPERATION, "no key could be generated"))?;
        let private_key = sealed::seal(&private, &self.secret)
            .ok_or_else(|| Fault::new(FaultKind::Unavailable, OPERATION, "the key could not be sealed"))?;
        Ok(KeyRow {
            id: self.ids.token(),
            public_key: public,
            private_key,
            created_at: self.clock.now(),
            expires_at: None,
        })
    }
}

impl Ring {
    fn of(rows: Vec<KeyRow>, loaded: Duration) -> Self {
        let mut keys = HashMap::new();
        for (place, row) in rows.iter().enumerate() {
            match jwk::verifying(&row.public_key) {
                Some((algorithm, key)) => {
                    keys.insert(row.id.clone(), Verifying { row: place, algorithm, key });
                }
                None => tracing::error!(kid = row.id, "a public key in jwks is not readable"),
            }
        }
        Self { loaded, rows, keys }
    }
}

#[async_trait]
impl TokenSigner for KeyRing {
    async fn sign(&self, claims: &Claims) -> Result<Secret, Fault> {
        const OPERATION: &str = "tokens.sign";
        let unusable = |why: &'static str| Fault::new(FaultKind::Corrupt, OPERATION, why);
        let ring = self.signing_ring().await?;
        let row = signing_key(&ring.rows, self.clock.now()).ok_or_else(|| unusable("there is no key that signs"))?;
        let private = sealed::open(&row.private_key, &self.secret)
            .ok_or_else(|| unusable("the signing key does not open with BETTER_AUTH_SECRET"))?;
        let (algorithm, key) = jwk::signing(&private).ok_or_else(|| unusable("the signing key is not readable"))?;
        let mut header = Header::new(algorithm);
        header.typ = None;
        header.kid = Some(row.id.clone());
        let token =
            jsonwebtoken::encode(&header, claims, &key).map_err(|_| unusable("the signing key does not sign"))?;
        Ok(Secret::new(token))
    }

    async fn verify(&self, token: &str, even_retired: bool) -> Result<Option<Arc<Claims>>, Fault> {
        let now = self.clock.now();
        let usable = |ring: &Ring, kid: &str| {
            let key = ring.keys.get(kid)?;
            let row = ring.rows.get(key.row)?;
            (row.verifies(now) || even_retired && row.is_published(now)).then_some(())
        };
        let name: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(good) = self.good.get(&name) {
            let ring = self.ring(FRESH).await?;
            return Ok(usable(&ring, &good.kid).map(|()| good.claims));
        }
        let Some(kid) = jsonwebtoken::decode_header(token).ok().and_then(|header| header.kid) else { return Ok(None) };
        let mut ring = self.ring(FRESH).await?;
        if !ring.keys.contains_key(&kid) {
            ring = self.ring(LOOK_AGAIN).await?;
        }
        let Some(key) = ring.keys.get(&kid) else { return Ok(None) };
        let mut validation = Validation::new(key.algorithm);
        // Whether a token has ended, and for whom it is, depends on what it is used for.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let Ok(read) = jsonwebtoken::decode::<Claims>(token, &key.key, &validation) else { return Ok(None) };
        let claims = Arc::new(read.claims);
        self.good.insert(name, Good { kid: kid.as_str().into(), claims: Arc::clone(&claims) });
        Ok(usable(&ring, &kid).map(|()| claims))
    }

    async fn published(&self) -> Result<Vec<Value>, Fault> {
        let ring = self.signing_ring().await?;
        let now = self.clock.now();
        let shown = ring.rows.iter().filter(|row| row.is_published(now));
        Ok(shown.filter_map(|row| jwk::published(&row.public_key, &row.id)).collect())
    }

    async fn rotate(&self) -> Result<String, Fault> {
        let row = self.make().await?;
        self.repo.rotate(&row, row.created_at + KEY_OVERLAP).await?;
        let _turn = self.loading.lock().await;
        self.load().await?;
        Ok(row.id)
    }

    fn digest(&self, text: &str) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()))
    }
}

#[cfg(test)]
mod tests;
