//! `keys generate-master`, `keys rotate-master` and `keys rotate-signing`.

use airi_server::compose;
use airi_server::core::model::audit::Actor;
use airi_server::settings::Settings;
use clap::Subcommand;

use super::{Outcome, output, visit};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print a fresh master key: base64 of 32 random bytes.
    GenerateMaster,
    /// Seal every stored key and every secret of users with the current master key and print what was done. Set the old key as
    /// LLM_ROUTER_MASTER_KEY_PREVIOUS first; remove it when nothing is left unreadable.
    RotateMaster {
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Add an RS256 key for tokens and print its id. It is published at once and signs after ten minutes; the keys
    /// before it verify for a day more.
    RotateSigning,
}

pub(crate) fn generate_master() -> anyhow::Result<Outcome> {
    output::say(compose::generate_master_key().expose())?;
    Ok(Outcome::Done)
}

pub(crate) async fn run(settings: &Settings, command: Command) -> anyhow::Result<Outcome> {
    let dry_run = match command {
        Command::GenerateMaster => return generate_master(),
        Command::RotateSigning => return rotate_signing(settings).await,
        Command::RotateMaster { dry_run } => dry_run,
    };
    visit(settings, async |app| {
        let report = app.admin.reencrypt_keys(&Actor::command_line(), dry_run).await?;
        output::say(&format!(
            "{} key slots: {} sealed anew, {} sealed with the current key before, {} unreadable",
            report.total,
            report.reencrypted,
            report.already_current,
            report.unreadable.len(),
        ))?;
        let users = app.providers.reseal(dry_run).await?.and(app.characters.reseal(dry_run).await?);
        output::say(&format!(
            "{} secrets of users: {} sealed anew, {} sealed with the current key before, {} unreadable",
            users.total,
            users.anew,
            users.current,
            users.unreadable.len(),
        ))?;
        for slot in report.unreadable.iter().chain(&users.unreadable) {
            output::complain(&format!("unreadable: {slot}"));
        }
        for row in &users.changed {
            output::complain(&format!("changed meanwhile, run this again: {row}"));
        }
        let clean = report.unreadable.is_empty() && users.unreadable.is_empty() && users.changed.is_empty();
        Ok(if clean { Outcome::Done } else { Outcome::Found })
    })
    .await
}

async fn rotate_signing(settings: &Settings) -> anyhow::Result<Outcome> {
    visit(settings, async |app| {
        output::say(&app.oidc.rotate_keys().await?)?;
        Ok(Outcome::Done)
    })
    .await
}
