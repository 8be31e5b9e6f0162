//! `webhook_health`: how a webhook's deliveries go, and what has stopped it. Written by retry-scheduler alone; a webhook
//! that has had no attempt has no row.
//!
//! Rows are locked in the order of their keys, so that two transactions with the same webhooks wait for each other rather
//! than each for the other.

use std::collections::HashMap;

use jiff::Timestamp;
use proto_schemas::id::{EventKey, ProjectId, WebhookId};
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::value::{counter, from_counter, text};
use crate::{Connection, Error};

/// How a webhook's deliveries go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Failed attempts since the last delivered one.
    pub failures_in_a_row: u32,
    /// When an attempt last delivered; may be behind by ten seconds.
    pub last_delivered_at: Option<Timestamp>,
    /// When an attempt last failed.
    pub last_failed_at: Option<Timestamp>,
    /// What stopped it last; void where the webhook was restarted since.
    pub stopped: Option<Stopped>,
    /// The last endpoint check that it had to pass.
    pub check: Option<Check>,
}

/// What stopped a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// What it is since.
    pub state: StoppedState,
    /// Why, in one line.
    pub reason: String,
    /// When the attempt was begun that stopped it.
    pub at: Timestamp,
}

/// What a stopped webhook is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoppedState {
    /// Too many failures in a row.
    Failed,
    /// The receiver said that it is gone.
    Disabled,
}

/// An endpoint check that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Which: the key of its event.
    pub id: EventKey,
    /// What was wrong; `None`: nothing.
    pub error: Option<String>,
}

struct Row {
    webhook_id: Uuid,
    failures_in_a_row: i32,
    last_delivered_at: Option<time::OffsetDateTime>,
    last_failed_at: Option<time::OffsetDateTime>,
    stopped_state: Option<String>,
    stopped_reason: Option<String>,
    stopped_at: Option<time::OffsetDateTime>,
    check_id: Option<Uuid>,
    check_error: Option<String>,
}

impl From<Row> for Health {
    fn from(row: Row) -> Self {
        let state = match row.stopped_state.as_deref() {
            Some("failed") => Some(StoppedState::Failed),
            Some("disabled") => Some(StoppedState::Disabled),
            _ => None,
        };
        Self {
            failures_in_a_row: from_counter(row.failures_in_a_row),
            last_delivered_at: row.last_delivered_at.map(from_sql),
            last_failed_at: row.last_failed_at.map(from_sql),
            stopped: state.zip(row.stopped_at).map(|(state, at)| Stopped {
                state,
                reason: row.stopped_reason.unwrap_or_default(),
                at: from_sql(at),
            }),
            check: row.check_id.map(|id| Check {
                id: EventKey::from_uuid(id),
                error: row.check_error,
            }),
        }
    }
}

/// How the deliveries of these webhooks go.
///
/// # Errors
/// Any [`Error`].
pub async fn find(connection: &mut Connection, webhooks: &[WebhookId]) -> Result<HashMap<WebhookId, Health>, Error> {
    if webhooks.is_empty() {
        return Ok(HashMap::new());
    }
    let webhooks: Vec<Uuid> = webhooks.iter().map(|webhook| webhook.as_uuid()).collect();
    let rows = sqlx::query_as!(
        Row,
        "-- webhook_health::find
         SELECT webhook_id, failures_in_a_row, last_delivered_at, last_failed_at, stopped_state, stopped_reason,
                stopped_at, check_id, check_error
         FROM webhook_health WHERE webhook_id = ANY ($1)",
        &webhooks,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (WebhookId::from_uuid(row.webhook_id), row.into()))
        .collect())
}

/// A webhook whose row is locked, and what its owner wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// Which.
    pub webhook: WebhookId,
    /// Whose.
    pub project: ProjectId,
    /// When it was last restarted.
    pub restarted_at: Option<Timestamp>,
    /// The endpoint check that it has to pass.
    pub check: Option<EventKey>,
    /// How its deliveries go.
    pub health: Health,
}

