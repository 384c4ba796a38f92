//! Google and GitHub (contract `auth.md` §6.5), by the `oauth2` crate over our HTTP client.

mod profiles;

use std::time::Duration;

use async_trait::async_trait;
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AuthType, AuthorizationCode, Client as OAuthClient, ClientId, ClientSecret, ExtraTokenFields, HttpRequest,
    HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, StandardRevocableToken, StandardTokenResponse,
    TokenResponse, TokenUrl,
};
use reqwest::{Client, Request, Response, redirect};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::Url;

use crate::core::model::secret::Secret;
use crate::core::model::social::{Arrived, Profile, Provider, ProviderTokens, Unknown};
use crate::ports::social::{Departure, Return, SocialLogin};
use crate::ports::{Fault, FaultKind};

/// How the installation is known at the providers.
#[derive(Clone, Debug, Default)]
pub struct SocialSettings {
    /// At Google, if at all.
    pub google: Option<Registration>,
    /// At GitHub, if at all.
    pub github: Option<Registration>,
}

/// One registration, and where the provider is.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Our id there.
    pub client_id: String,
    /// Our secret there.
    pub client_secret: Secret,
    /// Where browsers go.
    pub authorize_url: Url,
    /// Where codes are exchanged.
    pub token_url: Url,
    /// Where GitHub tells who somebody is, without a trailing slash.
    pub api_base: String,
}

/// The providers over HTTP.
pub struct HttpSocial {
    settings: SocialSettings,
    client: Client,
}

/// GitHub refuses requests without one.
const USER_AGENT: &str = concat!("airi-server/", env!("CARGO_PKG_VERSION"));
const LIMIT: Duration = Duration::from_secs(10);
/// Longest answer that is read, bytes.
const LONGEST: usize = 256 * 1024;

type Tokens = StandardTokenResponse<IdToken, BasicTokenType>;

/// What OpenID Connect adds to a token answer.
#[derive(Debug, Serialize, Deserialize)]
struct IdToken {
    id_token: Option<String>,
}

impl ExtraTokenFields for IdToken {}

/// Why a provider could not be asked. Says nothing of what was sent.
#[derive(Debug, Error)]
enum Unasked {
    #[error("the request could not be built")]
    Unbuilt,
    #[error("the provider did not answer")]
    Unreachable,
    #[error("the answer is longer than {LONGEST} bytes")]
    TooLong,
}

