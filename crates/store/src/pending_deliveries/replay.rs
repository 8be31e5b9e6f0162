//! Deliveries that a replay makes again, and dead letters that are put away.
//!
//! A replay's deliveries are rows like any other, with the replay's number as their `run`. They begin as `parked`, so that
//! release hands them out oldest first and no faster than their webhooks' lanes have room.

use jiff::Timestamp;
use proto_schemas::id::{AttemptRef, ProjectId};
use uuid::Uuid;

use crate::selection::Pair;
use crate::time::to_sql;
use crate::value::{counter, text};
use crate::{Connection, Error};

fn columns(pairs: &[Pair]) -> (Vec<Uuid>, Vec<Uuid>) {
    let ids = pairs
        .iter()
        .map(|(event, webhook)| (event.as_uuid(), webhook.as_uuid()));
    ids.unzip()
}

/// Makes these deliveries in a run; how many there were not yet.
///
/// # Errors
/// Any [`Error`].
pub async fn make(
    connection: &mut Connection,
    project: ProjectId,
    run: u32,
    pairs: &[Pair],
    now: Timestamp,
) -> Result<u64, Error> {
    let (events, webhooks) = columns(pairs);
    let made = sqlx::query!(
        "-- pending_deliveries::replay::make
         INSERT INTO pending_deliveries (event_key, webhook_id, run, project_id, state, reason, attempt, release, due_at,
                                         updated_at)
         SELECT row.event_key, row.webhook_id, $3, $4, 'parked', 'is replayed', 1, 0, $5, $5
         FROM UNNEST($1::uuid[], $2::uuid[]) AS row (event_key, webhook_id)
         ON CONFLICT DO NOTHING",
        &events,
        &webhooks,
        counter(run),
        project.as_uuid(),
        to_sql(now),
    )
    .execute(connection)
    .await?;
    Ok(made.rows_affected())
}

/// Withdraws up to `limit` deliveries of a run that are not under way; how many. What another transaction has locked is
/// about to be under way.
///
/// # Errors
/// Any [`Error`].
pub async fn withdraw(connection: &mut Connection, run: u32, limit: u32) -> Result<u64, Error> {
    let withdrawn = sqlx::query!(
        "-- pending_deliveries::replay::withdraw
         DELETE FROM pending_deliveries AS delivery
         USING (SELECT event_key, webhook_id, run FROM pending_deliveries
                WHERE run = $1 AND run > 0 AND state IN ('scheduled', 'parked', 'held')
                LIMIT $2 FOR UPDATE SKIP LOCKED) AS idle
         WHERE delivery.event_key = idle.event_key AND delivery.webhook_id = idle.webhook_id AND delivery.run = idle.run",
        counter(run),
        i64::from(limit),
    )
    .execute(connection)
    .await?;
    Ok(withdrawn.rows_affected())
}

/// Withdraws what has come back of replays that were cancelled at or after `since`: a duty whose release was not on
/// record may have been under way when its delivery was withdrawn, and have failed since. How many.
///
/// # Errors
/// Any [`Error`].
pub async fn withdraw_late(connection: &mut Connection, since: Timestamp) -> Result<u64, Error> {
    let withdrawn = sqlx::query!(
        "-- pending_deliveries::replay::withdraw_late
         DELETE FROM pending_deliveries AS delivery
         USING (SELECT p.event_key, p.webhook_id, p.run
                FROM replays r
                JOIN replay_progress known ON known.replay_id = r.id AND known.finished_at IS NOT NULL
                JOIN pending_deliveries p ON p.run = r.number AND p.run > 0
                WHERE r.cancelled_at >= $1 AND p.state IN ('scheduled', 'parked', 'held')
                FOR UPDATE OF p SKIP LOCKED) AS idle
         WHERE delivery.event_key = idle.event_key AND delivery.webhook_id = idle.webhook_id AND delivery.run = idle.run",
        to_sql(since),
    )
    .execute(connection)
    .await?;
    Ok(withdrawn.rows_affected())
}

/// How the deliveries of a run stand that have a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Not begun: nothing of them is in the pipe.
    pub parked: u64,
    /// All that are not settled, those included.
    pub waiting: u64,
    /// Dead, or ended otherwise.
    pub failed: u64,
}

