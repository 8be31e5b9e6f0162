//! Which rows may be released: statements that lock them.

use jiff::Timestamp;
use proto_schemas::id::{AttemptRef, EventKey, WebhookId};
use uuid::Uuid;

use super::Row;
use crate::time::to_sql;
use crate::value::counter;
use crate::{Connection, Error};

/// Held by whoever releases parked and held deliveries. Any number no other lock uses.
const PARKED_LOCK: i64 = 0x7061_726b;

/// Held by whoever releases deliveries in order.
const ORDERED_LOCK: i64 = 0x6f72_6472;

/// Takes a lock until the transaction ends, if nobody else has it.
async fn alone(connection: &mut Connection, lock: i64) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"-- pending_deliveries::alone
         SELECT pg_try_advisory_xact_lock($1) AS "alone!""#,
        lock,
    )
    .fetch_one(connection)
    .await?)
}

/// Locks scheduled deliveries whose time has come and whose event is on record, longest due first, leaving out what
/// another transaction has locked. Their releases are the last ones made.
///
/// # Errors
/// Any [`Error`].
pub async fn claim_scheduled(
    connection: &mut Connection,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<AttemptRef>, Error> {
    let rows = sqlx::query_as!(
        Row,
        "-- pending_deliveries::claim_scheduled
         SELECT event_key, webhook_id, run, project_id, attempt, release, handed_out_before
         FROM pending_deliveries
         WHERE state = 'scheduled' AND due_at <= $1
           AND EXISTS (SELECT FROM events WHERE events.key = pending_deliveries.event_key)
         ORDER BY due_at
         LIMIT $2
         FOR UPDATE SKIP LOCKED",
        to_sql(now),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(AttemptRef::from).collect())
}

/// How many parked, held or ordered deliveries of one webhook may be released at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Usually.
    pub per_webhook: u32,
    /// Failed attempts in a row from which on it is one.
    pub one_from: u32,
}

/// Locks parked deliveries whose turn it is: per webhook the oldest, replays after all others, and no more than bring it to
/// as many released ones as `room` says. Nothing is returned while another transaction does the same, so the bound holds over all processes.
///
/// Only the head of each webhook's row of parked deliveries is looked at. Whatever is deferred goes back to the head, so
/// a lane that has just said when to come again is left alone until then, however many wait behind.
///
/// # Errors
/// Any [`Error`].
pub async fn claim_parked(
    connection: &mut Connection,
    now: Timestamp,
    room: Room,
    limit: u32,
) -> Result<Vec<AttemptRef>, Error> {
    if !alone(connection, PARKED_LOCK).await? {
        return Ok(Vec::new());
    }
    // `waiting` steps from webhook to webhook through the index; DISTINCT would read every parked row.
    let rows = sqlx::query_as!(
        Row,
        r#"-- pending_deliveries::claim_parked
         WITH RECURSIVE waiting AS (
             (SELECT webhook_id FROM pending_deliveries WHERE state = 'parked' ORDER BY webhook_id LIMIT 1)
             UNION ALL
             SELECT (SELECT next.webhook_id FROM pending_deliveries AS next
                     WHERE next.state = 'parked' AND next.webhook_id > waiting.webhook_id
                     ORDER BY next.webhook_id LIMIT 1)
             FROM waiting WHERE waiting.webhook_id IS NOT NULL
         ), room AS (
             SELECT waiting.webhook_id,
                    CASE WHEN health.failures_in_a_row >= $4 THEN 1 ELSE $2::bigint END
                    - (SELECT count(*) FROM (SELECT FROM pending_deliveries AS busy
                                             WHERE busy.state = 'released' AND busy.webhook_id = waiting.webhook_id
                                             LIMIT $2) AS released) AS free
             FROM waiting LEFT JOIN webhook_health AS health ON health.webhook_id = waiting.webhook_id
             WHERE waiting.webhook_id IS NOT NULL
         )
         SELECT head.event_key AS "event_key!", head.webhook_id AS "webhook_id!", head.run AS "run!",
                head.project_id AS "project_id!", head.attempt AS "attempt!", head.release AS "release!",
                head.handed_out_before AS "handed_out_before!"
         FROM room
         CROSS JOIN LATERAL (
             SELECT * FROM pending_deliveries AS delivery
             WHERE delivery.state = 'parked' AND delivery.webhook_id = room.webhook_id
               AND (SELECT true FROM events WHERE events.key = delivery.event_key)
             ORDER BY delivery.run, delivery.event_key
             LIMIT greatest(room.free, 0)
             FOR UPDATE SKIP LOCKED
         ) AS head
         WHERE head.due_at <= $1
         LIMIT $3"#,
        to_sql(now),
        i64::from(room.per_webhook),
        i64::from(limit),
        counter(room.one_from),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(AttemptRef::from).collect())
}

