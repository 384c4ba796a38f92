//! Reads JSON documents of clients member by member and tells every problem at once (contract `chats.md` §1).
//!
//! A problem names the place and what was expected there, never what was sent: bodies hold secrets.

use std::cell::RefCell;

use serde_json::{Map, Value, json};

/// Longest id a client may choose, characters: beyond some 2 700 bytes PostgreSQL cannot index it.
const LONGEST_ID: usize = 255;

/// Everything that is wrong with a document; at least one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(Vec<Problem>);

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `schema` when the type is wrong, `validation` when the value is.
    pub kind: &'static str,
    /// Which rule, e.g. `string`, `picklist`, `max_length`.
    pub rule: &'static str,
    /// What would have been right.
    pub expected: String,
    /// Where, from the root inwards.
    pub path: Vec<String>,
}

impl Invalid {
    /// The document is not JSON at all.
    pub fn unreadable() -> Self {
        Self(vec![Problem { kind: "schema", rule: "json", expected: "a JSON document".to_owned(), path: Vec::new() }])
    }

    /// What the caller is told: one object for each problem.
    pub fn details(&self) -> Value {
        self.0.iter().map(Problem::told).collect()
    }
}

impl Problem {
    fn told(&self) -> Value {
        json!({
            "kind": self.kind,
            "type": self.rule,
            "expected": self.expected,
            "message": format!("expected {}", self.expected),
            "path": self.path.iter().map(|key| json!({ "key": key })).collect::<Vec<_>>(),
        })
    }
}

/// Reads the text of a document, whose root must be an object, with `read`; fails when anything was wrong.
pub fn read<T>(document: &[u8], read: impl FnOnce(&Form<'_>) -> T) -> Result<T, Invalid> {
    let Ok(document) = serde_json::from_slice::<Value>(document) else { return Err(Invalid::unreadable()) };
    let findings = RefCell::default();
    let value = Form::of(&document, Vec::new(), &findings).map(|form| read(&form));
    let problems = findings.into_inner();
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        _ => Err(Invalid(problems)),
    }
}

/// One object of a document. Readers answer something harmless in place of what is unusable and note the problem.
///
/// A member that is absent is never unusable for the `optional` readers; `null` always is.
#[derive(Clone, Debug)]
pub struct Form<'a> {
    members: &'a Map<String, Value>,
    path: Vec<String>,
    findings: &'a RefCell<Vec<Problem>>,
}

impl<'a> Form<'a> {
    /// Whether the member was sent.
    pub fn has(&self, key: &str) -> bool {
        self.members.contains_key(key)
    }

    /// A required text.
    pub fn text(&self, key: &str) -> String {
        self.optional_text(key).unwrap_or_else(|| {
            self.require(key, "string", "a string");
            String::new()
        })
    }

    /// A text.
    pub fn optional_text(&self, key: &str) -> Option<String> {
        let text = self.members.get(key).map(|value| value.as_str().ok_or(()))?;
        let Ok(text) = text else {
            self.note(key, "schema", "string", "a string");
            return Some(String::new());
        };
        self.storable(key, text);
        Some(text.to_owned())
    }

    /// An id the client chose: 1 to 255 characters.
    pub fn optional_id(&self, key: &str) -> Option<String> {
        let id = self.optional_text(key)?;
        if self.members.get(key).is_some_and(Value::is_string) && !(1..=LONGEST_ID).contains(&id.chars().count()) {
            self.note(key, "validation", "length", "1 to 255 characters");
        }
        Some(id)
    }

    /// A text of 1 to `most` characters, white space around it removed.
    pub fn optional_name(&self, key: &str, most: usize) -> Option<String> {
        let name = self.optional_text(key)?.trim().to_owned();
        if self.members.get(key).is_some_and(Value::is_string) && !(1..=most).contains(&name.chars().count()) {
            self.note(key, "validation", "length", &format!("1 to {most} characters"));
        }
        Some(name)
    }

