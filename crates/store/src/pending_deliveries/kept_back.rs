//! Rows of deliveries that nobody has tried yet: held ones, and those that go out in order; and how one gives its place to
//! the next.
//!
//! Deliveries with one order key go out in the order of their events. Of those, the one that is first is `queued`, and
//! those after it are `behind`; whoever settles one looks who is first now ([`promote`]). That a row is `queued` is only
//! where to look: [`super::claim_ordered`] makes certain that nothing comes before it.
//!
//! Nobody is left `behind` with nothing before it: whoever puts a row there holds a lock on one that comes before, so
//! that one is settled, and its successor looked for, only when the new row can be seen.

use std::collections::HashSet;

use jiff::Timestamp;
use proto_schemas::id::{AttemptRef, EventKey, OrderKey, ProjectId, WebhookId};
use uuid::Uuid;

use super::{Attempts, Deferred, one_each};
use crate::time::to_sql;
use crate::value::text;
use crate::{Connection, Error};

/// A delivery that no duty was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptBack {
    /// The event.
    pub event: EventKey,
    /// Whose it is.
    pub project: ProjectId,
    /// The webhook.
    pub webhook: WebhookId,
    /// What it goes out in order with, if it does.
    pub key: Option<OrderKey>,
    /// Whether it is held, and why; otherwise it goes out in its turn.
    pub held: Option<&'static str>,
}

/// Adds the deliveries that are not known yet, in any way. To be called only for events that were not on record before:
/// one that was delivered since has no row to tell it by.
///
/// Comes last of what a transaction writes of deliveries: it locks rows without ever waiting for one.
///
/// # Errors
/// Any [`Error`].
pub async fn keep_back(connection: &mut Connection, mut rows: Vec<KeptBack>, now: Timestamp) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort_by_key(|row| (row.event, row.webhook));
    let mut keys = HashSet::new();
    // Of one key within a batch, the first is before all others.
    let behind: Vec<bool> = rows
        .iter()
        .map(|row| row.key.is_some_and(|key| !keys.insert((row.webhook, key))) && row.held.is_none())
        .collect();
    let events: Vec<Uuid> = rows.iter().map(|row| row.event.as_uuid()).collect();
    let webhooks: Vec<Uuid> = rows.iter().map(|row| row.webhook.as_uuid()).collect();
    let projects: Vec<Uuid> = rows.iter().map(|row| row.project.as_uuid()).collect();
    let order_keys: Vec<Option<Uuid>> = rows.iter().map(|row| row.key.map(OrderKey::as_uuid)).collect();
    let held: Vec<Option<&str>> = rows.iter().map(|row| row.held).collect();
    sqlx::query!(
        "-- pending_deliveries::keep_back
         INSERT INTO pending_deliveries (event_key, webhook_id, run, project_id, state, reason, attempt, release, due_at,
                                         updated_at, order_key)
         SELECT row.event_key, row.webhook_id, 0, row.project_id,
                CASE WHEN row.held IS NOT NULL THEN 'held'
                     WHEN row.behind OR before.found THEN 'behind' ELSE 'queued' END,
                CASE WHEN row.held IS NOT NULL THEN row.held
                     WHEN row.behind OR before.found THEN $8 ELSE $9 END,
                1, 0, NULL, $7, row.order_key
         FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::boolean[])
              AS row (event_key, webhook_id, project_id, order_key, held, behind)
         LEFT JOIN LATERAL (
             SELECT true AS found FROM pending_deliveries AS earlier
             WHERE row.held IS NULL AND NOT row.behind
               AND earlier.webhook_id = row.webhook_id AND earlier.order_key = row.order_key
               AND earlier.state IN ('scheduled', 'released', 'parked', 'held', 'queued', 'behind')
               AND earlier.event_key < row.event_key
             LIMIT 1
             FOR SHARE SKIP LOCKED
         ) AS before ON true
         WHERE NOT EXISTS (
             SELECT FROM attempts
             WHERE attempts.event_key = row.event_key AND attempts.webhook_id = row.webhook_id AND attempts.run = 0)
         ON CONFLICT DO NOTHING",
        &events,
        &webhooks,
        &projects,
        &order_keys as _,
        &held as _,
        &behind,
        to_sql(now),
        BEHIND,
        NEXT,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Why a delivery waits that goes out in order.
const BEHIND: &str = "waits until the one before it is settled";
const NEXT: &str = "its turn is next";

