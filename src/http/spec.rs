//! The API description and the page that shows it.

use poem_openapi::registry::MetaHeader;
use poem_openapi::types::Type;
use poem_openapi::{LicenseObject, OpenApi, OpenApiService, ServerObject, Tags};
use serde_json::{Map, Value};

use super::admin::AdminApi;
use super::billing::BillingApi;
use super::billing_admin::BillingAdminApi;
use super::characters::CharacterApi;
use super::chats::ChatsApi;
use super::health::HealthApi;
use super::ledger::LedgerApi;
use super::llm::LlmApi;
use super::providers::ProviderApi;
use super::tts::AudioApi;

/// What the operations are grouped by.
#[derive(Tags)]
pub(super) enum Tag {
    /// What this server is and how it fares. Open to everybody.
    Health,
    /// The caller's balance in flux, a whole-number currency, and every change of it.
    Ledger,
    /// Chat completions in OpenAI's format, paid in flux. Point any OpenAI client at `/api/v1/openai` and use a session
    /// token as its key.
    #[oai(rename = "LLM")]
    Llm,
    /// Speech, paid in flux by the character. `/audio/speech` takes OpenAI's body: point any OpenAI client at `/api/v1`.
    Audio,
    /// Characters: made by one, seen, liked and bookmarked by all.
    Characters,
    /// What a user has configured for the providers the client knows. Values are sealed when stored.
    Providers,
    /// Buying flux. Money is taken by Stripe; flux is credited when Stripe says that it was paid.
    Billing,
    /// Conversations and who is in them. Messages travel by the socket `GET /ws/chat?token=TOKEN`.
    Chats,
    /// Operations for administrators: a session whose verified address is on the list the server was started with.
    Admin,
}

const DESCRIPTION: &str = "Identity, a prepaid credit ledger and an OpenAI-compatible gateway.\n\n\
    Refusals are `{\"error\": CODE, \"message\": TEXT, \"details\": FACTS}`; `details` is absent when there is \
    nothing to tell. Every answer carries `X-Request-Id`. Paths are strict: a trailing slash is another path, and a \
    path without an operation for the method answers 404.";

/// Every operation there is. Adding a door means adding it here.
pub(super) fn service() -> OpenApiService<impl OpenApi + 'static, ()> {
    OpenApiService::new(
        (
            HealthApi,
            LedgerApi,
            LlmApi,
            AudioApi,
            ChatsApi,
            BillingApi,
            CharacterApi,
            ProviderApi,
            AdminApi,
            BillingAdminApi,
        ),
        "airi-server",
        env!("CARGO_PKG_VERSION"),
    )
    .description(DESCRIPTION)
    .license(LicenseObject::new("MIT"))
    .server(ServerObject::new("/").description("This server"))
}

/// The OpenAPI document: the same text in the committed file, at `/openapi.json` and in the UI. Needs no running
/// server, and ends with a line break.
pub fn spec_json() -> String {
    let mut text = format!("{:#}", document());
    text.push('\n');
    text
}

/// The OpenAPI document, cleaned.
pub(super) fn document() -> Value {
    // The framework prints valid JSON; should it ever not, the drift test shows an empty document.
    let mut document: Value = serde_json::from_str(&service().spec()).unwrap_or_default();
    clean(&mut document);
    document
}

/// Removes what the framework writes and generators stumble over.
fn clean(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Object(members) => {
            plain_media_types(members);
            usual_header_names(members);
            described_answers(members);
            open_unions(members);
            bare_references(members);
            members.values_mut().for_each(clean);
        }
        _ => {}
    }
}

/// Generators look for `application/json` and take any parameter for another format.
fn plain_media_types(members: &mut Map<String, Value>) {
    const WITH_CHARSET: &str = "application/json; charset=utf-8";
    if let Some(content) = members.get_mut("content").and_then(Value::as_object_mut)
        && let Some(schema) = content.shift_remove(WITH_CHARSET)
    {
        content.shift_insert(0, "application/json".to_owned(), schema);
    }
}

/// The framework shouts header names.
fn usual_header_names(members: &mut Map<String, Value>) {
    let Some(headers) = members.get_mut("headers").and_then(Value::as_object_mut) else { return };
    *headers = std::mem::take(headers).into_iter().map(|(name, header)| (usual(&name), header)).collect();
}

fn usual(name: &str) -> String {
    let word = |word: &str| match word {
        "RATELIMIT" => "RateLimit".to_owned(),
        word => word.get(..1).unwrap_or_default().to_owned() + &word.get(1..).unwrap_or_default().to_lowercase(),
    };
    name.to_uppercase().split('-').map(word).collect::<Vec<_>>().join("-")
}

/// An answer without a description is valid, and looks forgotten.
fn described_answers(members: &mut Map<String, Value>) {
    if members.contains_key("content") && members.get("description").is_some_and(|text| text == "") {
        members.insert("description".to_owned(), "What was asked for.".into());
    }
}

/// A union of a text and a list is announced as an object, which neither is.
fn open_unions(members: &mut Map<String, Value>) {
    if members.contains_key("anyOf") || members.contains_key("oneOf") {
        members.shift_remove("type");
    }
}

/// What a field adds to the schema it refers to stands beside the reference already; repeated inside `allOf`, it makes
/// generators build a type of two parts, one of them empty.
fn bare_references(members: &mut Map<String, Value>) {
    const SHAPES: [&str; 6] = ["$ref", "type", "properties", "allOf", "anyOf", "oneOf"];
    if let Some(parts) = members.get_mut("allOf").and_then(Value::as_array_mut) {
        parts.retain(|part| SHAPES.iter().any(|shape| part.get(shape).is_some()));
    }
}

/// A header of an answer, as the description tells it.
pub(super) fn header<T: Type>(name: &str, description: &str) -> MetaHeader {
    MetaHeader {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        required: false,
        deprecated: false,
        schema: T::schema_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_document_is_cleaned_of_what_generators_stumble_over() {
        let mut document = json!({
            "responses": { "200": { "content": { "application/json; charset=utf-8": { "schema": {} }, "text/plain": 1 } } },
            "headers": { "RETRY-AFTER": {}, "RateLimit-Reset": {} },
            "field": { "nullable": true, "allOf": [{ "$ref": "#/x" }, { "nullable": true }] },
            "schema": { "type": "object", "anyOf": [{ "type": "string" }] },
        });
        clean(&mut document);
        let content = document["responses"]["200"]["content"].as_object().unwrap();
        assert_eq!(content.keys().collect::<Vec<_>>(), ["application/json", "text/plain"]);
        let headers = document["headers"].as_object().unwrap();
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["Retry-After", "RateLimit-Reset"]);
        assert_eq!(document["field"], json!({ "nullable": true, "allOf": [{ "$ref": "#/x" }] }));
        assert_eq!(document["schema"], json!({ "anyOf": [{ "type": "string" }] }));
    }
}
