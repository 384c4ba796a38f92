//! The command line: what is asked, and which door answers.

mod backup;
mod characters;
mod config;
mod doctor;
mod flux;
mod holds;
mod keys;
mod ledger;
mod migrate;
mod openapi;
mod output;
mod router;
mod serve;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use airi_server::compose::{Hold, LogOutput, World};
use airi_server::core::App;
use airi_server::settings::{Settings, Source};
use clap::{Parser, Subcommand};

/// Identity, an exact prepaid credit ledger and an OpenAI-compatible gateway, in one process.
///
/// Exit codes: 0 done · 1 it ran and found something wrong · 2 bad arguments or settings.
#[derive(Debug, Parser)]
#[command(name = "airi-server", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Settings file (TOML); without it `./airi.toml` is read when present.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until a signal; the default.
    Serve,
    /// Bring the database to this version's schema and say what was applied.
    Migrate,
    /// Print the `OpenAPI` document.
    Openapi(openapi::Args),
    /// Create users and open sessions.
    #[command(subcommand)]
    User(user::Command),
    /// Give flux.
    #[command(subcommand)]
    Flux(flux::Command),
    /// Check the books.
    #[command(subcommand)]
    Ledger(ledger::Command),
    /// Mend counters of characters.
    #[command(subcommand)]
    Characters(characters::Command),
    /// Void what dead processes left set aside.
    #[command(subcommand)]
    Holds(holds::Command),
    /// Write or read configuration entries: what is sold, prices, limits.
    #[command(subcommand)]
    Config(config::Command),
    /// Write or read upstreams, keys and model aliases.
    #[command(subcommand)]
    Router(router::Command),
    /// Make and rotate master keys.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Write a consistent copy of the embedded database, while serving or not.
    Backup(backup::Args),
    /// Check settings and dependencies, with the mend for each failure.
    Doctor,
}

/// What a command came to.
pub(crate) enum Outcome {
    /// Done.
    Done,
    /// It ran and found something wrong, and has said so.
    Found,
}

impl Cli {
    /// Runs the command to its exit code; failures are told on stderr.
    pub(crate) fn run(self) -> ExitCode {
        let command = self.command.unwrap_or(Command::Serve);
        let outcome = match command {
            Command::Openapi(args) => openapi::run(&args),
            Command::Keys(keys::Command::GenerateMaster) => keys::generate_master(),
            command => {
                let source = Source::of_process(self.config.as_deref());
                match source.and_then(|source| Settings::read(&source)) {
                    Ok(settings) => block_on(dispatch(command, settings)),
                    Err(problems) => {
                        for problem in problems {
                            output::complain(&problem.to_string());
                        }
                        return ExitCode::from(2);
                    }
                }
            }
        };
        match outcome {
            Ok(Outcome::Done) => ExitCode::SUCCESS,
            Ok(Outcome::Found) => ExitCode::FAILURE,
            Err(error) => {
                output::complain(&format!("{error:#}"));
                ExitCode::FAILURE
            }
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<Outcome>>) -> anyhow::Result<Outcome> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

async fn dispatch(command: Command, settings: Settings) -> anyhow::Result<Outcome> {
    match command {
        Command::Serve => serve::run(settings).await,
        Command::Migrate => migrate::run(&settings).await,
        Command::User(command) => user::run(&settings, command).await,
        Command::Flux(command) => flux::run(&settings, command).await,
        Command::Ledger(command) => ledger::run(&settings, command).await,
        Command::Characters(command) => characters::run(&settings, command).await,
        Command::Holds(command) => holds::run(&settings, command).await,
        Command::Config(command) => config::run(&settings, command).await,
        Command::Router(command) => router::run(&settings, command).await,
        Command::Keys(command) => keys::run(&settings, command).await,
        Command::Backup(args) => backup::run(&settings, &args).await,
        Command::Doctor => doctor::run(&settings).await,
        // Answered before settings are read.
        Command::Openapi(args) => openapi::run(&args),
    }
}

/// How long a command waits for work it started.
const GRACE: Duration = Duration::from_secs(10);

/// The world of a command: it may run beside a serving process, and its lines go to stderr.
async fn open(settings: &Settings) -> anyhow::Result<World> {
    let mut settings = settings.clone();
    if settings.telemetry.rust_log.is_none() && settings.telemetry.log_level == "info" {
        "warn".clone_into(&mut settings.telemetry.log_level);
    }
    // A command reports to its terminal, not to a collector, and has no series to join.
    settings.telemetry.otlp_endpoint = None;
    settings.telemetry.instance_id = Some("command".to_owned());
    Ok(World::open(&settings, Hold::Visit, LogOutput::Stderr).await?)
}

async fn visit(
    settings: &Settings,
    work: impl AsyncFnOnce(Arc<App>) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Outcome> {
    let world = open(settings).await?;
    let outcome = work(Arc::clone(&world.app)).await;
    world.close(GRACE).await;
    outcome
}
