//! `poisoned_entries`: ledger entries that can never be recorded, set aside with the reason so that the rest goes on.
//! Written once by retry-scheduler; an operator reads them.

use jiff::Timestamp;

use crate::time::to_sql;
use crate::value::text;
use crate::{Connection, Error};

/// A row to be.
#[derive(Debug, Clone, Copy)]
pub struct PoisonedEntry<'a> {
    /// Where it stood in stream LEDGER.
    pub stream_sequence: u64,
    /// When JetStream stored it.
    pub stored_at: Timestamp,
    /// What it was published on.
    pub subject: &'a str,
    /// Why it cannot be recorded.
    pub reason: &'a str,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// Adds the entry if it is not there yet.
///
/// # Errors
/// Any [`Error`].
pub async fn insert(connection: &mut Connection, entry: PoisonedEntry<'_>) -> Result<(), Error> {
    sqlx::query!(
        "-- poisoned_entries::insert
         INSERT INTO poisoned_entries (stream_sequence, stored_at, subject, reason, payload)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
        i64::try_from(entry.stream_sequence).unwrap_or(i64::MAX),
        to_sql(entry.stored_at),
        &*text(entry.subject),
        &*text(entry.reason),
        entry.payload,
    )
    .execute(connection)
    .await?;
    Ok(())
}
