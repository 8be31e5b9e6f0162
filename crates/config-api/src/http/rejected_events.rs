//! `/v1/projects/{project}/rejected-events` and, for those that name no project, `/v1/rejected-events`.

use std::sync::Arc;

use axum::extract::State;
use common::http::{Json, Page, PageQuery, Problem, Query};
use jiff::Timestamp;
use proto_schemas::id::{EventKey, ProjectId};
use serde::Serialize;
use store::log::{self, RejectedEvent};
use uuid::Uuid;

use super::json::Text;
use crate::access::{Administrator, InProject, Read};
use crate::api::{Api, failed};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(list_all))
}

/// A message that could not become an event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RejectedEvent)]
pub(super) struct RejectedEventView {
    id: Uuid,
    #[schema(required)]
    project: Option<Uuid>,
    subject: String,
    reason: String,
    detail: String,
    /// The first of the message's bytes.
    #[serde(flatten)]
    body: Text,
    /// All of the message's bytes, counted.
    size: u64,
    #[schema(value_type = String, format = DateTime)]
    received_at: Timestamp,
}

impl From<RejectedEvent> for RejectedEventView {
    fn from(rejected: RejectedEvent) -> Self {
        let truncated = (rejected.payload.len() as u64) < rejected.payload_size;
        Self {
            id: rejected.key.as_uuid(),
            project: rejected.project.map(ProjectId::as_uuid),
            subject: rejected.subject,
            reason: rejected.reason,
            detail: rejected.detail,
            body: Text::new(rejected.payload, truncated),
            size: rejected.payload_size,
            received_at: rejected.received_at,
        }
    }
}

/// List messages that could not become events of the project
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/rejected-events",
    operation_id = "list_rejected_events",
    tag = "Record",
    params(PageQuery),
    responses((status = 200, description = "A page of rejected messages, newest first", body = Page<RejectedEventView>)),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<RejectedEventView>>, Problem> {
    page(&api, Some(within.project.id), &query).await
}

/// List messages that could not become events
///
/// The administrator's.
#[utoipa::path(
    get,
    path = "/v1/rejected-events",
    operation_id = "list_all_rejected_events",
    security(("token" = ["admin"])),
    tag = "Record",
    params(PageQuery),
    responses((status = 200, description = "A page of rejected messages, newest first", body = Page<RejectedEventView>)),
)]
pub(super) async fn list_all(
    State(api): State<Arc<Api>>,
    Administrator(_): Administrator,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<RejectedEventView>>, Problem> {
    page(&api, None, &query).await
}

async fn page(
    api: &Api,
    project: Option<ProjectId>,
    query: &PageQuery,
) -> Result<Json<Page<RejectedEventView>>, Problem> {
    let before: Option<Uuid> = query.after()?;
    let mut connection = api
        .database
        .of_project_or_all(project)
        .connection()
        .await
        .map_err(failed)?;
    let limit = u32::from(query.limit) + 1;
    let rows = log::rejected_events(&mut connection, project, before.map(EventKey::from_uuid), limit).await;
    let page = Page::cut(rows.map_err(failed)?, query, |rejected| rejected.key.as_uuid())?;
    Ok(Json(page.map(RejectedEventView::from)))
}
