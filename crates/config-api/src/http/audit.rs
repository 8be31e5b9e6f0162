//! `/v1/projects/{project}/audit` and, for the whole installation, `/v1/audit`.

use std::sync::Arc;

use axum::extract::State;
use common::http::{Json, Page, PageQuery, Problem, Query, page};
use jiff::Timestamp;
use proto_schemas::id::ProjectId;
use serde::{Deserialize, Serialize};
use store::audit::{self, Entry};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::{Admin, Administrator, InProject};
use crate::api::{Api, failed};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(list_all))
}

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Of requests with this token, by its id.
    token: Option<Uuid>,
    /// Of requests that came at this instant or later.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Of requests that came before this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Of requests whose answers were to show a secret, or of all others.
    reveals: Option<bool>,
    // Not flattened: serde would let misspelt names pass.
    #[serde(default = "page::default_limit", deserialize_with = "page::limit")]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 250)]
    limit: u16,
    cursor: Option<String>,
}

/// A request that may have changed something.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(super) struct EntryView {
    id: Uuid,
    /// The project it was about; `null`: the installation.
    #[schema(required)]
    project: Option<Uuid>,
    token: Uuid,
    #[schema(required)]
    token_name: Option<String>,
    method: String,
    path: String,
    /// Where what it made is found.
    #[schema(required)]
    location: Option<String>,
    /// What it was answered with; `null`: it never was, and may have been carried out or not.
    #[schema(required)]
    status: Option<u16>,
    /// Whether its answer was to show a secret.
    reveals: bool,
    request_id: String,
    #[schema(required)]
    address: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        let request = entry.request;
        Self {
            id: request.id,
            project: request.project.map(ProjectId::as_uuid),
            token: request.token,
            token_name: entry.token_name,
            method: request.method,
            path: request.path,
            location: entry.location,
            status: entry.status,
            reveals: entry.reveals,
            request_id: request.request_id,
            address: request.address,
            at: request.begun_at,
        }
    }
}

/// List who did what in the project
///
/// Every request that may change something has an entry, written before it is carried out. Entries are kept for 400 days.
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/audit",
    operation_id = "list_audit_entries",
    security(("token" = ["admin"])),
    tag = "Audit",
    params(Filter),
    responses((status = 200, description = "A page of entries, newest first", body = Page<EntryView>)),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Admin>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<EntryView>>, Problem> {
    page_of(&api, Some(within.project.id), filter).await
}

/// List who did what
///
/// In every project, and with projects themselves. The administrator's.
#[utoipa::path(
    get,
    path = "/v1/audit",
    operation_id = "list_all_audit_entries",
    security(("token" = ["admin"])),
    tag = "Audit",
    params(Filter),
    responses((status = 200, description = "A page of entries, newest first", body = Page<EntryView>)),
)]
pub(super) async fn list_all(
    State(api): State<Arc<Api>>,
    Administrator(_): Administrator,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<EntryView>>, Problem> {
    page_of(&api, None, filter).await
}

async fn page_of(api: &Api, project: Option<ProjectId>, filter: Filter) -> Result<Json<Page<EntryView>>, Problem> {
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let before: Option<Uuid> = query.after()?;
    let filter = audit::Filter {
        project,
        token: filter.token,
        since: filter.since,
        until: filter.until,
        reveals: filter.reveals,
    };
    let mut connection = api
        .database
        .of_project_or_all(project)
        .connection()
        .await
        .map_err(failed)?;
    let rows = audit::page(&mut connection, &filter, before, u32::from(query.limit) + 1).await;
    let page = Page::cut(rows.map_err(failed)?, &query, |entry| entry.request.id)?;
    Ok(Json(page.map(EntryView::from)))
}
