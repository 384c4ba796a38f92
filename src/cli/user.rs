//! `user create` and `user token`.

use airi_server::core::accounts::NewUser;
use airi_server::core::model::accounts::Email;
use airi_server::core::model::secret::Secret;
use airi_server::settings::Settings;
use clap::{Args, Subcommand};

use super::{Outcome, output, visit};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a user and print the user id.
    Create(Create),
    /// Open a session and print its bearer token, nothing else.
    Token(Token),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The address; unique.
    #[arg(long, value_parser = Email::parse)]
    email: Email,
    /// A password of 8 to 128 characters. Other users of this machine can see arguments: prefer a password reset.
    #[arg(long)]
    password: Option<String>,
    /// Display name; the part before the `@` when absent.
    #[arg(long)]
    name: Option<String>,
    /// Count the address as proved.
    #[arg(long)]
    verified: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    /// Whose session.
    #[arg(long, value_parser = Email::parse)]
    email: Email,
}

pub(crate) async fn run(settings: &Settings, command: Command) -> anyhow::Result<Outcome> {
    visit(settings, async |app| {
        match command {
            Command::Create(Create { email, password, name, verified }) => {
                let new = NewUser { email, name, password: password.map(Secret::new), verified };
                output::say(app.accounts.create(new).await?.id.as_str())?;
            }
            Command::Token(Token { email }) => {
                output::say(app.accounts.open_session(&email).await?.token.expose())?;
            }
        }
        Ok(Outcome::Done)
    })
    .await
}
