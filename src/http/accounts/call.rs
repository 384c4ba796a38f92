//! One call of an identity door: what was sent, judged and laid out, so that a door reads fields and nothing else.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use poem::endpoint::BoxEndpoint;
use poem::http::header::{ACCEPT_LANGUAGE, CONTENT_TYPE, USER_AGENT};
use poem::http::{HeaderMap, Method, StatusCode};
use poem::{EndpointExt, IntoResponse, Request, Response};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::limits::subscriber;
use super::refused::Refused;
use super::trust::Scrutiny;
use crate::core::App;
use crate::core::accounts::{Device, Refusal};
use crate::core::error::{Code, Error};
use crate::core::model::accounts::Email;
use crate::core::model::fact::Fact;
use crate::core::model::principal::Principal;
use crate::core::model::secret::Secret;
use crate::core::model::texts::Language;
use crate::http::auth::{Caller, Doorkeeper};
use crate::http::error::speak;
use crate::http::middleware::client_address::ClientAddress;

/// How a door treats what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Kind {
    /// A body of JSON; origin and callbacks are judged.
    Json,
    /// The same for sign-in and sign-up, which also read forms.
    SignIn,
    /// Nothing is judged before the door does it; a body that cannot be read has no fields.
    Free,
    /// A link: these query fields must lead home.
    Link(&'static [&'static str]),
}

/// What was sent.
pub(in crate::http) struct Call {
    /// The use-cases.
    pub(in crate::http) app: Arc<App>,
    /// Knows callers.
    pub(in crate::http) keeper: Doorkeeper,
    /// Every header.
    pub(in crate::http) headers: HeaderMap,
    /// Query fields; of repeated ones the last.
    pub(in crate::http) query: BTreeMap<String, String>,
    /// Body fields.
    pub(in crate::http) body: Map<String, Value>,
    /// The last segment of the path.
    pub(in crate::http) last_segment: String,
    address: Option<IpAddr>,
}

/// Fields that lead somewhere, and the word for one that leads astray.
const CALLBACKS: [(&str, &str, &str); 4] = [
    ("callbackURL", "INVALID_CALLBACK_URL", "Invalid callbackURL"),
    ("redirectTo", "INVALID_REDIRECT_URL", "Invalid redirectURL"),
    ("errorCallbackURL", "INVALID_ERROR_CALLBACK_URL", "Invalid errorCallbackURL"),
    ("newUserCallbackURL", "INVALID_NEW_USER_CALLBACK_URL", "Invalid newUserCallbackURL"),
];

/// An endpoint that judges a request and hands it to a door.
pub(in crate::http) fn door<F, R>(kind: Kind, handler: F) -> BoxEndpoint<'static, Response>
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Response, Refused>> + Send + 'static,
{
    let handler = Arc::new(handler);
    poem::endpoint::make(move |req| {
        let handler = handler.clone();
        async move { Ok::<_, poem::Error>(answer(req, kind, handler.as_ref()).await) }
    })
    .boxed()
}

async fn answer<F, R>(req: Request, kind: Kind, handler: &F) -> Response
where
    F: Fn(Call) -> R + Send + Sync,
    R: Future<Output = Result<Response, Refused>> + Send,
{
    let method = attempt_of(req.uri().path());
    let call = match Call::read(req, kind).await {
        Ok(call) => call,
        Err(answer) => return answer,
    };
    if let Err(refused) = call.judge(kind) {
        return refused.into_response();
    }
    let app = call.app.clone();
    if let Some(method) = method {
        app.journal.record(Fact::AuthAttempted { method });
    }
    let answer = handler(call).await.unwrap_or_else(IntoResponse::into_response);
    let failed = answer.status().is_client_error() || answer.status().is_server_error();
    if let Some(method) = method.filter(|_| failed) {
        app.journal.record(Fact::AuthFailed { method });
    }
    answer
}

fn attempt_of(path: &str) -> Option<&'static str> {
    let rest = path.strip_prefix("/api/auth/sign-in/").or_else(|| path.strip_prefix("/api/auth/sign-up/"))?;
    ["email", "social", "magic-link"].into_iter().find(|known| *known == rest)
}

