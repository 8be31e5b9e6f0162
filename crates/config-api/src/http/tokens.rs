//! `/v1/projects/{project}/tokens`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use common::http::{Code, ETag, Json, Page, PageQuery, Path, Problem, Query, Tagged};
use common::token::{self, Scope};
use jiff::Timestamp;
use proto_schemas::stream::config_key::Key;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use store::tokens::{self, Token};
use uuid::Uuid;

use crate::access::{Admin, InProject};
use crate::api::{Api, failed, new_id, note_changed};
use crate::audit::{Shown, note_reveal};
use crate::{room, validate};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(show, revoke))
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    /// For people; `token` if absent.
    #[schema(min_length = 1, max_length = 64)]
    name: Option<String>,
    /// What it allows; `configure`, `publish` and `read` if absent.
    #[schema(min_items = 1, value_type = Option<Vec<ScopeWord>>)]
    scopes: Option<Vec<Scope>>,
    /// From when on it is refused; never if absent.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// What a token may allow.
#[derive(ToSchema)]
#[schema(as = Scope, rename_all = "lowercase")]
#[expect(dead_code, reason = "stands in the OpenAPI document for the words of Scope")]
enum ScopeWord {
    Admin,
    Configure,
    Publish,
    Read,
}

/// A token, without the token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub(super) struct TokenView {
    id: Uuid,
    name: String,
    scopes: Vec<String>,
    #[schema(value_type = Option<String>, format = DateTime, required)]
    expires_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When `config-api` last had a request with it, to the minute; null: not yet. Publishing is not noted.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    last_used_at: Option<Timestamp>,
}

/// A token that has just been made. It is not shown again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatedToken {
    #[serde(flatten)]
    view: TokenView,
    token: String,
}

impl From<Token> for TokenView {
    fn from(token: Token) -> Self {
        Self {
            id: token.id,
            name: token.name,
            scopes: token.scopes,
            expires_at: token.expires_at,
            created_at: token.created_at,
            last_used_at: token.last_used_at,
        }
    }
}

/// Create a token
///
/// The answer holds `token`, this once.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/tokens",
    operation_id = "create_token",
    security(("token" = ["admin"])),
    tag = "Tokens",
    request_body = NewToken,
    responses((status = 201, description = "The token", body = CreatedToken)),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    within: InProject<Admin>,
    Json(new): Json<NewToken>,
) -> Result<Tagged<CreatedToken>, Problem> {
    let now = api.now();
    let name = new.name.unwrap_or_else(|| "token".to_owned());
    validate::name(&name).map_err(|reason| Problem::field("/name", reason))?;
    let mut scopes = new
        .scopes
        .unwrap_or_else(|| vec![Scope::Configure, Scope::Publish, Scope::Read]);
    if scopes.is_empty() {
        return Err(Problem::field(
            "/scopes",
            "a token without a scope is good for nothing; name at least one",
        ));
    }
    scopes.sort_unstable();
    scopes.dedup();
    if new.expires_at.is_some_and(|expiry| expiry <= now) {
        return Err(Problem::field("/expires_at", "it lies in the past"));
    }
    let secret = token::generate();
    let token = Token {
        id: new_id(now, &mut rand::rng()),
        project: Some(within.project.id),
        name,
        hash: token::hash(secret.expose_secret()),
        scopes: scopes.into_iter().map(|scope| scope.as_str().to_owned()).collect(),
        created_at: now,
        expires_at: new.expires_at,
        revoked_at: None,
        last_used_at: None,
    };

    let mut transaction = api.begin_in(within.project.id).await?;
    room::for_token(&mut transaction, within.project.id, now).await?;
    tokens::insert(&mut transaction, &token).await.map_err(failed)?;
    note_changed(&mut transaction, &Key::Token(hex::encode(token.hash))).await?;
    note_reveal(&mut transaction, &within.caller, Shown::Token(token.id)).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    let view = TokenView::from(token);
    let (etag, path) = (
        ETag::of(&view)?,
        format!("/v1/projects/{}/tokens/{}", within.project.name, view.id),
    );
    let token = secret.expose_secret().to_owned();
    Ok(Tagged::with(etag, CreatedToken { view, token }).created(path))
}

/// List tokens
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/tokens",
    operation_id = "list_tokens",
    security(("token" = ["admin"])),
    tag = "Tokens",
    params(PageQuery),
    responses((status = 200, description = "A page of tokens that are not revoked, newest first", body = Page<TokenView>)),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Admin>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<TokenView>>, Problem> {
    let mut connection = api.connection_in(within.project.id).await?;
    let rows = tokens::page(
        &mut connection,
        within.project.id,
        query.after()?,
        u32::from(query.limit) + 1,
    )
    .await;
    let page = Page::cut(rows.map_err(failed)?, &query, |token| token.id)?;
    Ok(Json(page.map(TokenView::from)))
}

/// Show a token
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/tokens/{token}",
    operation_id = "show_token",
    security(("token" = ["admin"])),
    tag = "Tokens",
    responses((status = 200, description = "The token, without the token itself", body = TokenView, headers(("etag" = String, description = "Its version")))),
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Admin>,
    Path((_, token)): Path<(String, Uuid)>,
) -> Result<Tagged<TokenView>, Problem> {
    let mut connection = api.connection_in(within.project.id).await?;
    let found = tokens::find(&mut connection, within.project.id, token)
        .await
        .map_err(failed)?;
    Tagged::of(found.ok_or_else(absent)?.into())
}

/// Revoke a token
///
/// It is refused from now on.
#[utoipa::path(
    delete,
    path = "/v1/projects/{project}/tokens/{token}",
    operation_id = "revoke_token",
    security(("token" = ["admin"])),
    tag = "Tokens",
    responses((status = 204, description = "It is revoked")),
)]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    within: InProject<Admin>,
    Path((_, token)): Path<(String, Uuid)>,
) -> Result<StatusCode, Problem> {
    let mut transaction = api.begin_in(within.project.id).await?;
    let hash = tokens::revoke(&mut transaction, within.project.id, token, api.now())
        .await
        .map_err(failed)?;
    let hash = hash.ok_or_else(absent)?;
    note_changed(&mut transaction, &Key::Token(hex::encode(hash))).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(StatusCode::NO_CONTENT)
}

fn absent() -> Problem {
    Problem::new(Code::NotFound, "there is no such token in this project")
}
