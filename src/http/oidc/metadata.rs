//! What verifiers and clients read first (contract `auth.md` §6.9, §7.8).

use std::sync::Arc;

use poem::web::Data;
use poem::{Response, handler};
use serde_json::{Value, json};

use super::answers::json_answer;
use crate::core::App;
use crate::core::model::oidc::Issuer;
use crate::core::model::oidc::claims::ACR;
use crate::core::model::oidc::clients::SCOPES;
use crate::http::error::refuse;

#[handler]
pub(super) async fn key_set(app: Data<&Arc<App>>) -> Response {
    match app.oidc.keys().await {
        Ok(keys) => json_answer(&json!({ "keys": keys })),
        Err(error) => refuse(error),
    }
}

#[handler]
pub(super) async fn document(app: Data<&Arc<App>>) -> Response {
    match app.oidc.keys().await {
        Ok(keys) => json_answer(&describe(&app.oidc.issuer, &keys)),
        Err(error) => refuse(error),
    }
}

fn describe(issuer: &Issuer, keys: &[Value]) -> Value {
    let mut algorithms: Vec<&Value> = keys.iter().filter_map(|key| key.get("alg")).collect();
    algorithms.dedup();
    let methods = ["none", "client_secret_basic", "client_secret_post"];
    json!({
        "issuer": issuer.announced(),
        "authorization_endpoint": issuer.endpoint("/oauth2/authorize"),
        "token_endpoint": issuer.endpoint("/oauth2/token"),
        "jwks_uri": issuer.endpoint("/jwks"),
        "introspection_endpoint": issuer.endpoint("/oauth2/introspect"),
        "revocation_endpoint": issuer.endpoint("/oauth2/revoke"),
        "userinfo_endpoint": issuer.userinfo(),
        "end_session_endpoint": issuer.endpoint("/oauth2/end-session"),
        "scopes_supported": SCOPES,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_methods_supported": &methods[1..],
        "revocation_endpoint_auth_methods_supported": methods,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "sid", "scope", "azp", "email", "email_verified", "name",
            "picture", "family_name", "given_name"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
        "acr_values_supported": [ACR],
        "prompt_values_supported": ["login", "consent", "create", "select_account", "none"],
    })
}
