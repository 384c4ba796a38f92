//! Who may name whom inside the crate.

use crate::reader::{Name, Source};

/// What a room may name of the crate.
enum Room {
    /// Only what starts with one of these.
    Only(Vec<Vec<&'static str>>),
    /// Anything.
    Everything,
}

/// Each path inside the crate that its file may not name.
pub(crate) fn outward(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let Room::Only(allowed) = room(&source.path) else { continue };
        let inside = source.names.iter().filter(|name| name.starts_with(&["crate"]) && name.path.len() > 1);
        for name in inside.filter(|name| !allowed.iter().any(|prefix| name.starts_with(prefix))) {
            findings.push(finding(source, name));
        }
    }
    findings
}

fn finding(source: &Source, name: &Name) -> String {
    format!("{}:{} names {}, which is outward from there", source.path, name.line, name.text())
}

fn room(path: &str) -> Room {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    let parts: Vec<&str> = inner.trim_end_matches(".rs").split('/').collect();
    let only = |prefixes: &[&[&'static str]]| Room::Only(prefixes.iter().map(|prefix| prefix.to_vec()).collect());
    match parts.as_slice() {
        ["core", "model", ..] => only(&[&["crate", "core", "model"]]),
        ["core", ..] => only(&[&["crate", "core"], &["crate", "ports"]]),
        ["ports", ..] => only(&[&["crate", "ports"], &["crate", "core", "model"]]),
        ["adapters", "mod"] => only(&[&["crate", "adapters"]]),
        ["adapters", technology, ..] => Room::Only(vec![
            vec!["crate", "adapters", leaked(technology)],
            vec!["crate", "ports"],
            vec!["crate", "core", "model"],
        ]),
        ["http", ..] => only(&[&["crate", "http"], &["crate", "core"]]),
        ["settings", ..] => {
            only(&[&["crate", "settings"], &["crate", "adapters"], &["crate", "http"], &["crate", "core"]])
        }
        ["main"] | ["cli", ..] => only(&[
            &["crate", "cli"],
            &["crate", "compose"],
            &["crate", "settings"],
            &["crate", "core"],
            &["crate", "http"],
        ]),
        ["compose", ..] => Room::Everything,
        _ => only(&[]),
    }
}

/// Technology names are few and live as long as the test.
fn leaked(name: &str) -> &'static str {
    Box::leak(name.to_owned().into_boxed_str())
}
