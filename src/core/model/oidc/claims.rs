//! What tokens say about their person (contract `auth.md` §7.5).

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::Issuer;
use super::grants::{ACCESS_LIFETIME, ID_LIFETIME};
use crate::core::model::accounts::Account;
use crate::core::model::ids::{SessionId, UserId};

/// The claims of a token.
pub type Claims = Map<String, Value>;

/// How sure we are of the person: a password or another provider's word.
pub const ACR: &str = "urn:mace:incommon:iap:bronze";

/// What an access token is made from.
#[derive(Clone, Copy, Debug)]
pub struct AccessFor<'a> {
    /// For whom it speaks.
    pub user: &'a UserId,
    /// Who asked.
    pub client_id: &'a str,
    /// What it allows.
    pub scopes: &'a [String],
    /// The session it came from, while that exists.
    pub session: Option<&'a SessionId>,
}

/// The claims of an access token made at `now`.
pub fn access(issuer: &Issuer, token: AccessFor<'_>, now: DateTime<Utc>) -> Claims {
    let audience =
        if has(token.scopes, "openid") { json!([issuer.origin(), issuer.userinfo()]) } else { json!(issuer.origin()) };
    object(json!({
        "sub": token.user,
        "aud": audience,
        "azp": token.client_id,
        "scope": token.scopes.join(" "),
        "sid": token.session,
        "iss": issuer.of_tokens(),
        "iat": now.timestamp(),
        "exp": (now + ACCESS_LIFETIME).timestamp(),
    }))
}

/// What an ID token is made from.
#[derive(Clone, Copy, Debug)]
pub struct IdFor<'a> {
    /// The person.
    pub account: &'a Account,
    /// Who asked.
    pub client_id: &'a str,
    /// What may be told.
    pub scopes: &'a [String],
    /// The session it came from, while that exists.
    pub session: Option<&'a SessionId>,
    /// When the person signed in.
    pub auth_time: Option<DateTime<Utc>>,
    /// What the client wants to hear again.
    pub nonce: Option<&'a str>,
}

/// The claims of an ID token made at `now`.
pub fn id(issuer: &Issuer, token: IdFor<'_>, now: DateTime<Utc>) -> Claims {
    let mut claims = person(token.account, token.scopes);
    claims.insert("acr".to_owned(), ACR.into());
    claims.insert("iss".to_owned(), issuer.of_tokens().into());
    claims.insert("aud".to_owned(), token.client_id.into());
    claims.insert("iat".to_owned(), now.timestamp().into());
    claims.insert("exp".to_owned(), (now + ID_LIFETIME).timestamp().into());
    if let Some(at) = token.auth_time {
        claims.insert("auth_time".to_owned(), at.timestamp().into());
    }
    if let Some(nonce) = token.nonce {
        claims.insert("nonce".to_owned(), nonce.into());
    }
    if let Some(session) = token.session {
        claims.insert("sid".to_owned(), session.as_str().into());
    }
    claims
}

/// What may be told about a person: `sub`, and what the scopes name.
pub fn person(account: &Account, scopes: &[String]) -> Claims {
    let mut claims = object(json!({ "sub": account.id }));
    if has(scopes, "profile") {
        claims.insert("name".to_owned(), account.name.as_str().into());
        if let Some(picture) = &account.image {
            claims.insert("picture".to_owned(), picture.as_str().into());
        }
        let words: Vec<&str> = account.name.split_whitespace().collect();
        if let [given @ .., family] = words.as_slice()
            && !given.is_empty()
        {
            claims.insert("given_name".to_owned(), given.join(" ").into());
            claims.insert("family_name".to_owned(), (*family).into());
        }
    }
    if has(scopes, "email") {
        claims.insert("email".to_owned(), account.email.as_str().into());
        claims.insert("email_verified".to_owned(), account.email_verified.into());
    }
    claims
}

/// What an access token of ours proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// For whom it speaks.
    pub user: UserId,
    /// The session it came from.
    pub session: Option<SessionId>,
    /// What it allows.
    pub scopes: Vec<String>,
    /// When it was made.
    pub issued_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// Reads the claims of a token whose signature is good. Nothing unless it is an access token of this server for this
/// server that has not ended: ID tokens name a client as their audience (contract §4.5).
pub fn proven(issuer: &Issuer, claims: &Claims, now: DateTime<Utc>) -> Option<Proven> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let time = |name: &str| claims.get(name).and_then(Value::as_i64).and_then(|at| DateTime::from_timestamp(at, 0));
    let expires_at = time("exp")?;
    if text("iss")? != issuer.of_tokens() || expires_at <= now || !is_for(claims.get("aud")?, issuer.origin()) {
        return None;
    }
    Some(Proven {
        user: UserId::new(text("sub").filter(|user| !user.is_empty())?),
        session: text("sid").map(SessionId::new),
        scopes: text("scope").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        issued_at: time("iat").unwrap_or(now),
        expires_at,
    })
}

