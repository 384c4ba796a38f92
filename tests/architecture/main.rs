//! The rules of the house that a reader of sources can check, and for each of them a source that breaks it.
//!
//! No rule looks at a trailing test module, a comment or a string, unless the rule is about them.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod crates;
mod imports;
mod naming;
mod planted;
mod reader;
mod wording;

use std::fs;
use std::path::Path;

use crates::Manifest;
use reader::Source;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` whose name ends in `.<extension>`, by its path from the root, sorted.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn sources(folder: &str) -> Vec<Source> {
    files(folder, "rs").iter().map(|(path, text)| Source::read(path, text)).collect()
}

/// What ships: a module called `tests` does not, as `test_modules_end_their_file` makes sure.
fn shipped() -> Vec<Source> {
    let mut all = sources("src");
    all.retain(|source| !source.path.contains("/tests/") && !source.path.ends_with("/tests.rs"));
    all
}

fn manifest() -> Manifest {
    Manifest::read(&fs::read_to_string(root().join("Cargo.toml")).unwrap())
}

fn none(findings: &[String]) {
    assert!(findings.is_empty(), "{} found:\n  {}", findings.len(), findings.join("\n  "));
}

#[test]
fn there_is_something_to_read() {
    assert!(shipped().len() > 50);
    assert!(manifest().names().count() > 20);
}

#[test]
fn imports_point_inward() {
    none(&imports::outward(&shipped()));
}

#[test]
fn the_pure_rooms_use_only_listed_crates() {
    none(&crates::impure(&shipped(), &manifest()));
}

#[test]
fn the_doors_name_no_driver() {
    none(&crates::beyond_the_doors(&shipped(), &manifest()));
}

#[test]
fn the_pure_rooms_touch_nothing_ambient() {
    none(&crates::ambient(&shipped()));
}

#[test]
fn the_vocabulary_does_not_wait() {
    none(&crates::waiting_vocabulary(&shipped()));
}

#[test]
fn a_crate_with_one_home_is_named_nowhere_else() {
    none(&crates::away_from_home(&shipped()));
}

#[test]
fn test_modules_end_their_file() {
    none(&naming::shipped_tests(&shipped()));
}

#[test]
fn no_file_is_longer_than_400_lines() {
    none(&naming::too_long(&shipped()));
}

#[test]
fn no_file_is_named_after_nothing() {
    let mut paths: Vec<_> = ["src", "tests", "examples"].into_iter().flat_map(|folder| files(folder, "rs")).collect();
    paths.extend(files("migrations", "sql"));
    none(&naming::empty_names(paths.iter().map(|(path, _)| path.as_str())));
}

#[test]
fn every_repo_method_is_called_by_a_contract_suite() {
    none(&naming::unproven_methods(&sources("src/ports"), &sources("tests/contract")));
}

#[test]
fn nothing_left_to_do_without_an_owner() {
    let all: Vec<_> = ["src", "tests", "examples"].into_iter().flat_map(sources).collect();
    none(&wording::ownerless_promises(&all));
}

#[test]
fn columns_are_listed() {
    none(&wording::unlisted_columns(&shipped(), &files("migrations", "sql")));
}
