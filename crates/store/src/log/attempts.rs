//! Attempts: one request each.

use std::time::Duration;

use jiff::Timestamp;
use proto_schemas::id::{AttemptRef, EventKey, ProjectId, WebhookId};
use proto_schemas::ledger::Timings;
use sqlx::query_as;
use sqlx::types::Json;
use uuid::Uuid;

use super::State;
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
    /// Checksum of the request's method, url and header lines.
    pub request_head: Option<u32>,
    /// How long the parts of the request took.
    pub timings: Timings,
    /// Address and port that was talked to.
    pub peer: Option<String>,
    /// What was wrong with the TLS session, in one word.
    pub tls_fault: Option<String>,
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
    /// Of deliveries that are now in this state.
    pub state: Option<State>,
    /// That failed for this reason.
    pub error_class: Option<&'a str>,
    /// Of events whose id contains this text.
    pub containing: Option<&'a str>,
    /// Begun at or after.
    pub since: Option<Timestamp>,
    /// Begun before.
    pub until: Option<Timestamp>,
    /// Of the replay with this number.
    pub run: Option<u32>,
}

impl AttemptFilter<'_> {
    /// Whether it may fit few of many, with no index that says which.
    const fn is_searching(&self) -> bool {
        self.events.is_none()
            && (self.event_type.is_some()
                || self.status.is_some()
                || self.state.is_some()
                || self.error_class.is_some()
                || self.run.is_some()
                || self.containing.is_some())
    }
}

/// A page of attempts. It may have fewer than asked for and yet not be the last: only so many are looked at for one page.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptPage {
    /// The attempts, newest first.
    pub attempts: Vec<Attempt>,
    /// Where the next page begins, if there is more.
    pub next: Option<AttemptCursor>,
}

/// Most attempts looked at for one page, so that a filter which fits almost nothing takes many short pages instead of one
/// endless statement.
const SCAN_MAX: i64 = 20_000;

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

pub(super) struct Row {
    pub(super) event_key: Uuid,
    pub(super) webhook_id: Uuid,
    pub(super) run: i32,
    pub(super) attempt: i32,
    pub(super) project_id: Uuid,
    pub(super) event_id: String,
    pub(super) event_type: String,
    pub(super) webhook_name: Option<String>,
    pub(super) webhook_revision: i64,
    pub(super) started_at: time::OffsetDateTime,
    pub(super) duration_us: i32,
    pub(super) outcome: String,
    pub(super) status: Option<i16>,
    pub(super) error_class: Option<String>,
    pub(super) error: Option<String>,
    pub(super) next_attempt_at: Option<time::OffsetDateTime>,
    pub(super) handed_out: i32,
    pub(super) trial: Option<String>,
    pub(super) replay: Option<Uuid>,
    pub(super) request_sha256: Vec<u8>,
    pub(super) request_head: Option<i32>,
    pub(super) dns_us: Option<i32>,
    pub(super) connect_us: Option<i32>,
    pub(super) tls_us: Option<i32>,
    pub(super) first_byte_us: Option<i32>,
    pub(super) peer: Option<String>,
    pub(super) tls_fault: Option<String>,
}

