//! `serve`: the server itself.

use std::sync::Arc;
use std::time::Duration;

use airi_server::compose::{self, Hold, LogOutput, World};
use airi_server::core::App;
use airi_server::core::accounts::NewUser;
use airi_server::core::model::accounts::Email;
use airi_server::core::model::audit::Actor;
use airi_server::http;
use airi_server::settings::Settings;
use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Outcome, output};

/// The first-run administrator of embedded mode.
const FIRST_ADMIN: &str = "admin@airi.localhost";
/// What they are given to try things with, flux.
const FIRST_FLUX: i64 = 1_000;

pub(crate) async fn run(mut settings: Settings) -> anyhow::Result<Outcome> {
    let first_run = settings.embedded() && compose::is_first_run(&settings.data_dir);
    let world = World::open(&settings, Hold::Serve, LogOutput::Stdout).await?;
    if settings.embedded() {
        settings.http.admin_emails = format!("{},{FIRST_ADMIN}", settings.http.admin_emails);
    } else if settings.redis.is_none() {
        tracing::warn!("REDIS_URL is not set: a second instance would not see this one's limits, messages and changes");
    }
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone())?;

    world.app.oidc.seed().await?;
    let address = (settings.http.host.as_str(), settings.http.port);
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {}:{}", address.0, address.1))?;
    let url = format!("http://{}", listener.local_addr()?);
    let metrics = metrics(&settings, &world, shutdown.clone()).await?;
    let welcome = if first_run { Some(first_admin(&world.app).await?) } else { None };
    greet(&settings, &url, welcome.as_deref())?;

    let served = http::serve(Arc::clone(&world.app), &settings.http, listener, shutdown.clone()).await;
    shutdown.cancel();
    if let Some(metrics) = metrics {
        drop(metrics.await);
    }
    world.close(Duration::from_millis(settings.http.shutdown_grace_ms)).await;
    served?;
    Ok(Outcome::Done)
}

/// The first signal asks for an orderly end; the second ends the process at once.
fn stop_on_signal(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    #[expect(clippy::disallowed_methods, reason = "lives as long as the process and has nothing to finish")]
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        tracing::info!("stopping: running answers may finish, nothing new is accepted");
        shutdown.cancel();
        next().await;
        std::process::exit(130);
    });
    Ok(())
}

async fn metrics(
    settings: &Settings,
    world: &World,
    shutdown: CancellationToken,
) -> anyhow::Result<Option<tokio::task::JoinHandle<std::io::Result<()>>>> {
    let (Some(port), Some(render)) = (settings.metrics_port, world.metrics()) else { return Ok(None) };
    let listener = TcpListener::bind((settings.http.host.as_str(), port))
        .await
        .with_context(|| format!("cannot listen on the metrics port {port}"))?;
    #[expect(clippy::disallowed_methods, reason = "awaited before the process ends")]
    Ok(Some(tokio::spawn(http::serve_metrics(listener, render, shutdown))))
}

/// Creates the administrator a newcomer tries things with; returns their bearer token.
async fn first_admin(app: &App) -> anyhow::Result<String> {
    let email = Email::parse(FIRST_ADMIN)?;
    let new = NewUser { email: email.clone(), name: Some("First admin".to_owned()), password: None, verified: true };
    app.accounts.create(new).await?;
    app.admin.grant_one(&Actor::command_line(), FIRST_ADMIN, FIRST_FLUX, "First-run grant", Some("first-run")).await?;
    Ok(app.accounts.open_session(&email).await?.token.expose().to_owned())
}

fn greet(settings: &Settings, url: &str, first_token: Option<&str>) -> anyhow::Result<()> {
    if settings.embedded() {
        let token = first_token.unwrap_or("$TOKEN");
        output::say("")?;
        output::say(&format!("  airi-server  {url}   (API description: {url}/docs)"))?;
        output::say(&format!("  data         {}", settings.data_dir.display()))?;
        let admin = first_token.map_or_else(
            || format!("airi-server user token --email {FIRST_ADMIN}"),
            |token| format!("{token}   ({FIRST_ADMIN}, {FIRST_FLUX} flux; shown once)"),
        );
        output::say(&format!("  admin token  {admin}"))?;
        if settings.llm.sandbox {
            output::say("")?;
            output::say("  Try a paid, streamed completion from the sandbox model:")?;
            output::say("")?;
            output::say(&format!("  curl -N {url}/api/v1/openai/chat/completions \\"))?;
            output::say(&format!("    -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \\"))?;
            output::say(
                "    -d '{\"model\":\"auto\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Hello!\"}]}'",
            )?;
        }
        output::say("")?;
    }
    output::say(&format!("ready {url}"))?;
    Ok(())
}
