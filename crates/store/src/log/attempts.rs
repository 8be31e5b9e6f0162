//! Attempts: one request each.

use std::time::Duration;

use jiff::Timestamp;
use proto_schemas::id::{AttemptRef, EventKey, ProjectId, WebhookId};
use sqlx::query_as;
use sqlx::types::Json;
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::{Connection, Error};

/// An attempt, without what came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Identity; its release is not recorded and reads 0.
    pub attempt: AttemptRef,
    /// The event's id, as receivers see it.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// The webhook's name, if the webhook is still known.
    pub webhook_name: Option<String>,
    /// The revision of the webhook's definition that the request was made by.
    pub webhook_revision: u64,
    /// When the request was begun.
    pub started_at: Timestamp,
    /// From begin to the end of the response.
    pub duration: Duration,
    /// `delivered` or `failed`.
    pub outcome: String,
    /// The response's status code, if there was a response.
    pub status: Option<u16>,
    /// What went wrong, in one word.
    pub error_class: Option<String>,
    /// What went wrong, in one line.
    pub error: Option<String>,
    /// When the next attempt is due, as decided after this one.
    pub next_attempt_at: Option<Timestamp>,
    /// How often JetStream handed the attempt out.
    pub handed_out: u32,
    /// `test` or `check`, where the request was made to try the webhook.
    pub trial: Option<String>,
    /// The replay that it belongs to, while that is known.
    pub replay: Option<Uuid>,
    /// SHA-256 of the request's body; empty where no request was made.
    pub request_sha256: Vec<u8>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Name and value of each header line.
    pub headers: Vec<(String, String)>,
    /// The first bytes of the body.
    pub body: Vec<u8>,
    /// Whether the body went on.
    pub truncated: bool,
}

/// Which attempts.
#[derive(Debug, Clone, Default)]
pub struct AttemptFilter<'a> {
    /// Of these events.
    pub events: Option<&'a [EventKey]>,
    /// Of events of exactly this type.
    pub event_type: Option<&'a str>,
    /// To this webhook.
    pub webhook: Option<WebhookId>,
    /// With this end.
    pub status: Option<StatusFilter>,
    /// Begun at or after.
    pub since: Option<Timestamp>,
    /// Begun before.
    pub until: Option<Timestamp>,
    /// Of the replay with this number.
    pub run: Option<u32>,
}

/// What an attempt ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusFilter {
    /// Delivered.
    Delivered,
    /// Not delivered.
    Failed,
    /// A response with a status code from the first to the last.
    Code(u16, u16),
}

/// Where a page of attempts ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptCursor {
    /// When the page's last attempt was begun.
    pub started_at: Timestamp,
    /// Which attempt it is.
    pub attempt: (EventKey, WebhookId, u32, u32),
}

struct Row {
    event_key: Uuid,
    webhook_id: Uuid,
    run: i32,
    attempt: i32,
    project_id: Uuid,
    event_id: String,
    event_type: String,
    webhook_name: Option<String>,
    webhook_revision: i64,
    started_at: time::OffsetDateTime,
    duration_us: i32,
    outcome: String,
    status: Option<i16>,
    error_class: Option<String>,
    error: Option<String>,
    next_attempt_at: Option<time::OffsetDateTime>,
    handed_out: i32,
    trial: Option<String>,
    replay: Option<Uuid>,
    request_sha256: Vec<u8>,
}

impl From<Row> for Attempt {
    fn from(row: Row) -> Self {
        Self {
            attempt: AttemptRef {
                event: EventKey::from_uuid(row.event_key),
                project: ProjectId::from_uuid(row.project_id),
                webhook: WebhookId::from_uuid(row.webhook_id),
                run: row.run.unsigned_abs(),
                attempt: row.attempt.unsigned_abs(),
                release: 0,
            },
            event_id: row.event_id,
            event_type: row.event_type,
            webhook_name: row.webhook_name,
            webhook_revision: row.webhook_revision.unsigned_abs(),
            started_at: from_sql(row.started_at),
            duration: Duration::from_micros(row.duration_us.unsigned_abs().into()),
            outcome: row.outcome,
            status: row.status.map(i16::unsigned_abs),
            error_class: row.error_class,
            error: row.error.filter(|error| !error.is_empty()),
            next_attempt_at: row.next_attempt_at.map(from_sql),
            handed_out: row.handed_out.unsigned_abs(),
            trial: row.trial,
            replay: row.replay,
            request_sha256: row.request_sha256,
        }
    }
}

