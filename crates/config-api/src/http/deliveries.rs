//! `/v1/projects/{project}/deliveries`

use std::sync::Arc;

use axum::extract::State;
use common::http::{Code, Json, Page, PageQuery, Problem, Query, cursor, page};
use jiff::Timestamp;
use proto_schemas::id::{EventKey, WebhookId};
use serde::{Deserialize, Serialize};
use store::log::{self, Delivery, DeliveryCursor, DeliveryFilter, State as DeliveryState};
use uuid::Uuid;

use super::webhook_filter;
use crate::access::{InProject, Read};
use crate::api::{Api, failed};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Those in this state.
    #[param(value_type = Option<StateWord>, inline)]
    state: Option<String>,
    /// Those of the event with this id.
    event_id: Option<String>,
    /// Those of this webhook, by name or id; by its id a deleted one's can still be read.
    webhook: Option<String>,
    // Not flattened: serde would let misspelt names pass.
    /// Most items on the page.
    #[serde(default = "page::default_limit", deserialize_with = "page::limit")]
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: u16,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// The states.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "stands in the OpenAPI document for the words of State")]
enum StateWord {
    Queued,
    Delivered,
    Scheduled,
    Parked,
    Held,
    Skipped,
    Dead,
    Cancelled,
}

/// Where a page ends.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor(Uuid, Option<(Uuid, u32)>);

/// What became of an event for a webhook.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(super) struct DeliveryView {
    #[schema(required)]
    event_id: Option<String>,
    #[schema(required)]
    event_type: Option<String>,
    webhook: Uuid,
    #[schema(required)]
    webhook_name: Option<String>,
    run: u32,
    #[schema(value_type = String)]
    state: &'static str,
    #[schema(required)]
    reason: Option<String>,
    attempts: u32,
    #[schema(value_type = Option<String>, format = DateTime, required)]
    next_attempt_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        Self {
            event_id: delivery.event_id,
            event_type: delivery.event_type,
            webhook: delivery.webhook.as_uuid(),
            webhook_name: delivery.webhook_name,
            run: delivery.run,
            state: delivery.state.as_str(),
            reason: delivery.reason,
            attempts: delivery.attempts,
            next_attempt_at: delivery.next_attempt_at,
            updated_at: delivery.updated_at,
        }
    }
}

/// List deliveries
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/deliveries",
    operation_id = "list_deliveries",
    tag = "Record",
    params(Filter),
    responses((status = 200, description = "A page of deliveries, newest first", body = Page<DeliveryView>)),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<DeliveryView>>, Problem> {
    let state = filter.state.as_deref().map(state_filter).transpose()?;
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let after = query.after()?.map(|Cursor(event, delivery)| DeliveryCursor {
        event: EventKey::from_uuid(event),
        delivery: delivery.map(|(webhook, run)| (WebhookId::from_uuid(webhook), run)),
    });
    let project = within.project.id;
    let mut connection = api.store.connection().await.map_err(failed)?;
    let webhook = webhook_filter(&mut connection, project, filter.webhook.as_deref()).await?;
    let events = match &filter.event_id {
        Some(id) => Some(log::event_keys(&mut connection, project, id).await.map_err(failed)?),
        None => None,
    };
    let wanted = DeliveryFilter {
        state,
        events: events.as_deref(),
        webhook,
    };
    let limit = u32::from(query.limit);
    let page = log::deliveries(&mut connection, project, &wanted, after, limit)
        .await
        .map_err(failed)?;
    let next = page.next.map(|next| {
        cursor::encode(&Cursor(
            next.event.as_uuid(),
            next.delivery.map(|(webhook, run)| (webhook.as_uuid(), run)),
        ))
    });
    let items = page.deliveries.into_iter().map(DeliveryView::from).collect();
    Ok(Json(Page {
        items,
        next: next.transpose()?,
    }))
}

fn state_filter(word: &str) -> Result<DeliveryState, Problem> {
    DeliveryState::parse(word).ok_or_else(|| {
        let words = DeliveryState::ALL.map(DeliveryState::as_str).join(", ");
        Problem::new(
            Code::MalformedQuery,
            format!("`{word}` is not a state; the states are {words}"),
        )
    })
}
