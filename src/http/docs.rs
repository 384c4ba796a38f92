//! `/docs` and `/openapi.json`: the API description for people and for programs, served from the binary.

use std::sync::LazyLock;

use bytes::Bytes;
use poem::http::header::CONTENT_SECURITY_POLICY;
use poem::{Response, Route, get, handler};

use super::spec::{service, spec_json};

/// Nothing from elsewhere, and no script inside the page. The UI sets styles on elements and draws icons from data
/// URLs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>airi-server API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="/docs/swagger-ui.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"#;

const START: &str = "SwaggerUIBundle({ dom_id: '#ui', url: '/openapi.json', deepLinking: true, \
    persistAuthorization: false, validatorUrl: null });\n";

static SPEC: LazyLock<Bytes> = LazyLock::new(|| spec_json().into());
static UI: LazyLock<Ui> = LazyLock::new(|| Ui::cut(&service().swagger_ui_html()));

/// The parts of the page the framework ships, which has everything inline.
struct Ui {
    style: Bytes,
    script: Bytes,
}

impl Ui {
    fn cut(html: &str) -> Self {
        Self {
            style: between(html, "<style charset=\"UTF-8\">", "</style>"),
            script: between(html, "<script charset=\"UTF-8\">", "</script>"),
        }
    }
}

fn between(html: &str, begin: &str, end: &str) -> Bytes {
    let part = html.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map(|(part, _)| part);
    part.unwrap_or_default().to_owned().into()
}

/// Adds the description's routes. They are public: the description holds no secret.
pub(super) fn mount(route: Route) -> Route {
    route
        .at("/openapi.json", get(spec))
        .at("/docs", get(page))
        .at("/docs/swagger-ui.css", get(style))
        .at("/docs/swagger-ui.js", get(script))
        .at("/docs/start.js", get(start))
}

fn file(content_type: &str, body: impl Into<poem::Body>) -> Response {
    Response::builder().content_type(content_type).header(CONTENT_SECURITY_POLICY, POLICY).body(body)
}

#[handler]
fn spec() -> Response {
    file("application/json", SPEC.clone())
}

#[handler]
fn page() -> Response {
    file("text/html; charset=utf-8", PAGE)
}

#[handler]
fn style() -> Response {
    file("text/css; charset=utf-8", UI.style.clone())
}

#[handler]
fn script() -> Response {
    file("text/javascript; charset=utf-8", UI.script.clone())
}

#[handler]
fn start() -> Response {
    file("text/javascript; charset=utf-8", START)
}
