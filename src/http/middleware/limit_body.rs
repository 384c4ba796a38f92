//! How long a request body may be, and how long it may take to arrive (contract `observability.md` §7.4).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use poem::http::header::CONTENT_LENGTH;
use poem::{Body, Endpoint, IntoResponse, Request, Response};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use crate::core::error::{Code, Error};
use crate::http::error::refuse;

/// A body passed its limit while it was read. Found again by the error translation below the I/O error it travels in.
#[derive(Clone, Copy, Debug, Error)]
#[error("request body too large")]
pub(crate) struct BodyTooLarge;

/// A body did not arrive within [`BODY_TIME`].
#[derive(Clone, Copy, Debug, Error)]
#[error("request body too slow")]
pub(crate) struct BodyTooSlow;

/// Longest bodies, bytes.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Of most routes.
    pub usual: usize,
    /// Of chat completions, which may carry images.
    pub chat: usize,
}

/// How long a body may take from the first look at it.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Routes whose bodies may carry images.
const CHAT_PREFIX: &str = "/api/v1/openai/chat/";

/// Refuses a body that announces too much, and cuts one that turns out to be too much.
pub async fn limit_body<E: Endpoint>(next: Arc<E>, mut req: Request, limits: BodyLimits) -> poem::Result<Response> {
    let limit = if req.uri().path().starts_with(CHAT_PREFIX) { limits.chat } else { limits.usual };
    if announced(&req).is_some_and(|length| length > limit as u64) {
        return Ok(refuse(Error::new(Code::PayloadTooLarge)));
    }
    let body = req.take_body();
    if !body.is_empty() {
        req.set_body(Body::from_bytes_stream(counted(body.into_bytes_stream(), limit, BODY_TIME)));
    }
    next.call(req).await.map(IntoResponse::into_response)
}

fn announced(req: &Request) -> Option<u64> {
    req.headers().get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn counted(
    body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    limit: usize,
    patience: Duration,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let reading = (Box::pin(body), limit, None);
    stream::unfold(Some(reading), move |reading| async move {
        let (mut body, left, deadline) = reading?;
        let deadline = deadline.unwrap_or_else(|| Instant::now() + patience);
        let Ok(chunk) = timeout_at(deadline, body.next()).await else {
            return Some((Err(io::Error::other(BodyTooSlow)), None));
        };
        match chunk? {
            Ok(chunk) if chunk.len() > left => Some((Err(io::Error::other(BodyTooLarge)), None)),
            Ok(chunk) => {
                let left = left - chunk.len();
                Some((Ok(chunk), Some((body, left, Some(deadline)))))
            }
            Err(broken) => Some((Err(broken), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(chunks: &[&'static str], limit: usize) -> Result<String, io::Error> {
        let chunks: Vec<_> = chunks.iter().map(|text| Ok(Bytes::from_static(text.as_bytes()))).collect();
        let mut read = Vec::new();
        let mut body = Box::pin(counted(stream::iter(chunks), limit, BODY_TIME));
        while let Some(chunk) = body.next().await {
            read.extend_from_slice(&chunk?);
        }
        Ok(String::from_utf8(read).unwrap())
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_is_read() {
        assert_eq!(read(&["ab", "cd"], 4).await.unwrap(), "abcd");
        let cut = read(&["ab", "cd", "e"], 4).await.unwrap_err();
        assert!(cut.get_ref().unwrap().is::<BodyTooLarge>());
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_is_given_up() {
        let begun = stream::iter([Ok(Bytes::from_static(b"x"))]).chain(stream::pending());
        let mut body = Box::pin(counted(begun, 10, Duration::from_millis(20)));
        assert_eq!(body.next().await.unwrap().unwrap(), "x");
        assert!(body.next().await.unwrap().unwrap_err().get_ref().unwrap().is::<BodyTooSlow>());
        assert!(body.next().await.is_none());
    }
}
