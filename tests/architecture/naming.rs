//! How long files are, how they are called, and whether ports are proven.

use std::collections::HashSet;

use crate::reader::Source;

const MOST_LINES: usize = 400;

/// Each file with more lines before its trailing test module than one idea needs.
pub(crate) fn too_long(sources: &[Source]) -> Vec<String> {
    let long = sources.iter().filter(|source| source.lines > MOST_LINES);
    long.map(|source| format!("{} has {} lines; at most {MOST_LINES}", source.path, source.lines)).collect()
}

const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "misc", "shared", "manager", "managers", "base", "type", "types",
    "service", "services",
];

/// Each file or folder whose name says nothing.
pub(crate) fn empty_names<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let says_nothing = |path: &&str| {
        let stem = path.rsplit_once('.').map_or(*path, |(stem, _)| stem);
        stem.split('/').any(|part| EMPTY_NAMES.contains(&part))
    };
    paths.filter(says_nothing).map(|path| format!("{path} is named after nothing")).collect()
}

/// Ports that stand for the process, or have one adapter: that is tested where it stands.
const WITHOUT_CONTRACT: &[&str] =
    &["Clock", "IdSource", "Dice", "Tasks", "Journal", "Probe", "PasswordHasher", "TtsEngine"];

/// Each port method that no contract suite naming its trait calls.
pub(crate) fn unproven_methods(ports: &[Source], suites: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for port in ports {
        for (name, methods) in traits(port).into_iter().filter(|(name, _)| !WITHOUT_CONTRACT.contains(name)) {
            let calls: HashSet<&str> =
                suites.iter().filter(|suite| names(suite, name)).flat_map(method_calls).collect();
            let silent = methods.into_iter().filter(|method| !calls.contains(method));
            findings.extend(silent.map(|method| format!("no contract suite calls {name}::{method}")));
        }
    }
    findings
}

fn traits(source: &Source) -> Vec<(&str, Vec<&str>)> {
    let words = source.words();
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    let (mut depth, mut inside) = (0_usize, false);
    for window in words.windows(2) {
        match (window[0].1, window[1].1) {
            ("trait", name) if depth == 0 => {
                found.push((name, Vec::new()));
                inside = true;
            }
            ("fn", name) if inside && depth == 1 => found.last_mut().unwrap().1.push(name),
            ("{", _) => depth += 1,
            ("}", _) => {
                depth = depth.saturating_sub(1);
                inside &= depth > 0;
            }
            _ => {}
        }
    }
    found
}

/// In its code, or as what it says it is about.
fn names(suite: &Source, port: &str) -> bool {
    let told = format!("`{port}`");
    suite.words().iter().any(|(_, word)| *word == port) || suite.comments.iter().any(|(_, text)| text.contains(&told))
}

fn method_calls(suite: &Source) -> Vec<&str> {
    let words = suite.words();
    let calls = words.windows(3).filter(|window| window[0].1 == "." && window[2].1 == "(");
    calls.map(|window| window[1].1).collect()
}

/// Each module called `tests` that ships with the crate.
pub(crate) fn shipped_tests(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for window in source.words().windows(2).filter(|window| window[0].1 == "mod" && window[1].1 == "tests") {
            findings.push(format!("{}:{} tests are not the last thing, or ship", source.path, window[0].0));
        }
    }
    findings
}
