//! What comments promise and what queries ask for.

use crate::reader::Source;

/// Each note of something left to do that does not say whose it is, as in `TODO(ann)`.
pub(crate) fn ownerless_promises(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for (line, comment) in &source.comments {
            let words = comment.split(|c: char| c.is_whitespace() || matches!(c, '`' | ':' | '/' | '*'));
            if words
                .into_iter()
                .any(|word| matches!(word.split('(').next(), Some("TODO" | "FIXME" | "XXX")) && !has_owner(word))
            {
                findings.push(format!("{}:{line} leaves something to do without an owner", source.path));
            }
        }
    }
    findings
}

fn has_owner(word: &str) -> bool {
    word.split_once('(').is_some_and(|(_, owner)| owner.split_once(')').is_some_and(|(owner, _)| !owner.is_empty()))
}

/// Each query that takes whatever columns there are.
pub(crate) fn unlisted_columns(sources: &[Source], migrations: &[(String, String)]) -> Vec<String> {
    let literals = sources.iter().flat_map(|source| {
        source.strings.iter().map(|(line, text)| (format!("{}:{line}", source.path), text.as_str()))
    });
    let files = migrations.iter().map(|(path, text)| (path.clone(), text.as_str()));
    literals
        .chain(files)
        .filter(|(_, text)| takes_all(text))
        .map(|(place, _)| format!("{place} selects columns it does not list"))
        .collect()
}

fn takes_all(sql: &str) -> bool {
    let words: Vec<String> = sql.split_whitespace().map(str::to_ascii_uppercase).collect();
    words.windows(2).any(|pair| {
        let verb = pair[0].trim_start_matches(['(', '"']);
        let star = pair[1].trim_end_matches([',', ')', '"', '#', ';']);
        matches!(verb, "SELECT" | "RETURNING" | "DISTINCT") && (star == "*" || star.ends_with(".*"))
    })
}
