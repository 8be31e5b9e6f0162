//! Dead letters, grouped: what is to be put right, and how much each of it is.

use jiff::Timestamp;
use proto_schemas::id::{EventKey, ProjectId, WebhookId};
use uuid::Uuid;

use crate::time::from_sql;
use crate::{Connection, Error};

/// What dead letters are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grouping {
    /// By webhook.
    pub webhook: bool,
    /// By the reason for which they are dead.
    pub reason: bool,
}

/// Dead letters that have in common what they are grouped by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterGroup {
    /// Their webhook.
    pub webhook: Option<WebhookId>,
    /// Its name, if the webhook is still known.
    pub webhook_name: Option<String>,
    /// Why they are dead.
    pub reason: Option<String>,
    /// How many.
    pub deliveries: u64,
    /// When the oldest event of them was accepted.
    pub oldest_event_at: Timestamp,
    /// When the last of them died.
    pub last_at: Timestamp,
}

/// Where a page of groups ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupCursor {
    /// The last group's webhook.
    pub webhook: Option<WebhookId>,
    /// The last group's reason.
    pub reason: Option<String>,
}

/// Up to `limit` groups of a project's dead letters from after `after` on, in the order of webhooks and reasons.
///
/// # Errors
/// Any [`Error`].
pub async fn dead_letter_groups(
    connection: &mut Connection,
    project: ProjectId,
    webhook: Option<WebhookId>,
    by: Grouping,
    after: Option<&GroupCursor>,
    limit: u32,
) -> Result<Vec<DeadLetterGroup>, Error> {
    let rows = sqlx::query!(
        r#"-- log::dead_letter_groups
         SELECT g.webhook_id, w.name AS "webhook_name?", g.reason, g.deliveries AS "deliveries!",
                g.oldest AS "oldest!", g.last_at AS "last_at!"
         FROM (SELECT CASE WHEN $3 THEN p.webhook_id END AS webhook_id, CASE WHEN $4 THEN p.reason END AS reason,
                      count(*) AS deliveries, min(p.event_key::text)::uuid AS oldest, max(p.updated_at) AS last_at
               FROM pending_deliveries p
               WHERE p.project_id = $1 AND p.state = 'dead' AND ($2::uuid IS NULL OR p.webhook_id = $2)
                 AND NOT EXISTS (SELECT FROM pending_deliveries later
                                 WHERE later.event_key = p.event_key AND later.webhook_id = p.webhook_id
                                   AND later.run > p.run)
               GROUP BY 1, 2) AS g
         LEFT JOIN webhooks w ON w.id = g.webhook_id
         WHERE $5::uuid IS NULL
            OR (coalesce(g.webhook_id, '00000000-0000-0000-0000-000000000000'), coalesce(g.reason, '')) > ($5, $6::text)
         ORDER BY coalesce(g.webhook_id, '00000000-0000-0000-0000-000000000000'), coalesce(g.reason, '') LIMIT $7"#,
        project.as_uuid(),
        webhook.map(WebhookId::as_uuid),
        by.webhook,
        by.reason,
        after.map(|after| after.webhook.map_or(Uuid::nil(), WebhookId::as_uuid)),
        after.map(|after| after.reason.clone().unwrap_or_default()),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| DeadLetterGroup {
            webhook: row.webhook_id.map(WebhookId::from_uuid),
            webhook_name: row.webhook_name,
            reason: row.reason,
            deliveries: row.deliveries.unsigned_abs(),
            oldest_event_at: EventKey::from_uuid(row.oldest).accepted_at(),
            last_at: from_sql(row.last_at),
        })
        .collect())
}
