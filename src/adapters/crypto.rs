//! Upstream keys at rest (contract `gateway.md` §10) and password hashes (contract `auth.md` §3.3).

use std::sync::Arc;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::core::model::secret::Secret;
use crate::ports::oidc::PasswordHasher;
use crate::ports::vault::{MasterKey, Opened, Unreadable, Vault};
use crate::ports::{Fault, FaultKind};

const VERSION: &str = "v1";
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Why the master keys of the settings are unusable. Says nothing about the keys themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidMasterKey {
    /// The current one has the wrong form.
    #[error("LLM_ROUTER_MASTER_KEY must be padded standard base64 of exactly 32 bytes")]
    Current,
    /// The previous one has the wrong form; leave it out rather than empty.
    #[error("LLM_ROUTER_MASTER_KEY_PREVIOUS must be padded standard base64 of exactly 32 bytes, or be left out")]
    Previous,
    /// A rotation to the same key protects nothing.
    #[error("LLM_ROUTER_MASTER_KEY_PREVIOUS must differ from LLM_ROUTER_MASTER_KEY")]
    Same,
}

/// AES-256-GCM envelopes bound to their slot, under a key derived from the master key with HKDF-SHA-256.
pub struct EnvelopeVault {
    current: Aes256Gcm,
    previous: Option<Aes256Gcm>,
}

impl EnvelopeVault {
    /// Takes the keys as they stand in the settings: base64 text. The previous one only opens.
    pub fn new(current_base64: &Secret, previous: Option<&Secret>) -> Result<Self, InvalidMasterKey> {
        let current = master_key(current_base64).ok_or(InvalidMasterKey::Current)?;
        let previous = match previous {
            Some(text) => Some(master_key(text).ok_or(InvalidMasterKey::Previous)?),
            None => None,
        };
        if previous.as_ref().is_some_and(|previous| bool::from(previous.ct_eq(current.as_slice()))) {
            return Err(InvalidMasterKey::Same);
        }
        let current = cipher(&current).ok_or(InvalidMasterKey::Current)?;
        let previous = match previous {
            Some(key) => Some(cipher(&key).ok_or(InvalidMasterKey::Previous)?),
            None => None,
        };
        Ok(Self { current, previous })
    }

    fn seal_with(&self, nonce: [u8; NONCE_BYTES], plaintext: &str, slot: &[u8]) -> Result<String, Unreadable> {
        let payload = Payload { msg: plaintext.as_bytes(), aad: slot };
        let sealed = self.current.encrypt(&nonce.into(), payload).map_err(|_| Unreadable::Refused)?;
        let (ciphertext, tag) = sealed.split_at(sealed.len() - TAG_BYTES);
        let [nonce, ciphertext, tag] = [&nonce, ciphertext, tag].map(|part| URL_SAFE_NO_PAD.encode(part));
        Ok(format!("{VERSION}.{nonce}.{ciphertext}.{tag}"))
    }
}

impl Vault for EnvelopeVault {
    fn seal(&self, plaintext: &Secret, model: &str, key_id: &str) -> Result<String, Unreadable> {
        let slot = slot(model, key_id)?;
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce);
        self.seal_with(nonce, plaintext.expose(), &slot)
    }

    fn open(&self, token: &str, model: &str, key_id: &str) -> Result<Opened, Unreadable> {
        let slot = slot(model, key_id)?;
        let (nonce, sealed) = parse(token)?;
        let keys = [(Some(&self.current), MasterKey::Current), (self.previous.as_ref(), MasterKey::Previous)];
        for (key, with) in keys {
            let Some(key) = key else { continue };
            let Ok(bytes) = key.decrypt(&nonce.into(), Payload { msg: &sealed, aad: &slot }) else { continue };
            let bytes = Zeroizing::new(bytes);
            let text = std::str::from_utf8(&bytes).map_err(|_| Unreadable::Malformed)?;
            return Ok(Opened { plaintext: Secret::new(text), with });
        }
        Err(Unreadable::Refused)
    }

    fn fingerprint(&self, text: &str) -> String {
        fingerprint(text)
    }
}

/// A fresh master key, in the form [`EnvelopeVault::new`] reads.
pub fn generate_master_key() -> Secret {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    rand::fill(bytes.as_mut_slice());
    Secret::new(STANDARD.encode(bytes.as_slice()))
}

/// Eight hex characters that tell keys apart where the key matters and not its slot.
pub fn key_id(plaintext: &Secret) -> String {
    fingerprint(plaintext.expose())
}

fn fingerprint(text: &str) -> String {
    hex::encode(&Sha256::digest(text.as_bytes())[..4])
}

