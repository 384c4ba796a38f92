//! Who we are, whether we live, and whether we are ready (contract `observability.md` §7.3, §8).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::error::{ApiError, PRODUCT_UI};
use super::spec::Tag;
use crate::core::App;
use crate::core::health::Check;

/// How long one dependency may take to give a sign of life.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a verdict is repeated before the dependencies are asked again.
const FRESH: Duration = Duration::from_secs(1);

/// The public operations of machines and of the curious.
pub(super) struct HealthApi;

/// Judges readiness; concurrent callers share one look at the dependencies.
pub(super) struct Readiness {
    app: Arc<App>,
    leaving: CancellationToken,
    last: Mutex<Option<(Duration, Vec<Check>)>>,
}

/// What this server is.
#[derive(Object)]
#[oai(example)]
struct Identity {
    /// Always `airi-api`.
    service: String,
    /// Where to go instead, for people who came with a browser.
    message: String,
    /// Manual of the product.
    docs: String,
    /// The product.
    ui: String,
}

/// The process runs.
#[derive(Object)]
#[oai(example)]
struct Alive {
    /// Always `live`.
    status: String,
}

/// Whether requests should be sent here.
#[derive(Object)]
#[oai(example)]
struct Report {
    /// The verdict.
    status: Verdict,
    /// Each dependency by name.
    checks: BTreeMap<String, Sign>,
}

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "snake_case")]
enum Verdict {
    /// Send requests.
    Ready,
    /// Send none: a dependency is missing, or the process is leaving.
    NotReady,
}

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
enum Sign {
    /// It answered.
    Ok,
    /// It did not, or not in time.
    Fail,
}

#[derive(ApiResponse)]
enum ReadyAnswer {
    /// Ready.
    #[oai(status = 200)]
    Ready(Json<Report>),
    /// A dependency is missing, or the process is leaving.
    #[oai(status = 503)]
    NotReady(Json<Report>),
}

#[OpenApi(tag = "Tag::Health")]
impl HealthApi {
    /// Say what this server is
    #[oai(path = "/", method = "get", operation_id = "getIdentity")]
    async fn identity(&self) -> Result<Json<Identity>, ApiError> {
        Ok(Json(Identity::example()))
    }

    /// Say that the process runs
    ///
    /// Touches no dependency.
    #[oai(path = "/livez", method = "get", operation_id = "getLiveness")]
    async fn live(&self) -> Result<Json<Alive>, ApiError> {
        Ok(Json(Alive::example()))
    }

    /// Say whether requests should be sent here
    #[oai(path = "/readyz", method = "get", operation_id = "getReadiness")]
    async fn ready(&self, readiness: Data<&Arc<Readiness>>) -> Result<ReadyAnswer, ApiError> {
        let (ready, report) = readiness.report().await;
        Ok(if ready { ReadyAnswer::Ready(Json(report)) } else { ReadyAnswer::NotReady(Json(report)) })
    }
}

impl Readiness {
    /// Judges by the probes of the app; nothing is ready any more once `leaving` is cancelled.
    pub(super) fn new(app: Arc<App>, leaving: CancellationToken) -> Self {
        Self { app, leaving, last: Mutex::new(None) }
    }

    async fn report(&self) -> (bool, Report) {
        let checks = self.checks().await;
        let ready = !self.leaving.is_cancelled() && checks.iter().all(|check| check.ok);
        let status = if ready { Verdict::Ready } else { Verdict::NotReady };
        let sign = |check: Check| (check.name.to_owned(), if check.ok { Sign::Ok } else { Sign::Fail });
        (ready, Report { status, checks: checks.into_iter().map(sign).collect() })
    }

    async fn checks(&self) -> Vec<Check> {
        let mut last = self.last.lock().await;
        let now = self.app.clock.elapsed();
        if let Some((at, checks)) = last.as_ref()
            && now.saturating_sub(*at) < FRESH
        {
            return checks.clone();
        }
        let checks = join_all(self.app.health.probes.iter().map(|(name, probe)| async move {
            let ok = match timeout(PATIENCE, probe.check()).await {
                Ok(Ok(())) => true,
                Ok(Err(fault)) => {
                    warn!(dependency = name, "{name} is not ready: {fault}");
                    false
                }
                Err(_) => {
                    warn!(dependency = name, "{name} is not ready: no sign of life within {PATIENCE:?}");
                    false
                }
            };
            Check { name, ok }
        }))
        .await;
        *last = Some((self.app.clock.elapsed(), checks.clone()));
        checks
    }
}

impl Example for Identity {
    fn example() -> Self {
        let docs = format!("{PRODUCT_UI}/docs");
        Self {
            service: "airi-api".to_owned(),
            message: format!("This is the airi-api server. The product lives at {PRODUCT_UI}, its manual at {docs}."),
            docs,
            ui: PRODUCT_UI.to_owned(),
        }
    }
}

impl Example for Alive {
    fn example() -> Self {
        Self { status: "live".to_owned() }
    }
}

impl Example for Report {
    fn example() -> Self {
        let checks = ["db", "redis"].map(|name| (name.to_owned(), Sign::Ok)).into();
        Self { status: Verdict::Ready, checks }
    }
}