    /// As [`Form::optional_name`], required.
    pub fn name(&self, key: &str, most: usize) -> String {
        self.optional_name(key, most).unwrap_or_else(|| {
            self.require(key, "string", "a string");
            String::new()
        })
    }

    /// A truth value.
    pub fn optional_bool(&self, key: &str) -> Option<bool> {
        let value = self.members.get(key)?;
        Some(value.as_bool().unwrap_or_else(|| {
            self.note(key, "schema", "boolean", "true or false");
            false
        }))
    }

    /// A required number, as it was written.
    pub fn number(&self, key: &str) -> Value {
        match self.members.get(key) {
            Some(number @ Value::Number(_)) => number.clone(),
            _ => {
                self.note(key, "schema", "number", "a number");
                Value::Null
            }
        }
    }

    /// One word of a list.
    pub fn word<W: Copy>(&self, key: &str, words: &[(&str, W)]) -> Option<W> {
        let sent = self.members.get(key).and_then(Value::as_str);
        let found = sent.and_then(|sent| words.iter().find(|(word, _)| *word == sent));
        if found.is_none() {
            let expected: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.note(key, "schema", "picklist", &format!("one of {}", expected.join(", ")));
        }
        found.map(|(_, meant)| *meant)
    }

    /// A required list of texts.
    pub fn texts(&self, key: &str) -> Vec<String> {
        let Some(Value::Array(items)) = self.members.get(key) else {
            self.note(key, "schema", "array", "an array of strings");
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            match item.as_str() {
                Some(text) => {
                    self.storable(&format!("{key}.{at}"), text);
                    texts.push(text.to_owned());
                }
                None => self.note_at(&[key, &at.to_string()], "schema", "string", "a string"),
            }
        }
        texts
    }

