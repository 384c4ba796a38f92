//! Who is at the door: bearer tokens become a [`Principal`], and some principals an [`Administrator`].
//!
//! Two lines of defence. [`guard`] stands before the router and answers for whole prefixes, so that a stranger
//! learns nothing about which paths exist; the extractors [`SignedIn`] and [`AdminAuth`] stand in the signature of
//! every operation that needs them and put its requirement into the API description.

use std::sync::Arc;

use poem::http::header::AUTHORIZATION;
use poem::http::{HeaderMap, Method};
use poem::{Endpoint, IntoResponse, Request, RequestBody, Response};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use super::accounts::cookies::Cookies;
use super::accounts::trust::Trust;
use super::admin::remember_refusal;
use super::error::{ApiError, refuse};
use crate::core::accounts::{Accounts, Resolved};
use crate::core::error::{Code, Error};
use crate::core::model::ids::UserId;
use crate::core::model::principal::{Administrator, Administrators, NotAdministrator, Principal};
use crate::core::oidc::Oidc;

/// A caller whose session is good. Operations that take it are documented as needing a bearer token.
#[derive(Clone, Debug)]
pub struct SignedIn(pub Principal);

/// A caller who may administer (contract `admin.md` §1).
#[derive(Clone, Debug)]
pub struct AdminAuth(pub Administrator);

/// Judges credentials. One is attached to every request as data.
#[derive(Clone)]
pub struct Doorkeeper {
    /// Knows sessions.
    pub accounts: Arc<Accounts>,
    /// Knows signed access tokens.
    pub oidc: Arc<Oidc>,
    /// The addresses that may administer.
    pub administrators: Arc<Administrators>,
    /// Reads and makes cookies.
    pub cookies: Arc<Cookies>,
    /// Knows where browsers may come from and be sent.
    pub trust: Arc<Trust>,
}

/// A caller whose credential is good, and how it was presented.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who they are.
    pub principal: Principal,
    /// The session behind it, when the credential is one.
    pub session: Option<Resolved>,
    /// Whether a cookie said so: then a foreign page may have sent the request.
    pub by_cookie: bool,
}

impl Doorkeeper {
    /// Who sent these headers (contract `auth.md` §4.4). A cookie that is not good does not stand before a bearer token
    /// that is.
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Option<Caller>, Error> {
        if let Some(token) = self.cookies.token(headers) {
            let prolong = !self.cookies.forgets(headers);
            if let Some(session) = self.accounts.resolve_session(&token, prolong).await? {
                return Ok(Some(Caller { principal: session.principal(), session: Some(session), by_cookie: true }));
            }
        }
        let Some(token) = bearer(headers) else { return Ok(None) };
        self.identify_bearer(token).await
    }

    /// Who holds this token: a signed access token, a session token, or one with its signature.
    pub(super) async fn identify_bearer(&self, token: &str) -> Result<Option<Caller>, Error> {
        if !is_usable(token) {
            return Ok(None);
        }
        if Oidc::is_for_us(token) {
            let found = self.oidc.resolve(token).await?;
            return Ok(found.map(|principal| Caller { principal, session: None, by_cookie: false }));
        }
        let signed = if token.contains('.') || token.contains('%') { self.cookies.open(token) } else { None };
        let found = self.accounts.resolve_session(signed.as_deref().unwrap_or(token), true).await?;
        Ok(found.map(|session| Caller { principal: session.principal(), session: Some(session), by_cookie: false }))
    }
}

/// Prefixes that answer 401 to a stranger whatever lies behind them.
const SIGNED_IN_PREFIXES: [&str; 7] = [
    "/api/v1/openai",
    "/api/v1/audio",
    "/api/v1/flux",
    "/api/v1/stripe",
    "/api/v1/chats",
    "/api/v1/characters",
    "/api/v1/providers",
];

/// Paths below those prefixes that everybody may use.
const PUBLIC_PATHS: [&str; 2] = ["/api/v1/stripe/packages", "/api/v1/stripe/webhook"];

/// The prefix that answers 401 and 403 before anything else.
const ADMIN_PREFIX: &str = "/api/admin";

/// Name of the security scheme in the API description.
const SCHEME: &str = "bearer";

/// Longest token that is worth a look, bytes; signed ones carry claims and a signature.
const LONGEST_TOKEN: usize = 4_096;

