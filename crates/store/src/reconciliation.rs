//! `reconciliation` and `missing_deliveries`: whether every delivery that is owed is accounted for. Written by
//! retry-scheduler.

use std::time::Duration;

use jiff::Timestamp;
use proto_schemas::id::{EventKey, ProjectId, WebhookId};
use sqlx::query_as;
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::{Connection, Error};

/// A delivery that is owed, and in no state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unaccounted {
    /// The event.
    pub event: EventKey,
    /// The event's id, as receivers see it.
    pub event_id: String,
    /// Whose it is.
    pub project: ProjectId,
    /// The webhook it is owed to.
    pub webhook: WebhookId,
}

struct Row {
    event_key: Uuid,
    event_id: String,
    project_id: Uuid,
    webhook_id: Uuid,
}

impl From<Row> for Unaccounted {
    fn from(row: Row) -> Self {
        Self {
            event: EventKey::from_uuid(row.event_key),
            event_id: row.event_id,
            project: ProjectId::from_uuid(row.project_id),
            webhook: WebhookId::from_uuid(row.webhook_id),
        }
    }
}

/// Lets one process at a time look, from where the last one stopped; `None` while another has the claim. Where nobody
/// has ever looked, looking begins at `begin`.
///
/// # Errors
/// Any [`Error`].
pub async fn claim(
    connection: &mut Connection,
    begin: EventKey,
    now: Timestamp,
    lease: Duration,
) -> Result<Option<EventKey>, Error> {
    let until = now.saturating_add(lease).unwrap_or(now);
    let from = sqlx::query_scalar!(
        "-- reconciliation::claim
         INSERT INTO reconciliation (checked_to, checked_at, claimed_until) VALUES ($1, $2, $3)
         ON CONFLICT (single) DO UPDATE SET claimed_until = $3 WHERE reconciliation.claimed_until <= $2
         RETURNING checked_to",
        begin.as_uuid(),
        to_sql(now),
        to_sql(until),
    )
    .fetch_optional(connection)
    .await?;
    Ok(from.map(EventKey::from_uuid))
}

/// Notes that everything before `to` is accounted for, and gives the claim back.
///
/// # Errors
/// Any [`Error`].
pub async fn advance(connection: &mut Connection, to: EventKey, now: Timestamp) -> Result<(), Error> {
    sqlx::query!(
        "-- reconciliation::advance
         UPDATE reconciliation SET checked_to = greatest(checked_to, $1), checked_at = $2, claimed_until = $2",
        to.as_uuid(),
        to_sql(now),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The key after the first `count` events from `from` on, or `to` where there are fewer before it.
///
/// # Errors
/// Any [`Error`].
pub async fn stretch(connection: &mut Connection, from: EventKey, to: EventKey, count: u32) -> Result<EventKey, Error> {
    let end = sqlx::query_scalar!(
        "-- reconciliation::stretch
         SELECT key FROM events WHERE key >= $1 AND key < $2 ORDER BY key OFFSET $3 LIMIT 1",
        from.as_uuid(),
        to.as_uuid(),
        i64::from(count),
    )
    .fetch_optional(connection)
    .await?;
    Ok(end.map_or(to, EventKey::from_uuid))
}

/// Deliveries of the events from `from` on and before `to` of which the record says nothing: no attempt, nothing that
/// waits. In the order of their keys.
///
/// # Errors
/// Any [`Error`].
pub async fn unaccounted(
    connection: &mut Connection,
    from: EventKey,
    to: EventKey,
    limit: u32,
) -> Result<Vec<Unaccounted>, Error> {
    let rows = query_as!(
        Row,
        r#"-- reconciliation::unaccounted
         SELECT e.key AS event_key, e.id AS event_id, e.project_id, o.webhook_id AS "webhook_id!"
         FROM events e CROSS JOIN LATERAL unnest(e.owed) AS o (webhook_id)
         WHERE e.key >= $1 AND e.key < $2
           AND NOT EXISTS (SELECT 1 FROM attempts a
                           WHERE a.event_key = e.key AND a.webhook_id = o.webhook_id)
           AND NOT EXISTS (SELECT 1 FROM pending_deliveries p
                           WHERE p.event_key = e.key AND p.webhook_id = o.webhook_id)
           AND NOT EXISTS (SELECT 1 FROM missing_deliveries m
                           WHERE m.event_key = e.key AND m.webhook_id = o.webhook_id)
         ORDER BY e.key, o.webhook_id LIMIT $3"#,
        from.as_uuid(),
        to.as_uuid(),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Unaccounted::from).collect())
}

/// Notes those of the deliveries as missing that the record still says nothing of; which these are.
///
/// # Errors
/// Any [`Error`].
pub async fn note_missing(
    connection: &mut Connection,
    gone: &[Unaccounted],
    now: Timestamp,
) -> Result<Vec<Unaccounted>, Error> {
    let events: Vec<Uuid> = gone.iter().map(|it| it.event.as_uuid()).collect();
    let webhooks: Vec<Uuid> = gone.iter().map(|it| it.webhook.as_uuid()).collect();
    let projects: Vec<Uuid> = gone.iter().map(|it| it.project.as_uuid()).collect();
    let ids: Vec<String> = gone.iter().map(|it| it.event_id.clone()).collect();
    let rows = query_as!(
        Row,
        r#"-- reconciliation::note_missing
         INSERT INTO missing_deliveries (event_key, webhook_id, project_id, event_id, found_at)
         SELECT g.event_key, g.webhook_id, g.project_id, g.event_id, $5
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[])
              AS g (event_key, webhook_id, project_id, event_id)
         WHERE NOT EXISTS (SELECT 1 FROM attempts a
                           WHERE a.event_key = g.event_key AND a.webhook_id = g.webhook_id)
           AND NOT EXISTS (SELECT 1 FROM pending_deliveries p
                           WHERE p.event_key = g.event_key AND p.webhook_id = g.webhook_id)
         ON CONFLICT DO NOTHING
         RETURNING event_key, event_id, project_id, webhook_id"#,
        &events,
        &webhooks,
        &projects,
        &ids,
        to_sql(now),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Unaccounted::from).collect())
}

