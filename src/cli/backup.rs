//! `backup`.

use std::path::PathBuf;

use airi_server::compose;
use airi_server::settings::Settings;
use anyhow::{Context, bail};
use clap::Args as ClapArgs;

use super::{Outcome, output};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// A file that does not exist yet.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<Outcome> {
    if !settings.embedded() {
        bail!("backup copies the embedded database; with DATABASE_URL set, use pg_dump");
    }
    compose::backup(&settings.data_dir, &args.to)
        .await
        .with_context(|| format!("cannot copy to {}", args.to.display()))?;
    output::say(&args.to.display().to_string())?;
    Ok(Outcome::Done)
}
