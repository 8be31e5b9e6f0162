//! `/v1/projects/{project}/events`, to be read; events are published to ingest.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use common::http::{Code, Json, Page, PageQuery, Path, Problem, Query, page};
use jiff::Timestamp;
use proto_schemas::event::is_json;
use proto_schemas::id::EventKey;
use serde::{Deserialize, Serialize};
use store::log::{self, Event, EventFilter};
use uuid::Uuid;

use super::json::Payload;
use crate::access::{InProject, Read};
use crate::api::{Api, failed};

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    r#type: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    // Not flattened: serde would let misspelt names pass.
    #[serde(default = "page::default_limit", deserialize_with = "page::limit")]
    limit: u16,
    cursor: Option<String>,
}

/// An event.
#[derive(Debug, Serialize)]
pub(super) struct EventView {
    id: String,
    r#type: String,
    occurred_at: Timestamp,
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
#[derive(Debug, Serialize)]
pub(super) struct EventWithData {
    #[serde(flatten)]
    event: EventView,
    #[serde(flatten)]
    payload: Payload,
}

#[derive(Debug, Serialize)]
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
    let mut connection = api.store.connection().await.map_err(failed)?;
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

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Json<EventWithData>, Problem> {
    let absent = || {
        Problem::new(
            Code::NotFound,
            "there is no such event in this project's record (yet, or any more)",
        )
    };
    let mut connection = api.store.connection().await.map_err(failed)?;
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
