//! Doors: extract, convert, call one use-case, convert back.
//!
//! Order of what surrounds a request, outermost first: request id, span and line · headers of every answer · CORS
//! and preflights · failures and panics become answers · size of the head · size of the body · guarded prefixes ·
//! the route.

pub mod accounts;
mod admin;
mod admin_documents;
pub mod admin_views;
pub mod auth;
mod billing;
mod billing_admin;
mod billing_documents;
mod character_documents;
mod character_sheet;
mod characters;
mod chat_documents;
mod chats;
mod docs;
pub mod error;
mod health;
mod ledger;
mod llm;
pub mod middleware;
mod oidc;
mod openai;
pub mod payload;
mod providers;
mod serve;
mod spec;
mod tts;
mod ws;

use std::sync::Arc;

use poem::endpoint::BoxEndpoint;
use poem::{EndpointExt, Response, Route};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::core::App;
use crate::core::model::principal::Administrators;
use accounts::cookies::Cookies;
use accounts::trust::Trust;
use auth::{Doorkeeper, guard};
use health::Readiness;
use middleware::cors::{TrustedOrigins, cors};
use middleware::guard::{AllowedMethods, answer, limit_head, secure};
use middleware::limit_body::{BodyLimits, limit_body};
use middleware::trace::{Tracer, trace};
use ws::speech::speech_socket;
use ws::{ChatSockets, Sockets, chat_socket};

pub use serve::{serve, serve_metrics};
pub use spec::spec_json;

/// What a restart may change about the doors.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes any free one.
    pub port: u16,
    /// How clients reach this server; `https` adds `Strict-Transport-Security`.
    pub api_server_url: String,
    /// Comma-separated URLs whose origins may call us from a browser, besides the built-in ones.
    pub additional_trusted_origins: TrustedOrigins,
    /// Comma-separated addresses that may administer once verified.
    pub admin_emails: String,
    /// Longest request body, bytes.
    pub body_limit_bytes: usize,
    /// Longest request body of chat completions, bytes.
    pub chat_body_limit_bytes: usize,
    /// Longest frame of a socket, bytes.
    pub ws_frame_limit_bytes: usize,
    /// Whether a fresh chat socket holds what is pushed until the device has pulled, half a second at most. Devices that
    /// drop while they catch up lose nothing then; devices that never pull wait.
    pub ws_hold_first_pushes: bool,
    /// Reverse proxies in front of us whose headers are believed; 0 believes nobody.
    pub trusted_proxy_hops: u8,
    /// How long running requests may go on after the signal to stop, ms.
    pub shutdown_grace_ms: u64,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            host: "0.0.0.0".to_owned(),
            port: 3000,
            api_server_url: "http://localhost:3000".to_owned(),
            additional_trusted_origins: TrustedOrigins::default(),
            admin_emails: String::new(),
            body_limit_bytes: 1024 * 1024,
            chat_body_limit_bytes: 10 * 1024 * 1024,
            ws_frame_limit_bytes: 16 * 1024 * 1024,
            ws_hold_first_pushes: false,
            trusted_proxy_hops: 0,
            shutdown_grace_ms: 25_000,
        }
    }
}

/// Every door of the server, ready to be called. Readiness ends when `leaving` is cancelled.
pub fn routes(app: Arc<App>, settings: &HttpSettings, leaving: CancellationToken) -> BoxEndpoint<'static, Response> {
    let sockets = Sockets::new(leaving.clone());
    routes_with(app, settings, leaving, sockets)
}

fn routes_with(
    app: Arc<App>,
    settings: &HttpSettings,
    leaving: CancellationToken,
    sockets: Sockets,
) -> BoxEndpoint<'static, Response> {
    let doorkeeper = Doorkeeper {
        accounts: app.accounts.clone(),
        oidc: app.oidc.clone(),
        administrators: Arc::new(Administrators::parse(&settings.admin_emails)),
        cookies: Arc::new(Cookies::new(app.sign_in.clone(), &settings.api_server_url)),
        trust: Arc::new(Trust::new(&settings.api_server_url, settings.additional_trusted_origins.clone())),
    };
    let readiness = Arc::new(Readiness::new(app.clone(), leaving.clone()));
    let (spoken_to, judge) = (app.clone(), doorkeeper.clone());
    let tracer = Arc::new(Tracer { app: app.clone(), trusted_hops: settings.trusted_proxy_hops });
    let methods = Arc::new(AllowedMethods::from_spec(&spec::document()));
    let origins = Arc::new(settings.additional_trusted_origins.clone());
    let limits = BodyLimits { usual: settings.body_limit_bytes, chat: settings.chat_body_limit_bytes };
    let https = settings.api_server_url.starts_with("https://");

    let sockets = ChatSockets::new(app.clone(), doorkeeper.clone(), sockets, settings);
    let socket = poem::endpoint::make(move |req| {
        let sockets = sockets.clone();
        async move { chat_socket(&req, sockets).await }
    });

    let doors = docs::mount(Route::new().at("/ws/chat", socket).nest("/", spec::service()));
    accounts::mount(oidc::mount(doors))
        .around(guard)
        .data(doorkeeper)
        .data(readiness)
        .data(app)
        .data(origins.clone())
        // Each layer is part of the type of the next; without a cut the compiler gives up on their futures.
        .boxed()
        .around(move |next, req| limit_body(next, req, limits))
        .around(move |next, req| speech_socket(next, req, spoken_to.clone(), judge.clone(), leaving.clone()))
        .around(limit_head)
        .around(move |next, req| answer(next, req, methods.clone()))
        .boxed()
        .around(move |next, req| cors(next, req, origins.clone()))
        .around(move |next, req| secure(next, req, https))
        .around(move |next, req| trace(next, req, tracer.clone()))
        .boxed()
}
