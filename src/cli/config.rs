//! `config set`, `config unset` and `config show`.

use airi_server::core::model::audit::Actor;
use airi_server::settings::Settings;
use clap::{Args, Subcommand};

use super::{Outcome, output, visit};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write an entry. The server reads it within seconds.
    Set(Set),
    /// Put an entry back to its default.
    Unset(Unset),
    /// Print every entry but the routing ones, with its stored value if there is one.
    Show,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// E.g. `STRIPE_FLUX_PRODUCT_ID`.
    name: String,
    /// JSON; a text that is not counts as a string.
    value: String,
}

#[derive(Debug, Args)]
pub(crate) struct Unset {
    /// As `show` prints it.
    name: String,
}

pub(crate) async fn run(settings: &Settings, command: Command) -> anyhow::Result<Outcome> {
    visit(settings, async |app| {
        let actor = Actor::command_line();
        match command {
            Command::Set(Set { name, value }) => app.admin.set_entry(&actor, &name, Some(&value)).await?,
            Command::Unset(Unset { name }) => app.admin.set_entry(&actor, &name, None).await?,
            Command::Show => {
                for (name, stored) in app.admin.entries().await? {
                    let line = stored.map_or_else(|| name.to_owned(), |json| format!("{name} = {json}"));
                    output::say(&line)?;
                }
            }
        }
        Ok(Outcome::Done)
    })
    .await
}
