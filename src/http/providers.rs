//! `/providers`: what a user has configured for the providers the client knows (contract `characters-providers.md`,
//! part B).

use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::{Any, Example};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::{Map, Value, json};

use super::auth::SignedIn;
use super::error::ApiError;
use super::payload::{Raw, iso_millis};
use super::spec::Tag;
use crate::core::App;
use crate::core::model::ids::{ProviderId, UserId};
use crate::core::model::providers::{Provider, ProviderConfig};

/// Operations on provider configurations.
pub(super) struct ProviderApi;

#[OpenApi(prefix_path = "/api/v1/providers", tag = "Tag::Providers")]
impl ProviderApi {
    /// List provider configurations
    ///
    /// The caller's own, then the system's, each by creation. `config` of the system's is empty.
    #[oai(path = "/", method = "get", operation_id = "listProviders")]
    async fn list(&self, app: Data<&Arc<App>>, caller: SignedIn) -> Result<Json<Vec<ListedProvider>>, ApiError> {
        let providers = app.providers.list(caller.0.user()).await?;
        Ok(Json(providers.into_iter().map(ListedProvider::from).collect()))
    }

    /// Read a provider configuration
    ///
    /// The caller's own, else the system's, whose `config` is empty.
    #[oai(path = "/:id", method = "get", operation_id = "getProvider")]
    async fn find(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// The configuration.
        id: Path<String>,
    ) -> Result<Json<ShownProvider>, ApiError> {
        Ok(Json(app.providers.find(&ProviderId::new(id.0), caller.0.user()).await?.into()))
    }

    /// Create a provider configuration
    ///
    /// 409 when the id is taken, also by a deleted or a system configuration, or when the caller has 200.
    #[oai(path = "/", method = "post", operation_id = "createProvider")]
    async fn create(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        body: Raw<ProviderDocument>,
    ) -> Result<ProviderCreated, ApiError> {
        let provider = app.providers.create(caller.0.user(), &body.bytes).await?;
        Ok(ProviderCreated::Created(Json(provider.into())))
    }

    /// Change a provider configuration
    ///
    /// Only its owner may, and nobody the system's. Members left out stay; `config` is replaced whole.
    #[oai(path = "/:id", method = "patch", operation_id = "updateProvider")]
    async fn update(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// The configuration.
        id: Path<String>,
        body: Raw<ProviderPatch>,
    ) -> Result<Json<OwnProvider>, ApiError> {
        Ok(Json(app.providers.update(&ProviderId::new(id.0), caller.0.user(), &body.bytes).await?.into()))
    }

    /// Delete a provider configuration
    ///
    /// Only its owner may, and nobody the system's. Its id stays taken.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteProvider")]
    async fn delete(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// The configuration.
        id: Path<String>,
    ) -> Result<ProviderDeleted, ApiError> {
        app.providers.delete(&ProviderId::new(id.0), caller.0.user()).await?;
        Ok(ProviderDeleted::Deleted)
    }
}

#[derive(ApiResponse)]
enum ProviderCreated {
    /// The configuration.
    #[oai(status = 201)]
    Created(Json<OwnProvider>),
}

#[derive(ApiResponse)]
enum ProviderDeleted {
    /// It is gone.
    #[oai(status = 204)]
    Deleted,
}

/// Keys, base URLs, model names.
type Config = Any<Map<String, Value>>;

/// A provider configuration in a list.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
struct ListedProvider {
    /// Its id.
    id: String,
    /// The provider, as the client calls it.
    definition_id: String,
    /// A name.
    name: String,
    /// What the client stored; empty for the system's.
    config: Config,
    /// Whether the client has tried it.
    validated: bool,
    /// Whether the user chose not to.
    validation_bypassed: bool,
    /// When it was stored.
    #[oai(serialize_with = "iso_millis")]
    created_at: DateTime<Utc>,
    /// When it was last changed.
    #[oai(serialize_with = "iso_millis")]
    updated_at: DateTime<Utc>,
    /// Whether it is the system's.
    is_system: bool,
}

/// A provider configuration of the caller's.
#[derive(Object)]
#[oai(rename = "Provider", rename_all = "camelCase", example)]
struct OwnProvider {
    /// Its id.
    id: String,
    /// The caller.
    owner_id: String,
    /// The provider, as the client calls it.
    definition_id: String,
    /// A name.
    name: String,
    /// What the client stored.
    config: Config,
    /// Whether the client has tried it.
    validated: bool,
    /// Whether the user chose not to.
    validation_bypassed: bool,
    /// When it was stored.
    #[oai(serialize_with = "iso_millis")]
    created_at: DateTime<Utc>,
    /// When it was last changed.
    #[oai(serialize_with = "iso_millis")]
    updated_at: DateTime<Utc>,
    /// Always `null`: what is deleted is not shown.
    #[oai(nullable)]
    deleted_at: Option<DateTime<Utc>>,
}

