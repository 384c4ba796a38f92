//! Keys named by environment variables, for documents read from a file.

use serde_json::{Map, Value};

use super::reading::{Issue, Unusable, parse};

/// The document with every `plaintextKeyEnv` of its slices replaced by the `plaintextKey` that `lookup` finds, so
/// that a file need not hold a key. Names every variable that is not set. For the command line only: over HTTP it
/// would read the server's environment for whoever asks.
pub fn with_environment(document: &[u8], lookup: impl Fn(&str) -> Option<String>) -> Result<Vec<u8>, Unusable> {
    let mut document = parse(document)?;
    let mut issues = Vec::new();
    if let Some(slices) = document.get_mut("slices") {
        replace(slices, "slices", &lookup, &mut issues);
    }
    if !issues.is_empty() {
        return Err(Unusable::Issues(issues));
    }
    serde_json::to_vec(&document).map_err(|_| Unusable::NotJson)
}

fn replace(value: &mut Value, path: &str, lookup: &impl Fn(&str) -> Option<String>, issues: &mut Vec<Issue>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                replace(item, &format!("{path}.{index}"), lookup, issues);
            }
        }
        Value::Object(members) => {
            if let Some(named) = members.shift_remove(NAMED) {
                let path = format!("{path}.{NAMED}");
                if let Err(message) = insert_key(members, &named, lookup) {
                    issues.push(Issue { path, message });
                }
            }
            for (name, member) in members.iter_mut() {
                replace(member, &format!("{path}.{name}"), lookup, issues);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn insert_key(
    members: &mut Map<String, Value>,
    named: &Value,
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<(), String> {
    let Some(name) = named.as_str().filter(|name| is_variable(name)) else {
        return Err("must be the name of an environment variable".to_owned());
    };
    if members.contains_key("plaintextKey") {
        return Err("must not be given together with plaintextKey".to_owned());
    }
    let Some(key) = lookup(name).filter(|key| !key.is_empty()) else {
        return Err(format!("environment variable {name} is not set"));
    };
    members.insert("plaintextKey".to_owned(), Value::String(key));
    Ok(())
}

/// Upper-case only, so that a key written in place of a name is not echoed.
fn is_variable(name: &str) -> bool {
    name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// The member that names a variable.
const NAMED: &str = "plaintextKeyEnv";

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "OPENROUTER_KEY").then(|| "sk-1".to_owned())
    }

    #[test]
    fn named_variables_become_keys_wherever_a_slice_takes_one() {
        let document = br#"{"slices":[{"plaintextKeyEnv":"OPENROUTER_KEY"},
            {"upstreams":[{"keys":[{"id":"a","plaintextKeyEnv":"OPENROUTER_KEY"}]}]}]}"#;
        let resolved: Value = serde_json::from_slice(&with_environment(document, lookup).unwrap()).unwrap();
        assert_eq!(
            resolved,
            serde_json::json!({"slices": [{"plaintextKey": "sk-1"},
                {"upstreams": [{"keys": [{"id": "a", "plaintextKey": "sk-1"}]}]}]})
        );
    }

    #[test]
    fn a_missing_variable_is_named_with_its_path_and_a_pasted_key_is_not_echoed() {
        let document = br#"{"slices":[{"plaintextKeyEnv":"UNSET"},{"plaintextKeyEnv":"sk-secret"}]}"#;
        let Err(Unusable::Issues(issues)) = with_environment(document, lookup) else { panic!("accepted") };
        assert_eq!(issues[0].path, "slices.0.plaintextKeyEnv");
        assert_eq!(issues[0].message, "environment variable UNSET is not set");
        assert!(!issues[1].message.contains("sk-secret"));
    }
}
