//! `migrate`.

use airi_server::compose;
use airi_server::settings::Settings;

use super::{Outcome, output};

pub(crate) async fn run(settings: &Settings) -> anyhow::Result<Outcome> {
    let (applied, warnings) = compose::migrate(settings).await?;
    for step in &applied {
        output::say(&format!("applied {step}"))?;
    }
    if applied.is_empty() {
        output::say("nothing to apply")?;
    }
    for warning in warnings {
        output::complain(&warning);
    }
    Ok(Outcome::Done)
}