fn master_key(text: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = Zeroizing::new(STANDARD.decode(text.expose()).ok()?);
    (bytes.len() == 32).then_some(bytes)
}

fn cipher(master: &[u8]) -> Option<Aes256Gcm> {
    Aes256Gcm::new_from_slice(derive(master)?.as_slice()).ok()
}

fn derive(master: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0_u8; 32]);
    let stretched = Hkdf::<Sha256>::new(Some(b"llm-router-v1"), master);
    stretched.expand(b"provider-key-encryption", key.as_mut_slice()).ok()?;
    Some(key)
}

fn slot(model: &str, key_id: &str) -> Result<Vec<u8>, Unreadable> {
    if model.contains('|') || key_id.contains('|') {
        return Err(Unreadable::AmbiguousSlot);
    }
    Ok(format!("{model}|{key_id}").into_bytes())
}

/// Nonce, and ciphertext with its tag behind it.
fn parse(token: &str) -> Result<([u8; NONCE_BYTES], Vec<u8>), Unreadable> {
    let parts: Vec<&str> = token.split('.').collect();
    let &[version, nonce, ciphertext, tag] = parts.as_slice() else { return Err(Unreadable::Malformed) };
    if version != VERSION {
        return Err(Unreadable::Version);
    }
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Unreadable::Malformed);
    let nonce = decode(nonce)?.try_into().map_err(|_| Unreadable::Malformed)?;
    let (mut sealed, tag) = (decode(ciphertext)?, decode(tag)?);
    if tag.len() != TAG_BYTES {
        return Err(Unreadable::Malformed);
    }
    sealed.extend_from_slice(&tag);
    Ok((nonce, sealed))
}

const SALT_CHARACTERS: usize = 32;
const HASH_BYTES: usize = 64;

/// scrypt with N = 16384, r = 16, p = 1: 32 MiB and some 50 ms of one core per hash.
pub struct ScryptPasswords {
    turns: Arc<Semaphore>,
    /// Places for those who wait and those whose turn it is.
    places: Semaphore,
}

/// Longer than any burst that could be answered before its callers give up: half a minute of hashing on one core.
const LONGEST_QUEUE: usize = 512;

impl ScryptPasswords {
    /// At most `at_once` hashes run at a time, at least one; the others wait for their turn, and whoever finds a full
    /// queue is turned away at once.
    pub fn new(at_once: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_once.max(1))), places: Semaphore::new(LONGEST_QUEUE) }
    }

    async fn hash_with(&self, password: &Secret, salt: String) -> Result<Zeroizing<[u8; HASH_BYTES]>, Fault> {
        let fault = |error: Box<dyn std::error::Error + Send + Sync>| {
            Fault::new(FaultKind::Unavailable, "crypto.scrypt", error)
        };
        let _place = self.places.try_acquire().map_err(|error| fault(error.into()))?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|error| fault(error.into()))?;
        let password = password.clone();
        let hashing = tokio::task::spawn_blocking(move || {
            // The turn ends with the work, not with the caller: a caller that leaves must not let another one in.
            let _turn = turn;
            scrypt_of(&password, &salt)
        });
        hashing.await.map_err(|error| fault(error.into()))?.map_err(|error| fault(error.into()))
    }
}

#[async_trait]
impl PasswordHasher for ScryptPasswords {
    async fn hash(&self, password: &Secret) -> Result<Secret, Fault> {
        let salt = hex::encode(rand::random::<[u8; SALT_CHARACTERS / 2]>());
        let key = self.hash_with(password, salt.clone()).await?;
        let key = Zeroizing::new(hex::encode(key.as_slice()));
        Ok(Secret::new(format!("{salt}:{}", *key)))
    }

    async fn verify(&self, password: &Secret, hash: &Secret) -> Result<bool, Fault> {
        let Some((salt, expected)) = split(hash.expose()) else { return Ok(false) };
        let found = self.hash_with(password, salt.to_owned()).await?;
        Ok(found.ct_eq(expected.as_slice()).into())
    }
}

fn split(hash: &str) -> Option<(&str, Vec<u8>)> {
    let (salt, key) = hash.split_once(':')?;
    let key = hex::decode(key).ok()?;
    let salted = salt.len() == SALT_CHARACTERS && salt.bytes().all(|byte| byte.is_ascii_hexdigit());
    (salted && key.len() == HASH_BYTES).then_some((salt, key))
}

/// The salt is the hex text itself, not the bytes it spells.
fn scrypt_of(password: &Secret, salt: &str) -> Result<Zeroizing<[u8; HASH_BYTES]>, ScryptFailed> {
    let params = scrypt::Params::new(14, 16, 1).map_err(|_| ScryptFailed)?;
    let password = Zeroizing::new(password.expose().nfkc().collect::<String>());
    let mut key = Zeroizing::new([0_u8; HASH_BYTES]);
    scrypt::scrypt(password.as_bytes(), salt.as_bytes(), &params, key.as_mut_slice()).map_err(|_| ScryptFailed)?;
    Ok(key)
}

