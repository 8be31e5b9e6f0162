//! `/v1/projects/{project}/tokens`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use common::http::{Code, Json, Page, PageQuery, Path, Problem, Query};
use common::token::{self, Scope};
use jiff::Timestamp;
use proto_schemas::stream::config_key::Key;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use store::tokens::{self, Token};
use uuid::Uuid;

use crate::access::{Admin, InProject};
use crate::api::{Api, failed, new_id, note_changed};
use crate::validate;

/// A token to be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    name: Option<String>,
    scopes: Option<Vec<Scope>>,
    expires_at: Option<Timestamp>,
}

/// A token, without the token.
#[derive(Debug, Serialize)]
pub(super) struct TokenView {
    id: Uuid,
    name: String,
    scopes: Vec<String>,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
}

/// A token that has just been made. It is not shown again.
#[derive(Debug, Serialize)]
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
        }
    }
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    within: InProject<Admin>,
    Json(new): Json<NewToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Problem> {
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
    };

    let mut transaction = api.store.begin().await.map_err(failed)?;
    tokens::insert(&mut transaction, &token).await.map_err(failed)?;
    note_changed(&mut transaction, &Key::Token(hex::encode(token.hash))).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    let created = CreatedToken {
        view: token.into(),
        token: secret.expose_secret().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Admin>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<TokenView>>, Problem> {
    let mut connection = api.store.connection().await.map_err(failed)?;
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

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Admin>,
    Path((_, token)): Path<(String, Uuid)>,
) -> Result<Json<TokenView>, Problem> {
    let mut connection = api.store.connection().await.map_err(failed)?;
    let found = tokens::find(&mut connection, within.project.id, token)
        .await
        .map_err(failed)?;
    Ok(Json(found.ok_or_else(absent)?.into()))
}

pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    within: InProject<Admin>,
    Path((_, token)): Path<(String, Uuid)>,
) -> Result<StatusCode, Problem> {
    let mut transaction = api.store.begin().await.map_err(failed)?;
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
