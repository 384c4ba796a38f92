//! Keys as JSON (RFC 7517, RFC 7518 §6.3, RFC 8037 §2).

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::der;
use crate::core::model::secret::Secret;

/// Members of a private RSA key, in the order of PKCS#1.
const RSA: [&str; 8] = ["n", "e", "d", "p", "q", "dp", "dq", "qi"];

/// A fresh RSA key of 2048 bits: public and private JWK. Takes a moment of one core.
pub(super) fn generate() -> Option<(String, Secret)> {
    let pair = KeyPair::generate(KeySize::Rsa2048).ok()?;
    let pkcs8 = pair.as_der().ok()?;
    let numbers = der::rsa_numbers(pkcs8.as_ref())?.map(|number| URL_SAFE_NO_PAD.encode(number));
    let public = json!({ "kty": "RSA", "n": numbers[0], "e": numbers[1] }).to_string();
    let mut private = json!({ "kty": "RSA" });
    for (member, number) in RSA.into_iter().zip(numbers) {
        private[member] = number.into();
    }
    Some((public, Secret::new(private.to_string())))
}

/// What a stored public key verifies with.
pub(super) fn verifying(public: &str) -> Option<(Algorithm, DecodingKey)> {
    let jwk: Value = serde_json::from_str(public).ok()?;
    let member = |name: &str| jwk.get(name).and_then(Value::as_str);
    match algorithm(&jwk)? {
        Algorithm::EdDSA => Some((Algorithm::EdDSA, DecodingKey::from_ed_components(member("x")?).ok()?)),
        rsa => Some((rsa, DecodingKey::from_rsa_components(member("n")?, member("e")?).ok()?)),
    }
}

/// What an opened private key signs with.
pub(super) fn signing(private: &Secret) -> Option<(Algorithm, EncodingKey)> {
    let jwk: Value = serde_json::from_str(private.expose()).ok()?;
    let number = |name: &str| {
        let text = jwk.get(name).and_then(Value::as_str)?;
        URL_SAFE_NO_PAD.decode(text).ok().map(Zeroizing::new)
    };
    match algorithm(&jwk)? {
        Algorithm::EdDSA => {
            let seed = number("d").filter(|seed| seed.len() == 32)?;
            Some((Algorithm::EdDSA, EncodingKey::from_ed_der(&der::ed25519_key(&seed))))
        }
        rsa => {
            let numbers: Vec<_> = RSA.iter().map(|name| number(name)).collect::<Option<_>>()?;
            let numbers: [Zeroizing<Vec<u8>>; 8] = numbers.try_into().ok()?;
            Some((rsa, EncodingKey::from_rsa_der(&der::rsa_key(&numbers))))
        }
    }
}

/// A public key as verifiers read it.
pub(super) fn published(public: &str, kid: &str) -> Option<Value> {
    let jwk: Value = serde_json::from_str(public).ok()?;
    let member = |name: &str| jwk.get(name).and_then(Value::as_str);
    match algorithm(&jwk)? {
        Algorithm::EdDSA => {
            Some(json!({ "alg": "EdDSA", "crv": "Ed25519", "x": member("x")?, "kty": "OKP", "use": "sig", "kid": kid }))
        }
        _ => Some(
            json!({ "alg": "RS256", "kty": "RSA", "n": member("n")?, "e": member("e")?, "use": "sig", "kid": kid }),
        ),
    }
}

fn algorithm(jwk: &Value) -> Option<Algorithm> {
    match (jwk.get("kty")?.as_str()?, jwk.get("crv").and_then(Value::as_str)) {
        ("OKP", Some("Ed25519")) => Some(Algorithm::EdDSA),
        ("RSA", _) => Some(Algorithm::RS256),
        _ => None,
    }
}
