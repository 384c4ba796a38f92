//! `flux grant`.

use airi_server::core::model::audit::Actor;
use airi_server::settings::Settings;
use clap::{Args, Subcommand};

use super::{Outcome, output, visit};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give a user flux and print the balance after it.
    Grant(Grant),
}

#[derive(Debug, Args)]
pub(crate) struct Grant {
    /// Who receives.
    #[arg(long)]
    email: String,
    /// How much, 1 to 10000.
    #[arg(long)]
    amount: i64,
    /// Text of the ledger entry.
    #[arg(long, default_value = "Operator grant")]
    reason: String,
    /// Idempotency key: repeating the command with the same key gives nothing twice.
    #[arg(long)]
    key: Option<String>,
}

pub(crate) async fn run(settings: &Settings, command: Command) -> anyhow::Result<Outcome> {
    let Command::Grant(grant) = command;
    visit(settings, async |app| {
        let balance = app
            .admin
            .grant_one(&Actor::command_line(), &grant.email, grant.amount, &grant.reason, grant.key.as_deref())
            .await?;
        output::say(&balance.to_string())?;
        Ok(Outcome::Done)
    })
    .await
}
