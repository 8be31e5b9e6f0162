//! `/v1/projects/{project}/reconciliation`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use common::http::openapi::ProblemBody;
use common::http::{Json, Page, PageQuery, Problem, Query, page};
use jiff::Timestamp;
use proto_schemas::id::{EventKey, WebhookId};
use serde::{Deserialize, Serialize};
use store::log;
use store::reconciliation::{self, Unaccounted};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::{InProject, Read};
use crate::api::{Api, failed};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(show))
}

/// The time that is added up where none is given.
const SPAN: Duration = Duration::from_secs(24 * 3600);

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// From this instant on; a day before `until` if absent.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    since: Option<Timestamp>,
    /// Before this instant; now if absent.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-02-01T12:00:00Z")]
    until: Option<Timestamp>,
    // Not flattened: serde would let misspelt names pass.
    /// Most missing deliveries on the page.
    #[serde(default = "page::default_limit", deserialize_with = "page::limit")]
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: u16,
    /// The `next` of the page of missing deliveries before.
    cursor: Option<String>,
}

/// How the deliveries of a span of time add up.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reconciliation)]
pub(super) struct ReconciliationView {
    /// From when on events were added up.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// Up to when.
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
    /// Events accepted.
    events: u64,
    /// Deliveries these events make: one for each webhook that wants one, skipped ones included.
    deliveries: u64,
    /// How many are in which state. Together with the difference they are all of them.
    #[schema(value_type = BTreeMap<String, u64>)]
    states: BTreeMap<&'static str, u64>,
    /// Deliveries in no state: owed, and neither on record nor on their way. 0, unless something got lost.
    difference: u64,
    /// Up to when events have been looked at for that; what is newer may be on its way and counts as `queued`.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    checked_to: Option<Timestamp>,
    /// When they were looked at.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    checked_at: Option<Timestamp>,
    /// The deliveries that are missing, whenever their events were accepted; `next` leads to more.
    missing: Page<MissingView>,
}

/// A delivery that is missing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MissingDelivery)]
pub(super) struct MissingView {
    /// The event's id.
    event_id: String,
    /// The webhook's id.
    webhook: Uuid,
    /// When the event was accepted.
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
}

impl From<Unaccounted> for MissingView {
    fn from(missing: Unaccounted) -> Self {
        Self {
            event_id: missing.event_id,
            webhook: missing.webhook.as_uuid(),
            accepted_at: missing.event.accepted_at(),
        }
    }
}

/// Where a page of missing deliveries ends.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor(Uuid, Uuid);

/// Add up what became of the deliveries of a span of time
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/reconciliation",
    operation_id = "show_reconciliation",
    tag = "Record",
    params(Filter),
    responses(
        (status = 200, description = "The sums, and what is missing", body = ReconciliationView),
        (status = 422, description = "`since` lies after `until`", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(filter): Query<Filter>,
) -> Result<Json<ReconciliationView>, Problem> {
    let now = api.now();
    let until = filter.until.unwrap_or(now);
    let since = filter
        .since
        .unwrap_or_else(|| until.saturating_sub(SPAN).unwrap_or(until));
    if since > until {
        return Err(Problem::field("/since", "it lies after `until`"));
    }
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let after = query
        .after()?
        .map(|Cursor(event, webhook)| (EventKey::from_uuid(event), WebhookId::from_uuid(webhook)));
    let project = within.project.id;
    let mut connection = api.connection_in(project).await?;
    let (from, to) = (EventKey::floor(since), EventKey::floor(until));
    let sums = reconciliation::sums(&mut connection, project, from, to)
        .await
        .map_err(failed)?;
    let rows = reconciliation::missing(&mut connection, project, after, u32::from(query.limit) + 1).await;
    let missing = Page::cut(rows.map_err(failed)?, &query, |missing| {
        Cursor(missing.event.as_uuid(), missing.webhook.as_uuid())
    })?;
    let count = |state: log::State| {
        let found = sums.states.iter().find(|(word, _)| word == state.as_str());
        found.map_or(0, |(_, count)| *count)
    };
    let mut states: BTreeMap<_, _> = log::State::ALL
        .into_iter()
        .map(|state| (state.as_str(), count(state)))
        .collect();
    let deliveries = states.values().sum();
    // What is missing looks queued to the record, and is in no state.
    if let Some(queued) = states.get_mut(log::State::Queued.as_str()) {
        *queued = queued.saturating_sub(sums.missing);
    }
    Ok(Json(ReconciliationView {
        since,
        until,
        events: sums.events,
        deliveries,
        states,
        difference: sums.missing,
        checked_to: sums.checked_to,
        checked_at: sums.checked_at,
        missing: missing.map(MissingView::from),
    }))
}