    /// A required object.
    pub fn form(&self, key: &str) -> Option<Form<'a>> {
        if !self.members.contains_key(key) {
            self.require(key, "object", "an object");
        }
        self.optional_form(key)
    }

    /// An object.
    pub fn optional_form(&self, key: &str) -> Option<Form<'a>> {
        self.members.get(key).and_then(|value| Self::of(value, self.below(&[key]), self.findings))
    }

    /// A list of objects; absent is empty.
    pub fn forms(&self, key: &str) -> Vec<Form<'a>> {
        match self.members.get(key) {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                let item = |(at, item)| Self::of(item, self.below(&[key, &format!("{at}")]), self.findings);
                items.iter().enumerate().filter_map(item).collect()
            }
            Some(_) => {
                self.note(key, "schema", "array", "an array of objects");
                Vec::new()
            }
        }
    }

    /// An object of any members, at most `most` bytes when written without white space. Its keys are storable.
    pub fn optional_members(&self, key: &str, most: usize) -> Option<Map<String, Value>> {
        let members = self.optional_form(key)?.members;
        // A map of values always serialises.
        let length = serde_json::to_string(members).map_or(0, |text| text.len());
        if length > most {
            self.note(key, "validation", "max_bytes", &format!("at most {most} bytes"));
        }
        members.keys().for_each(|name| self.storable(key, name));
        Some(members.clone())
    }

    /// Notes that the value of a member breaks a rule.
    pub fn refuse(&self, key: &str, rule: &'static str, expected: &str) {
        self.note(key, "validation", rule, expected);
    }

    /// U+0000 is valid in JSON, and PostgreSQL cannot store it.
    fn storable(&self, key: &str, text: &str) {
        if text.contains('\0') {
            self.note(key, "validation", "characters", "no U+0000");
        }
    }

    fn require(&self, key: &str, rule: &'static str, expected: &str) {
        if !self.members.contains_key(key) {
            self.note(key, "schema", rule, expected);
        }
    }

    fn note(&self, key: &str, kind: &'static str, rule: &'static str, expected: &str) {
        self.note_at(&[key], kind, rule, expected);
    }

    fn note_at(&self, keys: &[&str], kind: &'static str, rule: &'static str, expected: &str) {
        let problem = Problem { kind, rule, expected: expected.to_owned(), path: self.below(keys) };
        self.findings.borrow_mut().push(problem);
    }

    fn below(&self, keys: &[&str]) -> Vec<String> {
        self.path.iter().cloned().chain(keys.iter().map(|key| (*key).to_owned())).collect()
    }

    fn of(value: &'a Value, path: Vec<String>, findings: &'a RefCell<Vec<Problem>>) -> Option<Self> {
        if let Value::Object(members) = value {
            return Some(Self { members, path, findings });
        }
        let expected = "an object".to_owned();
        findings.borrow_mut().push(Problem { kind: "schema", rule: "object", expected, path });
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems<T>(document: &str, reader: impl FnOnce(&Form<'_>) -> T) -> Vec<(String, &'static str)> {
        match read(document.as_bytes(), reader) {
            Ok(_) => Vec::new(),
            Err(Invalid(problems)) => problems.into_iter().map(|p| (p.path.join("/"), p.rule)).collect(),
        }
    }

    #[test]
    fn every_problem_is_told_at_its_place_and_nothing_of_what_was_sent() {
        let document = r#"{"a":5,"b":{"c":["hunter2",{"d":null}]},"e":"hunter2\u0000"}"#;
        let refused = read(document.as_bytes(), |form| {
            form.text("a");
            form.form("b").unwrap().forms("c").iter().for_each(|form| drop(form.optional_text("d")));
            form.optional_text("e");
            form.text("missing");
        })
        .unwrap_err();
        let details = refused.details();
        assert_eq!(
            details[0],
            json!({
                "kind": "schema", "type": "string", "expected": "a string", "message": "expected a string",
                "path": [{ "key": "a" }],
            })
        );
        let places: Vec<String> = refused.0.iter().map(|problem| problem.path.join("/")).collect();
        assert_eq!(places, ["a", "b/c/0", "b/c/1/d", "e", "missing"]);
        assert!(!details.to_string().contains("hunter2"));
    }

    #[test]
    fn what_is_not_json_or_no_object_is_one_problem() {
        for document in ["", "{", "\"\\ud800\"", "{\"a\":1e999}"] {
            assert_eq!(problems(document, |_| ()), [(String::new(), "json")], "{document}");
        }
        for document in ["null", "[]", "5"] {
            assert_eq!(problems(document, |_| ()), [(String::new(), "object")], "{document}");
        }
    }

    #[test]
    fn ids_and_names_have_bounds() {
        let long = "x".repeat(256);
        for (document, rules) in [
            (json!({ "id": "" }), vec!["length"]),
            (json!({ "id": long }), vec!["length"]),
            (json!({ "id": "x".repeat(255) }), vec![]),
            (json!({ "id": 5 }), vec!["string"]),
            (json!({ "id": null }), vec!["string"]),
            (json!({}), vec![]),
        ] {
            let found = problems(&document.to_string(), |form| form.optional_id("id"));
            assert_eq!(found.iter().map(|(_, rule)| *rule).collect::<Vec<_>>(), rules, "{document}");
        }
        assert_eq!(problems(r#"{"name":"  "}"#, |form| form.name("name", 3)), [("name".to_owned(), "length")]);
        assert_eq!(problems("{}", |form| form.name("name", 3)), [("name".to_owned(), "string")]);
        assert_eq!(read(br#"{"name":" ab "}"#, |form| form.name("name", 2)).unwrap(), "ab");
    }

    #[test]
    fn an_object_of_any_members_is_bounded() {
        let sent = |document: &str| problems(document, |form| form.optional_members("config", 7));
        assert_eq!(sent(r#"{"config":{"a":1}}"#), []);
        assert_eq!(sent(r#"{"config":{"a":12}}"#), [("config".to_owned(), "max_bytes")]);
        assert_eq!(sent(r#"{"config":[]}"#), [("config".to_owned(), "object")]);
        assert_eq!(sent("{\"config\":{\"\\u0000\":1}}").len(), 2);
    }
}
