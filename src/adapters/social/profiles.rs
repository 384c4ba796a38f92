//! How the providers tell who somebody is.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::core::model::accounts::Email;
use crate::core::model::social::Profile;

#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: Value,
    email: Option<String>,
    email_verified: Option<Value>,
    #[serde(default)]
    name: String,
    picture: Option<String>,
}

/// The person of an ID token that came straight from the provider: TLS vouches for it in place of its signature
/// (OpenID Connect Core §3.1.3.7), and it must have been made for us.
pub(super) fn google(id_token: &str, client_id: &str) -> Option<Profile> {
    let claims = URL_SAFE_NO_PAD.decode(id_token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    if claims.aud != client_id || claims.sub.is_empty() {
        return None;
    }
    // Told as a flag or as its name; a provider that says nothing has proved it.
    let verified = match &claims.email_verified {
        None => true,
        Some(Value::String(text)) => text == "true",
        Some(flag) => flag == true,
    };
    Some(Profile {
        account_id: claims.sub,
        email: claims.email.as_deref().and_then(|email| Email::parse(email).ok()),
        email_verified: verified,
        name: claims.name,
        image: claims.picture,
    })
}

#[derive(Deserialize)]
struct User {
    id: u64,
    login: String,
    name: Option<String>,
    email: Option<String>,
    avatar_url: Option<String>,
}

#[derive(Deserialize)]
struct Address {
    email: String,
    #[serde(default)]
    primary: bool,
    #[serde(default)]
    verified: bool,
}

/// The person of GitHub's API. The address is the public one, else the primary one, else the first. An address on the
/// list is as proved as the list says; the reference takes every one for proved.
pub(super) fn github(user: &[u8], addresses: Option<&[u8]>) -> Option<Profile> {
    let user: User = serde_json::from_slice(user).ok()?;
    let listed: Vec<Address> = addresses.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    let primary = listed.iter().find(|address| address.primary).or_else(|| listed.first());
    let email = user.email.filter(|email| !email.is_empty()).or_else(|| Some(primary?.email.clone()));
    let is_it = |address: &&Address| Some(&address.email) == email.as_ref();
    let email_verified = listed.iter().find(is_it).is_none_or(|address| address.verified);
    Some(Profile {
        account_id: user.id.to_string(),
        email: email.as_deref().and_then(|email| Email::parse(email).ok()),
        email_verified,
        name: user.name.filter(|name| !name.is_empty()).unwrap_or(user.login),
        image: user.avatar_url,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id_token(claims: &Value) -> String {
        format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn an_id_token_tells_who_it_was_made_for_and_about() {
        let claims = json!({ "sub": "1", "aud": "us", "email": "A@B.co", "name": "Ann", "picture": "https://p" });
        let profile = google(&id_token(&claims), "us").unwrap();
        assert_eq!(profile.email, Some(Email::parse("a@b.co").unwrap()));
        assert!(profile.email_verified);
        assert_eq!((profile.account_id.as_str(), profile.name.as_str()), ("1", "Ann"));
        assert_eq!(google(&id_token(&claims), "somebody else"), None);
        for (told, verified) in [(json!(false), false), (json!("false"), false), (json!("true"), true)] {
            let mut claims = claims.clone();
            claims["email_verified"] = told;
            assert_eq!(google(&id_token(&claims), "us").unwrap().email_verified, verified);
        }
        for bad in ["", "a", "a.b.c", "a.e30.c"] {
            assert_eq!(google(bad, "us"), None, "{bad}");
        }
    }

    #[test]
    fn the_address_is_the_public_one_then_the_primary_one() {
        let user = |email: Value| json!({ "id": 7, "login": "ann", "email": email }).to_string();
        let list =
            json!([{ "email": "x@b.co", "verified": true }, { "email": "p@b.co", "primary": true, "verified": false }]);
        let list = list.to_string();
        let told = |user: String, list: Option<&str>| {
            let profile = github(user.as_bytes(), list.map(str::as_bytes)).unwrap();
            (profile.email.map(|email| email.as_str().to_owned()), profile.email_verified, profile.name)
        };
        assert_eq!(told(user(Value::Null), Some(&list)), (Some("p@b.co".into()), false, "ann".into()));
        assert_eq!(told(user(json!("x@b.co")), Some(&list)), (Some("x@b.co".into()), true, "ann".into()));
        assert_eq!(told(user(json!("x@b.co")), None), (Some("x@b.co".into()), true, "ann".into()));
        assert_eq!(told(user(Value::Null), None), (None, true, "ann".into()));
        assert_eq!(github(b"{}", None), None);
    }
}
