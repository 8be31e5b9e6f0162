//! `operational_events`, `stopped_webhooks`, `expiring_secrets`: what Posthaste has to tell of itself, and what it has told.
//! Written by retry-scheduler alone.

use jiff::Timestamp;
use proto_schemas::id::{ProjectId, SecretId, WebhookId};
use serde_json::Value;
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::value::text;
use crate::{Connection, Error};

/// An operational event.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationalEvent {
    /// Its id, made of the cause.
    pub id: String,
    /// Whose.
    pub project: ProjectId,
    /// The webhook it is about.
    pub webhook: Option<WebhookId>,
    /// Its type.
    pub event_type: &'static str,
    /// Why, in one line.
    pub reason: String,
    /// What its data holds besides webhook and reason: an object.
    pub detail: Value,
    /// When.
    pub occurred_at: Timestamp,
}

/// Adds the events that are not waiting already.
///
/// # Errors
/// Any [`Error`].
pub async fn insert(connection: &mut Connection, events: &[OperationalEvent]) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    let mut events: Vec<&OperationalEvent> = events.iter().collect();
    events.sort_by_key(|event| &event.id);
    let ids: Vec<_> = events.iter().map(|event| event.id.clone()).collect();
    let projects: Vec<_> = events.iter().map(|event| event.project.as_uuid()).collect();
    let webhooks: Vec<_> = events
        .iter()
        .map(|event| event.webhook.map(WebhookId::as_uuid))
        .collect();
    let types: Vec<_> = events.iter().map(|event| event.event_type.to_owned()).collect();
    let reasons: Vec<_> = events.iter().map(|event| text(&event.reason)).collect();
    let details: Vec<_> = events.iter().map(|event| storable(&event.detail).to_string()).collect();
    let occurred_at: Vec<_> = events.iter().map(|event| to_sql(event.occurred_at)).collect();
    sqlx::query!(
        "-- operational_events::insert
         INSERT INTO operational_events (id, project_id, webhook_id, type, reason, detail, occurred_at)
         SELECT row.id, row.project_id, row.webhook_id, row.type, row.reason, row.detail::jsonb, row.occurred_at
         FROM UNNEST($1::text[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
              AS row (id, project_id, webhook_id, type, reason, detail, occurred_at)
         ON CONFLICT DO NOTHING",
        &ids,
        &projects,
        &webhooks as _,
        &types,
        &reasons as _,
        &details,
        &occurred_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// JSON that jsonb can hold: no string of it has U+0000.
fn storable(value: &Value) -> Value {
    match value {
        Value::String(string) => Value::String(text(string).into_owned()),
        Value::Array(items) => items.iter().map(storable).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (text(name).into_owned(), storable(value)))
            .collect(),
        other => other.clone(),
    }
}

/// An operational event that waits to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Its id.
    pub id: String,
    /// Whose.
    pub project: ProjectId,
    /// The webhook it is about, and how that is called.
    pub webhook: Option<(WebhookId, String)>,
    /// Its type.
    pub event_type: String,
    /// Why, in one line.
    pub reason: String,
    /// What its data holds besides.
    pub detail: Value,
    /// When.
    pub occurred_at: Timestamp,
    /// Whether its project has anybody told by e-mail.
    pub is_mailed: bool,
}

/// Locks up to `limit` events, the oldest first, leaving out what another transaction has locked.
///
/// # Errors
/// Any [`Error`].
pub async fn claim(connection: &mut Connection, limit: u32) -> Result<Vec<Waiting>, Error> {
    let rows = sqlx::query!(
        r#"-- operational_events::claim
         SELECT event.id, event.project_id, event.webhook_id, event.type, event.reason, event.detail,
                event.occurred_at, webhooks.name AS "webhook_name?",
                coalesce(projects.alert_emails <> '{}', false) AS "is_mailed!"
         FROM operational_events AS event
         LEFT JOIN webhooks ON webhooks.id = event.webhook_id
         LEFT JOIN projects ON projects.id = event.project_id
         ORDER BY event.position
         LIMIT $1
         FOR UPDATE OF event SKIP LOCKED"#,
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Waiting {
            id: row.id,
            project: ProjectId::from_uuid(row.project_id),
            webhook: row
                .webhook_id
                .map(|id| (WebhookId::from_uuid(id), row.webhook_name.unwrap_or_default())),
            event_type: row.r#type,
            reason: row.reason,
            detail: row.detail,
            occurred_at: from_sql(row.occurred_at),
            is_mailed: row.is_mailed,
        })
        .collect())
}

