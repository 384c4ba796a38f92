//! The committed API description equals the code, and is fit for generators.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use airi_server::http::spec_json;
use serde_json::Value;

/// Operations that need nobody to be signed in.
const PUBLIC: &[&str] = &["getIdentity", "getLiveness", "getReadiness", "listFluxPackages", "receiveStripeEvent"];

fn operations() -> Vec<(String, Value)> {
    let spec: Value = serde_json::from_str(&spec_json()).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in spec["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations.push((format!("{method} {path}"), operation.clone()));
        }
    }
    assert!(operations.len() >= 9);
    operations
}

#[test]
fn the_committed_description_is_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    if committed != spec_json() {
        panic!(
            "openapi/openapi.json is not what the code says; write it again with:\n\n    \
             cargo run -- openapi --output openapi/openapi.json\n"
        );
    }
}

#[test]
fn every_operation_can_be_named_found_and_understood() {
    let mut ids = BTreeSet::new();
    for (name, operation) in operations() {
        let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{name} has no id"));
        assert!(ids.insert(id.to_owned()), "{id} is taken twice");
        assert!(id.starts_with(|c: char| c.is_ascii_lowercase()), "{id}");
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric()), "{id}");
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{name} has no tag");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name} has no summary");
        for row in ["4XX", "5XX"] {
            let schema = &operation["responses"][row]["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/ErrorBody", "{name} {row}");
        }
        let secured = operation["security"].as_array().is_some_and(|schemes| !schemes.is_empty());
        assert_eq!(secured, !PUBLIC.contains(&id), "{name}");
    }
}

#[test]
fn successful_bodies_show_an_example() {
    let spec: Value = serde_json::from_str(&spec_json()).unwrap();
    for (name, operation) in
        operations().into_iter().filter(|(_, operation)| operation["operationId"] != "createSpeech")
    {
        let answers = operation["responses"].as_object().unwrap();
        let (status, answer) = answers.iter().find(|(status, _)| status.starts_with('2')).unwrap();
        if status == "204" {
            continue;
        }
        let content = &answer["content"]["application/json"]["schema"];
        let content = content["$ref"].as_str().or_else(|| content["items"]["$ref"].as_str());
        let schema = content.unwrap_or_else(|| panic!("{name} has no JSON answer"));
        let schema = schema.strip_prefix("#/components/schemas/").unwrap();
        assert!(!spec["components"]["schemas"][schema]["example"].is_null(), "{schema} has no example");
    }
}

#[test]
fn a_streamed_answer_is_documented_beside_the_whole_one() {
    let (_, chat) = operations().into_iter().find(|(name, _)| name.ends_with("/chat/completions")).unwrap();
    let content = chat["responses"]["200"]["content"].as_object().unwrap();
    assert_eq!(content.keys().collect::<Vec<_>>(), ["application/json", "text/event-stream"]);
    let request = &chat["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(request, "#/components/schemas/ChatCompletionRequest");
}

#[test]
fn generators_find_plain_media_types_and_satisfiable_unions() {
    assert!(!spec_json().contains("charset"));
    fn walk(value: &Value) {
        match value {
            Value::Object(members) => {
                let union = members.contains_key("anyOf") || members.contains_key("oneOf");
                assert!(!(union && members.contains_key("type")), "{value}");
                members.values().for_each(walk);
            }
            Value::Array(items) => items.iter().for_each(walk),
            _ => {}
        }
    }
    walk(&serde_json::from_str(&spec_json()).unwrap());
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let text = spec_json();
    let spec: Value = serde_json::from_str(&text).unwrap();
    let schemas: BTreeMap<String, Value> = serde_json::from_value(spec["components"]["schemas"].clone()).unwrap();
    let used: BTreeSet<_> =
        text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    assert_eq!(schemas.keys().cloned().collect::<BTreeSet<_>>(), used);
}