/// Webhooks that have held deliveries.
///
/// # Errors
/// Any [`Error`].
pub async fn webhooks_held(connection: &mut Connection) -> Result<Vec<WebhookId>, Error> {
    // Steps from webhook to webhook through the index, here and below.
    let webhooks = sqlx::query_scalar!(
        r#"-- pending_deliveries::webhooks_held
         WITH RECURSIVE waiting AS (
             (SELECT webhook_id FROM pending_deliveries WHERE state = 'held' ORDER BY webhook_id LIMIT 1)
             UNION ALL
             SELECT (SELECT next.webhook_id FROM pending_deliveries AS next
                     WHERE next.state = 'held' AND next.webhook_id > waiting.webhook_id
                     ORDER BY next.webhook_id LIMIT 1)
             FROM waiting WHERE waiting.webhook_id IS NOT NULL
         )
         SELECT webhook_id AS "webhook_id!" FROM waiting WHERE webhook_id IS NOT NULL"#,
    )
    .fetch_all(connection)
    .await?;
    Ok(webhooks.into_iter().map(WebhookId::from_uuid).collect())
}

/// Webhooks that have deliveries which go out in order and may be the next of their keys.
///
/// # Errors
/// Any [`Error`].
pub async fn webhooks_queued(connection: &mut Connection) -> Result<Vec<WebhookId>, Error> {
    let webhooks = sqlx::query_scalar!(
        r#"-- pending_deliveries::webhooks_queued
         WITH RECURSIVE waiting AS (
             (SELECT webhook_id FROM pending_deliveries WHERE state = 'queued' ORDER BY webhook_id LIMIT 1)
             UNION ALL
             SELECT (SELECT next.webhook_id FROM pending_deliveries AS next
                     WHERE next.state = 'queued' AND next.webhook_id > waiting.webhook_id
                     ORDER BY next.webhook_id LIMIT 1)
             FROM waiting WHERE waiting.webhook_id IS NOT NULL
         )
         SELECT webhook_id AS "webhook_id!" FROM waiting WHERE webhook_id IS NOT NULL"#,
    )
    .fetch_all(connection)
    .await?;
    Ok(webhooks.into_iter().map(WebhookId::from_uuid).collect())
}

/// Webhooks that have deliveries which wait for anything but an attempt under way.
///
/// # Errors
/// Any [`Error`].
pub async fn webhooks_waiting(connection: &mut Connection) -> Result<Vec<WebhookId>, Error> {
    let webhooks = sqlx::query_scalar!(
        r#"-- pending_deliveries::webhooks_waiting
         WITH RECURSIVE waiting AS (
             (SELECT webhook_id FROM pending_deliveries
              WHERE state IN ('scheduled', 'parked', 'held', 'queued', 'behind') ORDER BY webhook_id LIMIT 1)
             UNION ALL
             SELECT (SELECT next.webhook_id FROM pending_deliveries AS next
                     WHERE next.state IN ('scheduled', 'parked', 'held', 'queued', 'behind')
                       AND next.webhook_id > waiting.webhook_id
                     ORDER BY next.webhook_id LIMIT 1)
             FROM waiting WHERE waiting.webhook_id IS NOT NULL
         )
         SELECT webhook_id AS "webhook_id!" FROM waiting WHERE webhook_id IS NOT NULL"#,
    )
    .fetch_all(connection)
    .await?;
    Ok(webhooks.into_iter().map(WebhookId::from_uuid).collect())
}