/// Up to `limit` attempts before `before`, newest first.
///
/// # Errors
/// Any [`Error`].
pub async fn attempts(
    connection: &mut Connection,
    project: ProjectId,
    filter: &AttemptFilter<'_>,
    before: Option<AttemptCursor>,
    limit: u32,
) -> Result<Vec<Attempt>, Error> {
    let events: Option<Vec<Uuid>> = filter
        .events
        .map(|events| events.iter().map(|event| event.as_uuid()).collect());
    let outcome = match filter.status {
        Some(StatusFilter::Delivered) => Some("delivered"),
        Some(StatusFilter::Failed) => Some("failed"),
        Some(StatusFilter::Code(..)) | None => None,
    };
    let codes = match filter.status {
        Some(StatusFilter::Code(first, last)) => Some((code(first), code(last))),
        _ => None,
    };
    let rows = query_as!(
        Row,
        r#"-- log::attempts
         SELECT a.event_key, a.webhook_id, a.run, a.attempt, a.project_id, a.event_id, a.event_type,
                w.name AS "webhook_name?", a.webhook_revision, a.started_at, a.duration_us, a.outcome, a.status,
                a.error_class, a.error, a.next_attempt_at, a.handed_out, a.trial, a.request_sha256,
                r.id AS "replay?"
         FROM attempts a LEFT JOIN webhooks w ON w.id = a.webhook_id
              LEFT JOIN replays r ON r.number = a.run AND a.run > 0
         WHERE a.project_id = $1
           AND ($2::uuid[] IS NULL OR a.event_key = ANY($2))
           AND ($3::uuid IS NULL OR a.webhook_id = $3)
           AND ($4::text IS NULL OR a.outcome = $4)
           AND ($5::smallint IS NULL OR a.status BETWEEN $5 AND $6)
           AND ($7::timestamptz IS NULL OR a.started_at >= $7)
           AND ($8::timestamptz IS NULL OR a.started_at < $8)
           AND ($9::timestamptz IS NULL
                OR (a.started_at <= $9
                    AND (a.started_at, a.event_key, a.webhook_id, a.run, a.attempt) < ($9, $10, $11, $12, $13)))
           AND ($15::text IS NULL OR a.event_type = $15)
           AND ($16::integer IS NULL OR a.run = $16 AND a.run > 0)
         ORDER BY a.started_at DESC, a.event_key DESC, a.webhook_id DESC, a.run DESC, a.attempt DESC
         LIMIT $14"#,
        project.as_uuid(),
        events.as_deref(),
        filter.webhook.map(WebhookId::as_uuid),
        outcome,
        codes.map(|codes| codes.0),
        codes.map(|codes| codes.1),
        filter.since.map(to_sql),
        filter.until.map(to_sql),
        before.map(|before| to_sql(before.started_at)),
        before.map(|before| before.attempt.0.as_uuid()),
        before.map(|before| before.attempt.1.as_uuid()),
        before.map(|before| number(before.attempt.2)),
        before.map(|before| number(before.attempt.3)),
        i64::from(limit),
        filter.event_type,
        filter.run.map(number),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Attempt::from).collect())
}

/// One attempt, and what came back.
///
/// # Errors
/// Any [`Error`].
pub async fn attempt(
    connection: &mut Connection,
    project: ProjectId,
    (event, webhook, run, attempt): (EventKey, WebhookId, u32, u32),
) -> Result<Option<(Attempt, Response)>, Error> {
    let found = query_as!(
        Row,
        r#"-- log::attempt
         SELECT a.event_key, a.webhook_id, a.run, a.attempt, a.project_id, a.event_id, a.event_type,
                w.name AS "webhook_name?", a.webhook_revision, a.started_at, a.duration_us, a.outcome, a.status,
                a.error_class, a.error, a.next_attempt_at, a.handed_out, a.trial, a.request_sha256,
                r.id AS "replay?"
         FROM attempts a LEFT JOIN webhooks w ON w.id = a.webhook_id
              LEFT JOIN replays r ON r.number = a.run AND a.run > 0
         WHERE a.event_key = $1 AND a.webhook_id = $2 AND a.run = $3 AND a.attempt = $4 AND a.project_id = $5"#,
        event.as_uuid(),
        webhook.as_uuid(),
        number(run),
        number(attempt),
        project.as_uuid(),
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(found) = found else { return Ok(None) };
    // Rows of this table never change, so a second statement sees the same one.
    let response = sqlx::query!(
        r#"-- log::response
         SELECT response_headers AS "headers: Json<Vec<(String, String)>>", response_body, response_truncated
         FROM attempts WHERE event_key = $1 AND webhook_id = $2 AND run = $3 AND attempt = $4"#,
        event.as_uuid(),
        webhook.as_uuid(),
        number(run),
        number(attempt),
    )
    .fetch_optional(connection)
    .await?;
    Ok(response.map(|response| {
        (
            found.into(),
            Response {
                headers: response.headers.map(|headers| headers.0).unwrap_or_default(),
                body: response.response_body.unwrap_or_default(),
                truncated: response.response_truncated,
            },
        )
    }))
}

/// A number that is too large for the column is none that is in it.
fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(-1)
}

fn code(code: u16) -> i16 {
    i16::try_from(code).unwrap_or(i16::MAX)
}
