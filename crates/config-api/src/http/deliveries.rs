//! `/v1/projects/{project}/deliveries`

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use common::http::openapi::ProblemBody;
use common::http::{Code, Json, Page, PageQuery, Path, Problem, Query, cursor, page};
use jiff::Timestamp;
use proto_schemas::id::{EventKey, WebhookId};
use serde::{Deserialize, Serialize};
use store::log::{self, Delivery, DeliveryCursor, DeliveryFilter, DeliveryPage, State as DeliveryState};
use store::replays::{Kind, Selection};
use store::webhooks as rows;
use uuid::Uuid;

use super::replays::{ReplayView, accepted, action};
use super::webhook_filter;
use crate::access::{Configure, InProject, Read};
use crate::api::{Api, failed};
use crate::replays;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(act))
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
    /// Those that this replay has made, by its id or number; with `state` alone.
    replay: Option<String>,
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
    Cancelled,
    Dead,
}

/// Where a page ends.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Cursor(Uuid, Option<(Uuid, u32)>);

impl Cursor {
    /// The place it stands for.
    pub(super) fn place(self) -> DeliveryCursor {
        let Self(event, delivery) = self;
        DeliveryCursor {
            event: EventKey::from_uuid(event),
            delivery: delivery.map(|(webhook, run)| (WebhookId::from_uuid(webhook), run)),
        }
    }
}

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
    /// 0 for the event's own delivery, else the number of the last replay of it.
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
    let after = query.after()?.map(Cursor::place);
    let project = within.project.id;
    let mut connection = api.connection_in(project).await?;
    if let Some(named) = &filter.replay {
        if filter.event_id.is_some() || filter.webhook.is_some() {
            return Err(Problem::new(
                Code::MalformedQuery,
                "`replay` goes with `state` alone, not with `event_id` or `webhook`",
            ));
        }
        let number = replays::number(&mut connection, &within.project, named).await?;
        let page = log::deliveries_of_run(&mut connection, project, number, state, after, u32::from(query.limit)).await;
        return shown(page.map_err(failed)?).map(Json);
    }
    let webhook = webhook_filter(&mut connection, project, filter.webhook.as_deref()).await?;
    let events = match &filter.event_id {
        Some(id) => Some(log::event_keys(&mut connection, project, id).await.map_err(failed)?),
        None => None,
    };
    let wanted = DeliveryFilter {
        state,
        events: events.as_deref(),
        webhook,
        reason: None,
    };
    let limit = u32::from(query.limit);
    let page = log::deliveries(&mut connection, project, &wanted, after, limit)
        .await
        .map_err(failed)?;
    shown(page).map(Json)
}

/// A page, as it is told.
pub(super) fn shown(page: DeliveryPage) -> Result<Page<DeliveryView>, Problem> {
    let next = page.next.map(|next| {
        cursor::encode(&Cursor(
            next.event.as_uuid(),
            next.delivery.map(|(webhook, run)| (webhook.as_uuid(), run)),
        ))
    });
    let items = page.deliveries.into_iter().map(DeliveryView::from).collect();
    Ok(Page {
        items,
        next: next.transpose()?,
    })
}

/// Make a delivery again
///
/// `{webhook}` is the webhook's name or id with `:replay` after it. The delivery is made at once, whatever its state, and as
/// often as is asked for.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/deliveries/{event}/{webhook}",
    operation_id = "act_on_delivery",
    tag = "Replays",
    responses(
        (status = 202, description = "The replay that was begun", body = ReplayView),
        (status = 405, description = "No action is named", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn act(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, event, named)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let project = &within.project;
    let named = action(&named, "replay", "a delivery")?;
    let mut connection = api.connection_in(project.id).await?;
    let found = log::event(&mut connection, project.id, &event).await.map_err(failed)?;
    let webhook = rows::find(&mut connection, project.id, named).await.map_err(failed)?;
    drop(connection);
    let (Some(found), Some(webhook)) = (found, webhook) else {
        return Err(absent());
    };
    let is_there = found.owed.contains(&webhook.id) || found.skipped.iter().any(|(id, _)| *id == webhook.id);
    if !is_there {
        return Err(absent());
    }
    let selection = Selection {
        webhooks: Some(vec![webhook.id]),
        events: Some(vec![found.key]),
        event_ids: Some(vec![found.id]),
        ..Selection::default()
    };
    let replay = replays::order(&api, project, &within.caller, Kind::Replay, &selection, None).await?;
    Ok(accepted(&api, project, replay))
}

fn absent() -> Problem {
    Problem::new(
        Code::NotFound,
        "there is no such delivery in this project's record; an event that was never owed to a webhook is delivered to it \
         with `POST …/events/{event}:replay`",
    )
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