#[derive(Debug, Error)]
#[error("scrypt refused its parameters")]
struct ScryptFailed;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/fixtures/envelope-vectors.json")).unwrap()
    }

    fn vault(current_hex: &str, previous_hex: Option<&str>) -> EnvelopeVault {
        let base64 = |text: &str| Secret::new(STANDARD.encode(hex::decode(text).unwrap()));
        EnvelopeVault::new(&base64(current_hex), previous_hex.map(base64).as_ref()).unwrap()
    }

    fn text<'a>(row: &'a Value, member: &str) -> &'a str {
        row[member].as_str().unwrap_or_else(|| panic!("{member} of {row}"))
    }

    #[test]
    fn every_sealing_vector_seals_and_opens_to_the_same_bytes() {
        let vectors = vectors();
        let rows = vectors["encryptAndDecrypt"].as_array().unwrap();
        assert_eq!(rows.len(), 6);
        for row in rows {
            let master = text(row, "masterKeyHex");
            assert_eq!(text(row, "masterKeyBase64"), STANDARD.encode(hex::decode(master).unwrap()));
            let derived = derive(&hex::decode(master).unwrap()).unwrap();
            assert_eq!(hex::encode(derived.as_slice()), text(row, "derivedAesKeyHex"));
            let vault = vault(master, None);
            let (model, id) = (text(row, "modelName"), text(row, "keyEntryId"));
            let slot = slot(model, id).unwrap();
            assert_eq!(hex::encode(&slot), text(row, "aadHex"));
            let nonce = hex::decode(text(row, "ivHex")).unwrap().try_into().unwrap();
            let plaintext = text(row, "plaintextUtf8");
            let token = vault.seal_with(nonce, plaintext, &slot).unwrap();
            assert_eq!(token, text(row, "token"));
            assert_eq!(token.len() as u64, row["tokenLength"].as_u64().unwrap());
            let opened = vault.open(&token, model, id).unwrap();
            assert_eq!((opened.plaintext.expose(), opened.with), (plaintext, MasterKey::Current));
            assert_eq!(key_id(&Secret::new(plaintext)), text(row, "plaintextKeyId"));
        }
    }

    #[test]
    fn every_rotation_vector() {
        let vectors = vectors();
        for row in vectors["rotation"].as_array().unwrap() {
            let vault = vault(text(row, "currentMasterKeyHex"), row["previousMasterKeyHex"].as_str());
            let opened = vault.open(text(row, "token"), text(row, "modelName"), text(row, "keyEntryId"));
            if row["expectError"] == true {
                assert_eq!(opened, Err(Unreadable::Refused), "{}", row["name"]);
                continue;
            }
            let opened = opened.unwrap();
            assert_eq!(opened.plaintext.expose(), text(row, "expectPlaintextUtf8"));
            let with = if row["expectKeyUsed"] == "previous" { MasterKey::Previous } else { MasterKey::Current };
            assert_eq!(opened.with, with, "{}", row["name"]);
        }
    }

    #[test]
    fn every_vector_that_must_be_refused_is() {
        let vectors = vectors();
        let mut seen = 0;
        for list in ["mustReject", "referenceAcceptsButWeReject"] {
            for row in vectors[list].as_array().unwrap() {
                let opened = vault(text(row, "masterKeyHex"), None).open(
                    text(row, "token"),
                    text(row, "modelName"),
                    text(row, "keyEntryId"),
                );
                let name = text(row, "name");
                let expected = match name {
                    "version-v2" => Unreadable::Version,
                    name if name.contains("flip") || name.contains("aad") || name.contains("moved") => {
                        Unreadable::Refused
                    }
                    _ => Unreadable::Malformed,
                };
                assert_eq!(opened, Err(expected), "{name}");
                seen += 1;
            }
        }
        assert!(seen >= 14);
    }

    #[test]
    fn slots_that_could_be_mistaken_for_each_other_are_refused() {
        let vectors = vectors();
        let ambiguity = &vectors["aadAmbiguity"];
        let pairs = ambiguity["pairs"].as_array().or_else(|| ambiguity[0]["pairs"].as_array()).unwrap();
        let master = "00".repeat(32);
        for pair in pairs {
            let (model, id) = (text(pair, "modelName"), text(pair, "keyEntryId"));
            let vault = vault(&master, None);
            assert_eq!(vault.seal(&Secret::new("k"), model, id), Err(Unreadable::AmbiguousSlot));
            assert_eq!(vault.open("v1.AAAA.AA.AA", model, id), Err(Unreadable::AmbiguousSlot));
        }
    }

    #[test]
    fn master_keys_are_base64_of_32_bytes_and_differ() {
        let vectors = vectors();
        for row in vectors["masterKeyEnv"].as_array().unwrap() {
            let value = Secret::new(text(row, "value"));
            let other = generate_master_key();
            let valid = row["valid"] == true;
            assert_eq!(EnvelopeVault::new(&value, None).is_ok(), valid, "{row}");
            assert_eq!(EnvelopeVault::new(&other, Some(&value)).is_ok(), valid, "{row}");
        }
        let key = generate_master_key();
        assert_eq!(EnvelopeVault::new(&key, Some(&key)).err(), Some(InvalidMasterKey::Same));
        assert_eq!(EnvelopeVault::new(&Secret::new("x"), None).err(), Some(InvalidMasterKey::Current));
        assert_eq!(EnvelopeVault::new(&key, Some(&Secret::new(""))).err(), Some(InvalidMasterKey::Previous));
    }

    #[test]
    fn keys_are_told_apart_by_eight_characters() {
        let vectors = vectors();
        for row in vectors["plaintextKeyId"].as_array().unwrap() {
            assert_eq!(key_id(&Secret::new(text(row, "plaintextUtf8"))), text(row, "keyId"));
        }
    }

    const VECTORS: [(&str, &str); 3] = [
        (
            "hunter22hunter22",
            "600f94f065da57ff10b9968f979c9067:d03864aa7beff5792ab076e1e8826ea20f8a7e43cebc02a55b46caac26a7c0800df8f6df442\
             caa6758376fce62c05b79a609d8b5e7e0ac6dce3017c4d21d3825",
        ),
        ("pässwörd-fix", LIGATURE),
        ("pässwörd-\u{fb01}x", LIGATURE),
    ];
    const LIGATURE: &str = "66729774ce00c10a7b9c0f7bc7bcf51f:fd15bc6a79b35a3655ca935d5b570cb44977740bde91ba0b54ee65e63b\
                            e074d6457ec0ff5fe39407a345214c20f22a21472653367349942027f4153e2ab36097";

    #[tokio::test]
    async fn passwords_of_the_reference_verify() {
        let passwords = ScryptPasswords::new(2);
        for (password, hash) in VECTORS {
            assert!(passwords.verify(&Secret::new(password), &Secret::new(hash)).await.unwrap(), "{password}");
        }
        assert!(!passwords.verify(&Secret::new("hunter22hunter23"), &Secret::new(VECTORS[0].1)).await.unwrap());
    }

    #[tokio::test]
    async fn a_fresh_hash_verifies_and_never_repeats() {
        let passwords = ScryptPasswords::new(2);
        let password = Secret::new("correct horse");
        let hashes = [passwords.hash(&password).await.unwrap(), passwords.hash(&password).await.unwrap()];
        assert_ne!(hashes[0], hashes[1]);
        for hash in &hashes {
            let (salt, key) = hash.expose().split_once(':').unwrap();
            assert_eq!((salt.len(), key.len()), (32, 128));
            assert_eq!(hash.expose(), hash.expose().to_lowercase());
            assert!(passwords.verify(&password, hash).await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_malformed_hash_never_matches() {
        let passwords = ScryptPasswords::new(1);
        let truncated = &VECTORS[0].1[..VECTORS[0].1.len() - 2];
        for hash in ["", ":", "no colon", truncated, "zz:00", &format!("{}:", &VECTORS[0].1[..32])] {
            assert!(!passwords.verify(&Secret::new(VECTORS[0].0), &Secret::new(hash)).await.unwrap(), "{hash}");
        }
    }

    #[tokio::test]
    async fn a_full_queue_turns_callers_away_at_once() {
        let passwords = ScryptPasswords { places: Semaphore::new(1), ..ScryptPasswords::new(1) };
        let password = Secret::new("x");
        let mut first = Box::pin(passwords.hash(&password));
        assert!(futures::poll!(&mut first).is_pending());
        assert_eq!(passwords.hash(&password).await.unwrap_err().kind(), FaultKind::Unavailable);
        first.await.unwrap();
        passwords.hash(&password).await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_that_leaves_keeps_its_turn_until_the_work_is_done() {
        let passwords = ScryptPasswords::new(1);
        let password = Secret::new("x");
        let mut hashing = Box::pin(passwords.hash(&password));
        assert!(futures::poll!(&mut hashing).is_pending());
        drop(hashing);
        assert_eq!(passwords.turns.available_permits(), 0);
        let _turn = passwords.turns.acquire().await.unwrap();
    }
}
