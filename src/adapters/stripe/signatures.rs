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
