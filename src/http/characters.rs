//! `/characters`: made by one, seen by all (contract `characters-providers.md`, part A).

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::auth::SignedIn;
use super::character_documents::{CharacterDocument, CharacterPatch};
use super::character_sheet::CharacterSheet;
use super::error::ApiError;
use super::payload::{LooseInteger, Raw};
use super::spec::Tag;
use crate::core::App;
use crate::core::model::characters::{Mark, Selection};
use crate::core::model::ids::CharacterId;
use crate::core::model::page::Window;

/// Operations on characters.
pub(super) struct CharacterApi;

/// Rows of a list whose `limit` is absent: the shipped client sends none and expects all of its own.
const MOST_LISTED: u32 = 1_000;

#[OpenApi(prefix_path = "/api/v1/characters", tag = "Tag::Characters")]
impl CharacterApi {
    /// List characters, newest first
    ///
    /// Avatar models and prompts are left out. Parameters never fail: what is too large or too small is moved to the
    /// nearest accepted value.
    #[oai(path = "/", method = "get", operation_id = "listCharacters")]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// Exactly `true` lists everybody's characters; anything else the caller's own.
        all: Query<Option<String>>,
        /// Characters wanted, 1 to 100; the newest 1000 when absent.
        limit: Query<Option<LooseInteger>>,
        /// Characters skipped.
        offset: Query<Option<LooseInteger>>,
    ) -> Result<Json<Vec<CharacterSheet>>, ApiError> {
        let viewer = caller.0.user();
        let window = Window::parse(limit.0.as_ref().map(LooseInteger::text), offset.0.as_ref().map(LooseInteger::text));
        let selection = Selection {
            owner: (all.0.as_deref() != Some("true")).then(|| viewer.clone()),
            limit: if limit.0.is_some() { window.limit } else { MOST_LISTED },
            offset: window.offset,
        };
        let sheets = app.characters.list(&selection, viewer).await?;
        Ok(Json(sheets.into_iter().map(|sheet| CharacterSheet::seen_by(sheet, viewer)).collect()))
    }

    /// Read a character
    ///
    /// Anybody may. `apiKey` of its capabilities is empty for everybody but the owner.
    #[oai(path = "/:id", method = "get", operation_id = "getCharacter")]
    async fn find(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// The character.
        id: Path<String>,
    ) -> Result<Json<CharacterSheet>, ApiError> {
        let viewer = caller.0.user();
        let sheet = app.characters.find(&CharacterId::new(id.0), viewer).await?;
        Ok(Json(CharacterSheet::seen_by(sheet, viewer)))
    }

    /// Create a character
    ///
    /// The caller becomes owner and creator. Everything is stored or nothing; 409 when an id in it is taken.
    #[oai(path = "/", method = "post", operation_id = "createCharacter")]
    async fn create(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        body: Raw<CharacterDocument>,
    ) -> Result<CharacterCreated, ApiError> {
        let owner = caller.0.user();
        let sheet = app.characters.create(owner, &body.bytes).await?;
        Ok(CharacterCreated::Created(Json(CharacterSheet::seen_by(sheet, owner))))
    }

    /// Change a character
    ///
    /// Only its owner may. Members left out stay; what belongs to the character cannot be changed.
    #[oai(path = "/:id", method = "patch", operation_id = "updateCharacter")]
    async fn update(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// The character.
        id: Path<String>,
        body: Raw<CharacterPatch>,
    ) -> Result<Json<CharacterSheet>, ApiError> {
        let owner = caller.0.user();
        let sheet = app.characters.update(&CharacterId::new(id.0), owner, &body.bytes).await?;
        Ok(Json(CharacterSheet::seen_by(sheet, owner)))
    }

    /// Delete a character
    ///
    /// Only its owner may. Its id stays taken.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteCharacter")]
    async fn delete(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// The character.
        id: Path<String>,
    ) -> Result<CharacterDeleted, ApiError> {
        app.characters.delete(&CharacterId::new(id.0), caller.0.user()).await?;
        Ok(CharacterDeleted::Deleted)
    }

    /// Like a character, or take the like back
    #[oai(path = "/:id/like", method = "post", operation_id = "toggleCharacterLike")]
    async fn like(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// The character.
        id: Path<String>,
    ) -> Result<Json<Liked>, ApiError> {
        let liked = app.characters.toggle(&CharacterId::new(id.0), caller.0.user(), Mark::Like).await?;
        Ok(Json(Liked { liked }))
    }

    /// Bookmark a character, or take the bookmark back
    #[oai(path = "/:id/bookmark", method = "post", operation_id = "toggleCharacterBookmark")]
    async fn bookmark(
        &self,
        app: Data<&Arc<App>>,
        caller: SignedIn,
        /// The character.
        id: Path<String>,
    ) -> Result<Json<Bookmarked>, ApiError> {
        let bookmarked = app.characters.toggle(&CharacterId::new(id.0), caller.0.user(), Mark::Bookmark).await?;
        Ok(Json(Bookmarked { bookmarked }))
    }
}

#[derive(ApiResponse)]
enum CharacterCreated {
    /// The character as its owner sees it.
    #[oai(status = 201)]
    Created(Json<CharacterSheet>),
}

#[derive(ApiResponse)]
enum CharacterDeleted {
    /// It is gone.
    #[oai(status = 204)]
    Deleted,
}

/// Whether the caller likes the character now.
#[derive(Object)]
#[oai(example)]
struct Liked {
    /// Whether the like is there now.
    liked: bool,
}

/// Whether the caller has bookmarked the character now.
#[derive(Object)]
#[oai(example)]
struct Bookmarked {
    /// Whether the bookmark is there now.
    bookmarked: bool,
}

impl Example for Liked {
    fn example() -> Self {
        Self { liked: true }
    }
}

impl Example for Bookmarked {
    fn example() -> Self {
        Self { bookmarked: true }
    }
}
