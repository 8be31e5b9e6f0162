//! `pending_deliveries`: the deliveries that were not settled by their first attempt. Written by retry-scheduler alone.
//!
//! | state | who moves it there | what moves it on |
//! |---|---|---|
//! | `scheduled` | the recorder, when an attempt failed and another is to come | release, at `due_at` |
//! | `parked` | the recorder, when the webhook's lane had no room | release, in its turn, from `due_at` on |
//! | `released` | release, when the duty is in stream DELIVERIES | the recorder, when it hears of the attempt; rescue, if nothing is heard |
//! | `dead` | the recorder, when no attempt is left | nobody |
//! | no row | the recorder, when the event was delivered | |
//!
//! Facts reach the recorder more than once and, from two recorders, in any order. So every statement that applies one
//! says by attempt and release how far the row must have come for the fact to be news, and does nothing otherwise.
//!
//! Batches are written in the order of their keys, so that two transactions with the same rows wait for each other
//! rather than each for the other.

pub mod replay;

use jiff::Timestamp;
use proto_schemas::id::{AttemptRef, EventKey, ProjectId, WebhookId};
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::value::{counter, from_counter, text};
use crate::{Connection, Error};

/// Identity of a row: one event owed to one webhook, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryKey {
    /// The event.
    pub event: EventKey,
    /// The webhook.
    pub webhook: WebhookId,
    /// 0 for the event's own delivery; each replay has a number of its own.
    pub run: u32,
}

impl From<&AttemptRef> for DeliveryKey {
    fn from(attempt: &AttemptRef) -> Self {
        Self {
            event: attempt.event,
            webhook: attempt.webhook,
            run: attempt.run,
        }
    }
}

/// What a delivery waits for after an attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The attempt that failed, in its release.
    pub after: AttemptRef,
    /// Why it failed, in a few words.
    pub reason: String,
    /// When the next attempt is due; `None` where the delivery is dead.
    pub due_at: Option<Timestamp>,
}

/// A delivery whose lane had no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parking {
    /// The attempt that was not made, in its release.
    pub attempt: AttemptRef,
    /// Why, in a few words.
    pub reason: String,
    /// From when on it may be released.
    pub due_at: Timestamp,
}

/// Arrays that name attempts, one per column.
#[derive(Default)]
struct Attempts {
    events: Vec<Uuid>,
    webhooks: Vec<Uuid>,
    runs: Vec<i32>,
    projects: Vec<Uuid>,
    attempts: Vec<i32>,
    releases: Vec<i32>,
}

impl<'a> FromIterator<&'a AttemptRef> for Attempts {
    fn from_iter<I: IntoIterator<Item = &'a AttemptRef>>(references: I) -> Self {
        let mut arrays = Self::default();
        for reference in references {
            arrays.events.push(reference.event.as_uuid());
            arrays.webhooks.push(reference.webhook.as_uuid());
            arrays.runs.push(counter(reference.run));
            arrays.projects.push(reference.project.as_uuid());
            arrays.attempts.push(counter(reference.attempt));
            arrays.releases.push(counter(reference.release));
        }
        arrays
    }
}

fn key_order(reference: &AttemptRef) -> (DeliveryKey, u32, u32) {
    (DeliveryKey::from(reference), reference.attempt, reference.release)
}

/// Keeps the last of each delivery's entries: one statement must not write a row twice.
fn one_each<T>(mut entries: Vec<T>, reference: impl Fn(&T) -> &AttemptRef) -> Vec<T> {
    entries.sort_by_key(|entry| std::cmp::Reverse(key_order(reference(entry))));
    entries.dedup_by_key(|entry| DeliveryKey::from(reference(entry)));
    entries.reverse();
    entries
}

