//! Reading JSON member by member, collecting every fault with its path.

use serde_json::{Map, Value};

/// One fault of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Dotted path, e.g. `slices.0.upstreams.1.keys`.
    pub path: String,
    /// What would be accepted. Never quotes a value.
    pub message: String,
}

/// Why a document is not acted upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Not JSON, or JSON `null`.
    NotJson,
    /// These faults, in the order of the document's rules.
    Issues(Vec<Issue>),
    /// One rule about the whole, in the contract's words.
    Refused(&'static str),
}

impl Issue {
    /// `{path, message}`, as answers show it.
    pub fn to_json(&self) -> Value {
        serde_json::json!({"path": self.path, "message": self.message})
    }
}

/// The faults found so far.
#[derive(Default)]
pub(super) struct Issues {
    list: Vec<Issue>,
    by_policy: usize,
}

impl Issues {
    /// Whether the document is well-formed, apart from addresses the settings do not admit.
    pub(super) fn is_well_formed(&self) -> bool {
        self.list.len() == self.by_policy
    }

    /// What was read, unless there are faults.
    pub(super) fn judge<T>(self, read: Option<T>) -> Result<T, Unusable> {
        match read {
            Some(read) if self.list.is_empty() => Ok(read),
            _ => Err(Unusable::Issues(self.list)),
        }
    }

    fn push(&mut self, path: String, message: impl Into<String>) {
        self.list.push(Issue { path, message: message.into() });
    }
}

/// The document as JSON; `null` counts as none.
pub(super) fn parse(document: &[u8]) -> Result<Value, Unusable> {
    match serde_json::from_slice(document) {
        Ok(Value::Null) | Err(_) => Err(Unusable::NotJson),
        Ok(value) => Ok(value),
    }
}

/// An object being read: what is asked for is taken out, what remains in the end is unknown.
pub(super) struct Members<'a> {
    path: String,
    map: Map<String, Value>,
    known: Vec<&'static str>,
    issues: &'a mut Issues,
}