/// Refuses strangers on guarded prefixes before routing, and resolves the session once for the whole request.
///
/// The answer carries the caller's id for the request line.
pub async fn guard<E: Endpoint>(next: Arc<E>, mut req: Request) -> poem::Result<Response> {
    let path = req.uri().path();
    let admin = is_below(path, ADMIN_PREFIX);
    let guarded = admin || (SIGNED_IN_PREFIXES.iter().any(|prefix| is_below(path, prefix)) && !is_public(path));
    if !guarded {
        return next.call(req).await.map(IntoResponse::into_response);
    }
    let principal = match who(&req).await {
        Ok(principal) => principal,
        Err(error) => return Ok(refuse(error)),
    };
    let user = principal.user().clone();
    if admin {
        match judge(&req, &principal) {
            Ok(administrator) => req.extensions_mut().insert(administrator),
            Err(error) => {
                remember_refusal(&req, &principal).await;
                return Ok(known(refuse(error), user));
            }
        };
    }
    req.extensions_mut().insert(principal);
    match next.call(req).await {
        Ok(answer) => Ok(known(answer.into_response(), user)),
        Err(mut failure) => {
            failure.set_data(user);
            Err(failure)
        }
    }
}

fn known(mut answer: Response, user: UserId) -> Response {
    answer.extensions_mut().insert(user);
    answer
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_public(path: &str) -> bool {
    PUBLIC_PATHS.contains(&path)
}

/// The caller; resolved at most once per request.
async fn who(req: &Request) -> Result<Principal, Error> {
    if let Some(principal) = req.extensions().get::<Principal>() {
        return Ok(principal.clone());
    }
    let keeper = doorkeeper(req)?;
    let caller = keeper.identify(req.headers()).await?.ok_or_else(|| Error::new(Code::Unauthorized))?;
    // A cookie comes along with whatever page sends the request (contract `auth.md` F-30).
    let harmless = matches!(*req.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if caller.by_cookie && !harmless && keeper.trust.judge_origin(req.headers()).is_err() {
        return Err(Error::new(Code::Forbidden).saying("Invalid origin"));
    }
    Ok(caller.principal)
}

/// The caller where strangers are welcome, too.
pub(super) async fn caller(req: &Request) -> Result<Option<Principal>, Error> {
    Ok(doorkeeper(req)?.identify(req.headers()).await?.map(|caller| caller.principal))
}

fn judge(req: &Request, principal: &Principal) -> Result<Administrator, Error> {
    doorkeeper(req)?.administrators.admit(principal).map_err(|refusal| {
        Error::new(Code::Forbidden).saying(match refusal {
            NotAdministrator::Unverified => "Admin access requires a verified email",
            NotAdministrator::NotListed => "Admin access required",
        })
    })
}

fn doorkeeper(req: &Request) -> Result<&Doorkeeper, Error> {
    req.data::<Doorkeeper>().ok_or_else(|| Error::new(Code::Internal).because("no doorkeeper at this route"))
}

/// The token of an `Authorization: Bearer` header; the scheme is compared without case (RFC 9110 §11.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && is_usable(token)).then_some(token)
}

fn is_usable(token: &str) -> bool {
    !token.is_empty() && token.len() <= LONGEST_TOKEN
}

impl<'a> ApiExtractor<'a> for SignedIn {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        describe(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        Ok(Self(who(request).await.map_err(ApiError::from)?))
    }
}

impl<'a> ApiExtractor<'a> for AdminAuth {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        describe(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        if let Some(administrator) = request.extensions().get::<Administrator>() {
            return Ok(Self(administrator.clone()));
        }
        let principal = who(request).await.map_err(ApiError::from)?;
        Ok(Self(judge(request, &principal).map_err(ApiError::from)?))
    }
}

fn describe(registry: &mut Registry) {
    registry.create_security_scheme(
        SCHEME,
        MetaSecurityScheme {
            ty: "http",
            description: Some("A session token or an access token for this server. Administration also needs a verified address on the admin list."),
            name: None,
            key_in: None,
            scheme: Some("bearer"),
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, header.parse().unwrap());
        bearer(&headers).map(str::to_owned)
    }

    #[test]
    fn the_scheme_word_has_no_case_and_only_bearer_counts() {
        for header in ["Bearer abc", "bearer abc", "BEARER   abc "] {
            assert_eq!(token(header).as_deref(), Some("abc"), "{header}");
        }
        for header in ["abc", "Bearer", "Bearer ", "Basic abc", "Bearerabc"] {
            assert_eq!(token(header), None, "{header}");
        }
        assert_eq!(token(&format!("Bearer {}", "a".repeat(4_097))), None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        assert!(is_below("/api/v1/flux", "/api/v1/flux"));
        assert!(is_below("/api/v1/flux/", "/api/v1/flux"));
        assert!(!is_below("/api/v1/fluxus", "/api/v1/flux"));
    }
}
