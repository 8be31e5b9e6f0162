//! `replay_progress`: how far orders have come. Written by retry-scheduler alone.

use jiff::Timestamp;
use proto_schemas::id::{EventKey, WebhookId};
use sqlx::postgres::PgListener;
use sqlx::query_as;
use uuid::Uuid;

use crate::replays::{CHANNEL, Replay, Row};
use crate::time::{from_sql, to_sql};
use crate::{Connection, Error, Store};

/// How far an order has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The last delivery that was looked at.
    pub cursor: Option<(EventKey, WebhookId)>,
    /// Deliveries made, or letters discarded.
    pub made: u64,
    /// Those of them that were withdrawn because the replay was cancelled.
    pub withdrawn: u64,
    /// Those that are dead, or were ended otherwise.
    pub failed: u64,
    /// Those that are under way.
    pub waiting: u64,
    /// Deliveries settled in a second, of late.
    pub rate: f64,
    /// What may be made by then has been made.
    pub paced_to: Option<Timestamp>,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When failed and waiting ones were counted.
    pub counted_at: Timestamp,
    /// When it was first seen to be cancelled.
    pub withdrawing_since: Option<Timestamp>,
    /// When every delivery had been made.
    pub walked_at: Option<Timestamp>,
    /// When every one was settled.
    pub finished_at: Option<Timestamp>,
}

impl Progress {
    /// Of an order that is begun now.
    #[must_use]
    pub fn begun(now: Timestamp) -> Self {
        Self {
            cursor: None,
            made: 0,
            withdrawn: 0,
            failed: 0,
            waiting: 0,
            rate: 0.0,
            paced_to: None,
            started_at: now,
            counted_at: now,
            withdrawing_since: None,
            walked_at: None,
            finished_at: None,
        }
    }

    /// Deliveries that are settled: delivered, dead, ended or withdrawn.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.made.saturating_sub(self.waiting)
    }

    /// Deliveries that their receivers have.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.settled().saturating_sub(self.failed + self.withdrawn)
    }
}

/// Numbers are given in order and committed in any. No transaction is overtaken by so many others.
const OVERTAKEN_MAX: i32 = 10_000;

/// Takes up orders that nobody has begun; how many.
///
/// # Errors
/// Any [`Error`].
pub async fn begin(connection: &mut Connection, now: Timestamp) -> Result<u64, Error> {
    let begun = sqlx::query!(
        "-- replay_progress::begin
         INSERT INTO replay_progress (replay_id, started_at, counted_at, next_look_at)
         SELECT r.id, $1, $1, $1 FROM replays r
         WHERE r.number > (SELECT coalesce(max(known.number), 0) - $2
                           FROM (SELECT k.number FROM replays k
                                 WHERE EXISTS (SELECT FROM replay_progress p WHERE p.replay_id = k.id)
                                 ORDER BY k.number DESC LIMIT 1) AS known)
           AND NOT EXISTS (SELECT FROM replay_progress p WHERE p.replay_id = r.id)
         ON CONFLICT DO NOTHING",
        to_sql(now),
        OVERTAKEN_MAX,
    )
    .execute(connection)
    .await?;
    Ok(begun.rows_affected())
}

/// Locks the unfinished order that it is longest time to look at, unless another transaction has; `None` where there is
/// none. Cancelled ones are looked at at once.
///
/// # Errors
/// Any [`Error`].
pub async fn claim(connection: &mut Connection, now: Timestamp) -> Result<Option<Replay>, Error> {
    let row = query_as!(
        Row,
        r#"-- replay_progress::claim
         SELECT r.id, r.number, r.project_id, r.kind, r.webhooks, r.events, r.event_ids, r.types, r.from_key, r.to_key,
                r.states, r.reasons, r.per_second, r.counted, r.token_id, r.token_name, r.created_at, r.cancelled_at,
                p.event_key, p.webhook_id, p.made AS "made?", p.withdrawn AS "withdrawn?", p.failed AS "failed?",
                p.waiting AS "waiting?", p.rate AS "rate?", p.paced_to, p.started_at AS "started_at?",
                p.counted_at AS "counted_at?", p.withdrawing_since, p.walked_at, p.finished_at
         FROM replay_progress p JOIN replays r ON r.id = p.replay_id
         WHERE p.finished_at IS NULL AND (p.next_look_at <= $1 OR r.cancelled_at IS NOT NULL AND p.withdrawing_since IS NULL)
         ORDER BY p.next_look_at LIMIT 1
         FOR UPDATE OF p SKIP LOCKED"#,
        to_sql(now),
    )
    .fetch_optional(connection)
    .await?;
    row.map(Replay::try_from).transpose()
}

