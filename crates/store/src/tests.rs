//! `tests`: requests made to try a webhook, tests and endpoint checks. Written by config-api, which takes the secrets out
//! again once a test is handed out; what became of one is its attempt, as retry-scheduler records it.

use std::time::Duration;

use jiff::Timestamp;
use proto_schemas::delivery::TrialKind;
use proto_schemas::id::{EventKey, ProjectId, WebhookId};
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::{Connection, Error, outbox};

/// A test to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTest<'a> {
    /// Identity; the key of its event, too.
    pub id: EventKey,
    /// Whose it is.
    pub project: ProjectId,
    /// What is tried.
    pub kind: TrialKind,
    /// The webhook tried; `None` for a definition that is not stored.
    pub webhook: Option<WebhookId>,
    /// The webhook's id, or one of the test's own.
    pub target: WebhookId,
    /// The type of its event.
    pub event_type: &'a str,
    /// The duty, as it goes to dispatcher.
    pub due: &'a [u8],
    /// Whether there are secrets in it, sealed: it brings a definition along.
    pub holds_secrets: bool,
    /// When it was asked for.
    pub created_at: Timestamp,
}

/// A test, and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    /// Identity; the key of its event, too.
    pub id: EventKey,
    /// `test` or `check`.
    pub kind: String,
    /// The webhook tried; `None` for a definition that is not stored.
    pub webhook: Option<WebhookId>,
    /// The webhook's id, or one of the test's own.
    pub target: WebhookId,
    /// The type of its event.
    pub event_type: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Its attempt; `None` while that is not on record.
    pub made: Option<Made>,
}

/// What a test came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// Whether it went well.
    pub delivered: bool,
    /// When the request was begun.
    pub started_at: Timestamp,
    /// From begin to the end of the response.
    pub duration: Duration,
    /// The response's status code, if there was a response.
    pub status: Option<u16>,
    /// What went wrong, in one word.
    pub error_class: Option<String>,
    /// What went wrong, in one line.
    pub error: Option<String>,
}

struct Row {
    id: Uuid,
    kind: String,
    webhook_id: Option<Uuid>,
    target: Uuid,
    event_type: String,
    created_at: time::OffsetDateTime,
    outcome: Option<String>,
    started_at: Option<time::OffsetDateTime>,
    duration_us: Option<i32>,
    status: Option<i16>,
    error_class: Option<String>,
    error: Option<String>,
}

impl From<Row> for Test {
    fn from(row: Row) -> Self {
        Self {
            id: EventKey::from_uuid(row.id),
            kind: row.kind,
            webhook: row.webhook_id.map(WebhookId::from_uuid),
            target: WebhookId::from_uuid(row.target),
            event_type: row.event_type,
            created_at: from_sql(row.created_at),
            made: row.outcome.zip(row.started_at).map(|(outcome, started_at)| Made {
                delivered: outcome == "delivered",
                started_at: from_sql(started_at),
                duration: Duration::from_micros(row.duration_us.unwrap_or_default().unsigned_abs().into()),
                status: row.status.map(i16::unsigned_abs),
                error_class: row.error_class,
                error: row.error,
            }),
        }
    }
}

/// Adds a test, and puts it into the outbox.
///
/// # Errors
/// Any [`Error`].
pub async fn insert(connection: &mut Connection, test: &NewTest<'_>) -> Result<(), Error> {
    sqlx::query!(
        "-- tests::insert
         INSERT INTO tests (id, project_id, kind, webhook_id, target, event_type, due, holds_secrets, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        test.id.as_uuid(),
        test.project.as_uuid(),
        test.kind.as_str(),
        test.webhook.map(WebhookId::as_uuid),
        test.target.as_uuid(),
        test.event_type,
        test.due,
        test.holds_secrets,
        to_sql(test.created_at),
    )
    .execute(&mut *connection)
    .await?;
    outbox::append(connection, &[outbox_key(test.id)]).await
}

/// What a test is called in the outbox.
#[must_use]
pub fn outbox_key(id: EventKey) -> String {
    format!("test.{id}")
}

/// The test that a key of the outbox names, if it names one.
#[must_use]
pub fn of_outbox_key(key: &str) -> Option<EventKey> {
    key.strip_prefix("test.")?.parse().ok()
}

/// The duties of these tests, in no particular order.
///
/// # Errors
/// Any [`Error`].
pub async fn duties(connection: &mut Connection, ids: &[EventKey]) -> Result<Vec<(EventKey, Vec<u8>)>, Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let rows = sqlx::query!(
        "-- tests::duties
         SELECT id, due FROM tests WHERE id = ANY ($1)",
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (EventKey::from_uuid(row.id), row.due))
        .collect())
}

