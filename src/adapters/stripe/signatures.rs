//! `Stripe-Signature` (contract §8.1): HMAC-SHA-256 of time and raw body under the whole secret text.

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use crate::core::model::secret::Secret;
use crate::ports::billing::PaymentSignatures;

/// How far a message's time may be from ours, seconds, to either side.
const TOLERANCE: i64 = 300;
/// Signatures looked at; a rotation needs two.
const MOST_SIGNATURES: usize = 8;

/// Accepts what was signed with any of the secrets.
pub struct StripeSignatures {
    /// The current secret, and the one before it while a rotation is under way.
    pub secrets: Vec<Secret>,
}

impl PaymentSignatures for StripeSignatures {
    fn vouches(&self, header: &str, body: &[u8], now: DateTime<Utc>) -> bool {
        let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
        let Some((time, seconds)) =
            parts().find(|(name, _)| *name == "t").and_then(|(_, text)| Some((text, text.parse::<i64>().ok()?)))
        else {
            return false;
        };
        if now.timestamp().saturating_sub(seconds).saturating_abs() > TOLERANCE {
            return false;
        }
        let signatures: Vec<Vec<u8>> = parts()
            .filter(|(name, _)| *name == "v1")
            .take(MOST_SIGNATURES)
            .filter_map(|(_, text)| hex::decode(text).ok())
            .collect();
        let mut good = Choice::from(0);
        for secret in &self.secrets {
            let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else { continue };
            mac.update(time.as_bytes());
            mac.update(b".");
            mac.update(body);
            let expected = mac.finalize().into_bytes();
            for signature in &signatures {
                good |= expected.as_slice().ct_eq(signature);
            }
        }
        good.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_vector_of_the_fixture() {
        let fixture: Value =
            serde_json::from_str(include_str!("../../../tests/fixtures/stripe-webhook-signatures.json")).unwrap();
        let secret = Secret::new(fixture["secret"].as_str().unwrap());
        let current = StripeSignatures { secrets: vec![secret.clone()] };
        let rotated = StripeSignatures { secrets: vec![Secret::new("whsec_new"), secret] };
        let stranger = StripeSignatures { secrets: vec![Secret::new("whsec_new")] };
        for case in fixture["cases"].as_array().unwrap() {
            let now = DateTime::from_timestamp(case["now"].as_i64().unwrap(), 0).unwrap();
            let (header, body) = (case["header"].as_str().unwrap(), case["body"].as_str().unwrap().as_bytes());
            let valid = case["valid"].as_bool().unwrap();
            assert_eq!(current.vouches(header, body, now), valid, "{}", case["name"]);
            assert_eq!(rotated.vouches(header, body, now), valid, "{}", case["name"]);
            assert!(!stranger.vouches(header, body, now), "{}", case["name"]);
        }
    }
}
