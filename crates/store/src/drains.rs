//! `drains`: webhooks whose held deliveries are released no faster than they want. Written by retry-scheduler alone.

use std::collections::HashMap;

use jiff::Timestamp;
use proto_schemas::id::WebhookId;
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::{Connection, Error};

/// When the next held delivery of these webhooks may go, where that was noted.
///
/// # Errors
/// Any [`Error`].
pub async fn find(connection: &mut Connection, webhooks: &[WebhookId]) -> Result<HashMap<WebhookId, Timestamp>, Error> {
    if webhooks.is_empty() {
        return Ok(HashMap::new());
    }
    let webhooks: Vec<Uuid> = webhooks.iter().map(|webhook| webhook.as_uuid()).collect();
    let rows = sqlx::query!(
        "-- drains::find
         SELECT webhook_id, next_at FROM drains WHERE webhook_id = ANY ($1)",
        &webhooks,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (WebhookId::from_uuid(row.webhook_id), from_sql(row.next_at)))
        .collect())
}

/// Notes when the next held delivery of each of these webhooks may go.
///
/// # Errors
/// Any [`Error`].
pub async fn note(connection: &mut Connection, next: &[(WebhookId, Timestamp)]) -> Result<(), Error> {
    if next.is_empty() {
        return Ok(());
    }
    let webhooks: Vec<Uuid> = next.iter().map(|(webhook, _)| webhook.as_uuid()).collect();
    let next_at: Vec<_> = next.iter().map(|(_, next_at)| to_sql(*next_at)).collect();
    sqlx::query!(
        "-- drains::note
         INSERT INTO drains (webhook_id, next_at)
         SELECT row.webhook_id, row.next_at FROM UNNEST($1::uuid[], $2::timestamptz[]) AS row (webhook_id, next_at)
         ON CONFLICT (webhook_id) DO UPDATE SET next_at = excluded.next_at",
        &webhooks,
        &next_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}
