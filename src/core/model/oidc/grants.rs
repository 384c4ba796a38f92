//! Codes and tokens as they are stored, and what a presented one is worth (contract `auth.md` §3.6, §7.4, F-10).

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use super::authorize::Accepted;
use crate::core::model::ids::{SessionId, UserId};

/// How long a code may be redeemed.
pub const CODE_LIFETIME: Duration = Duration::minutes(10);
/// How long a token is kept after its end (contract `auth.md` §13).
pub const TOKENS_KEPT: Duration = Duration::days(30);
/// How long an access token lives.
pub const ACCESS_LIFETIME: Duration = Duration::hours(1);
/// How long an ID token lives.
pub const ID_LIFETIME: Duration = Duration::hours(10);
/// How long a refresh token lives.
pub const REFRESH_LIFETIME: Duration = Duration::days(30);

/// What a code stands for: the JSON of a `verification` row, in the reference's spelling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CodeGrant {
    /// Always `authorization_code`.
    pub r#type: CodeKind,
    /// The accepted parameters of the authorization request.
    pub query: Accepted,
    /// Who agreed.
    pub user_id: UserId,
    /// In which session.
    pub session_id: SessionId,
    /// When that session was opened, epoch ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<i64>,
}

/// Tells code rows from other rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CodeKind {
    /// A code.
    #[serde(rename = "authorization_code")]
    AuthorizationCode,
}

/// One row of `oauth_refresh_token`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshRow {
    /// Row id.
    pub id: String,
    /// The digest of the token.
    pub digest: String,
    /// Who may present it.
    pub client_id: String,
    /// The session it came from, while that exists.
    pub session: Option<SessionId>,
    /// For whom it speaks.
    pub user: UserId,
    /// Not valid from then on.
    pub expires_at: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was replaced or taken back.
    pub revoked: Option<DateTime<Utc>>,
    /// When its person signed in.
    pub auth_time: Option<DateTime<Utc>>,
    /// What it may renew.
    pub scopes: Vec<String>,
    /// Names all tokens that grew out of one code; rows of the reference have none until they are replaced.
    pub family: Option<String>,
}

/// One row of `oauth_access_token`: an access token that says nothing by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpaqueRow {
    /// Row id.
    pub id: String,
    /// The digest of the token.
    pub digest: String,
    /// Whose token it is.
    pub client_id: String,
    /// The session it came from, while that exists.
    pub session: Option<SessionId>,
    /// For whom it speaks.
    pub user: UserId,
    /// Not valid from then on.
    pub expires_at: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// What it allows.
    pub scopes: Vec<String>,
}

/// What one answer of the token endpoint has to store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTokens {
    /// A refresh token, when one was asked for.
    pub refresh: Option<RefreshRow>,
    /// An opaque access token, when no resource was named.
    pub opaque: Option<OpaqueRow>,
}

/// What became of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redemption {
    /// It is gone and the tokens are stored.
    Redeemed,
    /// It was gone already; every token that grew out of it is revoked.
    Spent,
    /// It is gone, and so is the session it was made in: nothing was stored.
    SessionOver,
}

/// What became of a refresh token that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It was replaced.
    Rotated,
    /// It had been replaced a moment ago and got a sister of that replacement.
    Forked,
    /// It had been replaced long ago: somebody has a copy. The whole family is revoked.
    Reused,
    /// Its family had been revoked before, or it is gone.
    Dead,
}

/// How a presented token is to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Replace it.
    Rotate,
    /// Give it a sister of its replacement.
    Fork,
    /// Revoke the family.
    Punish,
    /// Refuse; there is nothing left to revoke.
    Refuse,
}

/// Judges a presented token. `is_family_alive` says whether any token of the family is neither revoked nor expired: a
/// family that was ended on purpose, by a sign-out, must not come back within the grace.
pub fn judge(revoked: Option<DateTime<Utc>>, is_family_alive: bool, now: DateTime<Utc>, grace: Duration) -> Verdict {
    match revoked {
        None => Verdict::Rotate,
        Some(_) if !is_family_alive => Verdict::Refuse,
        Some(at) if now - at < grace => Verdict::Fork,
        Some(_) => Verdict::Punish,
    }
}

/// The scopes of a renewal: those asked for when all of them were granted before, else nothing.
pub fn narrowed(granted: &[String], asked: Option<&str>) -> Option<Vec<String>> {
    let Some(asked) = asked.filter(|text| !text.trim().is_empty()) else { return Some(granted.to_vec()) };
    let asked: Vec<String> = asked.split_whitespace().map(str::to_owned).collect();
    asked.iter().all(|scope| granted.contains(scope)).then_some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_presented_token_is_judged_by_its_family_and_its_age() {
        let now = DateTime::UNIX_EPOCH + Duration::hours(1);
        let ago = |seconds| Some(now - Duration::seconds(seconds));
        let grace = Duration::seconds(30);
        for (revoked, alive, verdict) in [
            (None, true, Verdict::Rotate),
            (None, false, Verdict::Rotate),
            (ago(0), true, Verdict::Fork),
            (ago(29), true, Verdict::Fork),
            (ago(30), true, Verdict::Punish),
            (ago(3_600), true, Verdict::Punish),
            (ago(0), false, Verdict::Refuse),
            (ago(3_600), false, Verdict::Refuse),
        ] {
            assert_eq!(judge(revoked, alive, now, grace), verdict, "{revoked:?} {alive}");
        }
        assert_eq!(judge(ago(0), true, now, Duration::zero()), Verdict::Punish, "without grace reuse is reuse");
    }

    #[test]
    fn a_renewal_never_widens_its_scopes() {
        let granted = ["openid".to_owned(), "email".to_owned()];
        assert_eq!(narrowed(&granted, None).unwrap(), granted);
        assert_eq!(narrowed(&granted, Some("email")).unwrap(), ["email"]);
        assert_eq!(narrowed(&granted, Some("email profile")), None);
    }

    #[test]
    fn a_code_is_stored_as_the_reference_stores_it() {
        let stored = serde_json::json!({
            "type": "authorization_code",
            "query": { "response_type": "code", "client_id": "airi-stage-web", "redirect_uri": "http://localhost:5173/auth/callback",
                "scope": "openid", "state": "s", "code_challenge": "c", "code_challenge_method": "S256" },
            "userId": "u1", "sessionId": "s1", "authTime": 1_700_000_000_123_i64,
        });
        let grant: CodeGrant = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(grant.query.client_id, "airi-stage-web");
        assert_eq!(serde_json::to_value(&grant).unwrap(), stored);
        assert!(serde_json::from_str::<CodeGrant>(r#"{"email":"a@b.co","attempt":0}"#).is_err());
    }
}
