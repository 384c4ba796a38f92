//! One page people see: a title, a sentence, a form, rendered without scripts (contract `auth.md` §8).

use std::borrow::Cow;

use askama::Template;
use poem::Response;
use poem::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};

use super::call::Call;
use super::refused::Refused;
use crate::core::error::{Code, Error};
use crate::core::model::texts::Language;

/// Nothing from elsewhere, no script, no frame. Forms may lead on to clients, so their targets are not listed.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; \
    frame-ancestors 'none'";

const STYLE: &str = include_str!("../../../templates/auth/style.css");

/// One page: a title, perhaps a text, an error, and one form.
#[derive(Template, Default)]
#[template(path = "auth/page.html")]
pub(super) struct Page<'a> {
    pub(super) language: Language,
    /// Prefix of its texts.
    pub(super) key: &'a str,
    /// What went wrong, in words.
    pub(super) error: Option<String>,
    /// A sentence below the title.
    pub(super) text: Option<Cow<'a, str>>,
    /// Fields of the form, in order.
    pub(super) fields: Vec<Field<'a>>,
    /// Text of its button; no form without one.
    pub(super) button: Option<&'a str>,
    /// Other ways to do it: address and text.
    pub(super) ways: Vec<(String, &'a str)>,
    /// Where else to go: address and text.
    pub(super) links: Vec<(String, &'a str)>,
}

/// One field of a form.
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) label: &'a str,
    pub(super) kind: &'a str,
    pub(super) autocomplete: &'a str,
    pub(super) hint: Option<&'a str>,
    pub(super) value: String,
}

impl Page<'_> {
    pub(super) fn title(&self) -> &str {
        self.language.find(&format!("page.{}.title", self.key)).unwrap_or_default()
    }

    pub(super) fn t(&self, name: &str) -> &str {
        self.language.find(name).unwrap_or_default()
    }
}

pub(super) fn page<'a>(call: &Call, key: &'a str) -> Page<'a> {
    let language = language(call);
    let error = call.asked("error").filter(|code| !code.is_empty()).map(|code| in_words(language, &code));
    Page { language, key, error, ..Page::default() }
}

/// A choice in the address wins over the browser's.
pub(super) fn language(call: &Call) -> Language {
    call.asked("lang").and_then(|tag| Language::of_tag(&tag)).unwrap_or_else(|| call.language())
}

/// Words for a code; an unknown one is shown as far as it is one.
pub(super) fn in_words(language: Language, code: &str) -> String {
    let known = language.find(&format!("error.{code}"));
    known.map_or_else(
        || {
            let shown = code.chars().filter(|c| c.is_ascii_alphanumeric() || "_'-".contains(*c)).take(64);
            format!(
                "{} ({}: {})",
                language.text("page.error.text"),
                language.text("page.error.code"),
                shown.collect::<String>()
            )
        },
        str::to_owned,
    )
}

pub(super) fn field<'a>(call: &Call, name: &'a str, kind: &'a str, autocomplete: &'a str) -> Field<'a> {
    let language = language(call);
    let label = match name {
        "email" => "page.email",
        "name" => "page.name",
        "newPassword" => "page.new_password",
        _ => "page.password",
    };
    let label = text(language, label);
    let hint = if autocomplete == "new-password" { language.find("page.password_hint") } else { None };
    let value = if kind == "password" { String::new() } else { call.asked(name).unwrap_or_default() };
    Field { name, label, kind, autocomplete, hint, value }
}

pub(super) fn text(language: Language, name: &str) -> &'static str {
    language.find(name).unwrap_or_default()
}

pub(super) fn shown(page: &Page<'_>) -> Result<Response, Refused> {
    let html = page.render().map_err(|error| Error::new(Code::Internal).because(error))?;
    Ok(Response::builder()
        .content_type("text/html; charset=utf-8")
        .header(CONTENT_SECURITY_POLICY, POLICY)
        // Without a referrer the browser would not say where our own forms come from.
        .header(REFERRER_POLICY, "same-origin")
        .body(html))
}

pub(super) async fn style(_call: Call) -> Result<Response, Refused> {
    Ok(Response::builder().content_type("text/css; charset=utf-8").body(STYLE))
}
