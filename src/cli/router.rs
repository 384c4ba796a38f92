//! `router apply` and `router show`.

use std::fs;
use std::path::PathBuf;

use airi_server::core::error::Error;
use airi_server::core::model::admin::with_environment;
use airi_server::core::model::audit::Actor;
use airi_server::http;
use airi_server::settings::Settings;
use anyhow::Context;
use clap::{Args, Subcommand};

use super::{Outcome, output, visit};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write the upstreams, keys and aliases of a document, the same as `POST /api/admin/config/router` takes.
    Apply(Apply),
    /// Print the routing configuration; keys are shown by fingerprint only.
    Show,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The document (JSON). A key is written in it as `plaintextKey`, or named as `plaintextKeyEnv`.
    #[arg(long)]
    file: PathBuf,
}

pub(crate) async fn run(settings: &Settings, command: Command) -> anyhow::Result<Outcome> {
    visit(settings, async |app| {
        let actor = Actor::command_line();
        match command {
            Command::Show => {
                let view = app.admin.show_router(&actor).await?;
                output::say(&serde_json::to_string_pretty(&http::admin_views::router_json(view))?)?;
                Ok(Outcome::Done)
            }
            Command::Apply(Apply { file }) => {
                let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                let applied = match with_environment(&text, environment) {
                    Ok(document) => app.admin.apply_router(&actor, &document, None).await,
                    Err(unusable) => Err(Error::from(unusable)),
                };
                match applied {
                    Ok(change) => {
                        output::say(&serde_json::to_string_pretty(&http::admin_views::change_json(change))?)?;
                        Ok(Outcome::Done)
                    }
                    Err(error) => {
                        tell(&error);
                        Ok(Outcome::Found)
                    }
                }
            }
        }
    })
    .await
}

#[expect(clippy::disallowed_methods, reason = "the document names the variables its keys are in")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// One line per fault, with its path.
fn tell(error: &Error) {
    output::complain(&error.message);
    for issue in error.details.iter().filter_map(|details| details.as_array()).flatten() {
        let text = |name: &str| issue.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        output::complain(&format!("{}: {}", text("path"), text("message")));
    }
}
