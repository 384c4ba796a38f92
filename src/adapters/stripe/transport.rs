//! Requests of the `async-stripe` family over our HTTP client (contract §11).

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode, redirect};
use stripe_client_core::{CustomizedStripeRequest, StripeClient, StripeClientErr, StripeMethod};

use super::StripeSettings;
use super::answers::Refusal;
use crate::core::model::secret::Secret;
use crate::ports::billing::PaymentError;
use crate::ports::{Fault, FaultKind};

/// The version whose paths we read; the family would send its own.
const VERSION: &str = "2026-03-25.dahlia";
const TRY: Duration = Duration::from_secs(20);
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A caller waits for the sum of tries and pauses, so a longer wait is not obeyed but ends the tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What an answer may be long.
const LONGEST_ANSWER: usize = 8 * 1024 * 1024;

/// Sends requests, at most three times each.
pub(super) struct Transport {
    client: Client,
    base: String,
    key: Secret,
}

impl Transport {
    pub(super) fn new(settings: &StripeSettings) -> Result<Self, Fault> {
        let client = Client::builder()
            .user_agent(concat!("airi-server/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .connect_timeout(Duration::from_secs(10))
            .timeout(TRY)
            .build()
            .map_err(|error| Fault::new(FaultKind::Unavailable, "stripe.client", error))?;
        let base = settings.base.trim_end_matches('/').to_owned();
        Ok(Self { client, base, key: settings.secret_key.clone() })
    }

    fn headers(&self, once: Option<&str>) -> Result<HeaderMap, SendError> {
        let unusable = |_| SendError::Fault(FaultKind::Corrupt, "a header cannot be sent".to_owned());
        let mut headers = HeaderMap::new();
        let mut key = HeaderValue::from_str(&format!("Bearer {}", self.key.expose())).map_err(unusable)?;
        key.set_sensitive(true);
        headers.insert(AUTHORIZATION, key);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(HeaderName::from_static("stripe-version"), HeaderValue::from_static(VERSION));
        if let Some(once) = once {
            headers.insert(HeaderName::from_static("idempotency-key"), HeaderValue::from_str(once).map_err(unusable)?);
        }
        Ok(headers)
    }

    /// Sends a request once; beside a failure stands the pause the provider asks for.
    async fn attempt(&self, request: reqwest::Request) -> Result<Bytes, (SendError, Option<Duration>)> {
        let broken = |error: reqwest::Error| (SendError::from(error), None);
        let mut answer = self.client.execute(request).await.map_err(broken)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(broken)? {
            if body.len() + piece.len() > LONGEST_ANSWER {
                return Err((SendError::Fault(FaultKind::Corrupt, "an answer without end".to_owned()), None));
            }
            body.extend_from_slice(&piece);
        }
        if status.is_success() {
            return Ok(Bytes::from(body));
        }
        let pause = headers.get(RETRY_AFTER).and_then(|s| s.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        Err((SendError::refused(status, &headers, &body), pause))
    }
}

impl StripeClient for Transport {
    type Err = SendError;

    async fn execute(&self, request: CustomizedStripeRequest) -> Result<Bytes, SendError> {
        let (request, choices) = request.into_pieces();
        let once = choices.request_strategy.and_then(|strategy| strategy.get_key());
        let mut url = format!("{}/v1{}", self.base, request.path);
        if let Some(query) = &request.query {
            url.push('?');
            url.push_str(query);
        }
        let method = match request.method {
            StripeMethod::Get => Method::GET,
            StripeMethod::Post => Method::POST,
            StripeMethod::Delete => Method::DELETE,
        };
        let headers = self.headers(once.as_ref().map(stripe_client_core::IdempotencyKey::as_str))?;
        let mut tried = 0;
        loop {
            let mut attempt = self.client.request(method.clone(), &url).headers(headers.clone());
            if let Some(form) = &request.body {
                let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
                attempt = attempt.header(CONTENT_TYPE, kind).body(form.clone());
            }
            let attempt = attempt.build().map_err(SendError::from)?;
            tried += 1;
            let (error, advised) = match self.attempt(attempt).await {
                Ok(body) => return Ok(body),
                Err((error, _)) if !error.is_passing() => return Err(error),
                Err(passing) => passing,
            };
            let pause = advised.unwrap_or_else(|| pause(tried));
            if tried >= TRIES || pause > LONGEST_PAUSE {
                return Err(error);
            }
            tracing::warn!(path = request.path, tried, error = %error, "payment provider did not answer, trying again");
            tokio::time::sleep(pause).await;
        }
    }
}

/// Twice as long each time, with a random half, so that many callers do not come back at once.
fn pause(tried: u32) -> Duration {
    let whole = FIRST_PAUSE * 2_u32.saturating_pow(tried.saturating_sub(1));
    whole.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// Why a request had no good answer.
#[derive(Debug)]
pub(super) enum SendError {
    /// Nothing usable came.
    Fault(FaultKind, String),
    /// Stripe said no.
    Refused { status: StatusCode, parameter: Option<String>, told: String },
}

impl SendError {
    fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let refusal = std::str::from_utf8(body).ok().and_then(|text| miniserde::json::from_str::<Refusal>(text).ok());
        let details = refusal.map(|refusal| refusal.error);
        let word = |text: Option<&String>| text.map_or("-", String::as_str).to_owned();
        // The message may quote what was sent; type, code and request id are enough to look it up.
        let told = format!(
            "status {} type {} code {} request {}",
            status.as_u16(),
            word(details.as_ref().and_then(|details| details.kind.as_ref())),
            word(details.as_ref().and_then(|details| details.code.as_ref())),
            headers.get("request-id").and_then(|id| id.to_str().ok()).unwrap_or("-"),
        );
        Self::Refused { status, parameter: details.and_then(|details| details.param), told }
    }

    /// Whether another try may end better.
    fn is_passing(&self) -> bool {
        match self {
            Self::Fault(kind, _) => *kind != FaultKind::Corrupt,
            Self::Refused { status, .. } => {
                matches!(*status, StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS) || status.is_server_error()
            }
        }
    }
}

impl Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fault(_, told) | Self::Refused { told, .. } => f.write_str(told),
        }
    }
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        let kind = if error.is_timeout() { FaultKind::Timeout } else { FaultKind::Unavailable };
        // The address may hold ids of customers.
        Self::Fault(kind, error.without_url().to_string())
    }
}

impl StripeClientErr for SendError {
    fn deserialize_err(msg: impl Display) -> Self {
        Self::Fault(FaultKind::Corrupt, msg.to_string())
    }
}

impl From<SendError> for PaymentError {
    fn from(error: SendError) -> Self {
        let passing = error.is_passing();
        match error {
            SendError::Fault(kind, told) => Self::Failed(Fault::new(kind, "stripe", told)),
            SendError::Refused { status: StatusCode::NOT_FOUND, .. } => Self::Missing,
            SendError::Refused { status, told, .. }
                if passing || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) =>
            {
                Self::Failed(Fault::new(FaultKind::Unavailable, "stripe", told))
            }
            SendError::Refused { parameter, told, .. } => Self::Rejected { parameter, told },
        }
    }
}
