//! `/v1/projects/{project}/attempts`

use std::sync::Arc;

use axum::extract::State;
use common::http::{Code, Json, Page, PageQuery, Path, Problem, Query, page};
use jiff::Timestamp;
use proto_schemas::id::{EventKey, WebhookId, parse_attempt_id};
use serde::{Deserialize, Serialize};
use store::log::{self, Attempt, AttemptCursor, AttemptFilter, Response, StatusFilter};
use uuid::Uuid;

use super::json::Text;
use super::webhook_filter;
use crate::access::{InProject, Read};
use crate::api::{Api, failed};
use crate::replays;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

/// Which attempts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Those of the event with this id.
    event_id: Option<String>,
    /// Those of this type.
    r#type: Option<String>,
    /// Those of this webhook, by name or id; by its id a deleted one's can still be read.
    webhook: Option<String>,
    /// `delivered`, `failed`, a status code such as 503, or a class of them such as 5xx.
    status: Option<String>,
    /// Those of this replay, by its id or number.
    replay: Option<String>,
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

/// Where a page ends.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor(Timestamp, Uuid, Uuid, u32, u32);

/// An attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(super) struct AttemptView {
    id: String,
    event_id: String,
    event_type: String,
    webhook: Uuid,
    #[schema(required)]
    webhook_name: Option<String>,
    webhook_revision: u64,
    attempt: u32,
    run: u32,
    #[schema(required)]
    status: Option<u16>,
    duration_ms: f64,
    outcome: String,
    #[schema(required)]
    error_class: Option<String>,
    #[schema(required)]
    error: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime, required)]
    next_attempt_at: Option<Timestamp>,
    /// Above 1: a process died or lost its connection, and the receiver may have seen this attempt more than once.
    handed_out: u32,
    /// `test` or `check`, where the request was made to try the webhook; else null.
    #[schema(required)]
    trial: Option<String>,
    /// The id of the replay that the request was made for, if it was; its number is `run`.
    #[schema(required)]
    replay: Option<Uuid>,
}

/// An attempt and what came back.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AttemptWithResponse {
    #[serde(flatten)]
    attempt: AttemptView,
    /// Null where no response came.
    #[schema(required)]
    response: Option<ResponseView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Response)]
struct ResponseView {
    headers: Vec<HeaderLine>,
    #[serde(flatten)]
    body: Text,
    truncated: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct HeaderLine {
    key: String,
    value: String,
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        Self {
            id: attempt.attempt.attempt_id(),
            event_id: attempt.event_id,
            event_type: attempt.event_type,
            webhook: attempt.attempt.webhook.as_uuid(),
            webhook_name: attempt.webhook_name,
            webhook_revision: attempt.webhook_revision,
            attempt: attempt.attempt.attempt,
            run: attempt.attempt.run,
            status: attempt.status,
            duration_ms: attempt.duration.as_secs_f64() * 1000.0,
            outcome: attempt.outcome,
            error_class: attempt.error_class,
            error: attempt.error,
            started_at: attempt.started_at,
            next_attempt_at: attempt.next_attempt_at,
            handed_out: attempt.handed_out,
            trial: attempt.trial,
            replay: attempt.replay,
        }
    }
}

impl From<(Attempt, Response)> for AttemptWithResponse {
    fn from((attempt, response): (Attempt, Response)) -> Self {
        Self {
            response: attempt.status.map(|_| response.into()),
            attempt: attempt.into(),
        }
    }
}

impl From<Response> for ResponseView {
    fn from(response: Response) -> Self {
        Self {
            headers: response
                .headers
                .into_iter()
                .map(|(key, value)| HeaderLine { key, value })
                .collect(),
            body: Text::new(response.body, response.truncated),
            truncated: response.truncated,
        }
    }
}

