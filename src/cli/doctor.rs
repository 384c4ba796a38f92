//! `doctor`.

use airi_server::compose::World;
use airi_server::core::model::config::{DefaultChatModel, LlmRouterConfig, StripeFluxProductId};
use airi_server::settings::Settings;

use super::{Outcome, open, output};

pub(crate) async fn run(settings: &Settings) -> anyhow::Result<Outcome> {
    let mut found = false;
    let mut report = |name: &str, fault: Option<String>| {
        found |= fault.is_some();
        let line = fault.map_or_else(|| format!("ok    {name}"), |mend| format!("FAIL  {name}: {mend}"));
        output::say(&line)
    };
    report("settings", None)?;
    let world = match open(settings).await {
        Ok(world) => world,
        Err(error) => {
            report("storage", Some(format!("{error:#}; check DATABASE_URL, REDIS_URL and AIRI_DATA_DIR")))?;
            return Ok(Outcome::Found);
        }
    };
    for check in world.app.health.check().await {
        report(check.name, (!check.ok).then(|| "does not answer within 2 s; is it running and reachable?".to_owned()))?;
    }
    let multiple = !settings.embedded() && settings.redis.is_none();
    report(
        "instances",
        multiple.then(|| "DATABASE_URL without REDIS_URL: run one instance only, or set REDIS_URL".to_owned()),
    )?;
    report("upstream keys", keys(&world).await)?;
    report("chat model", chat_model(&world, settings.llm.sandbox).await)?;
    if settings.stripe.is_some() || !settings.stripe_webhook_secrets.is_empty() {
        report("shop", shop(&world, settings).await)?;
    }
    world.close(super::GRACE).await;
    Ok(if found { Outcome::Found } else { Outcome::Done })
}

async fn keys(world: &World) -> Option<String> {
    let actor = airi_server::core::model::audit::Actor::command_line();
    match world.app.admin.reencrypt_keys(&actor, true).await {
        Ok(report) if report.unreadable.is_empty() => None,
        Ok(report) => Some(format!(
            "{} of {} cannot be opened; set LLM_ROUTER_MASTER_KEY_PREVIOUS or write them again with router apply",
            report.unreadable.len(),
            report.total
        )),
        Err(error) => Some(error.to_string()),
    }
}

async fn chat_model(world: &World, sandbox: bool) -> Option<String> {
    let config = &world.app.config;
    let (router, model) =
        match (config.optional::<LlmRouterConfig>().await, config.optional::<DefaultChatModel>().await) {
            (Ok(router), Ok(model)) => (router, model),
            (Err(error), _) | (_, Err(error)) => return Some(format!("{error}; write it again with router apply")),
        };
    match (router, model) {
        (None, None) if sandbox => None,
        (None, _) => Some("no upstream is configured; write one with router apply".to_owned()),
        (_, None) => Some("no default chat model; set defaults.chatModel with router apply".to_owned()),
        (Some(router), Some(model)) if router.llm.models.contains_key(&model) => None,
        (_, Some(model)) => Some(format!("the default chat model {model} has no upstream")),
    }
}

async fn shop(world: &World, settings: &Settings) -> Option<String> {
    if settings.stripe.is_none() {
        return Some("STRIPE_WEBHOOK_SECRET without STRIPE_SECRET_KEY: set both".to_owned());
    }
    if settings.stripe_webhook_secrets.is_empty() {
        return Some("payments would be taken and never credited; set STRIPE_WEBHOOK_SECRET".to_owned());
    }
    match world.app.config.optional::<StripeFluxProductId>().await {
        Ok(Some(_)) => None,
        Ok(None) => Some("nothing is on sale; name the product with config set STRIPE_FLUX_PRODUCT_ID".to_owned()),
        Err(error) => Some(format!("{error}; write it again with config set")),
    }
}
