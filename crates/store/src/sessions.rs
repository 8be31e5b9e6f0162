//! `sessions`: who is logged in to the console. Written by config-api. What a cookie holds is nowhere, only its SHA-256.

use jiff::Timestamp;
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::{Connection, Error};

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// SHA-256 of what the cookie holds.
    pub hash: [u8; 32],
    /// The token it was begun with.
    pub token: Uuid,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub seen_at: Timestamp,
}

/// Begins a session. Of a token's sessions only the newest `most` are kept, this one among them.
///
/// # Errors
/// Any [`Error`].
pub async fn insert(connection: &mut Connection, session: &Session, most: u32) -> Result<(), Error> {
    sqlx::query!(
        "-- sessions::insert
         WITH begun AS (
             INSERT INTO sessions (hash, token_id, created_at, seen_at) VALUES ($1, $2, $3, $4)
         )
         DELETE FROM sessions WHERE hash IN (
             SELECT hash FROM sessions WHERE token_id = $2 ORDER BY created_at DESC OFFSET $5
         )",
        session.hash.as_slice(),
        session.token,
        to_sql(session.created_at),
        to_sql(session.seen_at),
        i64::from(most.saturating_sub(1)),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The session with that SHA-256, if it was begun and last used after these instants.
///
/// # Errors
/// Any [`Error`].
pub async fn find(
    connection: &mut Connection,
    hash: &[u8; 32],
    begun_after: Timestamp,
    seen_after: Timestamp,
) -> Result<Option<Session>, Error> {
    let row = sqlx::query!(
        "-- sessions::find
         SELECT token_id, created_at, seen_at FROM sessions
         WHERE hash = $1 AND created_at > $2 AND seen_at > $3",
        hash.as_slice(),
        to_sql(begun_after),
        to_sql(seen_after),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Session {
        hash: *hash,
        token: row.token_id,
        created_at: from_sql(row.created_at),
        seen_at: from_sql(row.seen_at),
    }))
}

/// Notes that a session is used.
///
/// # Errors
/// Any [`Error`].
pub async fn touch(connection: &mut Connection, hash: &[u8; 32], now: Timestamp) -> Result<(), Error> {
    sqlx::query!(
        "-- sessions::touch
         UPDATE sessions SET seen_at = $2 WHERE hash = $1 AND seen_at < $2",
        hash.as_slice(),
        to_sql(now),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a session. False where there was none.
///
/// # Errors
/// Any [`Error`].
pub async fn delete(connection: &mut Connection, hash: &[u8; 32]) -> Result<bool, Error> {
    let deleted = sqlx::query!(
        "-- sessions::delete
         DELETE FROM sessions WHERE hash = $1",
        hash.as_slice(),
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected() == 1)
}

/// Deletes the sessions begun, or last used, before these instants.
///
/// # Errors
/// Any [`Error`].
pub async fn delete_before(connection: &mut Connection, begun: Timestamp, seen: Timestamp) -> Result<(), Error> {
    sqlx::query!(
        "-- sessions::delete_before
         DELETE FROM sessions WHERE created_at <= $1 OR seen_at <= $2",
        to_sql(begun),
        to_sql(seen),
    )
    .execute(connection)
    .await?;
    Ok(())
}
