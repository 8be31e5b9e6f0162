//! The resources, one file each: what stands in their paths, queries and bodies.
//!
//! A `{project}` is a project's name or id, a `{webhook}` a webhook's. Lists answer `{"items": […], "next": …}`, newest
//! first; `next` is the `cursor` of the next page, or null.

mod attempts;
mod deliveries;
mod events;
mod json;
mod projects;
mod reconciliation;
mod rejected_events;
mod root;
mod tokens;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use common::http::Problem;
use proto_schemas::id::{ProjectId, WebhookId};
use store::{Connection, webhooks as rows};
use uuid::Uuid;

use crate::api::{Api, failed};

/// Largest body: a webhook with all the headers it may have is a tenth of it.
const BODY_MAX: usize = 256 * 1024;

/// The routes.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/", get(root::show))
        .route("/v1/projects", post(projects::create).get(projects::list))
        .route("/v1/projects/{project}", get(projects::show))
        .route("/v1/projects/{project}/tokens", post(tokens::create).get(tokens::list))
        .route("/v1/projects/{project}/tokens/{token}", delete(tokens::revoke))
        .route(
            "/v1/projects/{project}/webhooks",
            post(webhooks::create).get(webhooks::list),
        )
        .route(
            "/v1/projects/{project}/webhooks/{webhook}",
            get(webhooks::show).patch(webhooks::change).delete(webhooks::remove),
        )
        .route("/v1/projects/{project}/events", get(events::list))
        .route("/v1/projects/{project}/events/{event}", get(events::show))
        .route("/v1/projects/{project}/attempts", get(attempts::list))
        .route("/v1/projects/{project}/attempts/{attempt}", get(attempts::show))
        .route("/v1/projects/{project}/deliveries", get(deliveries::list))
        .route("/v1/projects/{project}/reconciliation", get(reconciliation::show))
        .route("/v1/projects/{project}/rejected-events", get(rejected_events::list))
        .route("/v1/rejected-events", get(rejected_events::list_all))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(api)
}

/// The webhook that a filter names; by its id a deleted one's record can still be read.
async fn webhook_filter(
    connection: &mut Connection,
    project: ProjectId,
    named: Option<&str>,
) -> Result<Option<WebhookId>, Problem> {
    let Some(named) = named else { return Ok(None) };
    if let Ok(id) = Uuid::parse_str(named) {
        return Ok(Some(WebhookId::from_uuid(id)));
    }
    match rows::find(connection, project, named).await.map_err(failed)? {
        Some(webhook) => Ok(Some(webhook.id)),
        None => Err(webhooks::absent()),
    }
}
