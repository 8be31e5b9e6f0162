//! `idempotency_keys`: answers to requests with an `Idempotency-Key`. Written by config-api.

use jiff::Timestamp;
use uuid::Uuid;

use crate::time::to_sql;
use crate::{Connection, Error};

/// A key, and the request it was sent with.
#[derive(Debug, Clone)]
pub struct Key {
    /// Whose it is.
    pub token: Uuid,
    /// The key.
    pub key: String,
    /// SHA-256 of the request.
    pub fingerprint: Vec<u8>,
    /// When the request came. Tells it from one that takes its place.
    pub created_at: Timestamp,
}

/// What there is of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nothing was; it is this request's now.
    Made,
    /// It was sent with another request.
    Another,
    /// The same request is being worked on.
    AtWork,
    /// The same request was answered: the sealed answer.
    Answered(String),
}

/// Takes the key for this request, unless another has it. A row from before `expired` counts as none, and so does one
/// of the same request from before `abandoned` that has no answer.
///
/// # Errors
/// Any [`Error`].
pub async fn claim(
    connection: &mut Connection,
    key: &Key,
    expired: Timestamp,
    abandoned: Timestamp,
) -> Result<Claim, Error> {
    let taken = sqlx::query!(
        "-- idempotency_keys::claim
         INSERT INTO idempotency_keys AS k (token_id, key, fingerprint, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (token_id, key) DO UPDATE
         SET fingerprint = excluded.fingerprint, sealed_answer = NULL, created_at = excluded.created_at
         WHERE k.created_at < $5
            OR (k.sealed_answer IS NULL AND k.created_at < $6 AND k.fingerprint = excluded.fingerprint)",
        key.token,
        key.key,
        key.fingerprint,
        to_sql(key.created_at),
        to_sql(expired),
        to_sql(abandoned),
    )
    .execute(&mut *connection)
    .await?;
    if taken.rows_affected() == 1 {
        return Ok(Claim::Made);
    }
    let row = sqlx::query!(
        "-- idempotency_keys::find
         SELECT fingerprint, sealed_answer FROM idempotency_keys WHERE token_id = $1 AND key = $2",
        key.token,
        key.key,
    )
    .fetch_optional(connection)
    .await?;
    Ok(match row {
        Some(row) if row.fingerprint != key.fingerprint => Claim::Another,
        Some(row) => row.sealed_answer.map_or(Claim::AtWork, Claim::Answered),
        // It has just failed and was forgotten.
        None => Claim::AtWork,
    })
}

/// Keeps the answer. False where the key is another request's by now.
///
/// # Errors
/// Any [`Error`].
pub async fn answer(connection: &mut Connection, key: &Key, sealed: &str) -> Result<bool, Error> {
    let kept = sqlx::query!(
        "-- idempotency_keys::answer
         UPDATE idempotency_keys SET sealed_answer = $4 WHERE token_id = $1 AND key = $2 AND created_at = $3",
        key.token,
        key.key,
        to_sql(key.created_at),
        sealed,
    )
    .execute(connection)
    .await?;
    Ok(kept.rows_affected() == 1)
}

/// Gives the key back.
///
/// # Errors
/// Any [`Error`].
pub async fn forget(connection: &mut Connection, key: &Key) -> Result<(), Error> {
    sqlx::query!(
        "-- idempotency_keys::forget
         DELETE FROM idempotency_keys WHERE token_id = $1 AND key = $2 AND created_at = $3",
        key.token,
        key.key,
        to_sql(key.created_at),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes up to `limit` rows of what is older; how many.
///
/// # Errors
/// Any [`Error`].
pub async fn delete_before(connection: &mut Connection, expired: Timestamp, limit: u32) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "-- idempotency_keys::delete_before
         DELETE FROM idempotency_keys WHERE created_at < $1 AND (token_id, key) IN (
             SELECT token_id, key FROM idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2
         )",
        to_sql(expired),
        i64::from(limit),
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}
