//! What holds for every answer: its headers, its shape when something failed, and the size of a request's head.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use poem::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, EXPIRES, PRAGMA, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS,
};
use poem::http::{HeaderValue, Method, StatusCode};
use poem::{Endpoint, IntoResponse, PathPattern, Request, Response};
use serde_json::Value;

use crate::core::error::{Code, Error};
use crate::core::model::ids::UserId;
use crate::http::error::{panicked, refuse, speak};

/// Longest request target, bytes.
const LONGEST_URL: usize = 8 * 1024;
/// Longest sum of header names and values, bytes.
const LONGEST_HEADERS: usize = 16 * 1024;

/// Puts the security headers on every answer, whatever a handler set (contract `observability.md` §7.1).
pub async fn secure<E: Endpoint>(next: Arc<E>, req: Request, https: bool) -> poem::Result<Response> {
    let mut answer = next.call(req).await?.into_response();
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache, private, max-age=0"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(EXPIRES, HeaderValue::from_static("0"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Pages with forms choose another: without a referrer, a browser does not say where a form comes from.
    headers.entry(REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    // The framework announces a charset JSON has no parameter for (RFC 8259 §11).
    if headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json; charset=utf-8") {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if https {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    Ok(answer)
}

/// Turns failures and panics into answers, so that everything outside sees answers only.
pub async fn answer<E: Endpoint>(next: Arc<E>, req: Request, methods: Arc<AllowedMethods>) -> poem::Result<Response> {
    let method = req.method().clone();
    let uri = req.uri().clone();
    let mut answer = match AssertUnwindSafe(next.call(req)).catch_unwind().await {
        Ok(Ok(answer)) => answer.into_response(),
        Ok(Err(failure)) => {
            let pattern = failure.data::<PathPattern>().cloned();
            let user = failure.data::<UserId>().cloned();
            let unmatched = failure.is::<poem::error::NotFoundError>();
            let wrong_method = failure.is::<poem::error::MethodNotAllowedError>();
            let mut answer = speak(failure, &method, uri.path());
            if wrong_method && let Some(allow) = methods.of(uri.path()) {
                answer.headers_mut().insert(ALLOW, allow);
            }
            if let Some(pattern) = pattern.filter(|_| !unmatched && !wrong_method) {
                answer.extensions_mut().insert(pattern);
            }
            if let Some(user) = user {
                answer.extensions_mut().insert(user);
            }
            answer
        }
        Err(payload) => panicked(payload.as_ref()),
    };
    if method == Method::HEAD {
        answer.set_body(());
    }
    Ok(answer)
}

/// Refuses request heads nobody sends in good faith.
pub async fn limit_head<E: Endpoint>(next: Arc<E>, req: Request) -> poem::Result<Response> {
    let url = req.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if url > LONGEST_URL {
        return Ok(too_long("URL", LONGEST_URL, StatusCode::URI_TOO_LONG));
    }
    let headers: usize = req.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers > LONGEST_HEADERS {
        return Ok(too_long("request headers", LONGEST_HEADERS, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    next.call(req).await.map(IntoResponse::into_response)
}

fn too_long(what: &str, limit: usize, status: StatusCode) -> Response {
    let mut answer =
        refuse(Error::new(Code::BadRequest).saying(format!("{what} too long; at most {limit} bytes are accepted")));
    answer.set_status(status);
    answer
}

/// Which methods a path answers to, as the API description has it.
#[derive(Clone, Debug, Default)]
pub struct AllowedMethods(Vec<(Vec<String>, HeaderValue)>);

impl AllowedMethods {
    /// Reads the paths of an OpenAPI document.
    pub fn from_spec(spec: &Value) -> Self {
        let paths = spec["paths"].as_object().into_iter().flatten();
        Self(paths.filter_map(|(path, operations)| Some((segments(path), header(operations)?))).collect())
    }

    fn of(&self, path: &str) -> Option<HeaderValue> {
        let asked = segments(path);
        let found = self.0.iter().find(|(pattern, _)| {
            pattern.len() == asked.len()
                && pattern.iter().zip(&asked).all(|(part, asked)| part.starts_with('{') || part == asked)
        })?;
        Some(found.1.clone())
    }
}

fn segments(path: &str) -> Vec<String> {
    path.split('/').map(str::to_owned).collect()
}

fn header(operations: &Value) -> Option<HeaderValue> {
    let mut methods: Vec<_> = operations.as_object()?.keys().map(|method| method.to_uppercase()).collect();
    if methods.iter().any(|method| method == "GET") {
        methods.push("HEAD".to_owned());
    }
    methods.sort();
    HeaderValue::from_str(&methods.join(", ")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_knows_its_methods() {
        let spec = serde_json::json!({ "paths": { "/a/{id}": { "get": {}, "delete": {} }, "/a/b/c": { "post": {} } } });
        let methods = AllowedMethods::from_spec(&spec);
        assert_eq!(methods.of("/a/1").unwrap(), "DELETE, GET, HEAD");
        assert_eq!(methods.of("/a/b/c").unwrap(), "POST");
        assert_eq!(methods.of("/a/1/"), None);
        assert_eq!(methods.of("/b"), None);
    }
}
