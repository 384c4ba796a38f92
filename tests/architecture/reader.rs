//! Reads a Rust source far enough to know what it names: no types, no macros expanded.

/// One source file, without its trailing test module.
pub(crate) struct Source {
    /// From the root, with `/`.
    pub(crate) path: String,
    /// Code only: comments and the insides of strings are blank, lines stand where they stood.
    pub(crate) code: String,
    /// Each comment, with the line it starts on.
    pub(crate) comments: Vec<(usize, String)>,
    /// The inside of each string literal, with the line it starts on.
    pub(crate) strings: Vec<(usize, String)>,
    /// Every path the code names, braces expanded, `self` and `super` resolved.
    pub(crate) names: Vec<Name>,
    /// Lines before the trailing test module.
    pub(crate) lines: usize,
}

/// A path such as `crate::ports::Fault`; the crate's own library counts as `crate`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) line: usize,
    pub(crate) path: Vec<String>,
    /// Whether it stands in an attribute.
    pub(crate) attribute: bool,
}

impl Name {
    pub(crate) fn starts_with(&self, prefix: &[&str]) -> bool {
        self.path.len() >= prefix.len() && self.path.iter().zip(prefix).all(|(have, want)| have == want)
    }

    pub(crate) fn text(&self) -> String {
        self.path.join("::")
    }
}

impl Source {
    pub(crate) fn read(path: &str, text: &str) -> Self {
        let (code, mut comments, mut strings) = separate(text);
        let code = before_trailing_tests(&code).to_owned();
        let lines = code.lines().count();
        comments.retain(|(line, _)| *line <= lines);
        strings.retain(|(line, _)| *line <= lines);
        let names = Walk::over(&code, module_of(path)).names();
        Self { path: path.to_owned(), code, comments, strings, names, lines }
    }

    /// Words of the code with their lines: identifiers, keywords, and single signs (`::` is one).
    pub(crate) fn words(&self) -> Vec<(usize, &str)> {
        words(&self.code)
    }
}

type Lines = Vec<(usize, String)>;

/// Parts code from comments and strings.
fn separate(text: &str) -> (String, Lines, Lines) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments, mut strings) = (String::with_capacity(text.len()), Vec::new(), Vec::new());
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let rest = &chars[at..];
        let before = at.checked_sub(1).map_or(' ', |before| chars[before]);
        let (length, kept) = match rest {
            ['/', '/', ..] => (rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()), Kept::Comment),
            ['/', '*', ..] => (block_comment(rest), Kept::Comment),
            ['"', ..] => (quoted(rest), Kept::String),
            ['\'', ..] => (character(rest), Kept::Character),
            ['r', '"' | '#', ..] if !is_word(before) || before == 'b' || before == 'c' => match raw_quoted(rest) {
                Some(length) => (length, Kept::String),
                None => (1, Kept::Code),
            },
            _ => (1, Kept::Code),
        };
        let piece: String = rest[..length].iter().collect();
        let ends = piece.matches('\n').count();
        match kept {
            Kept::Code => code.push_str(&piece),
            Kept::Comment => code.extend(piece.chars().filter(|c| *c == '\n')),
            Kept::String => {
                code.push('"');
                code.extend(piece.chars().filter(|c| *c == '\n'));
                code.push('"');
            }
            Kept::Character => code.push_str("' '"),
        }
        match kept {
            Kept::Comment => comments.push((line, piece)),
            Kept::String => strings.push((line, piece)),
            Kept::Code | Kept::Character => {}
        }
        line += ends;
        at += length;
    }
    (code, comments, strings)
}

#[derive(Clone, Copy)]
enum Kept {
    Code,
    Comment,
    String,
    Character,
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"…"` or `r#"…"#`; none for a raw identifier.
fn raw_quoted(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let inside = &rest[2 + hashes..];
    let length = inside.windows(end.len()).position(|window| window == end).unwrap_or(inside.len());
    Some((2 + hashes + length + end.len()).min(rest.len()))
}

/// A character literal, or the one sign of a lifetime.
fn character(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', _, tail @ ..] => 3 + tail.iter().position(|c| *c == '\'').map_or(0, |end| end + 1),
        ['\'', _, '\'', ..] => 3,
        _ => 1,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The code before the test modules that end it.
fn before_trailing_tests(code: &str) -> &str {
    let mut kept = code;
    loop {
        let start = ["#[cfg(test)]", "#[cfg(all(test"]
            .iter()
            .filter_map(|marker| kept.rfind(&format!("\n{marker}")).map(|at| at + 1))
            .max();
        match start {
            Some(start) if is_one_module(&kept[start..]) => kept = &kept[..start],
            _ => return kept,
        }
    }
}

/// Whether the text is attributes, one module, and nothing behind it.
fn is_one_module(text: &str) -> bool {
    let words = words(text);
    let mut rest = words.as_slice();
    while let [(_, "#"), tail @ ..] = rest {
        rest = &tail[block(tail, "[", "]")..];
    }
    match rest {
        [(_, "mod"), _, (_, ";")] => true,
        [(_, "mod"), _, (_, "{"), ..] => block(&rest[2..], "{", "}") == rest.len() - 2,
        _ => false,
    }
}

/// How many words the block at the start takes, its signs included.
fn block(words: &[(usize, &str)], open: &str, close: &str) -> usize {
    let mut depth = 0_usize;
    for (at, (_, word)) in words.iter().enumerate() {
        if *word == open {
            depth += 1;
        } else if *word == close {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return at + 1;
            }
        }
    }
    words.len()
}

