//! `holds sweep`.

use airi_server::settings::Settings;
use clap::Subcommand;

use super::{Outcome, output, visit};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Void every hold whose lease is over and print how many there were.
    Sweep,
}

pub(crate) async fn run(settings: &Settings, command: Command) -> anyhow::Result<Outcome> {
    let Command::Sweep = command;
    visit(settings, async |app| {
        output::say(&app.ledger.sweep().await?.to_string())?;
        Ok(Outcome::Done)
    })
    .await
}
