//! Letting the record's oldest days go.

use jiff::civil::Date;
use jiff::tz::Offset;
use proto_schemas::id::EventKey;
use sqlx::AssertSqlSafe;

use crate::time::to_sql;
use crate::{Connection, Error};

/// What was let go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gone {
    /// Partitions dropped.
    pub partitions: u64,
    /// Deliveries that still waited for something, or were dead.
    pub deliveries: u64,
    /// Rejected events, poisoned entries and tests.
    pub rejected: u64,
}

/// Days of which there are partitions, of events or attempts, before `day`; the oldest first.
///
/// # Errors
/// Any [`Error`].
pub async fn days_before(connection: &mut Connection, day: Date) -> Result<Vec<Date>, Error> {
    let names = sqlx::query_scalar!(
        r#"-- retention::days_before
         SELECT DISTINCT right(c.relname, 8) AS "day!" FROM pg_inherits i
         JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent IN ('events'::regclass, 'attempts'::regclass) AND c.relname ~ '_[0-9]{8}$'
         ORDER BY 1"#
    )
    .fetch_all(connection)
    .await?;
    let days = names.iter().filter_map(|name| Date::strptime("%Y%m%d", name).ok());
    Ok(days.filter(|found| *found < day).collect())
}

/// Deletes up to `limit` deliveries of events accepted before `day` that are not settled, or are dead; how many.
///
/// # Errors
/// Any [`Error`].
pub async fn expire_deliveries(connection: &mut Connection, day: Date, limit: u32) -> Result<u64, Error> {
    let Some(floor) = floor(day) else { return Ok(0) };
    let expired = sqlx::query!(
        "-- retention::expire_deliveries
         DELETE FROM pending_deliveries
         WHERE (event_key, webhook_id, run) IN (
             SELECT event_key, webhook_id, run FROM pending_deliveries
             WHERE event_key < $1 ORDER BY event_key, webhook_id, run LIMIT $2 FOR UPDATE SKIP LOCKED)",
        floor.as_uuid(),
        i64::from(limit),
    )
    .execute(connection)
    .await?;
    Ok(expired.rows_affected())
}

/// Deletes what else is kept of events accepted before `day`: rejected ones, poisoned entries, missing deliveries, tests.
/// How many.
///
/// # Errors
/// Any [`Error`].
pub async fn expire_rejected(connection: &mut Connection, day: Date, limit: u32) -> Result<u64, Error> {
    let Some(floor) = floor(day) else { return Ok(0) };
    let rejected = sqlx::query!(
        "-- retention::expire_rejected
         DELETE FROM rejected_events WHERE key IN (SELECT key FROM rejected_events WHERE key < $1 ORDER BY key LIMIT $2)",
        floor.as_uuid(),
        i64::from(limit),
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    let poisoned = sqlx::query!(
        "-- retention::expire_poisoned
         DELETE FROM poisoned_entries WHERE (stored_at, stream_sequence) IN (
             SELECT stored_at, stream_sequence FROM poisoned_entries WHERE stored_at < $1 ORDER BY stored_at LIMIT $2)",
        to_sql(floor.accepted_at()),
        i64::from(limit),
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    sqlx::query!(
        "-- retention::expire_missing
         DELETE FROM missing_deliveries WHERE event_key < $1",
        floor.as_uuid(),
    )
    .execute(&mut *connection)
    .await?;
    let tests = sqlx::query!(
        "-- retention::expire_tests
         DELETE FROM tests WHERE id IN (SELECT id FROM tests WHERE id < $1 ORDER BY id LIMIT $2)",
        floor.as_uuid(),
        i64::from(limit),
    )
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rejected + poisoned + tests)
}

/// Drops the partitions of `day`; how many there were. Waits no longer than 2 s for those who use them: dropping one
/// stops every reader and writer of the table for as long as it waits.
///
/// # Errors
/// [`Error::Contention`] where somebody uses them; any other [`Error`].
pub async fn drop_day(connection: &mut Connection, day: Date) -> Result<u64, Error> {
    sqlx::query("-- retention::drop_day\nSET LOCAL lock_timeout = '2s'")
        .execute(&mut *connection)
        .await?;
    let mut dropped = 0;
    for table in ["attempts", "events"] {
        let partition = format!("{table}_{}", day.strftime("%Y%m%d"));
        let there = sqlx::query_scalar!(
            r#"-- retention::is_there
             SELECT to_regclass($1) IS NOT NULL AS "there!""#,
            partition,
        )
        .fetch_one(&mut *connection)
        .await?;
        if there {
            // A name cannot be a parameter; this one is made of a date alone.
            let statement = format!("-- retention::drop_day\nDROP TABLE {partition}");
            sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(&mut *connection)
                .await?;
            dropped += 1;
        }
    }
    Ok(dropped)
}

fn floor(day: Date) -> Option<EventKey> {
    let midnight = Offset::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok()?;
    Some(EventKey::floor(midnight))
}