/// Whether an `aud` names this audience.
pub fn is_for(audience: &Value, wanted: &str) -> bool {
    match audience {
        Value::String(only) => only == wanted,
        Value::Array(several) => several.iter().any(|one| one == wanted),
        _ => false,
    }
}

/// Whether a list of scopes has this one.
pub fn has(scopes: &[String], wanted: &str) -> bool {
    scopes.iter().any(|scope| scope == wanted)
}

fn object(value: Value) -> Claims {
    match value {
        Value::Object(claims) => claims,
        _ => Claims::new(),
    }
}

#[cfg(test)]
mod tests {
    use chrono::Duration;

    use super::*;
    use crate::core::model::accounts::Email;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn issuer() -> Issuer {
        Issuer::new("http://localhost:3000")
    }

    fn account(name: &str) -> Account {
        Account {
            id: UserId::new("u1"),
            name: name.to_owned(),
            email: Email::stored("a@b.co"),
            email_verified: true,
            image: None,
            created_at: NOW,
            updated_at: NOW,
        }
    }

    fn scopes(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn names_are_taken_apart_at_the_last_word() {
        for (name, given, family) in [
            ("Ada", None, None),
            ("", None, None),
            ("Ada Lovelace", Some("Ada"), Some("Lovelace")),
            ("Ada  King Lovelace", Some("Ada King"), Some("Lovelace")),
        ] {
            let claims = person(&account(name), &scopes("openid profile"));
            assert_eq!(claims.get("given_name").and_then(Value::as_str), given, "{name}");
            assert_eq!(claims.get("family_name").and_then(Value::as_str), family, "{name}");
            assert!(!claims.contains_key("email") && !claims.contains_key("picture"));
        }
        assert_eq!(
            Value::Object(person(&account("x"), &scopes("email"))),
            json!({ "sub": "u1", "email": "a@b.co", "email_verified": true })
        );
    }

    #[test]
    fn an_access_token_has_the_claims_of_the_contract_and_no_others() {
        let (user, session, scopes) = (UserId::new("u1"), SessionId::new("s1"), scopes("openid email"));
        let token = AccessFor { user: &user, client_id: "c", scopes: &scopes, session: Some(&session) };
        let claims = access(&issuer(), token, NOW);
        assert_eq!(
            Value::Object(claims),
            json!({
                "sub": "u1", "aud": ["http://localhost:3000", "http://localhost:3000/api/auth/oauth2/userinfo"],
                "azp": "c", "scope": "openid email", "sid": "s1", "iss": "http://localhost:3000/api/auth",
                "iat": 0, "exp": 3_600,
            })
        );
        let scopes = scopes[1..].to_vec();
        let claims = access(&issuer(), AccessFor { scopes: &scopes, session: None, ..token }, NOW);
        assert_eq!((&claims["aud"], &claims["sid"]), (&json!("http://localhost:3000"), &Value::Null));
    }

    #[test]
    fn an_access_token_proves_its_person_until_it_ends() {
        let (user, scopes) = (UserId::new("u1"), scopes("openid"));
        let token = AccessFor { user: &user, client_id: "c", scopes: &scopes, session: None };
        let good = access(&issuer(), token, NOW);
        assert_eq!(proven(&issuer(), &good, NOW).unwrap().user, user);
        assert!(proven(&issuer(), &good, NOW + Duration::seconds(3_599)).is_some());
        assert!(proven(&issuer(), &good, NOW + Duration::seconds(3_600)).is_none(), "no leeway");
        for (claim, value) in [
            ("iss", json!("http://evil.example/api/auth")),
            ("aud", json!("airi-stage-web")),
            ("aud", json!(["http://localhost:3000/"])),
            ("aud", json!(null)),
            ("sub", json!(7)),
            ("sub", json!("")),
            ("exp", json!("soon")),
            ("exp", json!(i64::MAX)),
            ("exp", json!(1e300)),
        ] {
            let mut bad = good.clone();
            bad.insert(claim.to_owned(), value.clone());
            assert_eq!(proven(&issuer(), &bad, NOW), None, "{claim} {value}");
        }
        assert_eq!(proven(&issuer(), &Claims::new(), NOW), None);
    }

    #[test]
    fn an_id_token_is_for_its_client_and_proves_nothing_to_us() {
        let (account, scopes, session) = (account("Ada"), scopes("openid profile"), SessionId::new("s1"));
        let token = IdFor {
            account: &account,
            client_id: "c",
            scopes: &scopes,
            session: Some(&session),
            auth_time: Some(NOW),
            nonce: Some("n"),
        };
        let claims = id(&issuer(), token, NOW);
        assert_eq!(
            Value::Object(claims.clone()),
            json!({
                "sub": "u1", "name": "Ada", "acr": ACR, "iss": "http://localhost:3000/api/auth", "aud": "c", "iat": 0,
                "exp": 36_000, "auth_time": 0, "nonce": "n", "sid": "s1",
            })
        );
        assert_eq!(proven(&issuer(), &claims, NOW), None);
    }
}