/// Counts the deliveries of a run.
///
/// # Errors
/// Any [`Error`].
pub async fn tally(connection: &mut Connection, run: u32) -> Result<Tally, Error> {
    let row = sqlx::query!(
        r#"-- pending_deliveries::replay::tally
         SELECT count(*) FILTER (WHERE state = 'parked') AS "parked!",
                count(*) FILTER (WHERE state NOT IN ('dead', 'cancelled')) AS "waiting!",
                count(*) FILTER (WHERE state IN ('dead', 'cancelled')) AS "failed!"
         FROM pending_deliveries WHERE run = $1 AND run > 0"#,
        counter(run),
    )
    .fetch_one(connection)
    .await?;
    Ok(Tally {
        parked: row.parked.unsigned_abs(),
        waiting: row.waiting.unsigned_abs(),
        failed: row.failed.unsigned_abs(),
    })
}

/// How many deliveries of a run are parked, counting no further than `most`.
///
/// # Errors
/// Any [`Error`].
pub async fn count_parked(connection: &mut Connection, run: u32, most: u32) -> Result<u64, Error> {
    let count = sqlx::query_scalar!(
        r#"-- pending_deliveries::replay::count_parked
         SELECT count(*) AS "count!" FROM (SELECT FROM pending_deliveries
                                           WHERE run = $1 AND run > 0 AND state = 'parked' LIMIT $2) AS parked"#,
        counter(run),
        i64::from(most),
    )
    .fetch_one(connection)
    .await?;
    Ok(count.unsigned_abs())
}

/// Removes the rows of earlier runs that these attempts make void: a dead letter that was delivered after all is none,
/// and one that is dead once more is one letter and not two. To be called once it is noted what became of the attempts.
///
/// # Errors
/// Any [`Error`].
pub async fn supersede(connection: &mut Connection, ended: &[AttemptRef]) -> Result<u64, Error> {
    if ended.is_empty() {
        return Ok(0);
    }
    let mut pairs: Vec<Pair> = ended.iter().map(|ended| (ended.event, ended.webhook)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let (events, webhooks) = columns(&pairs);
    let removed = sqlx::query!(
        "-- pending_deliveries::replay::supersede
         DELETE FROM pending_deliveries AS earlier
         USING UNNEST($1::uuid[], $2::uuid[]) AS row (event_key, webhook_id)
         WHERE earlier.event_key = row.event_key AND earlier.webhook_id = row.webhook_id
           AND earlier.state IN ('dead', 'cancelled')
           AND (EXISTS (SELECT FROM pending_deliveries later
                        WHERE later.event_key = earlier.event_key AND later.webhook_id = earlier.webhook_id
                          AND later.run > earlier.run AND later.state IN ('dead', 'cancelled'))
                OR EXISTS (SELECT FROM attempts later
                           WHERE later.event_key = earlier.event_key AND later.webhook_id = earlier.webhook_id
                             AND later.run > earlier.run AND later.outcome = 'delivered'))",
        &events,
        &webhooks,
    )
    .execute(connection)
    .await?;
    Ok(removed.rows_affected())
}

/// Puts dead letters away; how many these were. Their deliveries are cancelled, for this reason.
///
/// # Errors
/// Any [`Error`].
pub async fn discard(
    connection: &mut Connection,
    project: ProjectId,
    pairs: &[Pair],
    reason: &str,
    now: Timestamp,
) -> Result<u64, Error> {
    let (events, webhooks) = columns(pairs);
    let reason = text(reason);
    let discarded = sqlx::query!(
        "-- pending_deliveries::replay::discard
         UPDATE pending_deliveries AS delivery
         SET state = 'cancelled', reason = $4, updated_at = $5
         FROM UNNEST($1::uuid[], $2::uuid[]) AS row (event_key, webhook_id)
         WHERE delivery.event_key = row.event_key AND delivery.webhook_id = row.webhook_id AND delivery.project_id = $3
           AND delivery.state = 'dead'",
        &events,
        &webhooks,
        project.as_uuid(),
        reason.as_ref(),
        to_sql(now),
    )
    .execute(connection)
    .await?;
    Ok(discarded.rows_affected())
}