fn words(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (line, text) in code.lines().enumerate() {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            found.push((line + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    found
}

/// `src/core/llm/plan.rs` is `crate::core::llm::plan`.
fn module_of(path: &str) -> Vec<String> {
    let inner = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    let parts = inner.split('/').filter(|part| !matches!(*part, "lib" | "main"));
    std::iter::once("crate").chain(parts).map(str::to_owned).collect()
}

/// Walks over the words of a file and collects the paths among them.
struct Walk<'a> {
    words: Vec<(usize, &'a str)>,
    at: usize,
    module: Vec<String>,
    names: Vec<Name>,
}

impl<'a> Walk<'a> {
    fn over(code: &'a str, module: Vec<String>) -> Self {
        Self { words: words(code), at: 0, module, names: Vec::new() }
    }

    fn names(mut self) -> Vec<Name> {
        let mut depth = 0_usize;
        let mut inline: Vec<usize> = Vec::new();
        let mut attribute_until = 0;
        while self.at < self.words.len() {
            match self.word(0) {
                "#" => {
                    let open = if self.word(1) == "!" { 2 } else { 1 };
                    if self.word(open) == "[" {
                        attribute_until = self.at + open + block(&self.words[self.at + open..], "[", "]");
                    }
                    self.at += 1;
                }
                // Not `impl Trait + use<'a>`, which names what a type captures and no path.
                "use" if self.word(1) != "<" => {
                    self.at += 1;
                    self.tree(Vec::new());
                }
                "mod" if self.word(2) == "{" => {
                    inline.push(depth);
                    self.module.push(self.word(1).to_owned());
                    self.at += 2;
                }
                "{" => {
                    depth += 1;
                    self.at += 1;
                }
                "}" => {
                    depth = depth.saturating_sub(1);
                    if inline.last() == Some(&depth) {
                        inline.pop();
                        self.module.pop();
                    }
                    self.at += 1;
                }
                word if word.starts_with(is_word) && self.word(1) == "::" => {
                    let attribute = self.at < attribute_until;
                    self.path(attribute);
                }
                _ => self.at += 1,
            }
        }
        self.names
    }

    fn word(&self, ahead: usize) -> &'a str {
        self.words.get(self.at + ahead).map_or("", |(_, word)| *word)
    }

    /// A path in an expression, a type or an attribute.
    fn path(&mut self, attribute: bool) {
        let line = self.words[self.at].0;
        let mut path = vec![self.word(0).to_owned()];
        self.at += 1;
        while self.word(0) == "::" && self.word(1).starts_with(is_word) {
            path.push(self.word(1).to_owned());
            self.at += 2;
        }
        self.push(line, &path, attribute);
    }

    /// A `use` tree from here to its end: `;`, or `,` and `}` of the tree around it.
    fn tree(&mut self, mut prefix: Vec<String>) {
        let line = self.words.get(self.at).map_or(0, |(line, _)| *line);
        loop {
            match self.word(0) {
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while !matches!(self.word(0), "}" | "") {
                        self.tree(prefix.clone());
                        if self.word(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "as" => self.at += 2,
                ";" | "," | "}" | "" => break,
                "self" if !prefix.is_empty() => self.at += 1,
                word => {
                    prefix.push(word.to_owned());
                    self.at += 1;
                }
            }
        }
        self.push(line, &prefix, false);
    }

    fn push(&mut self, line: usize, path: &[String], attribute: bool) {
        let mut rest = path;
        let mut resolved = match rest.first().map(String::as_str) {
            Some("airi_server") => vec!["crate".to_owned()],
            Some("self" | "super") => self.module.clone(),
            Some(_) => vec![rest[0].clone()],
            None => return,
        };
        if rest[0] == "super" {
            while rest.first().is_some_and(|part| part == "super") {
                resolved.pop();
                rest = &rest[1..];
            }
        } else {
            rest = &rest[1..];
        }
        resolved.extend_from_slice(rest);
        self.names.push(Name { line, path: resolved, attribute });
    }
}
