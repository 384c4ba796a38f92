//! Marks made with the secret of the installation (contract `auth.md` §4.2, §6.3).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::core::model::proofs::{BadEmailToken, EmailClaims, EmailStep};
use crate::core::model::secret::Secret;
use crate::ports::signatures::Signatures;

/// HMAC-SHA-256 under one secret, used as the raw bytes of its text.
pub struct HmacSignatures {
    secret: Secret,
}

impl HmacSignatures {
    /// Signs with the secret of the settings.
    pub fn new(secret: Secret) -> Self {
        Self { secret }
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let secret = self.secret.expose().as_bytes();
        // A key of any length is accepted; a long one is hashed first (RFC 2104 §2).
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret)
            .unwrap_or_else(|_| <Hmac<Sha256> as KeyInit>::new(&Default::default()));
        mac.update(text.as_bytes());
        mac
    }
}

/// The header of every e-mail token.
const HEADER: &str = r#"{"alg":"HS256"}"#;
/// Longest token worth a look, bytes.
const LONGEST: usize = 2_048;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    email: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    update_to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_type: Option<String>,
    iat: i64,
    exp: i64,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

impl Signatures for HmacSignatures {
    fn sign(&self, text: &str) -> String {
        STANDARD.encode(self.mac(text).finalize().into_bytes())
    }

    fn verifies(&self, text: &str, signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        self.mac(text).verify_slice(&signature).is_ok()
    }

    fn issue_email_token(&self, claims: &EmailClaims) -> Secret {
        let claims = Claims {
            email: claims.email.clone(),
            update_to: claims.update_to.clone(),
            request_type: claims.step.wire().map(str::to_owned),
            iat: claims.issued_at.timestamp(),
            exp: claims.expires_at.timestamp(),
        };
        let claims = serde_json::to_vec(&claims).unwrap_or_default();
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.mac(&signed).finalize().into_bytes());
        Secret::new(format!("{signed}.{signature}"))
    }

    fn read_email_token(&self, token: &str, now: DateTime<Utc>) -> Result<EmailClaims, BadEmailToken> {
        let claims = self.open(token).ok_or(BadEmailToken::Invalid)?;
        let time = |seconds| DateTime::from_timestamp(seconds, 0).ok_or(BadEmailToken::Invalid);
        let read = EmailClaims {
            step: EmailStep::parse(claims.request_type.as_deref()).ok_or(BadEmailToken::Invalid)?,
            email: claims.email,
            update_to: claims.update_to,
            issued_at: time(claims.iat)?,
            expires_at: time(claims.exp)?,
        };
        if read.expires_at <= now {
            return Err(BadEmailToken::Expired);
        }
        Ok(read)
    }

    fn digest(&self, text: &str) -> String {
        hex::encode(Sha256::digest(text.as_bytes()))
    }

    fn blind(&self, text: &str) -> String {
        // The prefix keeps this apart from what is signed for others to present.
        hex::encode(self.mac(&format!("airi.blind\n{text}")).finalize().into_bytes())
    }
}

impl HmacSignatures {
    fn open(&self, token: &str) -> Option<Claims> {
        if token.len() > LONGEST {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header.alg != "HS256" {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.mac(signed).verify_slice(&signature).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use chrono::Duration;

    use super::*;

    fn signatures() -> HmacSignatures {
        HmacSignatures::new(Secret::new("contract-test-secret-000000000000000000"))
    }

    #[test]
    fn the_vector_of_the_contract_is_signed_and_verified() {
        let (token, signature) = ("AbCdEfGhIjKlMnOpQrStUvWxYz012345", "P4ZWq3NtKBVrQ/1xeSYM5vw0mng2/k85u4OEa5VJ8CQ=");
        assert_eq!(signatures().sign(token), signature);
        assert!(signatures().verifies(token, signature));
        for bad in ["", "x", "P4ZWq3NtKBVrQ/1xeSYM5vw0mng2/k85u4OEa5VJ8CQ", &signature.replace('P', "Q")] {
            assert!(!signatures().verifies(token, bad), "{bad}");
        }
    }

    #[test]
    fn the_digest_of_the_contract() {
        let expected = "ff8d9819fc0e12bf0d24892e45987e249a28dce836a85cad60e28eaaa8c6d976";
        assert_eq!(signatures().digest("alice@example.com"), expected);
        assert_ne!(signatures().blind("alice@example.com"), expected);
    }

    fn claims() -> EmailClaims {
        let at = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        EmailClaims {
            email: "a@b.co".to_owned(),
            update_to: Some("c@d.io".to_owned()),
            step: EmailStep::ConfirmChange,
            issued_at: at,
            expires_at: at + Duration::hours(1),
        }
    }

    #[test]
    fn an_email_token_says_what_was_put_in_until_it_expires() {
        let token = signatures().issue_email_token(&claims());
        let before = claims().expires_at - Duration::seconds(1);
        assert_eq!(signatures().read_email_token(token.expose(), before), Ok(claims()));
        let late = claims().expires_at;
        assert_eq!(signatures().read_email_token(token.expose(), late), Err(BadEmailToken::Expired));
    }

    #[test]
    fn what_others_made_is_refused() {
        let token = signatures().issue_email_token(&claims());
        let other = HmacSignatures::new(Secret::new("another")).issue_email_token(&claims());
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let (_, rest) = token.expose().split_once('.').unwrap();
        let stripped = format!("{none}.{}.", rest.split_once('.').unwrap().0);
        for bad in [other.expose(), &stripped, "", "a.b.c", "....", &format!("{}x", token.expose()), &"a".repeat(9_000)]
        {
            assert_eq!(signatures().read_email_token(bad, claims().issued_at), Err(BadEmailToken::Invalid), "{bad}");
        }
    }
}
