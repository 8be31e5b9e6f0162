//! `/v1/projects/{project}/events`, to be read; events are published to ingest.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use common::http::openapi::ProblemBody;
use common::http::{Body, Code, FieldError, Json, Page, PageQuery, Path, Problem, Query, page};
use jiff::Timestamp;
use proto_schemas::event::is_json;
use proto_schemas::id::EventKey;
use serde::{Deserialize, Serialize};
use store::log::{self, Event, EventFilter, State as DeliveryState};
use store::replays::{Kind, Selection};
use store::webhooks as rows;
use uuid::Uuid;

use super::json::Payload;
use super::replays::{ReplayView, accepted, action};
use super::tests;
use crate::access::{Configure, InProject, Read};
use crate::api::{Api, failed};
use crate::replays;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, act))
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Those of this type.
    r#type: Option<String>,
    /// From this instant on.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    since: Option<Timestamp>,
    /// Before this instant.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    until: Option<Timestamp>,
    // Not flattened: serde would let misspelt names pass.
    /// Most items on the page.
    #[serde(default = "page::default_limit", deserialize_with = "page::limit")]
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: u16,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// An event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventView {
    id: String,
    r#type: String,
    #[schema(value_type = String, format = DateTime)]
    occurred_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
    attributes: BTreeMap<String, String>,
    content_type: String,
    /// Bytes of the payload.
    size: u64,
    /// The webhooks a delivery was made for.
    owed: Vec<Uuid>,
    /// The webhooks it was not delivered to although they are subscribed.
    skipped: Vec<Skipped>,
    /// What its type's schema has against it, where the project has such events accepted.
    warnings: Vec<String>,
}

/// An event and its payload.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventWithData {
    #[serde(flatten)]
    event: EventView,
    #[serde(flatten)]
    payload: Payload,
}

#[derive(Debug, Serialize, ToSchema)]
struct Skipped {
    webhook: Uuid,
    reason: String,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        let content_type = match event.content_type.is_empty() {
            true => "application/json".to_owned(),
            false => event.content_type,
        };
        Self {
            id: event.id,
            r#type: event.event_type,
            occurred_at: event.occurred_at,
            accepted_at: event.accepted_at,
            attributes: event.attributes,
            content_type,
            size: event.size,
            owed: event.owed.into_iter().map(|webhook| webhook.as_uuid()).collect(),
            skipped: event
                .skipped
                .into_iter()
                .map(|(webhook, reason)| Skipped {
                    webhook: webhook.as_uuid(),
                    reason,
                })
                .collect(),
            warnings: event.warnings,
        }
    }
}

/// List events
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/events",
    operation_id = "list_events",
    tag = "Record",
    params(Filter),
    responses((status = 200, description = "A page of events, newest first", body = Page<EventView>)),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<EventView>>, Problem> {
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let before: Option<Uuid> = query.after()?;
    let mut connection = api.connection_in(within.project.id).await?;
    let wanted = EventFilter {
        event_type: filter.r#type.as_deref(),
        since: filter.since,
        until: filter.until,
    };
    let limit = u32::from(query.limit) + 1;
    let rows = log::events(
        &mut connection,
        within.project.id,
        &wanted,
        before.map(EventKey::from_uuid),
        limit,
    )
    .await;
    let page = Page::cut(rows.map_err(failed)?, &query, |event| event.key.as_uuid())?;
    Ok(Json(page.map(EventView::from)))
}

/// Show an event with its data
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/events/{event}",
    operation_id = "show_event",
    tag = "Record",
    responses((status = 200, description = "The event", body = EventWithData)),
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Json<EventWithData>, Problem> {
    let mut connection = api.connection_in(within.project.id).await?;
    let event = log::event(&mut connection, within.project.id, &id)
        .await
        .map_err(failed)?
        .ok_or_else(absent)?;
    let payload = log::payload(&mut connection, event.key)
        .await
        .map_err(failed)?
        .ok_or_else(absent)?;
    let payload = Payload::new(payload, is_json(&event.content_type));
    Ok(Json(EventWithData {
        event: event.into(),
        payload,
    }))
}

/// Who is to get an event again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = ReplayEvent)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayBody {
    /// These webhooks, by name or id, whatever they are subscribed to and whatever became of it before; at most 100.
    /// Absent: every webhook that it was owed to or that was skipped, but those whose filter it did not pass and those
    /// that are still to get it.
    webhooks: Option<Vec<String>>,
}

/// Most webhooks that can be named.
const WEBHOOKS_MAX: usize = 100;

/// Deliver an event again
///
/// `{event}` is its id with `:replay` after it. It is delivered at once.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/events/{event}",
    operation_id = "act_on_event",
    tag = "Replays",
    request_body = Option<ReplayBody>,
    responses(
        (status = 202, description = "The replay that was begun", body = ReplayView),
        (status = 405, description = "No action is named", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn act(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
    Body(body): Body,
) -> Result<Response, Problem> {
    let project = &within.project;
    let id = action(&named, "replay", "an event")?;
    let body: ReplayBody = tests::body(&body)?;
    let mut connection = api.connection_in(project.id).await?;
    let event = log::event(&mut connection, project.id, id).await.map_err(failed)?;
    let event = event.ok_or_else(absent)?;
    let (webhooks, states) = match &body.webhooks {
        None => {
            use DeliveryState::{Cancelled, Dead, Delivered, Skipped};
            (None, vec![Delivered, Dead, Skipped, Cancelled])
        }
        Some(named) => {
            if named.is_empty() || named.len() > WEBHOOKS_MAX {
                return Err(Problem::field("/webhooks", format!("1 to {WEBHOOKS_MAX} can be named")));
            }
            let (mut ids, mut errors) = (Vec::with_capacity(named.len()), Vec::new());
            for (index, name) in named.iter().enumerate() {
                match rows::find(&mut connection, project.id, name).await.map_err(failed)? {
                    Some(webhook) => ids.push(webhook.id),
                    None => errors.push(FieldError::new(
                        &format!("/webhooks/{index}"),
                        "there is no such webhook in this project",
                    )),
                }
            }
            if !errors.is_empty() {
                return Err(Problem::fields(errors));
            }
            ids.sort_unstable();
            ids.dedup();
            (Some(ids), Vec::new())
        }
    };
    drop(connection);
    let selection = Selection {
        webhooks,
        events: Some(vec![event.key]),
        event_ids: Some(vec![event.id]),
        states,
        ..Selection::default()
    };
    let replay = replays::order(&api, project, &within.caller, Kind::Replay, &selection, None).await?;
    Ok(accepted(&api, project, replay))
}

fn absent() -> Problem {
    Problem::new(
        Code::NotFound,
        "there is no such event in this project's record (yet, or any more)",
    )
}
