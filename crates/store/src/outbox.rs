//! `outbox`: keys of what is on its way to NATS: definitions to the CONFIG bucket, tests to dispatcher. Whoever changes a
//! definition, or what it is made of, appends its key in the same transaction; config-api's relay publishes and deletes.

use sqlx::query_as;

use crate::{Connection, Error};

/// One relay at a time; any number that no other advisory lock of this database uses.
const RELAY_LOCK: i64 = 0x706f_7374_6861_7374;

/// A key whose definition has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts up; not in the order of commits.
    pub id: i64,
    /// The key in the bucket.
    pub key: String,
}

/// Says that the definitions under these keys have changed.
///
/// # Errors
/// Any [`Error`].
pub async fn append(connection: &mut Connection, keys: &[String]) -> Result<(), Error> {
    sqlx::query!(
        "-- outbox::append
         INSERT INTO outbox (key) SELECT * FROM unnest($1::text[])",
        keys,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether there is anything to publish.
///
/// # Errors
/// Any [`Error`].
pub async fn is_empty(connection: &mut Connection) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"-- outbox::is_empty
         SELECT NOT EXISTS (SELECT FROM outbox) AS "empty!""#,
    )
    .fetch_one(connection)
    .await?)
}

/// Waits until no other relay is at work; none will be until the transaction ends. Without it, a slow relay could
/// publish a definition after a faster one has published its successor.
///
/// # Errors
/// [`Error::Contention`] where the other one takes too long.
pub async fn lock(connection: &mut Connection) -> Result<(), Error> {
    sqlx::query!(
        r#"-- outbox::lock
         SELECT pg_advisory_xact_lock($1) AS "locked!: ()""#,
        RELAY_LOCK,
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Up to `limit` entries, from after `after` on.
///
/// # Errors
/// Any [`Error`].
pub async fn page(connection: &mut Connection, after: i64, limit: u32) -> Result<Vec<Entry>, Error> {
    Ok(query_as!(
        Entry,
        "-- outbox::page
         SELECT id, key FROM outbox WHERE id > $1 ORDER BY id LIMIT $2",
        after,
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?)
}

/// Deletes entries whose definitions are published.
///
/// # Errors
/// Any [`Error`].
pub async fn delete(connection: &mut Connection, ids: &[i64]) -> Result<(), Error> {
    sqlx::query!(
        "-- outbox::delete
         DELETE FROM outbox WHERE id = ANY($1)",
        ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Those of the keys whose definitions are not published yet.
///
/// # Errors
/// Any [`Error`].
pub async fn waiting(connection: &mut Connection, keys: &[String]) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar!(
        "-- outbox::waiting
         SELECT DISTINCT key FROM outbox WHERE key = ANY($1)",
        keys,
    )
    .fetch_all(connection)
    .await?)
}
