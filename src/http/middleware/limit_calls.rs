//! How often a caller may use a route, and how often it may still (contract `gateway.md` §9).

use std::sync::Arc;
use std::time::Duration;

use poem::http::{HeaderMap, HeaderValue};
use poem::{Endpoint, IntoResponse, Request, Response};

use crate::core::App;
use crate::core::error::{Code, Error};
use crate::core::model::limits::{Admission, Limit};
use crate::core::model::principal::Principal;
use crate::http::error::{refuse, speak};

/// Counts a call before the route looks at it, and tells the count on every answer of the route.
///
/// Must stand behind the guard of signed-in prefixes: it counts per user.
pub async fn limit_calls<E: Endpoint>(next: Arc<E>, req: Request, limit: &'static Limit) -> poem::Result<Response> {
    let (Some(app), Some(principal)) = (req.data::<Arc<App>>(), req.extensions().get::<Principal>()) else {
        return Ok(refuse(Error::new(Code::Unauthorized)));
    };
    let admission = app.limits.admit(limit, principal.user()).await;
    if !admission.admitted {
        let mut refused = refuse(Error::new(Code::TooManyRequests).retry_after(seconds(admission.resets_in).max(1)));
        tell(refused.headers_mut(), limit, &admission);
        return Ok(refused);
    }
    let (method, path) = (req.method().clone(), req.uri().path().to_owned());
    let mut answer = match next.call(req).await {
        Ok(answer) => answer.into_response(),
        Err(failure) => speak(failure, &method, &path),
    };
    tell(answer.headers_mut(), limit, &admission);
    Ok(answer)
}

/// Writes the count on an answer.
pub(crate) fn tell(headers: &mut HeaderMap, limit: &Limit, admission: &Admission) {
    headers.insert("ratelimit-limit", HeaderValue::from(limit.max));
    headers.insert("ratelimit-remaining", HeaderValue::from(admission.remaining));
    if let Ok(policy) = HeaderValue::from_str(&format!("{};w={}", limit.max, limit.window.as_secs())) {
        headers.insert("ratelimit-policy", policy);
    }
    let resets_in = seconds(admission.resets_in);
    if resets_in > 0 {
        headers.insert("ratelimit-reset", HeaderValue::from(resets_in));
    }
}

/// Whole seconds, rounded up.
pub(crate) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::limits::CHAT_COMPLETIONS;

    #[test]
    fn the_reset_is_rounded_up_and_left_out_when_it_is_now() {
        let told = |resets_in| {
            let mut headers = HeaderMap::new();
            tell(&mut headers, &CHAT_COMPLETIONS, &Admission { admitted: true, remaining: 3, resets_in });
            headers
        };
        let headers = told(Duration::from_millis(1_001));
        assert_eq!(headers["ratelimit-reset"], "2");
        assert_eq!(headers["ratelimit-policy"], "60;w=60");
        assert_eq!(headers["ratelimit-limit"], "60");
        assert_eq!(headers["ratelimit-remaining"], "3");
        assert!(!told(Duration::ZERO).contains_key("ratelimit-reset"));
    }
}