/// Locks the rows of these webhooks, which are made where there are none; a webhook that does not exist is left out.
///
/// # Errors
/// Any [`Error`].
pub async fn lock(connection: &mut Connection, webhooks: &[WebhookId]) -> Result<Vec<Locked>, Error> {
    if webhooks.is_empty() {
        return Ok(Vec::new());
    }
    let webhooks: Vec<Uuid> = webhooks.iter().map(|webhook| webhook.as_uuid()).collect();
    sqlx::query!(
        "-- webhook_health::lock
         INSERT INTO webhook_health (webhook_id)
         SELECT id FROM webhooks WHERE id = ANY ($1) ORDER BY id
         ON CONFLICT DO NOTHING",
        &webhooks,
    )
    .execute(&mut *connection)
    .await?;
    let rows = sqlx::query!(
        "-- webhook_health::lock
         SELECT health.webhook_id, health.failures_in_a_row, health.last_delivered_at, health.last_failed_at,
                health.stopped_state, health.stopped_reason, health.stopped_at, health.check_id, health.check_error,
                webhooks.project_id, webhooks.restarted_at, webhooks.check_id AS wanted_check
         FROM webhook_health AS health JOIN webhooks ON webhooks.id = health.webhook_id
         WHERE health.webhook_id = ANY ($1)
         ORDER BY health.webhook_id
         FOR UPDATE OF health",
        &webhooks,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Locked {
            webhook: WebhookId::from_uuid(row.webhook_id),
            project: ProjectId::from_uuid(row.project_id),
            restarted_at: row.restarted_at.map(from_sql),
            check: row.wanted_check.map(EventKey::from_uuid),
            health: Row {
                webhook_id: row.webhook_id,
                failures_in_a_row: row.failures_in_a_row,
                last_delivered_at: row.last_delivered_at,
                last_failed_at: row.last_failed_at,
                stopped_state: row.stopped_state,
                stopped_reason: row.stopped_reason,
                stopped_at: row.stopped_at,
                check_id: row.check_id,
                check_error: row.check_error,
            }
            .into(),
        })
        .collect())
}

/// Writes rows that [`lock`] has locked in the same transaction.
///
/// # Errors
/// Any [`Error`].
pub async fn write(connection: &mut Connection, rows: &[(WebhookId, Health)]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let column = |instant: fn(&Health) -> Option<Timestamp>| -> Vec<_> {
        rows.iter().map(|(_, health)| instant(health).map(to_sql)).collect()
    };
    let webhooks: Vec<Uuid> = rows.iter().map(|(webhook, _)| webhook.as_uuid()).collect();
    let failures: Vec<i32> = rows
        .iter()
        .map(|(_, health)| counter(health.failures_in_a_row))
        .collect();
    let last_delivered = column(|health| health.last_delivered_at);
    let last_failed = column(|health| health.last_failed_at);
    let stopped = || rows.iter().map(|(_, health)| health.stopped.as_ref());
    let states: Vec<_> = stopped()
        .map(|stopped| {
            stopped.map(|stopped| match stopped.state {
                StoppedState::Failed => "failed",
                StoppedState::Disabled => "disabled",
            })
        })
        .collect();
    let reasons: Vec<_> = stopped()
        .map(|stopped| stopped.map(|stopped| text(&stopped.reason)))
        .collect();
    let stopped_at = column(|health| health.stopped.as_ref().map(|stopped| stopped.at));
    let check = || rows.iter().map(|(_, health)| health.check.as_ref());
    let checks: Vec<_> = check().map(|check| check.map(|check| check.id.as_uuid())).collect();
    let check_errors: Vec<_> = check()
        .map(|check| check.and_then(|check| check.error.as_deref()).map(text))
        .collect();
    sqlx::query!(
        "-- webhook_health::write
         UPDATE webhook_health AS health
         SET failures_in_a_row = row.failures_in_a_row, last_delivered_at = row.last_delivered_at,
             last_failed_at = row.last_failed_at, stopped_state = row.stopped_state,
             stopped_reason = row.stopped_reason, stopped_at = row.stopped_at, check_id = row.check_id,
             check_error = row.check_error
         FROM UNNEST($1::uuid[], $2::integer[], $3::timestamptz[], $4::timestamptz[], $5::text[], $6::text[],
                     $7::timestamptz[], $8::uuid[], $9::text[])
              AS row (webhook_id, failures_in_a_row, last_delivered_at, last_failed_at, stopped_state, stopped_reason,
                      stopped_at, check_id, check_error)
         WHERE health.webhook_id = row.webhook_id",
        &webhooks,
        &failures,
        &last_delivered as _,
        &last_failed as _,
        &states as _,
        &reasons as _,
        &stopped_at as _,
        &checks as _,
        &check_errors as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}
