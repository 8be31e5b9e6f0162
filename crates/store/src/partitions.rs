//! Partitions of `events` and `attempts`: one pair per day (UTC) of acceptance, so that a day leaves as a whole.

use jiff::civil::Date;
use jiff::tz::Offset;
use proto_schemas::id::EventKey;
use sqlx::AssertSqlSafe;

use crate::{Connection, Error};

/// Taken by whoever makes partitions, so that two processes never make the same one. Any number no other lock uses.
const LOCK: i64 = 0x7061_7274;

/// The partitioned tables; each is partitioned by an event's key.
const TABLES: [&str; 2] = ["events", "attempts"];

/// What holds for their rows, as in migration `0014_tenancy.sql`: who names a partition is held to its policy alone, and
/// `LIKE` brings none along.
const POLICY: &str = "(SELECT all_in_reach()) OR project_id = (SELECT project_in_reach())";

/// The day whose partitions hold this event and its attempts.
#[must_use]
pub fn day(key: EventKey) -> Date {
    Offset::UTC.to_datetime(key.accepted_at()).date()
}

/// Makes the partitions of `day`, where they are absent; tells whether it had to. To be called in a transaction of its
/// own.
///
/// A partition is made as a table and then attached, because that lets readers and writers of the other days go on;
/// `CREATE TABLE … PARTITION OF` would stop them all.
///
/// # Errors
/// Any [`Error`].
pub async fn ensure(connection: &mut Connection, day: Date) -> Result<bool, Error> {
    let mut made = false;
    let Ok(next) = day.tomorrow() else { return Ok(false) };
    let bound = |date: Date| {
        let midnight = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0));
        midnight.map(|midnight| EventKey::floor(midnight).as_uuid())
    };
    let (Ok(from), Ok(to)) = (bound(day), bound(next)) else {
        return Ok(false);
    };

    for table in TABLES {
        let partition = format!("{table}_{}", day.strftime("%Y%m%d"));
        if exists(connection, &partition).await? {
            continue;
        }
        sqlx::query!("-- partitions::ensure\nSELECT pg_advisory_xact_lock($1)", LOCK)
            .fetch_one(&mut *connection)
            .await?;
        if exists(connection, &partition).await? {
            continue;
        }
        // Names and bounds cannot be parameters; these are made of a date alone.
        let create = format!(
            "-- partitions::ensure
             CREATE TABLE {partition} (LIKE {table} INCLUDING ALL);
             CREATE POLICY project ON {partition} USING ({POLICY});
             ALTER TABLE {partition} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
             ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ('{from}') TO ('{to}')"
        );
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *connection).await?;
        made = true;
    }
    Ok(made)
}

async fn exists(connection: &mut Connection, table: &str) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"-- partitions::exists
         SELECT to_regclass($1) IS NOT NULL AS "exists!""#,
        table,
    )
    .fetch_one(connection)
    .await?;
    Ok(found)
}
