//! Which key signs, which verify, which are published (contract `auth.md` §3.5, §6.9).

use chrono::{DateTime, Duration, Utc};

use crate::core::model::secret::Secret;

/// One row of `jwks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The `kid` of tokens.
    pub id: String,
    /// JSON text of the public JWK.
    pub public_key: String,
    /// The sealed private JWK, as stored.
    pub private_key: Secret,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From then on it neither signs nor proves an access token.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A new key is published this long before it signs, so that verifiers have fetched it by then.
pub const KEY_LEAD: Duration = Duration::minutes(10);
/// How long a replaced key goes on verifying; longer than any token it signed lives.
pub const KEY_OVERLAP: Duration = Duration::hours(24);
/// How long an expired key stays published.
pub const KEY_AFTERLIFE: Duration = Duration::days(30);

impl KeyRow {
    /// Whether tokens of this key prove anything at `now`.
    pub fn verifies(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether the key is told to verifiers.
    pub fn is_published(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_none_or(|end| now < end + KEY_AFTERLIFE)
    }
}

/// The key that signs: the newest that has been public long enough, else the oldest there is.
pub fn signing_key(rows: &[KeyRow], now: DateTime<Utc>) -> Option<&KeyRow> {
    let usable = || rows.iter().filter(|row| row.verifies(now));
    usable()
        .filter(|row| row.created_at + KEY_LEAD <= now)
        .max_by_key(|row| row.created_at)
        .or_else(|| usable().min_by_key(|row| row.created_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, created: i64, expires: Option<i64>) -> KeyRow {
        let at = |minutes| DateTime::UNIX_EPOCH + Duration::minutes(minutes);
        KeyRow {
            id: id.to_owned(),
            public_key: String::new(),
            private_key: Secret::new(""),
            created_at: at(created),
            expires_at: expires.map(at),
        }
    }

    fn signer(rows: &[KeyRow], minute: i64) -> Option<&str> {
        signing_key(rows, DateTime::UNIX_EPOCH + Duration::minutes(minute)).map(|row| row.id.as_str())
    }

    #[test]
    fn the_newest_key_that_has_been_public_long_enough_signs() {
        assert_eq!(signer(&[], 0), None);
        let only = [key("a", 0, None)];
        assert_eq!(signer(&only, 0), Some("a"), "a first key has nobody to wait for");
        let rotated = [key("a", 0, Some(1_450)), key("b", 100, None)];
        assert_eq!(signer(&rotated, 109), Some("a"));
        assert_eq!(signer(&rotated, 110), Some("b"));
        let twice = [key("a", 0, Some(50)), key("b", 100, None), key("c", 105, None)];
        assert_eq!(signer(&twice, 101), Some("b"), "of young keys the older one");
        assert_eq!(signer(&twice, 200), Some("c"));
    }

    #[test]
    fn an_expired_key_stays_published_for_a_month() {
        let old = key("a", 0, Some(10));
        let at = |minutes| DateTime::UNIX_EPOCH + Duration::minutes(minutes);
        assert!(old.verifies(at(9)) && !old.verifies(at(10)));
        assert!(old.is_published(at(11)) && !old.is_published(at(10) + KEY_AFTERLIFE));
    }
}