/// Deletes events that JetStream has.
///
/// # Errors
/// Any [`Error`].
pub async fn delete(connection: &mut Connection, ids: &[String]) -> Result<(), Error> {
    sqlx::query!(
        "-- operational_events::delete
         DELETE FROM operational_events WHERE id = ANY ($1)",
        ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that it is told of these webhooks that they were stopped, and when that was.
///
/// # Errors
/// Any [`Error`].
pub async fn note_stopped(connection: &mut Connection, stopped: &[(WebhookId, Timestamp)]) -> Result<(), Error> {
    if stopped.is_empty() {
        return Ok(());
    }
    let mut stopped = stopped.to_vec();
    stopped.sort_unstable();
    stopped.dedup_by_key(|(webhook, _)| *webhook);
    let webhooks: Vec<Uuid> = stopped.iter().map(|(webhook, _)| webhook.as_uuid()).collect();
    let at: Vec<_> = stopped.iter().map(|(_, at)| to_sql(*at)).collect();
    sqlx::query!(
        "-- operational_events::note_stopped
         INSERT INTO stopped_webhooks (webhook_id, stopped_at)
         SELECT * FROM UNNEST($1::uuid[], $2::timestamptz[])
         ON CONFLICT (webhook_id) DO UPDATE SET stopped_at = excluded.stopped_at",
        &webhooks,
        &at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Those of these webhooks of which it was told that they were stopped, and when that was; it is noted no longer.
///
/// # Errors
/// Any [`Error`].
pub async fn take_stopped(
    connection: &mut Connection,
    webhooks: &[WebhookId],
) -> Result<Vec<(WebhookId, Timestamp)>, Error> {
    if webhooks.is_empty() {
        return Ok(Vec::new());
    }
    let webhooks: Vec<Uuid> = webhooks.iter().map(|webhook| webhook.as_uuid()).collect();
    let rows = sqlx::query!(
        "-- operational_events::take_stopped
         DELETE FROM stopped_webhooks WHERE webhook_id = ANY ($1) RETURNING webhook_id, stopped_at",
        &webhooks,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (WebhookId::from_uuid(row.webhook_id), from_sql(row.stopped_at)))
        .collect())
}

/// A secret that will expire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiringSecret {
    /// Whose.
    pub project: ProjectId,
    /// Which webhook's.
    pub webhook: WebhookId,
    /// Which.
    pub secret: SecretId,
    /// When.
    pub expires_at: Timestamp,
}

/// Notes up to `limit` secrets that expire after `now` and at `horizon` at the latest, of which it was not told yet, and
/// gives them back.
///
/// # Errors
/// Any [`Error`].
pub async fn note_expiring(
    connection: &mut Connection,
    now: Timestamp,
    horizon: Timestamp,
    limit: u32,
) -> Result<Vec<ExpiringSecret>, Error> {
    let rows = sqlx::query!(
        r#"-- operational_events::note_expiring
         WITH found AS (
             SELECT webhooks.project_id, webhooks.id AS webhook_id, (secret ->> 'id')::uuid AS secret_id,
                    to_timestamp((secret ->> 'expires_at_us')::bigint / 1000000.0) AS expires_at
             FROM webhooks CROSS JOIN LATERAL jsonb_array_elements(webhooks.secrets) AS secret
             WHERE webhooks.secrets_expire_at <= $2 AND webhooks.deleted_at IS NULL
         ), noted AS (
             INSERT INTO expiring_secrets (webhook_id, secret_id, expires_at)
             SELECT webhook_id, secret_id, expires_at FROM found
             WHERE expires_at > $1 AND expires_at <= $2
             ORDER BY webhook_id, secret_id LIMIT $3
             ON CONFLICT DO NOTHING
             RETURNING webhook_id, secret_id, expires_at
         )
         SELECT found.project_id AS "project_id!", noted.webhook_id AS "webhook_id!", noted.secret_id AS "secret_id!",
                noted.expires_at AS "expires_at!"
         FROM noted JOIN found USING (webhook_id, secret_id)"#,
        to_sql(now),
        to_sql(horizon),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ExpiringSecret {
            project: ProjectId::from_uuid(row.project_id),
            webhook: WebhookId::from_uuid(row.webhook_id),
            secret: SecretId::from_uuid(row.secret_id),
            expires_at: from_sql(row.expires_at),
        })
        .collect())
}

/// Forgets secrets that have expired.
///
/// # Errors
/// Any [`Error`].
pub async fn forget_expired(connection: &mut Connection, now: Timestamp) -> Result<(), Error> {
    sqlx::query!(
        "-- operational_events::forget_expired
         DELETE FROM expiring_secrets WHERE expires_at <= $1",
        to_sql(now),
    )
    .execute(connection)
    .await?;
    Ok(())
}
