//! `/openai`: chat completions for any OpenAI client (contract `gateway.md` §1, §6).

use std::sync::Arc;

use bytes::Bytes;
use poem::http::{HeaderValue, StatusCode};
use poem::web::Data;
use poem::{Endpoint, EndpointExt, IntoResponse, Response};
use poem_openapi::param::Header;
use poem_openapi::payload::{Json, Payload};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::{ApiResponse, OpenApi};

use super::auth::SignedIn;
use super::error::ApiError;
use super::middleware::limit_calls::limit_calls;
use super::openai::{ChatCompletion, ChatCompletionChunk, ChatCompletionRequest, Model, ModelList};
use super::payload::{EventBytes, Raw, RawJson};
use super::spec::{Tag, header};
use crate::core::App;
use crate::core::error::{Code, Error};
use crate::core::llm::{Completion, CompletionCall};
use crate::core::model::idempotency::CallKey;
use crate::core::model::ids::RequestId;
use crate::core::model::limits::CHAT_COMPLETIONS;

/// Paid operations; every one of them is named by the request id that also names its ledger entry.
pub(super) struct LlmApi;

#[OpenApi(prefix_path = "/api/v1/openai", tag = "Tag::Llm")]
impl LlmApi {
    /// Complete a chat
    ///
    /// Members this server does not know are passed on untouched. With `"stream": true` the answer is an event
    /// stream of chunks that ends with `data: [DONE]`; a stream the balance does not afford to its end stops with
    /// `finish_reason` `length`. Admitted are 60 calls per 60 s and user, shared with the alias.
    #[oai(path = "/chat/completions", method = "post", operation_id = "createChatCompletion", transform = "counted")]
    async fn create(
        &self,
        app: Data<&Arc<App>>,
        request: Data<&RequestId>,
        caller: SignedIn,
        /// The caller's own name for the call, 1 to 255 visible ASCII characters. Sent again with the same body within
        /// 24 h, the call is charged once and a whole answer is heard again; with another body it is refused.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<String>>,
        body: Raw<ChatCompletionRequest>,
    ) -> Result<CompletionAnswer, ApiError> {
        complete(&app, (&request, key.0.as_deref()), &caller, body.bytes).await
    }

    /// Complete a chat, under the name older clients use
    #[oai(
        path = "/chat/completion",
        method = "post",
        operation_id = "createChatCompletionAlias",
        transform = "counted",
        deprecated = true
    )]
    async fn create_by_alias(
        &self,
        app: Data<&Arc<App>>,
        request: Data<&RequestId>,
        caller: SignedIn,
        /// The caller's own name for the call, as of the operation it is an alias of.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<String>>,
        body: Raw<ChatCompletionRequest>,
    ) -> Result<CompletionAnswer, ApiError> {
        complete(&app, (&request, key.0.as_deref()), &caller, body.bytes).await
    }

    /// List the models a chat may name
    #[oai(path = "/models", method = "get", operation_id = "listModels")]
    async fn models(&self, app: Data<&Arc<App>>, _caller: SignedIn) -> Result<Json<ModelList>, ApiError> {
        let data = app.completions.models().await?.into_iter().map(Model::named).collect();
        Ok(Json(ModelList { object: "list".to_owned(), data }))
    }
}

async fn complete(
    app: &App,
    (request, key): (&RequestId, Option<&str>),
    caller: &SignedIn,
    body: Bytes,
) -> Result<CompletionAnswer, ApiError> {
    let call = CompletionCall { user: caller.0.user().clone(), request: request.clone(), body };
    let Some(key) = key else {
        return Ok(CompletionAnswer { request: request.clone(), completion: app.completions.complete(call).await? });
    };
    let unusable = "Idempotency-Key must be 1 to 255 visible ASCII characters";
    let key = CallKey::parse(key).ok_or_else(|| Error::new(Code::InvalidRequest).saying(unusable))?;
    let (request, completion) = app.completions.complete_once(call, key).await?;
    Ok(CompletionAnswer { request, completion })
}

fn counted(ep: impl Endpoint + 'static) -> impl Endpoint {
    ep.around(|next, req| limit_calls(next, req, &CHAT_COMPLETIONS))
}

/// One successful answer, as JSON or as events; documented as one row with both media types.
struct CompletionAnswer {
    /// The name of the call in the books; the first one when it is a repetition.
    request: RequestId,
    completion: Completion,
}

type WholeAnswer = RawJson<ChatCompletion>;
type StreamedAnswer = EventBytes<ChatCompletionChunk>;

impl IntoResponse for CompletionAnswer {
    fn into_response(self) -> Response {
        let mut answer = match self.completion {
            Completion::Json { body, charged, clamped } => {
                let mut answer = WholeAnswer::new(body).into_response();
                if let Some(charged) = charged {
                    answer.headers_mut().insert(CHARGED, HeaderValue::from(charged.get()));
                }
                announce(&mut answer, clamped);
                answer
            }
            Completion::Stream { status, content_type, clamped, body } => {
                let mut answer = StreamedAnswer::new(content_type, body).into_response();
                answer.set_status(StatusCode::from_u16(status).unwrap_or(StatusCode::OK));
                announce(&mut answer, clamped);
                answer
            }
        };
        if let Ok(request) = HeaderValue::from_str(self.request.as_str()) {
            answer.headers_mut().insert(REQUEST, request);
        }
        answer
    }
}

/// The name of the call.
const REQUEST: &str = "airi-request-id";
/// What an answer cost, flux.
const CHARGED: &str = "airi-flux-charged";
/// The tokens an answer is limited to.
const CLAMPED: &str = "airi-max-tokens-clamped";

fn announce(answer: &mut Response, clamped: Option<u64>) {
    if let Some(tokens) = clamped {
        answer.headers_mut().insert(CLAMPED, HeaderValue::from(tokens));
    }
}

impl ApiResponse for CompletionAnswer {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "The completion, whole or as events.",
                status: Some(200),
                status_range: None,
                content: vec![
                    MetaMediaType { content_type: WholeAnswer::CONTENT_TYPE, schema: WholeAnswer::schema_ref() },
                    MetaMediaType { content_type: StreamedAnswer::CONTENT_TYPE, schema: StreamedAnswer::schema_ref() },
                ],
                headers: vec![
                    header::<String>(
                        "X-Request-Id",
                        "Names this call in the ledger, in the request log and to support.",
                    ),
                    header::<i64>(
                        CHARGED,
                        "Flux the answer cost. A stream tells it in a last comment, `: airi-flux-charged N`.",
                    ),
                    header::<u64>(
                        CLAMPED,
                        "Tokens per answer the upstream was asked for instead, because the balance affords no more.",
                    ),
                    header::<u32>("RateLimit-Limit", "Calls admitted per window."),
                    header::<u32>("RateLimit-Remaining", "Calls left in this window."),
                    header::<u64>("RateLimit-Reset", "Seconds until the window ends."),
                ],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        WholeAnswer::register(registry);
        StreamedAnswer::register(registry);
    }
}
