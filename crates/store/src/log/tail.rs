//! Attempts in the order in which they were recorded.
//!
//! Recorders work side by side, and what one began before another may be committed after it. So nothing is read of a
//! transaction before every earlier one has ended: then what was read is complete up to there, and is never gone back to.

use proto_schemas::id::{EventKey, ProjectId, WebhookId};

use uuid::Uuid;

use super::Attempt;
use super::attempts::{Row, number};
use crate::{Connection, Error};

/// A place in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recorded {
    /// The transaction.
    pub transaction: i64,
    /// Within it, the attempt: event, webhook, run, number.
    pub attempt: (EventKey, WebhookId, u32, u32),
}

impl Recorded {
    /// Before everything of this transaction and later ones.
    #[must_use]
    pub fn before(transaction: i64) -> Self {
        Self {
            transaction,
            attempt: (
                EventKey::from_uuid(Uuid::nil()),
                WebhookId::from_uuid(Uuid::nil()),
                0,
                0,
            ),
        }
    }
}

/// The first transaction of which something may still be to come: all before it is complete.
///
/// # Errors
/// Any [`Error`].
pub async fn horizon(connection: &mut Connection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"-- log::horizon
         SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS "horizon!""#
    )
    .fetch_one(connection)
    .await?)
}

/// Up to `limit` of a project's attempts recorded after `after`, the first recorded first, as far as it is complete.
///
/// # Errors
/// Any [`Error`].
pub async fn recorded(
    connection: &mut Connection,
    project: ProjectId,
    after: Recorded,
    limit: u32,
) -> Result<Vec<(Recorded, Attempt)>, Error> {
    let (event, webhook, run, attempt) = after.attempt;
    let rows = sqlx::query!(
        r#"-- log::recorded
         SELECT a.recorded AS "recorded!", a.event_key, a.webhook_id, a.run, a.attempt, a.project_id, a.event_id,
                a.event_type, w.name AS "webhook_name?", a.webhook_revision, a.started_at, a.duration_us, a.outcome,
                a.status, a.error_class, a.error, a.next_attempt_at, a.handed_out, a.trial, a.request_sha256,
                a.request_head, a.dns_us, a.connect_us, a.tls_us, a.first_byte_us, a.peer, a.tls_fault, r.id AS "replay?"
         FROM attempts a LEFT JOIN webhooks w ON w.id = a.webhook_id
              LEFT JOIN replays r ON r.number = a.run AND a.run > 0
         WHERE a.project_id = $1
           AND a.recorded >= $2
           AND a.recorded < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
           AND (a.recorded, a.event_key, a.webhook_id, a.run, a.attempt) > ($2, $3, $4, $5, $6)
         ORDER BY a.recorded, a.event_key, a.webhook_id, a.run, a.attempt
         LIMIT $7"#,
        project.as_uuid(),
        after.transaction,
        event.as_uuid(),
        webhook.as_uuid(),
        number(run),
        number(attempt),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let transaction = row.recorded;
            let attempt = Attempt::from(Row {
                event_key: row.event_key,
                webhook_id: row.webhook_id,
                run: row.run,
                attempt: row.attempt,
                project_id: row.project_id,
                event_id: row.event_id,
                event_type: row.event_type,
                webhook_name: row.webhook_name,
                webhook_revision: row.webhook_revision,
                started_at: row.started_at,
                duration_us: row.duration_us,
                outcome: row.outcome,
                status: row.status,
                error_class: row.error_class,
                error: row.error,
                next_attempt_at: row.next_attempt_at,
                handed_out: row.handed_out,
                trial: row.trial,
                replay: row.replay,
                request_sha256: row.request_sha256,
                request_head: row.request_head,
                dns_us: row.dns_us,
                connect_us: row.connect_us,
                tls_us: row.tls_us,
                first_byte_us: row.first_byte_us,
                peer: row.peer,
                tls_fault: row.tls_fault,
            });
            let at = attempt.attempt;
            let place = Recorded {
                transaction,
                attempt: (at.event, at.webhook, at.run, at.attempt),
            };
            (place, attempt)
        })
        .collect())
}
