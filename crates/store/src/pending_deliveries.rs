//! `pending_deliveries`: the deliveries that were not settled by their first attempt, or that have to wait for it. Written
//! by retry-scheduler alone.
//!
//! | state | who moves it there | what moves it on |
//! |---|---|---|
//! | `scheduled` | the recorder, when an attempt failed and another is to come | release, at `due_at` |
//! | `parked` | the recorder, when the webhook's lane had no room | release, in its turn, from `due_at` on |
//! | `held` | the recorder or release, when the webhook gets nothing just now | release, in its turn, once the webhook is active |
//! | `queued` | the recorder: it goes out in order, and nothing is known to come before it | release, if so |
//! | `behind` | the recorder: it goes out in order, and another of its key comes before it | whoever settles that one |
//! | `released` | release, when the duty is in stream DELIVERIES | the recorder, when it hears of the attempt; rescue, if nothing is heard |
//! | `dead` | the recorder, when no attempt is left | nobody |
//! | `cancelled` | the recorder or release, when the webhook was deleted | the recorder, should the receiver have it after all |
//! | no row | the recorder, when the event was delivered | |
//!
//! `dead`, `cancelled` and no row are settled; everything else waits for something.
//!
//! Facts reach the recorder more than once and, from two recorders, in any order. So every statement that applies one
//! says by attempt and release how far the row must have come for the fact to be news, and does nothing otherwise.
//!
//! Batches are written in the order of their keys, so that two transactions with the same rows wait for each other
//! rather than each for the other.
//!
//! - [`claims`]: which rows may be released
//! - [`kept_back`]: rows of deliveries that nobody has tried yet: held ones, and those that go out in order

pub mod replay;

use jiff::Timestamp;
use proto_schemas::id::{AttemptRef, EventKey, ProjectId, WebhookId};
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::value::{counter, from_counter, text};
use crate::{Connection, Error};

mod claims;
mod kept_back;

pub use self::claims::{
    Claimed, Drain, Room, claim_held, claim_ordered, claim_parked, claim_scheduled, queued_from, webhooks_held,
    webhooks_queued, webhooks_waiting,
};
pub use self::kept_back::{KeptBack, KeyPlace, cancel_all, enqueue, keep_back, promote_forgotten, set_aside};

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

/// A delivery of which no attempt was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferred {
    /// The attempt that was not made, in its release.
    pub attempt: AttemptRef,
    /// Why, in a few words.
    pub reason: String,
    /// What becomes of it.
    pub then: Then,
}

/// What becomes of a delivery of which no attempt was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is parked, and may be released from this instant on.
    Parked(Timestamp),
    /// It is held until its webhook is active.
    Held,
    /// It ends.
    Cancelled,
}

impl Then {
    const fn state(self) -> &'static str {
        match self {
            Self::Parked(_) => "parked",
            Self::Held => "held",
            Self::Cancelled => "cancelled",
        }
    }

    const fn due_at(self) -> Option<Timestamp> {
        match self {
            Self::Parked(due_at) => Some(due_at),
            Self::Held | Self::Cancelled => None,
        }
    }
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
    handed_out_before: Vec<i32>,
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
            arrays.handed_out_before.push(counter(reference.handed_out_before));
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

/// Removes the deliveries these attempts have ended well, unless a later attempt is under way; tells how many. What was
/// behind them is the next of its key.
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
           AND delivery.attempt <= row.attempt AND delivery.state <> 'dead'
         RETURNING delivery.webhook_id, delivery.order_key",
        &row.events,
        &row.webhooks,
        &row.runs,
        &row.attempts,
    )
    .fetch_all(&mut *connection)
    .await?;
    let freed = settled.iter().filter_map(|row| Some((row.webhook_id, row.order_key?)));
    kept_back::promote(connection, freed).await?;
    Ok(settled.len() as u64)
}

