//! `/v1/projects/{project}/attempts`
//!
//! - `filter`: which attempts
//! - `request`: what was sent, made again
//! - `export`: all of them, line by line
//! - `stream`: each as it is recorded

mod export;
mod filter;
mod request;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use common::http::{Code, Json, Page, PageQuery, Path, Problem, Query, cursor};
use jiff::Timestamp;
use proto_schemas::id::{EventKey, WebhookId, parse_attempt_id};
use serde::{Deserialize, Serialize};
use store::log::{self, Attempt, AttemptCursor, Response};
use uuid::Uuid;

use self::filter::{Chosen, Filter};
use self::request::RequestView;
use super::json::Text;
use crate::access::{InProject, Read};
use crate::api::{Api, failed};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(export::export))
        .routes(routes!(stream::follow))
        .routes(routes!(show))
}

/// Where a page ends.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor(Timestamp, Uuid, Uuid, u32, u32);

impl From<AttemptCursor> for Cursor {
    fn from(cursor: AttemptCursor) -> Self {
        let (event, webhook, run, attempt) = cursor.attempt;
        Self(cursor.started_at, event.as_uuid(), webhook.as_uuid(), run, attempt)
    }
}

impl From<Cursor> for AttemptCursor {
    fn from(Cursor(started_at, event, webhook, run, attempt): Cursor) -> Self {
        Self {
            started_at,
            attempt: (EventKey::from_uuid(event), WebhookId::from_uuid(webhook), run, attempt),
        }
    }
}

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
    /// What was wrong with the TLS session, where `error_class` is `tls`.
    #[schema(value_type = Option<TlsFaultWord>, required)]
    tls_fault: Option<String>,
    /// Address and port that was talked to; null where no connection was made.
    #[schema(required)]
    peer: Option<String>,
    timings: TimingsView,
}

/// How long the parts of a request took, in milliseconds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Timings)]
struct TimingsView {
    /// Looking up the host's name. Null where no connection had to be made for this request, as the next two.
    #[schema(required)]
    dns_ms: Option<f64>,
    /// Connecting.
    #[schema(required)]
    connect_ms: Option<f64>,
    /// The TLS handshake.
    #[schema(required)]
    tls_ms: Option<f64>,
    /// From the begin of the request to the head of the response; null where none came.
    #[schema(required)]
    first_byte_ms: Option<f64>,
    /// From the begin to the end of the response.
    total_ms: f64,
}

/// What can be wrong with a TLS session.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "stands in the OpenAPI document for the words of TlsFault")]
enum TlsFaultWord {
    UnknownIssuer,
    Expired,
    NotYetValid,
    WrongName,
    Revoked,
    InvalidCertificate,
    NotTls,
    Incompatible,
    CertificateWanted,
    Ended,
    Timeout,
    Other,
}

/// An attempt, what was sent and what came back.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WholeAttempt {
    #[serde(flatten)]
    attempt: AttemptView,
    /// Null where no request was made.
    #[schema(required)]
    request: Option<RequestView>,
    /// Null where no response came.
    #[schema(required)]
    response: Option<ResponseView>,
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

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
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
            duration_ms: millis(attempt.duration),
            outcome: attempt.outcome,
            error_class: attempt.error_class,
            error: attempt.error,
            started_at: attempt.started_at,
            next_attempt_at: attempt.next_attempt_at,
            handed_out: attempt.handed_out,
            trial: attempt.trial,
            replay: attempt.replay,
            tls_fault: attempt.tls_fault,
            peer: attempt.peer,
            timings: TimingsView {
                dns_ms: attempt.timings.dns.map(millis),
                connect_ms: attempt.timings.connect.map(millis),
                tls_ms: attempt.timings.tls.map(millis),
                first_byte_ms: attempt.timings.first_byte.map(millis),
                total_ms: millis(attempt.duration),
            },
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
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor.clone(),
    };
    let before = query.after::<Cursor>()?.map(AttemptCursor::from);
    let project = within.project.id;
    let mut connection = api.connection_in(project).await?;
    let chosen = Chosen::of(&mut connection, &within.project, filter.into()).await?;
    let page = log::attempts(&mut connection, project, &chosen.filter(), before, query.limit.into())
        .await
        .map_err(failed)?;
    let next = page.next.map(|next| cursor::encode(&Cursor::from(next)));
    Ok(Json(Page {
        items: page.attempts.into_iter().map(AttemptView::from).collect(),
        next: next.transpose()?,
    }))
}

/// Show an attempt, what was sent and what came back
///
/// The request is made again from the event and the revision of the webhook, and compared with what is on record of it.
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/attempts/{attempt}",
    operation_id = "show_attempt",
    tag = "Record",
    responses((status = 200, description = "The attempt", body = WholeAttempt)),
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Json<WholeAttempt>, Problem> {
    let absent = || {
        Problem::new(
            Code::NotFound,
            "there is no such attempt in this project's record (yet, or any more)",
        )
    };
    let id = parse_attempt_id(&id).ok_or_else(absent)?;
    let mut connection = api.connection_in(within.project.id).await?;
    let project = &within.project;
    let found = log::attempt(&mut connection, project.id, id).await.map_err(failed)?;
    let (attempt, response) = found.ok_or_else(absent)?;
    let request = request::sent(&api, &mut connection, project, &attempt).await?;
    Ok(Json(WholeAttempt {
        request,
        response: attempt.status.map(|_| response.into()),
        attempt: attempt.into(),
    }))
}