/// A webhook whose held deliveries may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// The webhook.
    pub webhook: WebhookId,
    /// How many at most.
    pub most: u32,
}

/// A held delivery whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// The attempt that is due.
    pub attempt: AttemptRef,
    /// Whether it goes out in order.
    pub ordered: bool,
}

/// Locks held deliveries whose turn it is: of each of these webhooks the oldest, replays after all others, as many as its
/// drain allows, and no more than bring it to as many released ones as `room` says; none while its lane has said when to come again. `drains` is
/// asked once it is certain that no other transaction does the same; nothing is returned while one does.
///
/// # Errors
/// Any [`Error`].
pub async fn claim_held(
    connection: &mut Connection,
    drains: impl AsyncFnOnce(&mut Connection) -> Result<Vec<Drain>, Error>,
    now: Timestamp,
    room: Room,
    limit: u32,
) -> Result<Vec<Claimed>, Error> {
    if !alone(connection, PARKED_LOCK).await? {
        return Ok(Vec::new());
    }
    let drains = drains(connection).await?;
    if drains.is_empty() {
        return Ok(Vec::new());
    }
    let webhooks: Vec<Uuid> = drains.iter().map(|drain| drain.webhook.as_uuid()).collect();
    let most: Vec<i64> = drains.iter().map(|drain| drain.most.into()).collect();
    let rows = sqlx::query!(
        r#"-- pending_deliveries::claim_held
         WITH room AS (
             SELECT drain.webhook_id,
                    least(drain.most,
                          CASE WHEN health.failures_in_a_row >= $5 THEN 1 ELSE $3::bigint END
                          - (SELECT count(*) FROM (SELECT FROM pending_deliveries AS busy
                                                   WHERE busy.state = 'released' AND busy.webhook_id = drain.webhook_id
                                                   LIMIT $3) AS released)) AS free
             FROM UNNEST($1::uuid[], $2::bigint[]) AS drain (webhook_id, most)
             LEFT JOIN webhook_health AS health ON health.webhook_id = drain.webhook_id
             WHERE NOT EXISTS (
                 SELECT FROM (SELECT due_at FROM pending_deliveries AS parked
                              WHERE parked.state = 'parked' AND parked.webhook_id = drain.webhook_id
                              ORDER BY parked.run, parked.event_key LIMIT 1) AS lane
                 WHERE lane.due_at > $6)
         )
         SELECT head.event_key AS "event_key!", head.webhook_id AS "webhook_id!", head.run AS "run!",
                head.project_id AS "project_id!", head.attempt AS "attempt!", head.release AS "release!",
                head.handed_out_before AS "handed_out_before!", head.order_key IS NOT NULL AS "ordered!"
         FROM room
         CROSS JOIN LATERAL (
             SELECT * FROM pending_deliveries AS delivery
             WHERE delivery.state = 'held' AND delivery.webhook_id = room.webhook_id
               AND (SELECT true FROM events WHERE events.key = delivery.event_key)
             ORDER BY delivery.run, delivery.event_key
             LIMIT greatest(room.free, 0)
             FOR UPDATE SKIP LOCKED
         ) AS head
         LIMIT $4"#,
        &webhooks,
        &most,
        i64::from(room.per_webhook),
        i64::from(limit),
        counter(room.one_from),
        to_sql(now),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Claimed {
            ordered: row.ordered,
            attempt: AttemptRef::from(Row {
                event_key: row.event_key,
                webhook_id: row.webhook_id,
                run: row.run,
                project_id: row.project_id,
                attempt: row.attempt,
                release: row.release,
                handed_out_before: row.handed_out_before,
            }),
        })
        .collect())
}