/// Removes the deliveries these attempts have ended well, unless a later attempt is under way; tells how many.
///
/// # Errors
/// Any [`Error`].
pub async fn settle(connection: &mut Connection, delivered: &[AttemptRef]) -> Result<u64, Error> {
    if delivered.is_empty() {
        return Ok(0);
    }
    let mut delivered = delivered.to_vec();
    delivered.sort_by_key(key_order);
    let row: Attempts = delivered.iter().collect();
    let settled = sqlx::query!(
        "-- pending_deliveries::settle
         DELETE FROM pending_deliveries AS delivery
         USING UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::integer[]) AS row (event_key, webhook_id, run, attempt)
         WHERE delivery.event_key = row.event_key AND delivery.webhook_id = row.webhook_id AND delivery.run = row.run
           AND delivery.attempt <= row.attempt AND delivery.state <> 'dead'",
        &row.events,
        &row.webhooks,
        &row.runs,
        &row.attempts,
    )
    .execute(connection)
    .await?;
    Ok(settled.rows_affected())
}

/// Schedules the next attempt, or ends the delivery as dead, unless a later attempt is under way; tells how many rows
/// that changed. The attempts must be news: a delivery that was settled since has no row to tell it by.
///
/// # Errors
/// Any [`Error`].
pub async fn step(connection: &mut Connection, steps: Vec<Step>, now: Timestamp) -> Result<u64, Error> {
    if steps.is_empty() {
        return Ok(0);
    }
    let steps = one_each(steps, |step| &step.after);
    let row: Attempts = steps.iter().map(|step| &step.after).collect();
    let due_at: Vec<_> = steps.iter().map(|step| step.due_at.map(to_sql)).collect();
    let reasons: Vec<_> = steps.iter().map(|step| text(&step.reason)).collect();
    let changed = sqlx::query!(
        "-- pending_deliveries::step
         INSERT INTO pending_deliveries AS delivery
                (event_key, webhook_id, run, project_id, state, reason, attempt, release, due_at, updated_at)
         SELECT row.event_key, row.webhook_id, row.run, row.project_id,
                CASE WHEN row.due_at IS NULL THEN 'dead' ELSE 'scheduled' END, row.reason,
                CASE WHEN row.due_at IS NULL THEN row.attempt ELSE row.attempt + 1 END, row.release, row.due_at, $9
         FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::uuid[], $5::integer[], $6::integer[],
                     $7::timestamptz[], $8::text[])
              AS row (event_key, webhook_id, run, project_id, attempt, release, due_at, reason)
         ON CONFLICT (event_key, webhook_id, run) DO UPDATE
         SET state = excluded.state, reason = excluded.reason, attempt = excluded.attempt,
             release = greatest(delivery.release, excluded.release), due_at = excluded.due_at,
             updated_at = excluded.updated_at
         WHERE delivery.state <> 'dead'
           AND (delivery.attempt < excluded.attempt
                OR delivery.attempt = excluded.attempt AND excluded.state = 'dead')",
        &row.events,
        &row.webhooks,
        &row.runs,
        &row.projects,
        &row.attempts,
        &row.releases,
        &due_at as _,
        &reasons as _,
        to_sql(now),
    )
    .execute(connection)
    .await?;
    Ok(changed.rows_affected())
}

