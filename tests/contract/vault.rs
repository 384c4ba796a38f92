//! `Vault`: what sealing and opening must keep.

use airi_server::adapters::crypto::{EnvelopeVault, generate_master_key};
use airi_server::core::model::secret::Secret;
use airi_server::ports::vault::{MasterKey, Unreadable, Vault};

const KEY: &str = "sk-密钥-🔑";

async fn what_was_sealed_opens_for_its_slot(vault: &dyn Vault) {
    for plaintext in ["", KEY, &"k".repeat(4096)] {
        let token = vault.seal(&Secret::new(plaintext), "chat/default", "prod-1").unwrap();
        let opened = vault.open(&token, "chat/default", "prod-1").unwrap();
        assert_eq!((opened.plaintext.expose(), opened.with), (plaintext, MasterKey::Current));
    }
}

async fn what_was_sealed_does_not_open_for_another_slot(vault: &dyn Vault) {
    let token = vault.seal(&Secret::new(KEY), "m", "k").unwrap();
    for (model, id) in [("m", "k2"), ("m2", "k"), ("k", "m"), ("", "mk")] {
        assert_eq!(vault.open(&token, model, id), Err(Unreadable::Refused), "{model} {id}");
    }
}

async fn a_fingerprint_names_a_key_without_telling_it(vault: &dyn Vault) {
    // First 8 hexadecimal digits of SHA-256, as the reference names keys (contract `gateway.md` §10.4).
    assert_eq!(vault.fingerprint("hello"), "2cf24dba");
    assert_ne!(vault.fingerprint(KEY), vault.fingerprint("hello"));
}

async fn sealing_twice_gives_two_tokens(vault: &dyn Vault) {
    let key = Secret::new(KEY);
    assert_ne!(vault.seal(&key, "m", "k").unwrap(), vault.seal(&key, "m", "k").unwrap());
}

async fn a_token_changed_anywhere_does_not_open(vault: &dyn Vault) {
    let token = vault.seal(&Secret::new("sk-1"), "m", "k").unwrap();
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(vault.open(&changed, "m", "k").is_err(), "character {at}");
    }
}

async fn a_slot_with_a_bar_is_ambiguous(vault: &dyn Vault) {
    let key = Secret::new(KEY);
    assert_eq!(vault.seal(&key, "a|b", "c"), Err(Unreadable::AmbiguousSlot));
    assert_eq!(vault.seal(&key, "a", "b|c"), Err(Unreadable::AmbiguousSlot));
}

async fn neither_token_nor_failure_tells_the_key(vault: &dyn Vault) {
    let token = vault.seal(&Secret::new("sk-visible"), "m", "k").unwrap();
    let opened = vault.open(&token, "m", "k").unwrap();
    let failure = vault.open(&token, "m", "other").unwrap_err();
    let told = format!("{token} {opened:?} {failure} {failure:?}");
    assert!(!told.contains("visible"), "{told}");
}

macro_rules! cases {
    ($under_test:expr; $($case:ident)+) => {$(
        #[tokio::test]
        async fn $case() {
            super::$case(&$under_test).await;
        }
    )+};
}

macro_rules! every_case {
    ($under_test:expr) => {
        cases! { $under_test;
            what_was_sealed_opens_for_its_slot
            what_was_sealed_does_not_open_for_another_slot
            a_fingerprint_names_a_key_without_telling_it
            sealing_twice_gives_two_tokens
            a_token_changed_anywhere_does_not_open
            a_slot_with_a_bar_is_ambiguous
            neither_token_nor_failure_tells_the_key
        }
    };
}

mod envelope {
    use super::*;

    every_case!(EnvelopeVault::new(&generate_master_key(), None).unwrap());

    #[tokio::test]
    async fn a_rotation_keeps_old_tokens_readable_and_seals_new_ones_with_the_new_key() {
        let (old, new) = (generate_master_key(), generate_master_key());
        let token = EnvelopeVault::new(&old, None).unwrap().seal(&Secret::new(KEY), "m", "k").unwrap();
        let rotated = EnvelopeVault::new(&new, Some(&old)).unwrap();
        assert_eq!(rotated.open(&token, "m", "k").unwrap().with, MasterKey::Previous);
        let fresh = rotated.seal(&Secret::new(KEY), "m", "k").unwrap();
        assert_eq!(EnvelopeVault::new(&new, None).unwrap().open(&fresh, "m", "k").unwrap().with, MasterKey::Current);
    }
}