/// Lets held deliveries that go out in order have their turn. The rows are locked by this transaction.
///
/// # Errors
/// Any [`Error`].
pub async fn enqueue(connection: &mut Connection, held: &[AttemptRef], now: Timestamp) -> Result<(), Error> {
    if held.is_empty() {
        return Ok(());
    }
    let row: Attempts = held.iter().collect();
    sqlx::query!(
        "-- pending_deliveries::enqueue
         UPDATE pending_deliveries AS delivery
         SET state = CASE WHEN placed.behind THEN 'behind' ELSE 'queued' END,
             reason = CASE WHEN placed.behind THEN $5 ELSE $6 END, updated_at = $4
         FROM (
             SELECT held.event_key, held.webhook_id, held.run, before.found IS NOT NULL AS behind
             FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[]) AS row (event_key, webhook_id, run)
             JOIN pending_deliveries AS held USING (event_key, webhook_id, run)
             LEFT JOIN LATERAL (
                 SELECT true AS found FROM pending_deliveries AS earlier
                 WHERE earlier.webhook_id = held.webhook_id AND earlier.order_key = held.order_key
                   AND earlier.state IN ('scheduled', 'released', 'parked', 'held', 'queued', 'behind')
                   AND earlier.event_key < held.event_key
                 LIMIT 1
                 FOR SHARE SKIP LOCKED
             ) AS before ON true
         ) AS placed
         WHERE delivery.event_key = placed.event_key AND delivery.webhook_id = placed.webhook_id
           AND delivery.run = placed.run",
        &row.events,
        &row.webhooks,
        &row.runs,
        to_sql(now),
        BEHIND,
        NEXT,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives the turn to whoever is first now of each of these keys, of which one was settled by an earlier statement of this
/// transaction.
pub(super) async fn promote(
    connection: &mut Connection,
    settled: impl Iterator<Item = (Uuid, Uuid)>,
) -> Result<(), Error> {
    let mut keys: Vec<(Uuid, Uuid)> = settled.collect();
    if keys.is_empty() {
        return Ok(());
    }
    keys.sort_unstable();
    keys.dedup();
    let (webhooks, order_keys): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
    sqlx::query!(
        "-- pending_deliveries::promote
         UPDATE pending_deliveries AS delivery
         SET state = 'queued', reason = $3
         FROM (
             SELECT first.event_key, first.webhook_id, first.run
             FROM UNNEST($1::uuid[], $2::uuid[]) AS row (webhook_id, order_key)
             CROSS JOIN LATERAL (
                 SELECT * FROM pending_deliveries AS waiting
                 WHERE waiting.webhook_id = row.webhook_id AND waiting.order_key = row.order_key
                   AND waiting.state IN ('scheduled', 'released', 'parked', 'held', 'queued', 'behind')
                 ORDER BY waiting.event_key
                 LIMIT 1
             ) AS first
             WHERE first.state = 'behind'
         ) AS next
         WHERE delivery.event_key = next.event_key AND delivery.webhook_id = next.webhook_id
           AND delivery.run = next.run AND delivery.state = 'behind'",
        &webhooks,
        &order_keys,
        NEXT,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A place among the order keys of all webhooks.
pub type KeyPlace = (Uuid, Uuid);

/// Looks at up to `limit` order keys after `after`, and gives the turn to who is first and does not have it. That should
/// be nobody; but who is forgotten here would wait for ever. Tells how many those were, and the last key looked at, if
/// there are more.
///
/// # Errors
/// Any [`Error`].
pub async fn promote_forgotten(
    connection: &mut Connection,
    after: Option<KeyPlace>,
    limit: u32,
) -> Result<(u64, Option<KeyPlace>), Error> {
    // No webhook's id is nil.
    let (webhook, key) = after.unwrap_or((Uuid::nil(), Uuid::nil()));
    let rows = sqlx::query!(
        r#"-- pending_deliveries::promote_forgotten
         WITH RECURSIVE keys AS (
             (SELECT 1 AS number, webhook_id, order_key FROM pending_deliveries
              WHERE order_key IS NOT NULL AND state IN ('scheduled', 'released', 'parked', 'held', 'queued', 'behind')
                AND (webhook_id, order_key) > ($1, $2)
              ORDER BY webhook_id, order_key LIMIT 1)
             UNION ALL
             SELECT keys.number + 1, next.webhook_id, next.order_key
             FROM keys CROSS JOIN LATERAL (
                 SELECT webhook_id, order_key FROM pending_deliveries
                 WHERE order_key IS NOT NULL
                   AND state IN ('scheduled', 'released', 'parked', 'held', 'queued', 'behind')
                   AND (webhook_id, order_key) > (keys.webhook_id, keys.order_key)
                 ORDER BY webhook_id, order_key LIMIT 1
             ) AS next
             WHERE keys.number < $3
         ), promoted AS (
             UPDATE pending_deliveries AS delivery SET state = 'queued', reason = $4
             FROM (
                 SELECT first.event_key, first.webhook_id, first.run
                 FROM keys CROSS JOIN LATERAL (
                     SELECT * FROM pending_deliveries AS waiting
                     WHERE waiting.webhook_id = keys.webhook_id AND waiting.order_key = keys.order_key
                       AND waiting.state IN ('scheduled', 'released', 'parked', 'held', 'queued', 'behind')
                     ORDER BY waiting.event_key LIMIT 1
                 ) AS first
                 WHERE first.state = 'behind'
             ) AS next
             WHERE delivery.event_key = next.event_key AND delivery.webhook_id = next.webhook_id
               AND delivery.run = next.run AND delivery.state = 'behind'
             RETURNING 1
         )
         SELECT (SELECT count(*) FROM promoted) AS "promoted!", last.number AS "number!",
                last.webhook_id AS "webhook_id!", last.order_key AS "order_key!"
         FROM (SELECT * FROM keys ORDER BY number DESC LIMIT 1) AS last"#,
        webhook,
        key,
        i32::try_from(limit).unwrap_or(i32::MAX),
        NEXT,
    )
    .fetch_optional(connection)
    .await?;
    Ok(match rows {
        None => (0, None),
        Some(row) => (
            u64::try_from(row.promoted).unwrap_or_default(),
            (i64::from(row.number) >= i64::from(limit)).then_some((row.webhook_id, row.order_key)),
        ),
    })
}

/// Holds or cancels deliveries that are locked by this transaction. What was behind a cancelled one is the next of its
/// key.
///
/// # Errors
/// Any [`Error`].
pub async fn set_aside(connection: &mut Connection, set_aside: Vec<Deferred>, now: Timestamp) -> Result<(), Error> {
    if set_aside.is_empty() {
        return Ok(());
    }
    let set_aside = one_each(set_aside, |deferred| &deferred.attempt);
    let row: Attempts = set_aside.iter().map(|deferred| &deferred.attempt).collect();
    let states: Vec<_> = set_aside.iter().map(|deferred| deferred.then.state()).collect();
    let reasons: Vec<_> = set_aside.iter().map(|deferred| text(&deferred.reason)).collect();
    let due_at: Vec<_> = set_aside
        .iter()
        .map(|deferred| deferred.then.due_at().map(to_sql))
        .collect();
    let changed = sqlx::query!(
        "-- pending_deliveries::set_aside
         UPDATE pending_deliveries AS delivery
         SET state = row.state, reason = row.reason, due_at = row.due_at, updated_at = $7
         FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::text[], $6::timestamptz[])
              AS row (event_key, webhook_id, run, state, reason, due_at)
         WHERE delivery.event_key = row.event_key AND delivery.webhook_id = row.webhook_id AND delivery.run = row.run
         RETURNING delivery.webhook_id, delivery.order_key, delivery.state",
        &row.events,
        &row.webhooks,
        &row.runs,
        &states as _,
        &reasons as _,
        &due_at as _,
        to_sql(now),
    )
    .fetch_all(&mut *connection)
    .await?;
    let freed = changed
        .iter()
        .filter(|row| row.state == "cancelled")
        .filter_map(|row| Some((row.webhook_id, row.order_key?)));
    promote(connection, freed).await
}

/// Cancels up to `limit` deliveries of a webhook that wait for anything but an attempt under way; tells how many.
///
/// # Errors
/// Any [`Error`].
pub async fn cancel_all(
    connection: &mut Connection,
    webhook: WebhookId,
    reason: &str,
    limit: u32,
    now: Timestamp,
) -> Result<u64, Error> {
    // All of a key go, so nobody has to be looked for who comes next.
    let cancelled = sqlx::query!(
        "-- pending_deliveries::cancel_all
         UPDATE pending_deliveries AS delivery
         SET state = 'cancelled', reason = $2, due_at = NULL, updated_at = $4
         FROM (
             SELECT event_key, webhook_id, run FROM pending_deliveries
             WHERE webhook_id = $1 AND state IN ('scheduled', 'parked', 'held', 'queued', 'behind')
             ORDER BY event_key LIMIT $3
             FOR UPDATE SKIP LOCKED
         ) AS waiting
         WHERE delivery.event_key = waiting.event_key AND delivery.webhook_id = waiting.webhook_id
           AND delivery.run = waiting.run",
        webhook.as_uuid(),
        reason,
        i64::from(limit),
        to_sql(now),
    )
    .execute(connection)
    .await?;
    Ok(cancelled.rows_affected())
}
