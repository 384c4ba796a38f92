//! What commands print: results on stdout, complaints on stderr.

use std::io::Write;

/// One line of the result.
pub(crate) fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}

/// One line about a failure. A closed stderr is nobody's to tell.
pub(crate) fn complain(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "airi-server: {line}"));
}
