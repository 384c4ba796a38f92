//! Reads one setting at a time and remembers every problem, so that all are told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use figment::Figment;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};

use super::Source;

/// One thing wrong with the settings. Never quotes a value: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    what: String,
    why: String,
}

impl Problem {
    /// `what` names the setting, `why` says what would be accepted.
    pub fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// The settings as text, by dotted path.
pub(super) struct Reader {
    given: BTreeMap<String, String>,
    flat: BTreeMap<String, String>,
    known: BTreeSet<&'static str>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Merges the file and the `AIRI_<SECTION>__<KEY>` variables; flat names are looked up as they are asked for.
    pub(super) fn new(source: &Source) -> Result<Self, Vec<Problem>> {
        let file = Figment::from(Toml::string(source.toml.as_deref().unwrap_or_default()));
        let file: Dict = file
            .extract()
            // The library's text quotes the file.
            .map_err(|_| vec![Problem::new("configuration file", "is not valid TOML")])?;
        let mut given = BTreeMap::new();
        flatten("", &Value::from(file), &mut given);
        for (name, value) in &source.variables {
            let Some(path) = name.strip_prefix("AIRI_").filter(|path| path.contains("__")) else { continue };
            given.insert(path.to_lowercase().replace("__", "."), value.clone());
        }
        Ok(Self { given, flat: source.variables.clone(), known: BTreeSet::new(), problems: Vec::new() })
    }

    /// The setting at `path`, else under its flat name, else the contents of the file `<FLAT>_FILE` names; read by
    /// `parse`, which accepts what `expected` says.
    pub(super) fn get<T>(
        &mut self,
        path: &'static str,
        flat: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        self.known.insert(path);
        let (name, text) = self.text(path, flat)?;
        let parsed = parse(text.trim());
        if parsed.is_none() {
            self.problems.push(Problem::new(name, format!("expected {expected}")));
        }
        parsed
    }

    /// Says that a setting is needed, and why.
    pub(super) fn missing(&mut self, path: &'static str, flat: &'static str, because: &str) {
        if self.problems.iter().any(|problem| problem.what == path || problem.what == flat) {
            return;
        }
        self.problems.push(Problem::new(flat, format!("is required because {because}")));
    }

    /// Records a fault that concerns several settings.
    pub(super) fn fault(&mut self, what: &str, why: &str) {
        self.problems.push(Problem::new(what, why));
    }

    /// Every problem, unknown names included.
    pub(super) fn finish(mut self) -> Result<(), Vec<Problem>> {
        for path in self.given.keys().filter(|path| !self.known.contains(path.as_str())) {
            let nearest = self
                .known
                .iter()
                .map(|known| (strsim::normalized_levenshtein(known, path), *known))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(likeness, _)| *likeness > 0.5);
            let why = match nearest {
                Some((_, known)) => format!("is not a setting; did you mean {known}?"),
                None => "is not a setting".to_owned(),
            };
            self.problems.push(Problem::new(path.clone(), why));
        }
        if self.problems.is_empty() { Ok(()) } else { Err(self.problems) }
    }

    fn text(&mut self, path: &'static str, flat: &'static str) -> Option<(String, String)> {
        if let Some(text) = self.flat.get(flat) {
            return Some((flat.to_owned(), text.clone()));
        }
        let file = format!("{flat}_FILE");
        if let Some(location) = self.flat.get(&file) {
            match std::fs::read_to_string(location) {
                Ok(text) => return Some((file, text)),
                Err(error) => {
                    self.problems.push(Problem::new(file, format!("names a file that cannot be read: {error}")));
                    return None;
                }
            }
        }
        self.given.get(path).map(|text| (path.to_owned(), text.clone()))
    }
}

/// Leaves as text by dotted path; an array becomes a comma-separated list.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    if let Value::Dict(_, members) = value {
        for (name, member) in members {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            flatten(&path, member, into);
        }
        return;
    }
    into.insert(path.to_owned(), leaf(value));
}

fn leaf(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Char(_, c) => c.to_string(),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, number) => number
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| number.to_u128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string()))
            .unwrap_or_default(),
        Value::Array(_, items) => items.iter().map(leaf).collect::<Vec<_>>().join(","),
        Value::Dict(..) | Value::Empty(..) => String::new(),
    }
}