/// Makes missing deliveries due that were found at or before `found_by`; how many. They are in a state again, so they
/// are missing no longer.
///
/// # Errors
/// Any [`Error`].
pub async fn repair(connection: &mut Connection, found_by: Timestamp, now: Timestamp) -> Result<u64, Error> {
    let repaired = sqlx::query!(
        "-- reconciliation::repair
         INSERT INTO pending_deliveries (event_key, webhook_id, run, project_id, state, reason, attempt, release,
                                         handed_out_before, due_at, updated_at)
         SELECT event_key, webhook_id, 0, project_id, 'scheduled', 'had got lost on its way; made due again', 1, 0, 1,
                $2, $2
         FROM missing_deliveries WHERE found_at <= $1
         ON CONFLICT DO NOTHING",
        to_sql(found_by),
        to_sql(now),
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    sqlx::query!(
        "-- reconciliation::forget_found
         DELETE FROM missing_deliveries m
         WHERE EXISTS (SELECT 1 FROM attempts a
                       WHERE a.event_key = m.event_key AND a.webhook_id = m.webhook_id)
            OR EXISTS (SELECT 1 FROM pending_deliveries p
                       WHERE p.event_key = m.event_key AND p.webhook_id = m.webhook_id)",
    )
    .execute(connection)
    .await?;
    Ok(repaired)
}

/// How many deliveries are missing.
///
/// # Errors
/// Any [`Error`].
pub async fn count_missing(connection: &mut Connection) -> Result<u64, Error> {
    let count = sqlx::query_scalar!(
        r#"-- reconciliation::count_missing
         SELECT count(*) AS "count!" FROM missing_deliveries"#
    )
    .fetch_one(connection)
    .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// How the deliveries of a project's events add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// Events accepted.
    pub events: u64,
    /// Deliveries, skipped ones included, by state in the words of [`crate::log::State`]; a state nobody is in is absent.
    pub states: Vec<(String, u64)>,
    /// Those of the queued ones whose events have been looked at: the difference.
    pub missing: u64,
    /// Up to when events have been looked at; `None`: nobody has looked yet.
    pub checked_to: Option<Timestamp>,
    /// When that was.
    pub checked_at: Option<Timestamp>,
}

/// Adds up the deliveries of the events from `from` on and before `to`.
///
/// # Errors
/// Any [`Error`].
pub async fn sums(
    connection: &mut Connection,
    project: ProjectId,
    from: EventKey,
    to: EventKey,
) -> Result<Sums, Error> {
    let checked = sqlx::query!(
        "-- reconciliation::checked
         SELECT checked_to, checked_at FROM reconciliation"
    )
    .fetch_optional(&mut *connection)
    .await?;
    let events = sqlx::query_scalar!(
        r#"-- reconciliation::events
         SELECT count(*) AS "count!" FROM events WHERE project_id = $1 AND key >= $2 AND key < $3"#,
        project.as_uuid(),
        from.as_uuid(),
        to.as_uuid(),
    )
    .fetch_one(&mut *connection)
    .await?;
    let rows = sqlx::query!(
        r#"-- reconciliation::sums
         SELECT s.state AS "state!", count(*) AS "count!",
                count(*) FILTER (WHERE s.state = 'queued' AND s.reason IS NULL AND s.event_key < $4) AS "missing!"
         FROM delivery_states s
         WHERE s.project_id = $1 AND s.event_key >= $2 AND s.event_key < $3
         GROUP BY s.state ORDER BY s.state"#,
        project.as_uuid(),
        from.as_uuid(),
        to.as_uuid(),
        checked.as_ref().map_or(Uuid::nil(), |checked| checked.checked_to),
    )
    .fetch_all(connection)
    .await?;
    let number = |count: i64| u64::try_from(count).unwrap_or(0);
    Ok(Sums {
        events: number(events),
        missing: rows.iter().map(|row| number(row.missing)).sum(),
        states: rows.into_iter().map(|row| (row.state, number(row.count))).collect(),
        checked_to: checked
            .as_ref()
            .map(|checked| EventKey::from_uuid(checked.checked_to).accepted_at()),
        checked_at: checked.map(|checked| from_sql(checked.checked_at)),
    })
}

/// Up to `limit` missing deliveries of a project from after `after` on, the oldest event's first.
///
/// # Errors
/// Any [`Error`].
pub async fn missing(
    connection: &mut Connection,
    project: ProjectId,
    after: Option<(EventKey, WebhookId)>,
    limit: u32,
) -> Result<Vec<Unaccounted>, Error> {
    let rows = query_as!(
        Row,
        "-- reconciliation::missing
         SELECT event_key, event_id, project_id, webhook_id FROM missing_deliveries
         WHERE project_id = $1 AND ($2::uuid IS NULL OR (event_key, webhook_id) > ($2, $3::uuid))
         ORDER BY event_key, webhook_id LIMIT $4",
        project.as_uuid(),
        after.map(|(event, _)| event.as_uuid()),
        after.map(|(_, webhook)| webhook.as_uuid()),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Unaccounted::from).collect())
}