/// Locks deliveries that go out in order and are the next of their keys: of each of these webhooks the oldest before
/// `frontier`, and no more than bring it to as many released ones as `room` says; none while its lane has said when to come
/// again. `None` while another transaction does the same.
///
/// That nothing of the key comes before a row holds when everything before `frontier` is on record: what is not settled
/// by then has a row.
///
/// # Errors
/// Any [`Error`].
pub async fn claim_ordered(
    connection: &mut Connection,
    webhooks: &[WebhookId],
    frontier: EventKey,
    now: Timestamp,
    room: Room,
    limit: u32,
) -> Result<Option<Vec<AttemptRef>>, Error> {
    if !alone(connection, ORDERED_LOCK).await? {
        return Ok(None);
    }
    let webhooks: Vec<Uuid> = webhooks.iter().map(|webhook| webhook.as_uuid()).collect();
    let rows = sqlx::query_as!(
        Row,
        r#"-- pending_deliveries::claim_ordered
         WITH room AS (
             SELECT wanted.webhook_id,
                    CASE WHEN health.failures_in_a_row >= $5 THEN 1 ELSE $3::bigint END
                    - (SELECT count(*) FROM (SELECT FROM pending_deliveries AS busy
                                             WHERE busy.state = 'released' AND busy.webhook_id = wanted.webhook_id
                                             LIMIT $3) AS released) AS free
             FROM UNNEST($1::uuid[]) AS wanted (webhook_id)
             LEFT JOIN webhook_health AS health ON health.webhook_id = wanted.webhook_id
             WHERE NOT EXISTS (
                 SELECT FROM (SELECT due_at FROM pending_deliveries AS parked
                              WHERE parked.state = 'parked' AND parked.webhook_id = wanted.webhook_id
                              ORDER BY parked.run, parked.event_key LIMIT 1) AS lane
                 WHERE lane.due_at > $6)
         )
         SELECT head.event_key AS "event_key!", head.webhook_id AS "webhook_id!", head.run AS "run!",
                head.project_id AS "project_id!", head.attempt AS "attempt!", head.release AS "release!",
                head.handed_out_before AS "handed_out_before!"
         FROM room
         CROSS JOIN LATERAL (
             SELECT * FROM pending_deliveries AS delivery
             WHERE delivery.state = 'queued' AND delivery.webhook_id = room.webhook_id AND delivery.event_key < $2
               AND NOT EXISTS (
                   SELECT FROM pending_deliveries AS earlier
                   WHERE earlier.webhook_id = delivery.webhook_id AND earlier.order_key = delivery.order_key
                     AND earlier.state IN ('scheduled', 'released', 'parked', 'held', 'queued', 'behind')
                     AND earlier.event_key < delivery.event_key)
               AND (SELECT true FROM events WHERE events.key = delivery.event_key)
             ORDER BY delivery.event_key
             LIMIT greatest(room.free, 0)
             FOR UPDATE SKIP LOCKED
         ) AS head
         LIMIT $4"#,
        &webhooks,
        frontier.as_uuid(),
        i64::from(room.per_webhook),
        i64::from(limit),
        counter(room.one_from),
        to_sql(now),
    )
    .fetch_all(connection)
    .await?;
    Ok(Some(rows.into_iter().map(AttemptRef::from).collect()))
}

/// Whether one of these webhooks has a delivery that goes out in order, may be the next of its key, and is at or after
/// `frontier`.
///
/// # Errors
/// Any [`Error`].
pub async fn queued_from(
    connection: &mut Connection,
    webhooks: &[WebhookId],
    frontier: EventKey,
) -> Result<bool, Error> {
    let webhooks: Vec<Uuid> = webhooks.iter().map(|webhook| webhook.as_uuid()).collect();
    Ok(sqlx::query_scalar!(
        r#"-- pending_deliveries::queued_from
         SELECT EXISTS (
             SELECT FROM UNNEST($1::uuid[]) AS wanted (webhook_id)
             WHERE EXISTS (SELECT FROM pending_deliveries AS delivery
                           WHERE delivery.state = 'queued' AND delivery.webhook_id = wanted.webhook_id
                             AND delivery.event_key >= $2)) AS "there!""#,
        &webhooks,
        frontier.as_uuid(),
    )
    .fetch_one(connection)
    .await?)
}