/// Parks deliveries, unless the attempt has been made, or has been released again since; tells how many rows that
/// changed.
///
/// # Errors
/// Any [`Error`].
pub async fn park(connection: &mut Connection, parked: Vec<Parking>, now: Timestamp) -> Result<u64, Error> {
    if parked.is_empty() {
        return Ok(0);
    }
    let parked = one_each(parked, |parking| &parking.attempt);
    let row: Attempts = parked.iter().map(|parking| &parking.attempt).collect();
    let due_at: Vec<_> = parked.iter().map(|parking| to_sql(parking.due_at)).collect();
    let reasons: Vec<_> = parked.iter().map(|parking| text(&parking.reason)).collect();
    // A `scheduled` row with the very release that was deferred is one that rescue has given up waiting for.
    let changed = sqlx::query!(
        "-- pending_deliveries::park
         INSERT INTO pending_deliveries AS delivery
                (event_key, webhook_id, run, project_id, state, reason, attempt, release, due_at, updated_at)
         SELECT row.event_key, row.webhook_id, row.run, row.project_id, 'parked', row.reason, row.attempt, row.release,
                row.due_at, $9
         FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::uuid[], $5::integer[], $6::integer[],
                     $7::timestamptz[], $8::text[])
              AS row (event_key, webhook_id, run, project_id, attempt, release, due_at, reason)
         WHERE NOT EXISTS (
             SELECT FROM attempts
             WHERE attempts.event_key = row.event_key AND attempts.webhook_id = row.webhook_id
               AND attempts.run = row.run AND attempts.attempt = row.attempt)
         ON CONFLICT (event_key, webhook_id, run) DO UPDATE
         SET state = excluded.state, reason = excluded.reason, release = excluded.release, due_at = excluded.due_at,
             updated_at = excluded.updated_at
         WHERE delivery.state <> 'dead' AND delivery.attempt = excluded.attempt
           AND (delivery.release < excluded.release
                OR delivery.release = excluded.release AND delivery.state IN ('released', 'scheduled'))",
        &row.events,
        &row.webhooks,
        &row.runs,
        &row.projects,
        &row.attempts,
        &row.releases,
        &due_at,
        &reasons as _,
        to_sql(now),
    )
    .execute(connection)
    .await?;
    Ok(changed.rows_affected())
}

struct Row {
    event_key: Uuid,
    webhook_id: Uuid,
    run: i32,
    project_id: Uuid,
    attempt: i32,
    release: i32,
}