/// List attempts
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/attempts",
    operation_id = "list_attempts",
    tag = "Record",
    params(Filter),
    responses((status = 200, description = "A page of attempts, newest first", body = Page<AttemptView>)),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<AttemptView>>, Problem> {
    let status = filter.status.as_deref().map(status_filter).transpose()?;
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let before = query
        .after()?
        .map(|Cursor(started_at, event, webhook, run, attempt)| AttemptCursor {
            started_at,
            attempt: (EventKey::from_uuid(event), WebhookId::from_uuid(webhook), run, attempt),
        });
    let project = within.project.id;
    let mut connection = api.store.connection().await.map_err(failed)?;
    let webhook = webhook_filter(&mut connection, project, filter.webhook.as_deref()).await?;
    let events = match &filter.event_id {
        Some(id) => Some(log::event_keys(&mut connection, project, id).await.map_err(failed)?),
        None => None,
    };
    let run = match &filter.replay {
        Some(named) => Some(replays::number(&mut connection, &within.project, named).await?),
        None => None,
    };
    let wanted = AttemptFilter {
        events: events.as_deref(),
        event_type: filter.r#type.as_deref(),
        webhook,
        status,
        since: filter.since,
        until: filter.until,
        run,
    };
    let limit = u32::from(query.limit) + 1;
    let rows = log::attempts(&mut connection, project, &wanted, before, limit)
        .await
        .map_err(failed)?;
    let page = Page::cut(rows, &query, |last| {
        let at = last.attempt;
        Cursor(
            last.started_at,
            at.event.as_uuid(),
            at.webhook.as_uuid(),
            at.run,
            at.attempt,
        )
    })?;
    Ok(Json(page.map(AttemptView::from)))
}

/// Show an attempt and what came back
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/attempts/{attempt}",
    operation_id = "show_attempt",
    tag = "Record",
    responses((status = 200, description = "The attempt", body = AttemptWithResponse)),
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Json<AttemptWithResponse>, Problem> {
    let absent = || {
        Problem::new(
            Code::NotFound,
            "there is no such attempt in this project's record (yet, or any more)",
        )
    };
    let id = parse_attempt_id(&id).ok_or_else(absent)?;
    let mut connection = api.store.connection().await.map_err(failed)?;
    let found = log::attempt(&mut connection, within.project.id, id)
        .await
        .map_err(failed)?;
    Ok(Json(found.ok_or_else(absent)?.into()))
}

/// Reads `delivered`, `failed`, `503` or `5xx`.
fn status_filter(text: &str) -> Result<StatusFilter, Problem> {
    let refused = || {
        let detail = "`status` is `delivered`, `failed`, a status code such as 503, or a class of them such as 5xx";
        Problem::new(Code::MalformedQuery, detail)
    };
    match text {
        "delivered" => return Ok(StatusFilter::Delivered),
        "failed" => return Ok(StatusFilter::Failed),
        _ => {}
    }
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class
            .parse()
            .ok()
            .filter(|class| (1..=9).contains(class))
            .ok_or_else(refused)?;
        return Ok(StatusFilter::Code(class * 100, class * 100 + 99));
    }
    let code: u16 = text
        .parse()
        .ok()
        .filter(|code| (100..=999).contains(code))
        .ok_or_else(refused)?;
    Ok(StatusFilter::Code(code, code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_an_outcome_a_code_or_a_class() {
        assert_eq!(status_filter("delivered").unwrap(), StatusFilter::Delivered);
        assert_eq!(status_filter("failed").unwrap(), StatusFilter::Failed);
        assert_eq!(status_filter("503").unwrap(), StatusFilter::Code(503, 503));
        assert_eq!(status_filter("5xx").unwrap(), StatusFilter::Code(500, 599));
        for wrong in ["", "ok", "99", "1000", "xx", "0xx", "12xx", "-1", "5XX"] {
            assert_eq!(
                status_filter(wrong).unwrap_err().code(),
                Code::MalformedQuery,
                "{wrong}"
            );
        }
    }
}
