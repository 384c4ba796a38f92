//! What a room may name outside the crate.

use std::collections::HashSet;

use crate::reader::{Name, Source};

/// The crates of `[dependencies]`, as a source spells them.
pub(crate) struct Manifest(Vec<String>);

impl Manifest {
    pub(crate) fn read(text: &str) -> Self {
        let mut inside = false;
        let mut names = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                inside = line == "[dependencies]";
                names.extend(line.strip_prefix("[dependencies.").map(|name| spelled(name.trim_end_matches(']'))));
            } else if inside && let Some((name, _)) = line.split_once(['=', '.']) {
                names.push(spelled(name));
            }
        }
        Self(names)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }
}

fn spelled(name: &str) -> String {
    name.trim().trim_matches('"').replace('-', "_")
}

/// Plain data and its notation; no I/O, no time, no chance.
const VOCABULARY: &[&str] = &[
    "bytes",
    "chrono",
    "serde",
    "serde_json",
    "thiserror",
    "indexmap",
    "iso_currency",
    "rust_decimal",
    "url",
    "zeroize",
];
/// What use-cases and ports may use besides: traits that wait.
const WAITING: &[&str] = &["async_trait", "futures"];
/// What doors are built of.
const DOORS: &[&str] =
    &["poem", "poem_openapi", "askama", "tokio", "tokio_util", "hyper", "hyper_util", "tracing", "subtle", "base64"];

/// Each crate of the manifest that a pure room names although its list does not.
pub(crate) fn impure(sources: &[Source], manifest: &Manifest) -> Vec<String> {
    named_beyond(sources, manifest, |path| {
        if path.starts_with("src/core/model/") {
            Some(VOCABULARY.to_vec())
        } else if path.starts_with("src/core/") || path.starts_with("src/ports/") {
            Some([VOCABULARY, WAITING].concat())
        } else {
            None
        }
    })
}

/// Each crate that `http` names although it is neither vocabulary nor what doors are made of.
pub(crate) fn beyond_the_doors(sources: &[Source], manifest: &Manifest) -> Vec<String> {
    named_beyond(sources, manifest, |path| path.starts_with("src/http/").then(|| [VOCABULARY, WAITING, DOORS].concat()))
}

fn named_beyond(
    sources: &[Source],
    manifest: &Manifest,
    allowed: impl Fn(&str) -> Option<Vec<&'static str>>,
) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let Some(allowed) = allowed(&source.path) else { continue };
        let local = local_names(source);
        for name in &source.names {
            let first = name.path[0].as_str();
            let foreign = manifest.has(first) && !local.contains(first) && !allowed.contains(&first);
            if foreign && !is_double(source, name) {
                findings.push(format!("{}:{} names the crate {first}", source.path, name.line));
            }
        }
    }
    findings
}

/// Ports announce their doubles in an attribute that only test builds see.
fn is_double(source: &Source, name: &Name) -> bool {
    source.path.starts_with("src/ports/") && name.attribute && name.starts_with(&["mockall"])
}

/// Names the file brings in from the crate itself; they hide a crate of the same name.
fn local_names(source: &Source) -> HashSet<&str> {
    let inside = source.names.iter().filter(|name| name.starts_with(&["crate"]));
    inside.filter_map(|name| name.path.last()).map(String::as_str).collect()
}

/// Refused below `std` in the pure rooms, with what they bring in.
const AMBIENT: &[(&[&str], &str)] = &[
    (&["std", "env"], "the environment"),
    (&["std", "fs"], "files"),
    (&["std", "io"], "files and streams"),
    (&["std", "net"], "sockets"),
    (&["std", "os"], "the operating system"),
    (&["std", "process"], "processes"),
    (&["std", "thread"], "threads"),
    (&["std", "thread_local"], "threads"),
    (&["std", "time", "Instant"], "the clock"),
    (&["std", "time", "SystemTime"], "the clock"),
    (&["std", "hash", "RandomState"], "chance"),
    (&["std", "collections", "hash_map", "RandomState"], "chance"),
    (&["std", "collections", "hash_map", "DefaultHasher"], "chance"),
    (&["chrono", "Local"], "the clock"),
];
const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// Addresses are values; only what opens them is a socket.
fn is_address(name: &Name) -> bool {
    name.starts_with(&["std", "net"])
        && name.path.get(2).is_some_and(|of| of.starts_with("Ip") || of.starts_with("Socket"))
}

/// Each clock, environment, thread, file, socket or print in a pure room.
pub(crate) fn ambient(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_pure(&source.path)) {
        let mut found = |line: usize, what: &str| findings.push(format!("{}:{line} touches {what}", source.path));
        for name in source.names.iter().filter(|name| !is_address(name)) {
            for (_, what) in AMBIENT.iter().filter(|(path, _)| name.starts_with(path)) {
                found(name.line, what);
            }
        }
        for window in source.words().windows(3) {
            match *window {
                [(line, word), (_, "!"), _] if PRINTING.contains(&word) => found(line, "the terminal"),
                [(line, "thread_local"), (_, "!"), _] => found(line, "threads"),
                [(line, "::"), (_, "now"), (_, "(")] => found(line, "the clock"),
                _ => {}
            }
        }
    }
    findings
}

fn is_pure(path: &str) -> bool {
    path.starts_with("src/core/") || path.starts_with("src/ports/")
}

/// Each `async` or `await` in `core/model`.
pub(crate) fn waiting_vocabulary(sources: &[Source]) -> Vec<String> {
    let model = sources.iter().filter(|source| source.path.starts_with("src/core/model/"));
    model
        .flat_map(|source| {
            let waits = source.words().into_iter().filter(|(_, word)| matches!(*word, "async" | "await"));
            waits.map(|(line, word)| format!("{}:{line} says {word}", source.path)).collect::<Vec<_>>()
        })
        .collect()
}

/// Crates that live in one place, and where.
const HOMES: &[(&str, &[&str])] = &[
    ("poem_openapi", &["src/http/"]),
    ("sqlx", &["src/adapters/postgres/", "src/adapters/sqlite/"]),
    ("opentelemetry", &["src/adapters/telemetry"]),
    ("opentelemetry_sdk", &["src/adapters/telemetry"]),
    ("opentelemetry_otlp", &["src/adapters/telemetry"]),
    ("opentelemetry_appender_tracing", &["src/adapters/telemetry"]),
    ("opentelemetry_prometheus", &["src/adapters/telemetry"]),
    ("tracing_opentelemetry", &["src/adapters/telemetry"]),
];

/// Each crate named outside its home.
pub(crate) fn away_from_home(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for name in &source.names {
            let home = HOMES.iter().find(|(known, _)| name.path[0] == *known);
            if let Some((known, folders)) = home
                && !folders.iter().any(|folder| source.path.starts_with(folder))
            {
                findings.push(format!("{}:{} names {known} outside {}", source.path, name.line, folders.join(", ")));
            }
        }
    }
    findings
}