/// Schedules the next attempt, or ends the delivery as dead, unless a later attempt is under way; tells how many rows
/// that changed. What was behind a dead one is the next of its key. The attempts must be news: a delivery that was settled since has no row to tell it by.
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
             release = greatest(delivery.release, excluded.release), handed_out_before = 0, due_at = excluded.due_at,
             updated_at = excluded.updated_at
         WHERE delivery.state NOT IN ('dead', 'cancelled')
           AND (delivery.attempt < excluded.attempt
                OR delivery.attempt = excluded.attempt AND excluded.state = 'dead')
         RETURNING webhook_id, order_key, state",
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
    .fetch_all(&mut *connection)
    .await?;
    let freed = changed
        .iter()
        .filter(|row| row.state == "dead")
        .filter_map(|row| Some((row.webhook_id, row.order_key?)));
    kept_back::promote(connection, freed).await?;
    Ok(changed.len() as u64)
}

/// Parks, holds or cancels deliveries, unless the attempt has been made, or has been released again since; tells how many
/// rows that changed. What was behind a cancelled one is the next of its key.
///
/// # Errors
/// Any [`Error`].
pub async fn defer(connection: &mut Connection, deferred: Vec<Deferred>, now: Timestamp) -> Result<u64, Error> {
    if deferred.is_empty() {
        return Ok(0);
    }
    let deferred = one_each(deferred, |deferred| &deferred.attempt);
    let row: Attempts = deferred.iter().map(|deferred| &deferred.attempt).collect();
    let due_at: Vec<_> = deferred
        .iter()
        .map(|deferred| deferred.then.due_at().map(to_sql))
        .collect();
    let reasons: Vec<_> = deferred.iter().map(|deferred| text(&deferred.reason)).collect();
    let states: Vec<_> = deferred.iter().map(|deferred| deferred.then.state()).collect();
    // A `scheduled` row with the very release that was deferred is one that rescue has given up waiting for.
    let changed = sqlx::query!(
        "-- pending_deliveries::defer
         INSERT INTO pending_deliveries AS delivery
                (event_key, webhook_id, run, project_id, state, reason, attempt, release, handed_out_before, due_at,
                 updated_at)
         SELECT row.event_key, row.webhook_id, row.run, row.project_id, row.state, row.reason, row.attempt, row.release,
                row.handed_out_before, row.due_at, $11
         FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::uuid[], $5::integer[], $6::integer[], $7::integer[],
                     $8::timestamptz[], $9::text[], $10::text[])
              AS row (event_key, webhook_id, run, project_id, attempt, release, handed_out_before, due_at, reason, state)
         WHERE NOT EXISTS (
             SELECT FROM attempts
             WHERE attempts.event_key = row.event_key AND attempts.webhook_id = row.webhook_id
               AND attempts.run = row.run AND attempts.attempt = row.attempt)
         ON CONFLICT (event_key, webhook_id, run) DO UPDATE
         SET state = excluded.state, reason = excluded.reason, release = excluded.release,
             handed_out_before = excluded.handed_out_before, due_at = excluded.due_at, updated_at = excluded.updated_at
         WHERE delivery.state NOT IN ('dead', 'cancelled') AND delivery.attempt = excluded.attempt
           AND (delivery.release < excluded.release
                OR delivery.release = excluded.release AND delivery.state IN ('released', 'scheduled'))
         RETURNING webhook_id, order_key, state",
        &row.events,
        &row.webhooks,
        &row.runs,
        &row.projects,
        &row.attempts,
        &row.releases,
        &row.handed_out_before,
        &due_at as _,
        &reasons as _,
        &states as _,
        to_sql(now),
    )
    .fetch_all(&mut *connection)
    .await?;
    let freed = changed
        .iter()
        .filter(|row| row.state == "cancelled")
        .filter_map(|row| Some((row.webhook_id, row.order_key?)));
    kept_back::promote(connection, freed).await?;
    Ok(changed.len() as u64)
}

struct Row {
    event_key: Uuid,
    webhook_id: Uuid,
    run: i32,
    project_id: Uuid,
    attempt: i32,
    release: i32,
    handed_out_before: i32,
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
            handed_out_before: from_counter(row.handed_out_before),
        }
    }
}

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
         SELECT event_key, webhook_id, run, project_id, attempt, release, handed_out_before
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

/// Gives up waiting for releases that got lost: the deliveries are due again at once, and whoever had them may have made
/// the request. What has moved on since, or is locked, is left as it is; tells how many were rescued.
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
         SET state = $6, due_at = $7, updated_at = $8,
             handed_out_before = handed_out_before + CASE WHEN $6 = 'scheduled' THEN 1 ELSE 0 END
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
