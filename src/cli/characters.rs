//! `characters recount`.

use airi_server::settings::Settings;
use clap::Subcommand;

use super::{Outcome, output, visit};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set the counters of every character to the likes and bookmarks there are and print how many were wrong.
    Recount,
}

pub(crate) async fn run(settings: &Settings, command: Command) -> anyhow::Result<Outcome> {
    let Command::Recount = command;
    visit(settings, async |app| {
        output::say(&app.characters.recount().await?.to_string())?;
        Ok(Outcome::Done)
    })
    .await
}
