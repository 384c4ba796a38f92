//! `ledger verify`.

use airi_server::settings::Settings;
use clap::Subcommand;

use super::{Outcome, output, visit};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Walk every entry, balance and hold, and tell what does not add up. Changes nothing.
    Verify,
}

pub(crate) async fn run(settings: &Settings, command: Command) -> anyhow::Result<Outcome> {
    let Command::Verify = command;
    visit(settings, async |app| {
        let verified = app.ledger.verify().await?;
        for drift in &verified.drifts {
            output::say(&drift.to_string())?;
        }
        let (entries, balances, drifts) = (verified.entries, verified.balances, verified.drift_count);
        output::say(&format!("{entries} entries, {balances} balances, {drifts} drifts"))?;
        Ok(if drifts == 0 { Outcome::Done } else { Outcome::Found })
    })
    .await
}