/// A provider configuration, of the caller's or of the system's.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
struct ShownProvider {
    /// Its id.
    id: String,
    /// The caller; absent for the system's.
    #[oai(skip_serializing_if_is_none)]
    owner_id: Option<String>,
    /// The provider, as the client calls it.
    definition_id: String,
    /// A name.
    name: String,
    /// What the client stored; empty for the system's.
    config: Config,
    /// Whether the client has tried it.
    validated: bool,
    /// Whether the user chose not to.
    validation_bypassed: bool,
    /// When it was stored.
    #[oai(serialize_with = "iso_millis")]
    created_at: DateTime<Utc>,
    /// When it was last changed.
    #[oai(serialize_with = "iso_millis")]
    updated_at: DateTime<Utc>,
    /// Always `null`: what is deleted is not shown.
    #[oai(nullable)]
    deleted_at: Option<DateTime<Utc>>,
    /// Whether it is the system's.
    is_system: bool,
}

/// A provider configuration to be stored. Members that are not listed here are ignored.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct ProviderDocument {
    /// 21 random characters when absent.
    #[oai(validator(min_length = 1, max_length = 255))]
    id: Option<String>,
    /// The provider, as the client calls it; white space around it is removed.
    #[oai(validator(min_length = 1, max_length = 128))]
    definition_id: String,
    /// A name; white space around it is removed.
    #[oai(validator(min_length = 1, max_length = 128))]
    name: String,
    /// Any values, at most 64 KiB of JSON; sealed when stored, one by one.
    config: Option<Config>,
    /// Whether the client has tried it; `false` when absent.
    validated: Option<bool>,
    /// Whether the user chose not to; `false` when absent.
    validation_bypassed: Option<bool>,
}

/// Changes of a provider configuration; members left out stay. Members that are not listed here are ignored.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct ProviderPatch {
    /// A name; white space around it is removed.
    #[oai(validator(min_length = 1, max_length = 128))]
    name: Option<String>,
    /// Replaces the stored one whole.
    config: Option<Config>,
    /// Whether the client has tried it.
    validated: Option<bool>,
    /// Whether the user chose not to.
    validation_bypassed: Option<bool>,
}

impl From<Provider> for ListedProvider {
    fn from(provider: Provider) -> Self {
        Self {
            id: provider.id.to_string(),
            definition_id: provider.definition,
            name: provider.name,
            config: Any(provider.config.0),
            validated: provider.validated,
            validation_bypassed: provider.validation_bypassed,
            created_at: provider.created_at,
            updated_at: provider.updated_at,
            is_system: provider.owner.is_none(),
        }
    }
}

impl From<Provider> for OwnProvider {
    fn from(provider: Provider) -> Self {
        Self {
            id: provider.id.to_string(),
            owner_id: provider.owner.map(|owner| owner.to_string()).unwrap_or_default(),
            definition_id: provider.definition,
            name: provider.name,
            config: Any(provider.config.0),
            validated: provider.validated,
            validation_bypassed: provider.validation_bypassed,
            created_at: provider.created_at,
            updated_at: provider.updated_at,
            deleted_at: None,
        }
    }
}

impl From<Provider> for ShownProvider {
    fn from(provider: Provider) -> Self {
        Self {
            is_system: provider.owner.is_none(),
            id: provider.id.to_string(),
            owner_id: provider.owner.map(|owner| owner.to_string()),
            definition_id: provider.definition,
            name: provider.name,
            config: Any(provider.config.0),
            validated: provider.validated,
            validation_bypassed: provider.validation_bypassed,
            created_at: provider.created_at,
            updated_at: provider.updated_at,
            deleted_at: None,
        }
    }
}

fn example() -> Provider {
    let config = json!({ "apiKey": "sk-example", "baseUrl": "https://llm.example.com/v1" });
    let at = DateTime::from_timestamp_millis(1_795_377_131_370).unwrap_or_default();
    Provider {
        id: ProviderId::new("V1StGXR8_Z5jdHi6B-myT"),
        owner: Some(UserId::new("2iPnVqXwVSmlnbQjyZBLHvwqKbNKl5Tc")),
        definition: "openai-compatible".to_owned(),
        name: "My provider".to_owned(),
        config: ProviderConfig(config.as_object().cloned().unwrap_or_default()),
        validated: true,
        validation_bypassed: false,
        created_at: at,
        updated_at: at,
    }
}

impl Example for ListedProvider {
    fn example() -> Self {
        example().into()
    }
}

impl Example for OwnProvider {
    fn example() -> Self {
        example().into()
    }
}

impl Example for ShownProvider {
    fn example() -> Self {
        example().into()
    }
}
