//! `webhook_revisions`: who changed a webhook when, and what it was from then on.

use jiff::Timestamp;
use proto_schemas::id::WebhookId;
use sqlx::query_as;
use uuid::Uuid;

use super::{Webhook, counted};
use crate::time::{from_sql, to_sql};
use crate::{Connection, Error};

/// Notes a revision: what the webhook looks like from now on, without its secrets, and whose token made it so.
///
/// # Errors
/// Any [`Error`].
pub async fn note_revision(
    connection: &mut Connection,
    webhook: &Webhook,
    definition: &serde_json::Value,
    token: Uuid,
) -> Result<(), Error> {
    sqlx::query!(
        "-- webhooks::note_revision
         INSERT INTO webhook_revisions (webhook_id, revision, definition, token_id, created_at)
         VALUES ($1, $2, $3, $4, $5)",
        webhook.id.as_uuid(),
        counted(webhook.revision),
        definition,
        token,
        to_sql(webhook.updated_at),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// One version of a webhook's definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// What the webhook looked like from then on, without its secrets.
    pub definition: serde_json::Value,
    /// Whose token made it so.
    pub token: Uuid,
    /// That token's name.
    pub token_name: String,
    /// When.
    pub created_at: Timestamp,
}

struct RevisionRow {
    revision: i64,
    definition: serde_json::Value,
    token_id: Uuid,
    token_name: String,
    created_at: time::OffsetDateTime,
}

impl From<RevisionRow> for Revision {
    fn from(row: RevisionRow) -> Self {
        Self {
            revision: u64::try_from(row.revision).unwrap_or_default(),
            definition: row.definition,
            token: row.token_id,
            token_name: row.token_name,
            created_at: from_sql(row.created_at),
        }
    }
}

/// Up to `limit` revisions of a webhook from before the revision `before`, newest first.
///
/// # Errors
/// Any [`Error`].
pub async fn revisions(
    connection: &mut Connection,
    webhook: WebhookId,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<Revision>, Error> {
    let rows = query_as!(
        RevisionRow,
        r#"-- webhooks::revisions
         SELECT r.revision, r.definition, r.token_id AS "token_id!", t.name AS token_name, r.created_at
         FROM webhook_revisions r JOIN tokens t ON t.id = r.token_id
         WHERE r.webhook_id = $1 AND ($2::bigint IS NULL OR r.revision < $2)
         ORDER BY r.revision DESC LIMIT $3"#,
        webhook.as_uuid(),
        before.map(counted),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Revision::from).collect())
}

/// A revision of a webhook.
///
/// # Errors
/// Any [`Error`].
pub async fn revision(connection: &mut Connection, webhook: WebhookId, number: u64) -> Result<Option<Revision>, Error> {
    let row = query_as!(
        RevisionRow,
        r#"-- webhooks::revision
         SELECT r.revision, r.definition, r.token_id AS "token_id!", t.name AS token_name, r.created_at
         FROM webhook_revisions r JOIN tokens t ON t.id = r.token_id
         WHERE r.webhook_id = $1 AND r.revision = $2"#,
        webhook.as_uuid(),
        counted(number),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Revision::from))
}
