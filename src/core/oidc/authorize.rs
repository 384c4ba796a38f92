//! From a request to a code (contract `auth.md` §7.3).

use super::{Oidc, Refusal, invalid, is_text};
use crate::core::error::Error;
use crate::core::model::ids::SessionId;
use crate::core::model::oidc::SignIn;
use crate::core::model::oidc::authorize::{Accepted, Unusable, with_parameters};
use crate::core::model::oidc::clients::{Client, DESKTOP, RelayState};
use crate::core::model::oidc::grants::{CODE_LIFETIME, CodeGrant, CodeKind};
use crate::core::model::principal::Principal;

/// What follows from an authorization request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorized {
    /// A parameter means nothing; nobody is redirected.
    Unusable(Unusable),
    /// The client cannot be told: its address is not known to be its own.
    ErrorPage(Refusal),
    /// The person has to sign in; the parameters, for the page to come back with.
    SignIn(String),
    /// The client is told, with a code or a refusal.
    Answer(String),
}

impl Oidc {
    /// Judges a request of this caller. `trusts` says which origins are ours to answer to (contract §2.5).
    pub async fn authorize(
        &self,
        request: &Accepted,
        caller: Option<&Principal>,
        trusts: impl Fn(&str) -> bool,
    ) -> Result<Authorized, Error> {
        if let Err(unusable) = request.check() {
            return Ok(Authorized::Unusable(unusable));
        }
        if request.prompts("select_account") {
            return Ok(Authorized::ErrorPage(invalid(
                "unsupported_prompt_select_account",
                "an account cannot be chosen here",
            )));
        }
        let client = match self.client_of(request).await? {
            Ok(client) => client,
            Err(refusal) => return Ok(Authorized::ErrorPage(refusal)),
        };
        let Some(target) = request.redirect_uri.as_deref().filter(|uri| client.may_answer_to(uri, trusts)) else {
            return Ok(Authorized::ErrorPage(invalid("invalid_redirect", "redirect_uri is not one of this client")));
        };
        if client.client_id == DESKTOP && request.state.as_deref().and_then(RelayState::parse).is_none() {
            return Ok(Authorized::ErrorPage(invalid("invalid_request", "state names no port of this client")));
        }
        let scopes = match judge(request, &client) {
            Ok(scopes) => scopes,
            Err(refusal) => {
                return self.tell(
                    request,
                    target,
                    &[("error", refusal.error), ("error_description", refusal.description)],
                );
            }
        };
        if request.prompts("login") || request.prompts("create") {
            return Ok(Authorized::SignIn(request.to_query()));
        }
        let signed_in = match caller {
            Some(caller) => self.sign_in_of(caller).await?,
            None => None,
        };
        let Some((session, sign_in)) = signed_in else {
            if request.prompts("none") {
                return self.tell(
                    request,
                    target,
                    &[("error", "login_required"), ("error_description", "nobody is signed in")],
                );
            }
            return Ok(Authorized::SignIn(request.to_query()));
        };
        // There is no page that asks for consent: our own clients need none (contract F-33).
        if request.prompts("consent") || !client.skip_consent {
            return self.tell(
                request,
                target,
                &[("error", "consent_required"), ("error_description", "consent cannot be given here")],
            );
        }
        let query = Accepted { scope: Some(scopes.join(" ")), ..request.clone() };
        let code = self.issue(query, session, sign_in).await?;
        self.tell(request, target, &[("code", &code)])
    }

    async fn client_of(&self, request: &Accepted) -> Result<Result<Client, Refusal>, Error> {
        if !is_text(&request.client_id) {
            return Ok(Err(invalid("invalid_client", "there is no such client")));
        }
        Ok(match self.clients.find(&request.client_id).await? {
            None => Err(invalid("invalid_client", "there is no such client")),
            Some(client) if client.disabled => Err(invalid("client_disabled", "this client is disabled")),
            Some(client) => Ok(client),
        })
    }

    /// The live session of a caller, and when it was opened.
    async fn sign_in_of(&self, caller: &Principal) -> Result<Option<(SessionId, SignIn)>, Error> {
        let Some(session) = caller.session() else { return Ok(None) };
        let found = self.grants.sign_in_of(session).await?;
        let live = found.filter(|found| found.user == *caller.user() && found.ends > self.clock.now());
        Ok(live.map(|sign_in| (session.clone(), sign_in)))
    }

    async fn issue(&self, query: Accepted, session: SessionId, sign_in: SignIn) -> Result<String, Error> {
        let code = self.ids.token();
        let now = self.clock.now();
        // Whole seconds, as the reference stores it.
        let ends = chrono::DateTime::from_timestamp((now + CODE_LIFETIME).timestamp(), 0).unwrap_or(now);
        let grant = CodeGrant {
            r#type: CodeKind::AuthorizationCode,
            query,
            user_id: sign_in.user,
            session_id: session,
            auth_time: Some(sign_in.at.timestamp_millis()),
        };
        self.grants.save_code(&self.tokens.digest(&code), &grant, &self.ids.token(), now, ends).await?;
        Ok(code)
    }

    fn tell(&self, request: &Accepted, target: &str, answer: &[(&str, &str)]) -> Result<Authorized, Error> {
        let issuer = self.issuer.announced();
        let mut parameters = answer.to_vec();
        if let Some(state) = &request.state {
            parameters.push(("state", state));
        }
        // Which server answered (RFC 9207).
        parameters.push(("iss", &issuer));
        Ok(with_parameters(target, &parameters)
            .map_or(Authorized::Unusable(Unusable("redirect_uri")), Authorized::Answer))
    }
}

fn judge(request: &Accepted, client: &Client) -> Result<Vec<String>, Refusal> {
    let scopes = client
        .grantable(request.scope.as_deref())
        .map_err(|_| invalid("invalid_scope", "a scope is not one of this client"))?;
    match (&request.code_challenge, &request.code_challenge_method) {
        (Some(_), Some(_)) => Ok(scopes),
        (None, None) if !client.needs_challenge(&scopes) => Ok(scopes),
        (None, None) => Err(invalid("invalid_request", "code_challenge is required")),
        _ => Err(invalid("invalid_request", "code_challenge and code_challenge_method go together")),
    }
}