impl HttpSocial {
    /// Uses the registrations of the settings.
    pub fn new(settings: SocialSettings) -> Result<Self, Fault> {
        let client = Client::builder()
            .user_agent(USER_AGENT)
            // A redirect would take the secret along.
            .redirect(redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(LIMIT)
            .build()
            .map_err(|error| Fault::new(FaultKind::Unavailable, "social.client", error))?;
        Ok(Self { settings, client })
    }

    fn registration(&self, provider: Provider) -> Option<&Registration> {
        match provider {
            Provider::Google => self.settings.google.as_ref(),
            Provider::GitHub => self.settings.github.as_ref(),
        }
    }

    async fn tokens(&self, known: &Registration, returned: &Return<'_>) -> Option<Tokens> {
        let client = OAuthClient::<
            BasicErrorResponse,
            Tokens,
            BasicTokenIntrospectionResponse,
            StandardRevocableToken,
            BasicRevocationErrorResponse,
        >::new(ClientId::new(known.client_id.clone()))
        .set_client_secret(ClientSecret::new(known.client_secret.expose().to_owned()))
        .set_token_uri(TokenUrl::from_url(known.token_url.clone()))
        .set_redirect_uri(RedirectUrl::new(returned.redirect_uri.to_owned()).ok()?)
        .set_auth_type(AuthType::RequestBody);
        let exchange = client
            .exchange_code(AuthorizationCode::new(returned.code.to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(returned.verifier.to_owned()));
        let send = |request: HttpRequest| send(self.client.clone(), request);
        exchange.request_async(&send).await.ok()
    }

    /// A JSON answer of the provider's API, for whoever holds the token.
    async fn ask(&self, url: &str, token: &str) -> Option<Vec<u8>> {
        let request = self.client.get(url).bearer_auth(token).header("accept", "application/json");
        let answer = request.send().await.ok().filter(|answer| answer.status().is_success())?;
        limited(answer).await.ok()
    }

    async fn profile(&self, provider: Provider, known: &Registration, tokens: &Tokens) -> Option<Profile> {
        match provider {
            Provider::Google => profiles::google(tokens.extra_fields().id_token.as_deref()?, &known.client_id),
            Provider::GitHub => {
                let token = tokens.access_token().secret();
                let user = self.ask(&format!("{}/user", known.api_base), token).await?;
                let emails = self.ask(&format!("{}/user/emails", known.api_base), token).await;
                profiles::github(&user, emails.as_deref())
            }
        }
    }
}

#[async_trait]
impl SocialLogin for HttpSocial {
    fn is_known(&self, provider: Provider) -> bool {
        self.registration(provider).is_some()
    }

    fn address<'a>(&self, provider: Provider, departure: &Departure<'a>) -> Option<String> {
        let known = self.registration(provider)?;
        let usual: &[&str] = match provider {
            Provider::Google => &["email", "profile", "openid"],
            Provider::GitHub => &["read:user", "user:email"],
        };
        let mut scopes: Vec<&str> = usual.to_vec();
        scopes.extend(departure.scopes.iter().map(String::as_str).filter(|scope| !usual.contains(scope)));
        let verifier = PkceCodeVerifier::new(departure.verifier.to_owned());
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        let mut url = known.authorize_url.clone();
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &known.client_id)
            .append_pair("state", departure.state)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("redirect_uri", departure.redirect_uri);
        if let Some(hint) = departure.login_hint {
            query.append_pair("login_hint", hint);
        }
        query.append_pair("code_challenge_method", "S256").append_pair("code_challenge", challenge.as_str());
        if provider == Provider::Google {
            query.append_pair("include_granted_scopes", "true");
        }
        drop(query);
        Some(url.into())
    }

    #[tracing::instrument(name = "social.exchange", skip_all, fields(provider = provider.wire()))]
    async fn exchange<'a>(&self, provider: Provider, returned: &Return<'a>) -> Result<Arrived, Unknown> {
        let known = self.registration(provider).ok_or(Unknown::InvalidCode)?;
        let tokens = self.tokens(known, returned).await.ok_or(Unknown::InvalidCode)?;
        let profile = self.profile(provider, known, &tokens).await.ok_or(Unknown::NoUserInfo)?;
        let scopes = tokens.scopes().into_iter().flatten();
        let granted = ProviderTokens {
            access: Some(Secret::new(tokens.access_token().secret())),
            refresh: tokens.refresh_token().map(|token| Secret::new(token.secret())),
            id: tokens.extra_fields().id_token.as_deref().map(Secret::new),
            access_lifetime: tokens.expires_in().and_then(|life| chrono::Duration::from_std(life).ok()),
            scopes: scopes.map(|scope| scope.to_string()).collect(),
        };
        Ok(Arrived { profile, tokens: granted })
    }
}

async fn send(client: Client, request: HttpRequest) -> Result<HttpResponse, Unasked> {
    let request = Request::try_from(request).map_err(|_| Unasked::Unbuilt)?;
    let answer = client.execute(request).await.map_err(|_| Unasked::Unreachable)?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut read = HttpResponse::new(limited(answer).await?);
    *read.status_mut() = status;
    *read.headers_mut() = headers;
    Ok(read)
}

async fn limited(mut answer: Response) -> Result<Vec<u8>, Unasked> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|_| Unasked::Unreachable)? {
        if body.len() + chunk.len() > LONGEST {
            return Err(Unasked::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
