//! `/v1/projects/{project}/webhooks/{webhook}/revisions`

use std::sync::Arc;

use axum::extract::State;
use common::http::{Code, Json, Page, PageQuery, Path, Problem, Query, Tagged};
use jiff::Timestamp;
use proto_schemas::id::WebhookId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::webhooks::{self, Revision};
use store::{Connection, webhooks as rows};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::{InProject, Read};
use crate::api::{Api, failed};
use crate::diff::{self, Change};
use crate::webhooks::absent;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(compare))
}

/// One version of a webhook's definition.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Revision)]
struct RevisionView {
    /// Its number.
    revision: u64,
    /// Whose token made it.
    token: Uuid,
    /// That token's name.
    token_name: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// The definition without secrets, as it was from then on; `{"deleted": true}` where the webhook was deleted.
    #[schema(value_type = Object)]
    definition: Value,
}

impl From<Revision> for RevisionView {
    fn from(revision: Revision) -> Self {
        Self {
            revision: revision.revision,
            token: revision.token,
            token_name: revision.token_name,
            created_at: revision.created_at,
            definition: revision.definition,
        }
    }
}

/// What differs between two revisions.
#[derive(Debug, Serialize, ToSchema)]
struct Difference {
    /// The earlier one.
    from: u64,
    /// The later one.
    to: u64,
    /// Every place where they differ. A secret that was replaced by another is none.
    changes: Vec<Change>,
}

/// Which revision to compare with.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ComparedWith {
    /// The number of the other revision; the one before if absent.
    from: Option<u64>,
}

/// List the revisions of a webhook
///
/// A deleted webhook is still found by its id.
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/webhooks/{webhook}/revisions",
    operation_id = "list_revisions",
    tag = "Webhooks",
    params(PageQuery),
    responses((status = 200, description = "A page of revisions, newest first", body = Page<RevisionView>))
)]
async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, named)): Path<(String, String)>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<RevisionView>>, Problem> {
    let before: Option<u64> = query.after()?;
    let mut connection = api.connection_in(within.project.id).await?;
    let webhook = identify(&mut connection, &within, &named).await?;
    let limit = u32::from(query.limit) + 1;
    let revisions = rows::revisions(&mut connection, webhook, before, limit).await;
    let page = Page::cut(revisions.map_err(failed)?, &query, |revision| revision.revision)?;
    Ok(Json(page.map(RevisionView::from)))
}

/// Show a revision of a webhook
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/webhooks/{webhook}/revisions/{revision}",
    operation_id = "show_revision",
    tag = "Webhooks",
    responses((status = 200, description = "The revision", body = RevisionView, headers(("etag" = String, description = "Its version"))))
)]
async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, named, number)): Path<(String, String, u64)>,
) -> Result<Tagged<RevisionView>, Problem> {
    let mut connection = api.connection_in(within.project.id).await?;
    let webhook = identify(&mut connection, &within, &named).await?;
    Tagged::of(revision(&mut connection, webhook, number).await?.into())
}

/// Compare two revisions of a webhook
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/webhooks/{webhook}/revisions/{revision}/diff",
    operation_id = "compare_revisions",
    tag = "Webhooks",
    params(ComparedWith),
    responses((status = 200, description = "What differs", body = Difference))
)]
async fn compare(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, named, number)): Path<(String, String, u64)>,
    Query(query): Query<ComparedWith>,
) -> Result<Json<Difference>, Problem> {
    let mut connection = api.connection_in(within.project.id).await?;
    let webhook = identify(&mut connection, &within, &named).await?;
    let later = revision(&mut connection, webhook, number).await?.definition;
    let from = query.from.unwrap_or_else(|| number.saturating_sub(1));
    let earlier = match from {
        // Before the first one there was nothing.
        0 => Value::Object(serde_json::Map::new()),
        from => revision(&mut connection, webhook, from).await?.definition,
    };
    Ok(Json(Difference {
        from,
        to: number,
        changes: diff::changes(&earlier, &later),
    }))
}

async fn identify(connection: &mut Connection, within: &InProject<Read>, named: &str) -> Result<WebhookId, Problem> {
    let project = within.project.id;
    if let Some(webhook) = webhooks::find(connection, project, named).await.map_err(failed)? {
        return Ok(webhook.id);
    }
    let id = WebhookId::from_uuid(Uuid::parse_str(named).map_err(|_| absent())?);
    let found = webhooks::by_ids(connection, &[id]).await.map_err(failed)?;
    match found.iter().any(|webhook| webhook.project == project) {
        true => Ok(id),
        false => Err(absent()),
    }
}

async fn revision(connection: &mut Connection, webhook: WebhookId, number: u64) -> Result<Revision, Problem> {
    let found = rows::revision(connection, webhook, number).await.map_err(failed)?;
    found.ok_or_else(|| Problem::new(Code::NotFound, "there is no such revision of this webhook"))
}