impl From<Row> for Attempt {
    fn from(row: Row) -> Self {
        let span = |micros: Option<i32>| Some(Duration::from_micros(micros?.unsigned_abs().into()));
        Self {
            attempt: AttemptRef {
                event: EventKey::from_uuid(row.event_key),
                project: ProjectId::from_uuid(row.project_id),
                webhook: WebhookId::from_uuid(row.webhook_id),
                run: row.run.unsigned_abs(),
                attempt: row.attempt.unsigned_abs(),
                release: 0,
                handed_out_before: 0,
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
            request_head: row.request_head.map(i32::cast_unsigned),
            timings: Timings {
                dns: span(row.dns_us),
                connect: span(row.connect_us),
                tls: span(row.tls_us),
                first_byte: span(row.first_byte_us),
            },
            peer: row.peer,
            tls_fault: row.tls_fault,
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
) -> Result<AttemptPage, Error> {
    let looked_at = match filter.is_searching() {
        true => looked_at(connection, project, filter, before).await?,
        false => None,
    };
    let mut attempts = page(connection, project, filter, before, looked_at, limit).await?;
    let is_full = attempts.len() > limit as usize;
    attempts.truncate(limit as usize);
    let next = match attempts.last() {
        Some(last) if is_full => Some(AttemptCursor::of(last)),
        _ => looked_at,
    };
    Ok(AttemptPage { attempts, next })
}

impl AttemptCursor {
    /// Where a page ends whose last attempt this is.
    #[must_use]
    pub fn of(attempt: &Attempt) -> Self {
        let at = attempt.attempt;
        Self {
            started_at: attempt.started_at,
            attempt: (at.event, at.webhook, at.run, at.attempt),
        }
    }
}

/// The last attempt to be looked at, where there may be more.
async fn looked_at(
    connection: &mut Connection,
    project: ProjectId,
    filter: &AttemptFilter<'_>,
    before: Option<AttemptCursor>,
) -> Result<Option<AttemptCursor>, Error> {
    let row = sqlx::query!(
        r#"-- log::attempts_looked_at
         SELECT a.started_at, a.event_key, a.webhook_id, a.run, a.attempt
         FROM attempts a
         WHERE a.project_id = $1
           AND ($2::uuid IS NULL OR a.webhook_id = $2)
           AND ($3::timestamptz IS NULL OR a.started_at >= $3)
           AND ($4::timestamptz IS NULL OR a.started_at < $4)
           AND ($5::timestamptz IS NULL
                OR (a.started_at <= $5
                    AND (a.started_at, a.event_key, a.webhook_id, a.run, a.attempt) < ($5, $6, $7, $8, $9)))
         ORDER BY a.started_at DESC, a.event_key DESC, a.webhook_id DESC, a.run DESC, a.attempt DESC
         OFFSET $10 LIMIT 1"#,
        project.as_uuid(),
        filter.webhook.map(WebhookId::as_uuid),
        filter.since.map(to_sql),
        filter.until.map(to_sql),
        before.map(|before| to_sql(before.started_at)),
        before.map(|before| before.attempt.0.as_uuid()),
        before.map(|before| before.attempt.1.as_uuid()),
        before.map(|before| number(before.attempt.2)),
        before.map(|before| number(before.attempt.3)),
        SCAN_MAX - 1,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| AttemptCursor {
        started_at: from_sql(row.started_at),
        attempt: (
            EventKey::from_uuid(row.event_key),
            WebhookId::from_uuid(row.webhook_id),
            row.run.unsigned_abs(),
            row.attempt.unsigned_abs(),
        ),
    }))
}

/// Up to one more than `limit` attempts before `before`, down to `end`.
async fn page(
    connection: &mut Connection,
    project: ProjectId,
    filter: &AttemptFilter<'_>,
    before: Option<AttemptCursor>,
    end: Option<AttemptCursor>,
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
    let pending: Option<Vec<String>> = match filter.state {
        None | Some(State::Delivered) => None,
        Some(state) => Some(state.pending().iter().map(|state| (*state).to_owned()).collect()),
    };
    let rows = query_as!(
        Row,
        r#"-- log::attempts
         SELECT a.event_key, a.webhook_id, a.run, a.attempt, a.project_id, a.event_id, a.event_type,
                w.name AS "webhook_name?", a.webhook_revision, a.started_at, a.duration_us, a.outcome, a.status,
                a.error_class, a.error, a.next_attempt_at, a.handed_out, a.trial, a.request_sha256, a.request_head,
                a.dns_us, a.connect_us, a.tls_us, a.first_byte_us, a.peer, a.tls_fault, r.id AS "replay?"
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
           AND ($16::text IS NULL OR a.error_class = $16)
           AND ($17::text IS NULL OR strpos(a.event_id, $17) > 0)
           AND ($18::text[] IS NULL
                OR (a.trial IS NULL
                    AND EXISTS (SELECT FROM pending_deliveries p
                                WHERE p.event_key = a.event_key AND p.webhook_id = a.webhook_id AND p.run = a.run
                                  AND p.state = ANY($18))))
           AND (NOT $19::boolean
                OR (a.trial IS NULL
                    AND EXISTS (SELECT FROM attempts d
                                WHERE d.event_key = a.event_key AND d.webhook_id = a.webhook_id AND d.run = a.run
                                  AND d.outcome = 'delivered')))
           AND ($20::timestamptz IS NULL
                OR (a.started_at >= $20
                    AND (a.started_at, a.event_key, a.webhook_id, a.run, a.attempt) >= ($20, $21, $22, $23, $24)))
           AND ($25::integer IS NULL OR a.run = $25 AND a.run > 0)
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
        i64::from(limit) + 1,
        filter.event_type,
        filter.error_class,
        filter.containing,
        pending.as_deref(),
        filter.state == Some(State::Delivered),
        end.map(|end| to_sql(end.started_at)),
        end.map(|end| end.attempt.0.as_uuid()),
        end.map(|end| end.attempt.1.as_uuid()),
        end.map(|end| number(end.attempt.2)),
        end.map(|end| number(end.attempt.3)),
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
                a.error_class, a.error, a.next_attempt_at, a.handed_out, a.trial, a.request_sha256, a.request_head,
                a.dns_us, a.connect_us, a.tls_us, a.first_byte_us, a.peer, a.tls_fault, r.id AS "replay?"
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

/// What came back of each of these attempts, in their order; nothing where there is no such row any more.
///
/// # Errors
/// Any [`Error`].
pub async fn responses(connection: &mut Connection, attempts: &[Attempt]) -> Result<Vec<Option<Response>>, Error> {
    let references = || attempts.iter().map(|attempt| attempt.attempt);
    let events: Vec<_> = references().map(|at| at.event.as_uuid()).collect();
    let webhooks: Vec<_> = references().map(|at| at.webhook.as_uuid()).collect();
    let runs: Vec<_> = references().map(|at| number(at.run)).collect();
    let numbers: Vec<_> = references().map(|at| number(at.attempt)).collect();
    let rows = sqlx::query!(
        r#"-- log::responses
         SELECT row.position AS "position!", a.response_headers AS "headers?: Json<Vec<(String, String)>>",
                a.response_body AS "response_body?", a.response_truncated
         FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::integer[]) WITH ORDINALITY
              AS row (event_key, webhook_id, run, attempt, position)
         JOIN attempts a USING (event_key, webhook_id, run, attempt)"#,
        &events,
        &webhooks,
        &runs,
        &numbers,
    )
    .fetch_all(connection)
    .await?;
    let mut found: Vec<Option<Response>> = attempts.iter().map(|_| None).collect();
    for row in rows {
        let position = usize::try_from(row.position - 1).unwrap_or(usize::MAX);
        if let Some(place) = found.get_mut(position) {
            *place = Some(Response {
                headers: row.headers.map(|headers| headers.0).unwrap_or_default(),
                body: row.response_body.unwrap_or_default(),
                truncated: row.response_truncated,
            });
        }
    }
    Ok(found)
}

/// A number that is too large for the column is none that is in it.
pub(super) fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(-1)
}

fn code(code: u16) -> i16 {
    i16::try_from(code).unwrap_or(i16::MAX)
}
