//! The page that hands a code to the desktop client's own listener (contract `auth.md` §8.4).

use std::sync::Arc;

use poem::http::StatusCode;
use poem::http::header::CONTENT_SECURITY_POLICY;
use poem::web::Data;
use poem::{Request, Response, handler};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::core::App;
use crate::core::model::oidc::clients::{RelayState, is_code};

/// No script, nothing from elsewhere, in nobody's frame: the page leaves by itself, or by its link.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[handler]
pub(super) fn page(req: &Request, Data(app): Data<&Arc<App>>) -> Response {
    let relayed = Relayed::read(req.uri().query().unwrap_or_default());
    let (status, body) = match relayed.and_then(|relayed| Some((relayed.target()?, relayed))) {
        Some((target, relayed)) => (StatusCode::OK, leaving(&target, &relayed.context())),
        None => (StatusCode::BAD_REQUEST, staying()),
    };
    let context = body.1.to_string();
    let context = json!({
        "apiServerUrl": app.oidc.issuer.origin(),
        "currentUrl": app.oidc.issuer.relay(),
        "oidcCallback": serde_json::from_str::<Value>(&context).unwrap_or_default(),
    });
    Response::builder()
        .status(status)
        .content_type("text/html; charset=utf-8")
        .header(CONTENT_SECURITY_POLICY, POLICY)
        .body(html(&body.0, &inert(&context)))
}

struct Relayed {
    state: RelayState,
    text: String,
    code: String,
    error: String,
    description: String,
}

impl Relayed {
    /// Nothing unless the state names a port of the desktop client and the code could be ours.
    fn read(query: &str) -> Option<Self> {
        let (mut text, mut code, mut error, mut description) = Default::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place: &mut String = match name.as_ref() {
                "state" => &mut text,
                "code" => &mut code,
                "error" => &mut error,
                "error_description" => &mut description,
                _ => continue,
            };
            *place = value.into_owned();
        }
        let state = RelayState::parse(&text)?;
        let says_something = if code.is_empty() { is_code(&error) } else { is_code(&code) && error.is_empty() };
        says_something.then_some(Self { state, text, code, error, description })
    }

    fn target(&self) -> Option<String> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if self.code.is_empty() {
            query.append_pair("error", &self.error);
            if !self.description.is_empty() {
                query.append_pair("error_description", &self.description);
            }
        } else {
            query.append_pair("code", &self.code);
        }
        query.append_pair("state", &self.state.state);
        Some(format!("http://127.0.0.1:{}/callback?{}", self.state.port, query.finish()))
    }

    fn context(&self) -> Value {
        json!({ "code": self.code, "state": self.text, "error": self.error, "errorDescription": self.description })
    }
}

fn leaving(target: &str, context: &Value) -> (String, Value) {
    let target = escaped(target);
    let body = format!(
        "<meta http-equiv=\"refresh\" content=\"0;url={target}\">\n<title>AIRI</title>\n</head>\n<body>\n<main>\
         <h1>Returning to AIRI</h1>\n<p>If the app does not come forward, <a href=\"{target}\">continue here</a>. \
         You may close this page.</p></main>"
    );
    (body, context.clone())
}

fn staying() -> (String, Value) {
    let body = "<title>AIRI</title>\n</head>\n<body>\n<main><h1>This sign-in cannot be finished</h1>\n\
        <p>The link does not belong to the AIRI app on this computer. Start again from the app.</p></main>";
    let context =
        json!({ "code": "", "state": "", "error": "invalid_request", "errorDescription": "Invalid state parameter" });
    (body.to_owned(), context)
}

fn html(body: &str, context: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui,sans-serif;margin:0}}\
         main{{max-width:32rem;margin:20vh auto 0;padding:0 1.5rem}}</style>\n{body}\n\
         <script id=\"airi-server-auth-context\" type=\"application/json\">{context}</script>\n</body>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// JSON that ends no element.
fn inert(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_goes_to_the_port_of_the_state_on_this_machine_and_nowhere_else() {
        let target = |query: &str| Relayed::read(query).and_then(|relayed| relayed.target());
        assert_eq!(
            target("code=abc&state=19721%3Ax%26y").as_deref(),
            Some("http://127.0.0.1:19721/callback?code=abc&state=x%26y")
        );
        assert_eq!(
            target("error=access_denied&error_description=no&state=19725:x").as_deref(),
            Some("http://127.0.0.1:19725/callback?error=access_denied&error_description=no&state=x")
        );
        for bad in [
            "",
            "code=abc",
            "state=19721:x",
            "code=abc&state=x@evil.example:1",
            "code=abc&state=19726:x",
            "code=a%26b&state=19721:x",
            "code=abc&error=x&state=19721:x",
            "error=%3Cb%3E&state=19721:x",
            "code=abc&state=19721@evil.example:80",
            "code=abc&state=80:x",
        ] {
            assert_eq!(target(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_was_sent_cannot_end_the_element_it_stands_in() {
        let relayed = Relayed::read("code=abc&state=19721:%3C/script%3E%3Cscript%3E%22'").unwrap();
        let (body, context) = leaving(&relayed.target().unwrap(), &relayed.context());
        let written = html(&body, &inert(&context));
        assert_eq!(written.matches("<script").count(), 1);
        assert!(written.contains("\\u003c/script\\u003e"));
        assert_eq!(serde_json::from_str::<Value>(&inert(&context)).unwrap(), context);
    }
}