/// The duties of up to `limit` tests that are handed out and still have secrets in them.
///
/// # Errors
/// Any [`Error`].
pub async fn with_secrets_to_forget(
    connection: &mut Connection,
    limit: u32,
) -> Result<Vec<(EventKey, Vec<u8>)>, Error> {
    let rows = sqlx::query!(
        "-- tests::with_secrets_to_forget
         SELECT id, due FROM tests
         WHERE holds_secrets AND NOT EXISTS (SELECT FROM outbox WHERE outbox.key = 'test.' || tests.id)
         ORDER BY id LIMIT $1",
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (EventKey::from_uuid(row.id), row.due))
        .collect())
}

/// Writes a test's duty anew, without secrets.
///
/// # Errors
/// Any [`Error`].
pub async fn forget_secrets(connection: &mut Connection, id: EventKey, due: &[u8]) -> Result<(), Error> {
    sqlx::query!(
        "-- tests::forget_secrets
         UPDATE tests SET due = $2, holds_secrets = false WHERE id = $1",
        id.as_uuid(),
        due,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// How many tests of a project were asked for after `since`.
///
/// # Errors
/// Any [`Error`].
pub async fn count_since(connection: &mut Connection, project: ProjectId, since: Timestamp) -> Result<u64, Error> {
    // Ids sort by time.
    let count = sqlx::query_scalar!(
        r#"-- tests::count_since
         SELECT count(*) AS "count!" FROM tests WHERE project_id = $1 AND id >= $2"#,
        project.as_uuid(),
        EventKey::floor(since).as_uuid(),
    )
    .fetch_one(connection)
    .await?;
    Ok(count.unsigned_abs())
}

/// A project's test.
///
/// # Errors
/// Any [`Error`].
pub async fn find(connection: &mut Connection, project: ProjectId, id: EventKey) -> Result<Option<Test>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"-- tests::find
         SELECT test.id, test.kind, test.webhook_id, test.target, test.event_type, test.created_at,
                made.outcome AS "outcome?", made.started_at AS "started_at?", made.duration_us AS "duration_us?",
                made.status, made.error_class, made.error
         FROM tests AS test
         LEFT JOIN attempts AS made
              ON made.event_key = test.id AND made.webhook_id = test.target AND made.run = 0 AND made.attempt = 1
         WHERE test.project_id = $1 AND test.id = $2"#,
        project.as_uuid(),
        id.as_uuid(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Test::from))
}

/// Up to `limit` tests of a project, or of one of its webhooks, asked for before the test `before`, newest first.
///
/// # Errors
/// Any [`Error`].
pub async fn page(
    connection: &mut Connection,
    project: ProjectId,
    webhook: Option<WebhookId>,
    before: Option<EventKey>,
    limit: u32,
) -> Result<Vec<Test>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"-- tests::page
         SELECT test.id, test.kind, test.webhook_id, test.target, test.event_type, test.created_at,
                made.outcome AS "outcome?", made.started_at AS "started_at?", made.duration_us AS "duration_us?",
                made.status, made.error_class, made.error
         FROM tests AS test
         LEFT JOIN attempts AS made
              ON made.event_key = test.id AND made.webhook_id = test.target AND made.run = 0 AND made.attempt = 1
         WHERE test.project_id = $1 AND ($2::uuid IS NULL OR test.webhook_id = $2) AND ($3::uuid IS NULL OR test.id < $3)
         ORDER BY test.id DESC LIMIT $4"#,
        project.as_uuid(),
        webhook.map(WebhookId::as_uuid),
        before.map(EventKey::as_uuid),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Test::from).collect())
}