/// How many replays are making deliveries.
///
/// # Errors
/// Any [`Error`].
pub async fn count_walking(connection: &mut Connection) -> Result<u64, Error> {
    let count = sqlx::query_scalar!(
        r#"-- replay_progress::count_walking
         SELECT count(*) AS "count!" FROM replay_progress p JOIN replays r ON r.id = p.replay_id
         WHERE p.finished_at IS NULL AND p.walked_at IS NULL AND r.kind = 'replay' AND r.cancelled_at IS NULL"#,
    )
    .fetch_one(connection)
    .await?;
    Ok(count.unsigned_abs())
}

/// Writes how far an order has come that [`claim`] has locked in the same transaction.
///
/// # Errors
/// Any [`Error`].
pub async fn write(
    connection: &mut Connection,
    replay: Uuid,
    progress: &Progress,
    next_look_at: Timestamp,
) -> Result<(), Error> {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    sqlx::query!(
        "-- replay_progress::write
         UPDATE replay_progress
         SET event_key = $2, webhook_id = $3, made = $4, withdrawn = $5, failed = $6, waiting = $7, rate = $8,
             paced_to = $9, counted_at = $10, next_look_at = $11, walked_at = $12, finished_at = $13,
             withdrawing_since = $14
         WHERE replay_id = $1",
        replay,
        progress.cursor.map(|(event, _)| event.as_uuid()),
        progress.cursor.map(|(_, webhook)| webhook.as_uuid()),
        number(progress.made),
        number(progress.withdrawn),
        number(progress.failed),
        number(progress.waiting),
        progress.rate,
        progress.paced_to.map(to_sql),
        to_sql(progress.counted_at),
        to_sql(next_look_at),
        progress.walked_at.map(to_sql),
        progress.finished_at.map(to_sql),
        progress.withdrawing_since.map(to_sql),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Puts off an order that cannot be carried out just now, so that it holds up no other.
///
/// # Errors
/// Any [`Error`].
pub async fn put_off(connection: &mut Connection, replay: Uuid, next_look_at: Timestamp) -> Result<(), Error> {
    sqlx::query!(
        "-- replay_progress::put_off
         UPDATE replay_progress SET next_look_at = $2 WHERE replay_id = $1",
        replay,
        to_sql(next_look_at),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// When the next unfinished order is to be looked at.
///
/// # Errors
/// Any [`Error`].
pub async fn next_look(connection: &mut Connection) -> Result<Option<Timestamp>, Error> {
    let next = sqlx::query_scalar!(
        "-- replay_progress::next_look
         SELECT min(next_look_at) FROM replay_progress WHERE finished_at IS NULL",
    )
    .fetch_one(connection)
    .await?;
    Ok(next.map(from_sql))
}

/// Hears of orders as they are given and cancelled.
#[derive(Debug)]
pub struct Ear(PgListener);

impl Ear {
    /// Listens, over a connection of its own.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn open(store: &Store) -> Result<Self, Error> {
        let mut listener = PgListener::connect_with(store.database().pool()).await?;
        listener.listen(CHANNEL).await?;
        Ok(Self(listener))
    }

    /// Waits for the next; what came before is told once. Where the connection breaks it is made anew.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn heard(&mut self) -> Result<(), Error> {
        self.0.recv().await?;
        Ok(())
    }
}
