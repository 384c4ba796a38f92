//! Bodies that pass through untouched, and how values are written in JSON.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::marker::PhantomData;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt};
use poem::{Body, FromRequest, IntoResponse, Request, RequestBody, Response};
use poem_openapi::payload::Payload;
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchemaRef, Registry};
use poem_openapi::types::{ParseFromJSON, ParseFromParameter, ParseResult, ToJSON, Type};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde_json::Value;

/// A request body documented as `S` and carried as the caller wrote it: whoever reads it decides what is unusable.
///
/// Any content type is accepted, as the shipped clients' server does.
#[derive(Debug)]
pub struct Raw<S> {
    /// The body, within the limit of its route.
    pub bytes: Bytes,
    schema: PhantomData<fn() -> S>,
}

impl<'a, S: Type> ApiExtractor<'a> for Raw<S> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        S::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType { content_type: "application/json", schema: S::schema_ref() }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        Ok(Self { bytes: <Bytes as FromRequest>::from_request(request, body).await?, schema: PhantomData })
    }
}

/// An answer body documented as `S` whose JSON text exists already.
#[derive(Debug)]
pub struct RawJson<S> {
    bytes: Bytes,
    schema: PhantomData<fn() -> S>,
}

impl<S> RawJson<S> {
    /// Takes JSON text as it is.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, schema: PhantomData }
    }
}

impl<S: Type> Payload for RawJson<S> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn schema_ref() -> MetaSchemaRef {
        S::schema_ref()
    }

    fn register(registry: &mut Registry) {
        S::register(registry);
    }
}

impl<S: Type> IntoResponse for RawJson<S> {
    fn into_response(self) -> Response {
        Response::builder().content_type("application/json").body(self.bytes)
    }
}

/// An event stream whose events are documented as `S` and whose bytes are sent as they arrive.
///
/// A failure ends the connection abnormally, so that a reader can tell truncation from completion.
pub struct EventBytes<S> {
    content_type: String,
    body: Body,
    schema: PhantomData<fn() -> S>,
}

impl<S> EventBytes<S> {
    /// Takes a stream of event-stream text and the content type it was announced with.
    pub fn new<E>(content_type: String, body: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Self
    where
        E: Error + Send + Sync + 'static,
    {
        let body = body.then(async |item| {
            if item.is_err() {
                // The connection is dropped as it is on a failure; what was said before has to be on its way by then.
                tokio::task::yield_now().await;
            }
            item.map_err(io::Error::other)
        });
        Self { content_type, body: Body::from_bytes_stream(body), schema: PhantomData }
    }
}

impl<S: Type> Payload for EventBytes<S> {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    fn schema_ref() -> MetaSchemaRef {
        S::schema_ref()
    }

    fn register(registry: &mut Registry) {
        S::register(registry);
    }
}

impl<S: Type> IntoResponse for EventBytes<S> {
    fn into_response(self) -> Response {
        Response::builder()
            .content_type(&self.content_type)
            // Asks reverse proxies not to collect events before passing them on.
            .header("x-accel-buffering", "no")
            .body(self.body)
    }
}

/// A member documented as `S` whose JSON exists already; rows of other servers may not fit `S` exactly.
#[derive(Debug)]
pub(super) struct Described<S> {
    value: Value,
    schema: PhantomData<fn() -> S>,
}

impl<S> Described<S> {
    /// Takes a value as it is.
    pub(super) fn new(value: Value) -> Self {
        Self { value, schema: PhantomData }
    }
}

impl<S: Type> Type for Described<S> {
    const IS_REQUIRED: bool = S::IS_REQUIRED;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        S::name()
    }

    fn schema_ref() -> MetaSchemaRef {
        S::schema_ref()
    }

    fn register(registry: &mut Registry) {
        S::register(registry);
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl<S: Type> ParseFromJSON for Described<S> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        Ok(Self::new(value.unwrap_or_default()))
    }
}

impl<S: Type> ToJSON for Described<S> {
    fn to_json(&self) -> Option<Value> {
        Some(self.value.clone())
    }
}

/// A query parameter documented as an integer and kept as the text it came as, because its reader never fails.
#[derive(Debug)]
pub(super) struct LooseInteger(String);

impl LooseInteger {
    /// What was sent.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl Type for LooseInteger {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "integer".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        i32::schema_ref()
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ParseFromParameter for LooseInteger {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Ok(Self(value.to_owned()))
    }
}

/// ISO-8601 UTC with three fraction digits; finer digits are cut, not rounded (contract `chats.md` §1).
pub(super) fn iso_millis(at: &DateTime<Utc>) -> Option<Value> {
    Some(Value::String(at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()))
}

/// The same, and null when there is none.
pub(super) fn iso_millis_if_any(at: &Option<DateTime<Utc>>) -> Option<Value> {
    Some(at.as_ref().and_then(iso_millis).unwrap_or(Value::Null))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_have_three_fraction_digits_which_are_cut() {
        let text = |instant: &str| iso_millis(&instant.parse().unwrap()).unwrap();
        assert_eq!(text("2026-11-22T19:52:11.370999Z"), "2026-11-22T19:52:11.370Z");
        assert_eq!(text("2026-11-22T19:52:11.9999999Z"), "2026-11-22T19:52:11.999Z");
        assert_eq!(text("2026-11-22T20:52:11+01:00"), "2026-11-22T19:52:11.000Z");
    }
}