impl From<Row> for AttemptRef {
    fn from(row: Row) -> Self {
        Self {
            event: EventKey::from_uuid(row.event_key),
            project: ProjectId::from_uuid(row.project_id),
            webhook: WebhookId::from_uuid(row.webhook_id),
            run: from_counter(row.run),
            attempt: from_counter(row.attempt),
            release: from_counter(row.release),
        }
    }
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
         SELECT event_key, webhook_id, run, project_id, attempt, release
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

/// How many parked deliveries of one webhook may be released at once.
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
    let alone = sqlx::query_scalar!(
        r#"-- pending_deliveries::claim_parked
         SELECT pg_try_advisory_xact_lock($1) AS "alone!""#,
        PARKED_LOCK,
    )
    .fetch_one(&mut *connection)
    .await?;
    if !alone {
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
                head.project_id AS "project_id!", head.attempt AS "attempt!", head.release AS "release!"
         FROM room
         CROSS JOIN LATERAL (
             SELECT * FROM pending_deliveries AS delivery
             WHERE delivery.state = 'parked' AND delivery.webhook_id = room.webhook_id
             ORDER BY delivery.run, delivery.event_key
             LIMIT greatest(room.free, 0)
             FOR UPDATE SKIP LOCKED
         ) AS head
         WHERE head.due_at <= $1 AND EXISTS (SELECT FROM events WHERE events.key = head.event_key)
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

/// Held by whoever releases parked deliveries. Any number no other lock uses.
const PARKED_LOCK: i64 = 0x7061_726b;

/// Notes that duties for these attempts are in stream DELIVERIES. The releases are the new ones; the rows are locked by
/// this transaction. `doubt_at` is when to begin to doubt that they are still on their way.
///
/// # Errors
/// Any [`Error`].
pub async fn mark_released(
    connection: &mut Connection,
    released: &[AttemptRef],
    doubt_at: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    if released.is_empty() {
        return Ok(());
    }
    let row: Attempts = released.iter().collect();
    sqlx::query!(
        "-- pending_deliveries::mark_released
         UPDATE pending_deliveries AS delivery
         SET state = 'released', release = row.release, due_at = $5, updated_at = $6
         FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::integer[]) AS row (event_key, webhook_id, run, release)
         WHERE delivery.event_key = row.event_key AND delivery.webhook_id = row.webhook_id AND delivery.run = row.run",
        &row.events,
        &row.webhooks,
        &row.runs,
        &row.releases,
        to_sql(doubt_at),
        to_sql(now),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Released deliveries of which nothing was heard by the time noted, longest waiting first.
///
/// # Errors
/// Any [`Error`].
pub async fn doubtful(connection: &mut Connection, now: Timestamp, limit: u32) -> Result<Vec<AttemptRef>, Error> {
    let rows = sqlx::query_as!(
        Row,
        "-- pending_deliveries::doubtful
         SELECT event_key, webhook_id, run, project_id, attempt, release
         FROM pending_deliveries
         WHERE state = 'released' AND due_at <= $1
         ORDER BY due_at
         LIMIT $2",
        to_sql(now),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(AttemptRef::from).collect())
}

/// Gives up waiting for releases that got lost: the deliveries are due again at once. What has moved on since, or is
/// locked, is left as it is; tells how many were rescued.
///
/// # Errors
/// Any [`Error`].
pub async fn rescue(connection: &mut Connection, lost: &[AttemptRef], now: Timestamp) -> Result<u64, Error> {
    change_released(connection, lost, "scheduled", now, now).await
}

/// Waits on for releases that are still on their way, until `doubt_at`; tells how many those were.
///
/// # Errors
/// Any [`Error`].
pub async fn wait_on(
    connection: &mut Connection,
    under_way: &[AttemptRef],
    doubt_at: Timestamp,
    now: Timestamp,
) -> Result<u64, Error> {
    change_released(connection, under_way, "released", doubt_at, now).await
}

async fn change_released(
    connection: &mut Connection,
    releases: &[AttemptRef],
    state: &str,
    due_at: Timestamp,
    now: Timestamp,
) -> Result<u64, Error> {
    if releases.is_empty() {
        return Ok(0);
    }
    let row: Attempts = releases.iter().collect();
    let changed = sqlx::query!(
        "-- pending_deliveries::change_released
         WITH unchanged AS (
             SELECT delivery.event_key, delivery.webhook_id, delivery.run
             FROM pending_deliveries AS delivery
             JOIN UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::integer[], $5::integer[])
                  AS row (event_key, webhook_id, run, attempt, release)
                  USING (event_key, webhook_id, run, attempt, release)
             WHERE delivery.state = 'released'
             FOR UPDATE OF delivery SKIP LOCKED
         )
         UPDATE pending_deliveries AS delivery
         SET state = $6, due_at = $7, updated_at = $8
         FROM unchanged
         WHERE delivery.event_key = unchanged.event_key AND delivery.webhook_id = unchanged.webhook_id
           AND delivery.run = unchanged.run",
        &row.events,
        &row.webhooks,
        &row.runs,
        &row.attempts,
        &row.releases,
        state,
        to_sql(due_at),
        to_sql(now),
    )
    .execute(connection)
    .await?;
    Ok(changed.rows_affected())
}

/// The earliest time after `now`, and not after `until`, at which a scheduled delivery becomes due.
///
/// # Errors
/// Any [`Error`].
pub async fn next_due(
    connection: &mut Connection,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let due_at = sqlx::query_scalar!(
        "-- pending_deliveries::next_due
         SELECT min(due_at) FROM pending_deliveries WHERE state = 'scheduled' AND due_at > $1 AND due_at <= $2",
        to_sql(now),
        to_sql(until),
    )
    .fetch_one(connection)
    .await?;
    Ok(due_at.map(from_sql))
}

/// How many deliveries are in one state, and since when the one longest due waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The state.
    pub state: String,
    /// How many.
    pub deliveries: u64,
    /// The earliest `due_at` among them.
    pub earliest_due_at: Option<Timestamp>,
}

/// Counts all rows by state. Reads the whole table: for a gauge now and then.
///
/// # Errors
/// Any [`Error`].
pub async fn count(connection: &mut Connection) -> Result<Vec<Count>, Error> {
    let rows = sqlx::query!(
        r#"-- pending_deliveries::count
         SELECT state, count(*) AS "deliveries!", min(due_at) AS earliest_due_at
         FROM pending_deliveries GROUP BY state"#,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Count {
            state: row.state,
            deliveries: u64::try_from(row.deliveries).unwrap_or_default(),
            earliest_due_at: row.earliest_due_at.map(from_sql),
        })
        .collect())
}