impl<'a> Members<'a> {
    /// Takes an object apart; anything else is a fault.
    pub(super) fn of(value: Value, path: String, issues: &'a mut Issues) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self { path, map, known: Vec::new(), issues }),
            other => {
                issues.push(path, wrong_type("Object", &other));
                None
            }
        }
    }

    /// A member that must be there.
    pub(super) fn required(&mut self, name: &'static str) -> Option<Value> {
        let found = self.optional(name);
        if found.is_none() {
            self.fault::<()>(name, format!("Invalid key: Expected \"{name}\" but received undefined"));
        }
        found
    }

    /// A member that may be there, left where it is.
    pub(super) fn peek(&self, name: &str) -> Option<&Value> {
        self.map.get(name)
    }

    /// A member that may be there.
    pub(super) fn optional(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.map.shift_remove(name)
    }

    /// Text that must be there, between 1 and `longest` UTF-16 units.
    pub(super) fn text(&mut self, name: &'static str, longest: usize) -> Option<String> {
        let value = self.required(name)?;
        self.text_of(name, value, longest)
    }

    /// Text that may be there.
    pub(super) fn optional_text(&mut self, name: &'static str, longest: usize) -> Option<String> {
        let value = self.optional(name)?;
        self.text_of(name, value, longest)
    }

    /// A name that becomes part of what a ciphertext is bound to.
    pub(super) fn slot_name(&mut self, name: &'static str) -> Option<String> {
        let text = self.text(name, 200)?;
        self.without_separator(name, text)
    }

    /// The same, optional.
    pub(super) fn optional_slot_name(&mut self, name: &'static str) -> Option<String> {
        let text = self.optional_text(name, 200)?;
        self.without_separator(name, text)
    }

    /// `true` or `false`, if there.
    pub(super) fn optional_flag(&mut self, name: &'static str) -> Option<bool> {
        match self.optional(name)? {
            Value::Bool(flag) => Some(flag),
            other => self.fault(name, wrong_type("boolean", &other)),
        }
    }

    /// A whole number in a range, if there.
    pub(super) fn optional_whole(&mut self, name: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let value = self.optional(name)?;
        self.whole_of(name, &value, range)
    }

    /// HTTP statuses, if there.
    pub(super) fn optional_statuses(&mut self, name: &'static str) -> Option<Vec<u16>> {
        let items = match self.optional(name)? {
            Value::Array(items) => items,
            other => return self.fault(name, wrong_type("Array", &other)),
        };
        let mut statuses = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let status = self.whole_of(&format!("{name}.{index}"), item, 100..=599);
            statuses.extend(status.and_then(|status| u16::try_from(status).ok()));
        }
        Some(statuses)
    }

    /// A list of `1..=most` items that must be there.
    pub(super) fn list(&mut self, name: &'static str, most: usize) -> Option<Vec<Value>> {
        let items = match self.required(name)? {
            Value::Array(items) => items,
            other => return self.fault(name, wrong_type("Array", &other)),
        };
        if items.is_empty() {
            self.fault::<()>(name, format!("{name} must not be empty"));
        }
        if items.len() > most {
            return self.fault(name, format!("{name} must be at most {most} entries"));
        }
        Some(items)
    }

    /// An object inside this one, if there.
    pub(super) fn optional_members(&mut self, name: &'static str) -> Option<Members<'_>> {
        let value = self.optional(name)?;
        let path = self.path_of(name);
        Members::of(value, path, self.issues)
    }

    /// Item `index` of the list `name`.
    pub(super) fn item(&mut self, name: &str, index: usize, value: Value) -> Option<Members<'_>> {
        let path = self.path_of(&format!("{name}.{index}"));
        Members::of(value, path, self.issues)
    }

    /// Notes a fault of a member; answers nothing, so that a reader can return it.
    pub(super) fn fault<T>(&mut self, name: &str, message: impl Into<String>) -> Option<T> {
        let path = self.path_of(name);
        self.issues.push(path, message);
        None
    }

    /// Notes a value that is well-formed and not admitted by the settings or by [`super::check_address`].
    pub(super) fn policy_fault<T>(&mut self, name: &str, message: impl Into<String>) -> Option<T> {
        self.issues.by_policy += 1;
        self.fault(name, message)
    }

    /// Where this object lies in the document.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether nothing is left to be read.
    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Complains about members nobody asked for.
    pub(super) fn finish(self) {
        for name in self.map.keys() {
            let name: String = name.chars().take(LONGEST_ECHOED_NAME).collect();
            let path = join(&self.path, &name);
            let message = format!("unknown field; expected one of {}", self.known.join(", "));
            self.issues.push(path, message);
        }
    }

    fn text_of(&mut self, name: &'static str, value: Value, longest: usize) -> Option<String> {
        let text = match value {
            Value::String(text) => text,
            other => return self.fault(name, wrong_type("string", &other)),
        };
        if text.is_empty() {
            return self.fault(name, format!("{name} is required"));
        }
        if text.encode_utf16().count() > longest {
            return self.fault(name, format!("{name} must be at most {longest} characters"));
        }
        Some(text)
    }

    fn without_separator(&mut self, name: &'static str, text: String) -> Option<String> {
        if text.contains('|') {
            return self.fault(name, "must not contain \"|\" (reserved AAD separator)");
        }
        Some(text)
    }

    fn whole_of(&mut self, name: &str, value: &Value, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        if !value.is_number() {
            return self.fault(name, wrong_type("number", value));
        }
        let (least, most) = (range.start(), range.end());
        value
            .as_u64()
            .filter(|number| range.contains(number))
            .or_else(|| self.fault(name, format!("must be a whole number from {least} to {most}")))
    }

    fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }
}

/// The text about a value of another type; names the type it has, never the value.
pub(super) fn wrong_type(expected: &str, value: &Value) -> String {
    let received = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "Array",
        Value::Object(_) => "Object",
    };
    format!("Invalid type: Expected {expected} but received {received}")
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A member name may be a pasted key; the beginning is enough to find it.
const LONGEST_ECHOED_NAME: usize = 40;
