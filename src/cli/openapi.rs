//! `openapi`.

use std::fs;
use std::path::PathBuf;

use airi_server::http;
use anyhow::Context;
use clap::Args as ClapArgs;

use super::{Outcome, output};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The file to write, or to compare with; without it the document is printed.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write nothing; exit 1 when the file differs from what this binary serves.
    #[arg(long, requires = "output")]
    check: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let document = http::spec_json();
    let Some(path) = &args.output else {
        output::say(document.trim_end())?;
        return Ok(Outcome::Done);
    };
    if !args.check {
        fs::write(path, document).with_context(|| format!("cannot write {}", path.display()))?;
        return Ok(Outcome::Done);
    }
    let written = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    if written == document {
        return Ok(Outcome::Done);
    }
    output::complain(&format!("{0} differs; run airi-server openapi --output {0}", path.display()));
    Ok(Outcome::Found)
}
