//! Private keys at rest: XChaCha20-Poly1305 under SHA-256 of the secret, as hexadecimal in a JSON string.

use chacha20poly1305::aead::Aead;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::core::model::secret::Secret;

const NONCE_BYTES: usize = 24;

/// Seals with a fresh nonce.
pub(super) fn seal(plaintext: &Secret, secret: &Secret) -> Option<Secret> {
    let mut nonce = [0; NONCE_BYTES];
    rand::fill(&mut nonce);
    let sealed = cipher(secret)?.encrypt(&nonce.into(), plaintext.expose().as_bytes()).ok()?;
    serde_json::to_string(&hex::encode([nonce.as_slice(), &sealed].concat())).ok().map(Secret::new)
}

/// Opens what [`seal`] or the reference made. Versioned secrets (`$ba$…`) are not ours to open.
pub(super) fn open(stored: &Secret, secret: &Secret) -> Option<Secret> {
    let text: Zeroizing<String> = serde_json::from_str(stored.expose()).map(Zeroizing::new).ok()?;
    let bytes = hex::decode(text.as_str()).ok()?;
    let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
    let plaintext = Zeroizing::new(cipher(secret)?.decrypt(&nonce.into(), sealed).ok()?);
    std::str::from_utf8(&plaintext).ok().map(Secret::new)
}

fn cipher(secret: &Secret) -> Option<XChaCha20Poly1305> {
    let key = Zeroizing::new(<[u8; 32]>::from(Sha256::digest(secret.expose().as_bytes())));
    XChaCha20Poly1305::new_from_slice(key.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "contract-test-secret-000000000000000000";
    const STORED: &str = "\"f78647addd6a9da997eb7bfe0ff6d19806e5a3e60bc01de806b051fdcdbbb6159f712f76c612a83735757556270ae07c5804c07e424297cdf28b54ec3ab9e3d263e184c0a831247aa8322da70685c926c2ac12347a00e323aec9006a4fb1cadea50816a71a9d41a90406c12c6aa55ecadae8c6c976981e379e2186e5d63db15f56218270d92b9aae7f530521e3a49f8b1048da166aa0863e6f8c64d8fca7b1b044a7b93546fed64fb3\"";
    const OPENED: &str = r#"{"crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kty":"OKP"}"#;

    #[test]
    fn the_vector_of_the_contract_opens() {
        let opened = open(&Secret::new(STORED), &Secret::new(SECRET)).unwrap();
        assert_eq!(opened.expose(), OPENED);
    }

    #[test]
    fn what_was_sealed_opens_with_the_same_secret_only() {
        let secret = Secret::new(SECRET);
        let sealed = seal(&Secret::new(OPENED), &secret).unwrap();
        assert_eq!(open(&sealed, &secret).unwrap().expose(), OPENED);
        assert_eq!(open(&sealed, &Secret::new("another")), None);
        assert_ne!(sealed, seal(&Secret::new(OPENED), &secret).unwrap(), "the nonce is fresh");
        for bad in ["", "{}", "\"\"", "\"zz\"", "\"00\"", "\"$ba$1$00\"", &STORED.replace("f7", "f8")] {
            assert_eq!(open(&Secret::new(bad), &secret), None, "{bad}");
        }
    }
}
