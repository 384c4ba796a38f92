//! Settings about people: how letters reach them, and who else knows them.

use url::Url;

use super::reader::Reader;
use super::{any, filled, url_of};
use crate::adapters::mail::{MailSettings, Sender};
use crate::adapters::social::{Registration, SocialSettings};
use crate::core::model::secret::Secret;

pub(super) fn mail(read: &mut Reader) -> MailSettings {
    let usual = Sender::default();
    MailSettings {
        resend_api_key: read
            .get("mail.resend_api_key", "RESEND_API_KEY", "a key", any)
            .filter(|key| !key.is_empty())
            .map(Secret::new),
        resend_api_base: read
            .get("mail.resend_api_base", "RESEND_API_BASE", "an http or https address", |text| {
                url_of(text, &["http", "https"]).map(|url| url.expose().trim_end_matches('/').to_owned())
            })
            .unwrap_or_else(|| "https://api.resend.com".to_owned()),
        smtp_url: read.get("mail.smtp_url", "SMTP_URL", "smtp://user:password@host:port or smtps://…", |text| {
            url_of(text, &["smtp", "smtps"])
        }),
        from: Sender {
            email: read.get("mail.from_email", "RESEND_FROM_EMAIL", "an address", filled).unwrap_or(usual.email),
            name: read.get("mail.from_name", "RESEND_FROM_NAME", "a name", any).unwrap_or(usual.name),
        },
    }
}

/// Providers without both an id and a secret are off.
pub(super) fn social(read: &mut Reader) -> SocialSettings {
    let google = Names {
        client_id: ("accounts.google_client_id", "AUTH_GOOGLE_CLIENT_ID"),
        client_secret: ("accounts.google_client_secret", "AUTH_GOOGLE_CLIENT_SECRET"),
        authorize_url: ("accounts.google_authorize_url", "AUTH_GOOGLE_AUTHORIZE_URL"),
        token_url: ("accounts.google_token_url", "AUTH_GOOGLE_TOKEN_URL"),
    };
    let github = Names {
        client_id: ("accounts.github_client_id", "AUTH_GITHUB_CLIENT_ID"),
        client_secret: ("accounts.github_client_secret", "AUTH_GITHUB_CLIENT_SECRET"),
        authorize_url: ("accounts.github_authorize_url", "AUTH_GITHUB_AUTHORIZE_URL"),
        token_url: ("accounts.github_token_url", "AUTH_GITHUB_TOKEN_URL"),
    };
    let at_google = ["https://accounts.google.com/o/oauth2/v2/auth", "https://oauth2.googleapis.com/token"];
    let at_github = ["https://github.com/login/oauth/authorize", "https://github.com/login/oauth/access_token"];
    let google = registration(read, &google, at_google, String::new());
    let api = read.get("accounts.github_api_base", "AUTH_GITHUB_API_BASE", ADDRESS, |text| {
        web(text).map(|url| url.as_str().trim_end_matches('/').to_owned())
    });
    let github = registration(read, &github, at_github, api.unwrap_or_else(|| "https://api.github.com".to_owned()));
    SocialSettings { google, github }
}

/// What the keys of a provider are called: in the file and in the environment.
struct Names {
    client_id: (&'static str, &'static str),
    client_secret: (&'static str, &'static str),
    authorize_url: (&'static str, &'static str),
    token_url: (&'static str, &'static str),
}

const ADDRESS: &str = "an http or https address";

fn registration(read: &mut Reader, names: &Names, usual: [&str; 2], api_base: String) -> Option<Registration> {
    let client_id = read.get(names.client_id.0, names.client_id.1, "a client id", any).filter(|id| !id.is_empty());
    let secret = read.get(names.client_secret.0, names.client_secret.1, "a secret text", any);
    let secret = secret.filter(|secret| !secret.is_empty());
    let authorize_url = read.get(names.authorize_url.0, names.authorize_url.1, ADDRESS, web);
    let token_url = read.get(names.token_url.0, names.token_url.1, ADDRESS, web);
    match (client_id, secret) {
        (Some(client_id), Some(secret)) => Some(Registration {
            client_id,
            client_secret: Secret::new(secret),
            authorize_url: authorize_url.or_else(|| web(usual[0]))?,
            token_url: token_url.or_else(|| web(usual[1]))?,
            api_base,
        }),
        (None, None) => None,
        (None, Some(_)) => {
            read.missing(names.client_id.0, names.client_id.1, "the secret is set");
            None
        }
        (Some(_), None) => {
            read.missing(names.client_secret.0, names.client_secret.1, "the client id is set");
            None
        }
    }
}

fn web(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}