impl Call {
    async fn read(mut req: Request, kind: Kind) -> Result<Self, Response> {
        let missing = || Refused::from(Error::new(Code::Internal).because("no doorkeeper here")).into_response();
        let app = req.data::<Arc<App>>().cloned().ok_or_else(missing)?;
        let keeper = req.data::<Doorkeeper>().cloned().ok_or_else(missing)?;
        let query = form_urlencoded::parse(req.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
        let path = req.uri().path().to_owned();
        let last_segment = path.rsplit('/').next().unwrap_or_default().to_owned();
        let address = req.extensions().get::<ClientAddress>().map(|address| address.0);
        let mut body = Map::new();
        if req.method() == Method::POST {
            let bytes = match req.take_body().into_bytes().await {
                Ok(bytes) => bytes,
                Err(unread) => return Err(speak(unread.into(), &Method::POST, &path)),
            };
            body = match fields(&bytes, req.headers(), kind) {
                Ok(fields) => fields,
                // These doors have their own word for a field that is not there, or need none.
                Err(_) if kind == Kind::Free => Map::new(),
                Err(refused) => return Err(refused.into_response()),
            };
        }
        Ok(Self { app, keeper, headers: req.headers().clone(), query, body, last_segment, address })
    }

    fn judge(&self, kind: Kind) -> Result<(), Refused> {
        let trusted = self.keeper.trust.of(&self.headers);
        let judged: &[&str] = match kind {
            Kind::Free => return Ok(()),
            Kind::Link(fields) => fields,
            Kind::Json | Kind::SignIn => {
                let scrutiny = if kind == Kind::SignIn { Scrutiny::SignIn } else { Scrutiny::Usual };
                self.keeper.trust.judge(&self.headers, scrutiny)?;
                &["callbackURL", "redirectTo", "errorCallbackURL", "newUserCallbackURL"]
            }
        };
        for (name, code, message) in CALLBACKS.iter().filter(|(name, ..)| judged.contains(name)) {
            let in_body = self.body.get(*name).and_then(Value::as_str);
            let in_query = self.query.get(*name).map(String::as_str);
            for address in [in_body, in_query].into_iter().flatten().filter(|address| !address.is_empty()) {
                if !trusted.leads_home(address) {
                    return Err(Refused::Told(StatusCode::FORBIDDEN, code, (*message).to_owned()));
                }
            }
        }
        Ok(())
    }

    /// Who is calling, if anybody we know.
    pub(in crate::http) async fn caller(&self) -> Result<Option<Caller>, Error> {
        self.keeper.identify(&self.headers).await
    }

    /// Who is calling; nobody is refused.
    pub(in crate::http) async fn somebody(&self) -> Result<Caller, Refused> {
        self.caller().await?.ok_or_else(|| Refusal::Unauthorized.into())
    }

    /// The principal of whoever is calling, if anybody.
    pub(in crate::http) async fn principal(&self) -> Result<Option<Principal>, Error> {
        Ok(self.caller().await?.map(|caller| caller.principal))
    }

    /// A text of the body, if it is there.
    pub(in crate::http) fn text(&self, name: &str) -> Result<Option<&str>, Refused> {
        match self.body.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refused::field("body", name, "Invalid input: expected string")),
        }
    }

    /// A text the body must have.
    pub(in crate::http) fn required(&self, name: &str) -> Result<&str, Refused> {
        self.text(name)?.ok_or_else(|| Refused::field("body", name, "Invalid input: expected string"))
    }

    /// A secret text the body must have, not empty.
    pub(in crate::http) fn secret(&self, name: &str) -> Result<Secret, Refused> {
        let text = self.required(name)?;
        if text.is_empty() {
            return Err(Refused::field("body", name, "Too small: expected string to have >=1 characters"));
        }
        Ok(Secret::new(text))
    }

    /// An address the body must have.
    pub(in crate::http) fn email(&self, name: &str) -> Result<Email, Refused> {
        Email::parse(self.required(name)?).map_err(|_| Refused::field("body", name, "Invalid email address"))
    }

    /// A flag of the body; forms spell it.
    pub(in crate::http) fn flag(&self, name: &str) -> Result<Option<bool>, Refused> {
        match self.body.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" => Ok(Some(false)),
            Some(_) => Err(Refused::field("body", name, "Invalid input: expected boolean")),
        }
    }

    /// Where the body, else the query, leads on to; judged already.
    pub(in crate::http) fn callback(&self) -> Result<Option<String>, Refused> {
        let in_body = self.text("callbackURL")?.map(str::to_owned);
        Ok(in_body.or_else(|| self.asked("callbackURL")).filter(|address| !address.is_empty()))
    }

    /// A field of the query, if it is there.
    pub(in crate::http) fn asked(&self, name: &str) -> Option<String> {
        self.query.get(name).cloned()
    }

    /// Where the request came from.
    pub(in crate::http) fn peer(&self) -> Option<IpAddr> {
        self.address
    }

    /// What the caller uses (contract `auth.md` §4.1).
    pub(in crate::http) fn device(&self) -> Device {
        let agent = self.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        Device {
            address: self.address.map(subscriber).unwrap_or_default(),
            agent: agent.chars().take(LONGEST_AGENT).collect(),
        }
    }

    /// What the caller reads.
    pub(in crate::http) fn language(&self) -> Language {
        let accept = self.headers.get(ACCEPT_LANGUAGE).and_then(|accept| accept.to_str().ok());
        Language::preferred(accept.unwrap_or_default())
    }
}

/// Characters kept of what a client calls itself.
const LONGEST_AGENT: usize = 512;

fn fields(bytes: &[u8], headers: &HeaderMap, kind: Kind) -> Result<Map<String, Value>, Refused> {
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    let media = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media == "application/x-www-form-urlencoded" && matches!(kind, Kind::SignIn | Kind::Free) {
        let pairs = form_urlencoded::parse(bytes).into_owned();
        return Ok(pairs.map(|(name, value)| (name, Value::String(value))).collect());
    }
    if media != "application/json" && !media.ends_with("+json") {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Refused::Told(
            status,
            "UNSUPPORTED_MEDIA_TYPE",
            "Content-Type must be application/json".to_owned(),
        ));
    }
    let unusable = |why: &str| Refused::Told(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", format!("[body] {why}"));
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(unusable("Invalid input: expected object")),
        Err(_) => Err(unusable("Invalid JSON")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sign_in_attempts_are_counted() {
        assert_eq!(attempt_of("/api/auth/sign-in/email"), Some("email"));
        assert_eq!(attempt_of("/api/auth/sign-up/email"), Some("email"));
        assert_eq!(attempt_of("/api/auth/sign-in/magic-link"), Some("magic-link"));
        assert_eq!(attempt_of("/api/auth/sign-in/other"), None);
        assert_eq!(attempt_of("/api/auth/get-session"), None);
    }
}
